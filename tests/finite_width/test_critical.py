import functools

import jax.numpy as jnp
import numpy as np
import pytest
from trained import LINEAR, NETWORKS, RELU, SQUARED, descend, draw, squares

from ntkdecay import deep_linear, finite_width

RNG = np.random.default_rng(6)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 1))


def largest(n):
    """n^(−1/2) max |Σ y relu(w·x)| over the sphere, of the network's own √2 and 1/√inputs, on a fine grid."""
    polar, angle = np.meshgrid(np.linspace(0, np.pi, 1001), np.linspace(0, 2 * np.pi, 2001))
    w = [np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)]
    h = np.maximum(np.stack(w, -1).reshape(-1, 3) @ X.T, 0) * (2 / 3) ** 0.5
    return np.abs(h @ Y[:, 0]).max() / n**0.5


@pytest.mark.parametrize("width", [64, 256])
def test_of_a_two_layer_relu_network_it_is_that_of_one_neuron(width):
    found = finite_width.critical_l2(NETWORKS[RELU], draw(width), X, Y, reduction="sum")
    assert np.isclose(found, largest(width), rtol=2e-3)


def test_of_a_linear_network_it_is_that_of_deep_linear():
    found = finite_width.critical_l2(NETWORKS[LINEAR], draw(16), X, Y, reduction="sum")
    beta = 1 / (16 * 3) ** 0.5
    assert np.isclose(found, deep_linear.critical_l2(X, Y[:, 0], depth=1, beta=beta), rtol=1e-6)


@pytest.mark.parametrize("width", [48, 300])
def test_a_trained_network_lives_below_and_dies_above(width):
    critical = finite_width.critical_l2(NETWORKS[RELU], draw(width), X, Y, reduction="sum")
    lives, dies = (
        NETWORKS[RELU](descend(RELU, squares, draw(width), X, Y, s * critical, 0.05, 20_000), X)
        for s in (0.9, 1.1)
    )
    assert np.abs(lives).max() > 0.02
    assert np.abs(dies).max() < 1e-5


def deep(depth, params, x):
    for w in params:
        x = x @ w
    return x / (params[-1].shape[0] ** depth * 3) ** 0.5


@pytest.mark.parametrize("depth", [2, 3])
def test_of_a_deeper_linear_network_it_is_the_fold_of_deep_linear(depth):
    rng, n = np.random.default_rng(0), 16
    params = [rng.normal(size=s) for s in ((3, n), *[(n, n)] * (depth - 1), (n, 1))]
    found = finite_width.critical_l2(
        functools.partial(deep, depth), params, X, Y, reduction="sum", starts=1
    )
    beta = (n**depth * 3) ** -0.5
    assert np.isclose(found, deep_linear.critical_l2(X, Y[:, 0], depth=depth, beta=beta), rtol=1e-6)


def test_above_degree_2_a_trained_network_follows_its_branch_to_the_fold():
    """From a network that lives at 0.9 λ_c, which not every initialization does, by λ raised in steps."""
    params = draw(64)
    critical = finite_width.critical_l2(NETWORKS[SQUARED], params, X, Y, reduction="sum", starts=1)
    left = []
    for s in (0.9, 0.99, 1.01):
        params = descend(SQUARED, squares, params, X, Y, s * critical, 0.02, 30_000)
        left.append(np.abs(NETWORKS[SQUARED](params, X)).max())
    assert min(left[:2]) > 0.2 and left[2] < 1e-6


def test_a_small_network_finds_the_fold_beyond_its_norm():
    given = (X, np.sign(Y))
    found = [
        finite_width.critical_l2(NETWORKS[SQUARED], [s * p for p in draw(8)], *given, loss=logistic, starts=1)
        for s in (0.05, 1.0, 20.0)
    ]  # fmt: skip
    assert np.ptp(found) < 1e-3 * found[1]


def logistic(fx, y):
    return jnp.sum(jnp.logaddexp(0.0, -fx * y))


def test_below_degree_2_nothing_kills():
    given = {"x_train": X, "y_train": Y}
    assert finite_width.critical_l2(lambda w, x: x @ w, RNG.normal(size=(3, 1)), **given) == np.inf
