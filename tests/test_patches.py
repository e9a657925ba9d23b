"""The rule for convolutions gives what neural-tangents' own gives."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ntkdecay._neural_tangents  # noqa: F401  so that its modules can be imported
from ntkdecay._patches import by_slices

rules = importlib.import_module("neural_tangents._src.utils.rules")
X = np.random.default_rng(0).normal(size=(2, 3, 9, 8))  # N, C, H, W


def refuse(*args):
    raise AssertionError("left to neural-tangents")


def equation(
    orders, filter_shape, strides=(1, 1), padding=((0, 0), (0, 0)), lhs=(1, 1), rhs=(1, 1)
):
    """A convolution to one channel as an equation, and the two rules' arguments for its filter."""
    x = jnp.asarray(X.transpose(["NCHW".index(c) for c in orders[0]]))
    sizes = dict(zip("HWIO", (*filter_shape, 3, 1), strict=True))
    w = jnp.zeros([sizes[c] for c in orders[1]])

    def conv(x, w):
        return lax.conv_general_dilated(x, w, strides, padding, lhs, rhs, orders)

    (eqn,) = jax.make_jaxpr(conv)(x, w).eqns
    return eqn, 1, [x, w], eqn.outvars[0].aval


@pytest.mark.parametrize(
    ("orders", "options"),
    [
        (("NHWC", "HWIO", "NHWC"), {"filter_shape": (3, 3), "padding": ((1, 1), (1, 1))}),
        (
            ("NCHW", "OIHW", "NCHW"),
            {
                "filter_shape": (2, 3),
                "strides": (2, 3),
                "padding": ((1, 2), (0, -1)),
                "rhs": (2, 1),
            },
        ),
        (
            ("CWNH", "WOHI", "HNCW"),
            {"filter_shape": (4, 1), "lhs": (1, 2), "strides": (3, 1), "rhs": (1, 3)},
        ),
    ],
)
def test_slices_give_the_rule_of_neural_tangents(orders, options):
    eqn, idx, (x, w), out = equation(orders, **options)

    @jax.jit
    def both(x):
        ruled = (rules._conv_general_dilated_j, by_slices(refuse))
        return [rule(eqn, idx, [x, w], out) for rule in ruled]

    expected, sliced = both(x)
    np.testing.assert_array_equal(sliced, expected)


def test_a_filter_of_many_positions_and_groups_are_left_to_neural_tangents():
    large = equation(("NHWC", "HWIO", "NHWC"), (9, 8))
    with pytest.raises(AssertionError, match="left to"):
        by_slices(refuse)(*large)
    eqn, *others = equation(("NHWC", "HWIO", "NHWC"), (3, 3))
    grouped = eqn.replace(params={**eqn.params, "feature_group_count": 3})
    with pytest.raises(AssertionError, match="left to"):
        by_slices(refuse)(grouped, *others)
