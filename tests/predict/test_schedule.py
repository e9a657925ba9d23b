"""λ(t) in pieces: whatever is wrong with a piece, the predictor that is given it says so and names it."""

import numpy as np
import optax
import pytest
import surface
from test_bad_input import bad_value, sentence_of

from ntkdecay.predict import PiecewiseConstant

PREDICTORS = (
    "gradient_descent_mse",
    "gradient_descent",
    "sgd",
    "gradient_descent_mse_matrix_free",
    "gradient_descent_mse_ensemble",
)
PIECES = {"values": np.array([0.2, 0.1, 0.3]), "boundaries": np.array([1.0, 2.0])}


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("field", PIECES)
def test_each_bad_piece_is_answered_by_one_sentence_that_names_it(predictor, field):
    make = surface.CALLS[f"predict.{predictor}"]()
    for label in ("text", "none", "mapping", "object", "complex", "nan", "inf", "negative"):
        pieces = PIECES | {field: bad_value(label, PIECES[field])}
        with pytest.raises((ValueError, TypeError)) as caught:
            make(l2=PiecewiseConstant(**pieces))
        sentence_of(caught.value, f"{predictor}, {label}", f"l2.{field}")


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("boundaries", [[2.0, 1.0], [1.0, 1.0], [1.0], [1.0, 2.0, 3.0]])
def test_boundaries_ascend_and_are_one_less_than_values(predictor, boundaries):
    make = surface.CALLS[f"predict.{predictor}"]()
    with pytest.raises(ValueError, match=r"`l2` (must be ascending|has 3 values)"):
        make(l2=PiecewiseConstant(PIECES["values"], np.array(boundaries)))


@pytest.mark.parametrize("predictor", [name for name in PREDICTORS if name != "sgd"])
def test_a_schedule_of_optax_is_refused_where_time_does_not_come_in_steps(predictor):
    make = surface.CALLS[f"predict.{predictor}"]()
    with pytest.raises(TypeError, match=r"`l2` is .*`PiecewiseConstant`: `sgd` takes functions"):
        make(l2=optax.exponential_decay(0.1, 3, 0.5))


CONSTANT = [("mode", "l2", "gradient_descent_mse"), ("peak_time", "l2", "gradient_descent_mse")]
CONSTANT += [
    (name, "learning_rate", "`sgd`") for name in (*PREDICTORS, "peak_time") if name != "sgd"
]


@pytest.mark.parametrize(
    "changing", [PiecewiseConstant(**PIECES), optax.exponential_decay(1, 3, 0.5)]
)
@pytest.mark.parametrize(("function", "parameter", "instead"), CONSTANT)
def test_what_stays_constant_says_what_takes_its_schedule(function, parameter, instead, changing):
    call = surface.CALLS[f"predict.{function}"]()
    with pytest.raises(
        TypeError, match=f"`{parameter}` is .* does not change with time.*{instead}"
    ):
        call(**{parameter: changing})


def test_pieces_are_a_schedule_as_optax_has_them():
    pieces = PiecewiseConstant(**PIECES)
    steps = np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(pieces(steps), [0.2, 0.1, 0.3, 0.3])
    optimizer = optax.sgd(pieces)
    state, seen = optimizer.init(np.ones(1)), []
    for _ in steps:
        update, state = optimizer.update(np.ones(1), state)
        seen.append(-float(update[0]))
    np.testing.assert_allclose(seen, pieces(steps))
