import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trained import DEGREE, LINEAR, NETWORKS, RECORDS, RELU, SQUARED, X, Y, draw, flow, squares

from ntkdecay import finite_width

L2 = 0.02


@functools.partial(jax.jit, static_argnums=0)
def strengths(kind, params, path):
    """ℓ'ᵀΘℓ' along the path, relative to that with the kernel at the start."""

    def kernel(p):
        jacobians = jax.tree.leaves(jax.jacrev(lambda p: NETWORKS[kind](p, X)[:, 0])(p))
        return sum(j.reshape(len(X), -1) @ j.reshape(len(X), -1).T for j in jacobians)

    def strength(p):
        first = (NETWORKS[kind](p, X) - Y)[:, 0]
        return (first @ kernel(p) @ first) / (first @ kernel(params) @ first)

    return jax.vmap(strength)(path)


def parted(kind, width, seed, factor=2.0):
    """λt at which the trained network's kernel is `factor` times the one that decays, and that predicted."""
    params, steps = draw(width, seed=seed), 50
    h = 5.0 / DEGREE[kind] / L2 / RECORDS / steps
    path = flow(kind, squares, params, X, Y, L2, h, steps)
    times = steps * h * np.arange(1, RECORDS + 1)
    logs = np.log(strengths(kind, params, path)) + 2 * (DEGREE[kind] - 1) * L2 * times
    i = int(np.argmax(logs > np.log(factor)))
    trained = np.interp(np.log(factor), logs[i - 1 : i + 1], times[i - 1 : i + 1])
    predicted = finite_width.departure_time(
        NETWORKS[kind], params, X, Y, l2=L2, degree=DEGREE[kind], reduction="sum", factor=factor
    )
    return L2 * trained, L2 * predicted


@pytest.mark.parametrize(
    "kind", [RELU, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (LINEAR, SQUARED))]
)
def test_a_trained_network_leaves_when_it_is_said_to(kind):
    narrow, wide = (parted(kind, n, 0) for n in (256, 1024))
    for trained, predicted in (narrow, wide):
        assert abs(predicted - trained) < 0.15
    rise = wide[0] - narrow[0]
    assert abs(wide[1] - narrow[1] - rise) < 0.1 * rise


def test_what_never_leaves():
    def alone(w, x):
        return x @ w

    given = {"l2": 0.1, "reduction": "sum"}
    assert finite_width.departure_time(alone, jnp.ones((3, 1)), X, Y, **given) == np.inf
