"""Labels as the loss takes them, what neural-tangents' users look for, and steps that are too long."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay._neural_tangents import predict as nt_predict
from ntkdecay.predict import (
    State,
    gradient_descent,
    gradient_descent_mse,
    max_learning_rate,
    sgd,
)

N, N_TEST, CLASSES = 6, 3, 4
A = np.random.default_rng(0).normal(size=(N + N_TEST, 12))
K = A @ A.T / 12
K_TRAIN, K_TEST = K[:N, :N], K[N:, :N]
NUMBERS = np.array([0, 3, 1, 1, 0, 3])  # class 2 is not among the training points
START, START_TEST = np.zeros((N, CLASSES)), np.zeros((N_TEST, CLASSES))
OPTIONS = {"l2": 0.1, "degree": 2, "learning_rate": 0.3}
PREDICTORS = [gradient_descent, sgd]


def of_numbers(fx, y):
    return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()


def of_vectors(fx, y):
    return optax.softmax_cross_entropy(fx, y).mean()


def squared_error(fx, y):
    return 0.5 * jnp.mean((fx - y) ** 2)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_class_numbers_are_one_hot_vectors(predictor):
    numbers = predictor(of_numbers, K_TRAIN, NUMBERS, **OPTIONS)
    vectors = predictor(of_vectors, K_TRAIN, np.eye(CLASSES)[NUMBERS], **OPTIONS)
    asked = ([3, 9], START, START_TEST, K_TEST)
    for ours, theirs in zip(numbers(*asked), vectors(*asked), strict=True):
        assert ours.shape == (2, *theirs.shape[1:]) and ours.shape[-1] == CLASSES
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_the_number_of_classes_comes_with_a_state_and_with_test_points_too():
    predict_fn = sgd(of_numbers, K_TRAIN, NUMBERS, **OPTIONS)
    _, expected = predict_fn(9, START, START_TEST, K_TEST)
    state = predict_fn(3, State(START, START_TEST), None, K_TEST)
    resumed = predict_fn(6, state, None, K_TEST)
    np.testing.assert_allclose(resumed.fx_test, expected, rtol=0, atol=1e-13)
    _, alone = predict_fn(9, 0.0, START_TEST, K_TEST)
    np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-13)
    jitted = jax.jit(lambda f: predict_fn(9, None, f, K_TEST))(START_TEST)
    np.testing.assert_allclose(jitted, expected, rtol=0, atol=1e-13)


def test_class_numbers_with_a_kernel_between_outputs_and_in_batches():
    mixing = 0.5 * np.eye(CLASSES) + 0.5
    k = K_TRAIN[:, :, None, None] * mixing[None, None]
    options = OPTIONS | {"trace_axes": (), "batches": [[0, 1, 2], [3, 5, 4]]}
    numbers = sgd(of_numbers, k, NUMBERS, **options)(5)
    vectors = sgd(of_vectors, k, np.eye(CLASSES)[NUMBERS], **options)(5)
    np.testing.assert_allclose(numbers, vectors, rtol=0, atol=1e-13)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_class_numbers_without_classes_ask_for_them(predictor):
    with pytest.raises(ValueError, match=r"`y_train` holds class numbers.*of shape \(6, classes\)"):
        predictor(of_numbers, K_TRAIN, NUMBERS, **OPTIONS)(1)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_column_of_class_numbers_is_named(predictor):
    predict_fn = predictor(of_numbers, K_TRAIN, NUMBERS[:, None], **OPTIONS)
    with pytest.raises(
        ValueError, match=r"have shape \(6, 1\), as the labels; class numbers are of shape \(n,\)"
    ):
        predict_fn(1, np.zeros((6, CLASSES)))


@pytest.mark.parametrize("y", [NUMBERS, NUMBERS.astype(float)])
def test_one_number_for_each_sample_is_regression(y):
    flat = sgd(squared_error, K_TRAIN, y, **OPTIONS)
    column = sgd(squared_error, K_TRAIN, y[:, None], **OPTIONS)
    for ours, theirs in zip(flat(4, 0.1, 0.2, K_TEST), column(4, 0.1, 0.2, K_TEST), strict=True):
        np.testing.assert_allclose(ours, theirs[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_predictor_says_what_it_is(predictor):
    predict_fn = predictor(squared_error, K_TRAIN, START, **OPTIONS)
    told = (
        f"of {predictor.__name__} for labels of shape (6, 4), degree=2, learning_rate=0.3, l2=0.1"
    )
    assert told in repr(predict_fn)
    assert "fx_train_or_state_0" in (type(predict_fn).__doc__ or "")


MOMENTA = [(None, False), (0.9, False), (0.9, True)]


@pytest.mark.parametrize(("momentum", "nesterov"), MOMENTA)
def test_the_largest_learning_rate_is_where_steps_begin_to_grow(momentum, nesterov):
    """At degree 1 the recursion is linear and does not change. λ is half of the curvature."""
    y = np.random.default_rng(1).normal(size=(N, 2))
    l2 = float(np.linalg.eigvalsh(K_TRAIN).max()) / y.size
    limit = max_learning_rate(K_TRAIN, y, momentum, l2=l2, nesterov=nesterov)
    sizes = []
    for share in (0.99, 1.01):
        predict_fn = sgd(
            squared_error, K_TRAIN, y, share * limit, momentum, l2=l2, degree=1, nesterov=nesterov
        )
        first, last = predict_fn([100, 300], y) - predict_fn([100, 300], 0 * y)
        sizes.append(np.linalg.norm(last) / np.linalg.norm(first))
    assert sizes[0] < 0.5 and sizes[1] > 2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_l2_it_is_neural_tangents(momentum):
    y = np.ones((N, 2))
    theirs = nt_predict.max_learning_rate(jnp.asarray(K_TRAIN), y.size, momentum)
    ours = max_learning_rate(K_TRAIN, y, momentum, l2=0.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_steps_that_are_too_long_say_the_limit():
    limit = max_learning_rate(K_TRAIN, START, l2=0.1)
    predict_fn = sgd(squared_error, K_TRAIN, START + 1, 3 * limit, l2=0.1, degree=1)
    assert np.isfinite(predict_fn(100)).all()
    with pytest.raises(ValueError, match=r"`learning_rate` is above what is stable.*max_learning"):
        predict_fn(2000)


def test_gp_inference_with_diag_reg_is_l2_from_the_initialization_at_infinite_time():
    """What the page for users of neural-tangents says stands for it."""
    y, noise = np.random.default_rng(1).normal(size=(N, 2)), 0.3
    with jax.numpy_rank_promotion("allow"):
        theirs = nt_predict.gp_inference(
            jnp.asarray(K_TRAIN), jnp.asarray(y), noise, diag_reg_absolute_scale=True
        )("ntk", jnp.asarray(K_TEST))
    options = {"l2": noise, "l2_from": "init", "degree": 1, "reduction": "sum"}
    ours = gradient_descent_mse(K_TRAIN, y, **options)(None, None, 0.0, K_TEST)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
