"""One network's f at late times: predicted from its initialization beside integrating the network itself.

A ReLU network of width 1024 on 100 samples whose features' scales reach from 1 to 0.05, λ = 1e-5 of the fastest rate, mean
squared error. The rival is Runge-Kutta of order 4 on the weights, at the longest steps that are stable. What both give is
compared and printed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import finite_width, kernels, stax

RATIOS = (("the network itself, λt = 0.5", "next_order, λt = 0.5"),)
N, WIDTH, SPAN = 100, 1024, 0.5
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(N, 32)) * np.geomspace(1, 0.05, 32))
    y = jnp.sign(x[:, :1] + 0.3 * x[:, 1:2])
    init, apply_fn, _ = stax.serial(
        stax.Dense(WIDTH, b_std=None), stax.Relu(), stax.Dense(1, b_std=None)
    )
    params = jax.tree.map(lambda p: p.astype(float), init(jax.random.key(0), x.shape)[1])
    gamma = np.linalg.eigvalsh(kernels.empirical_ntk(apply_fn, params, x))[-1] / N
    return apply_fn, params, x, y, float(gamma), 1e-5 * float(gamma)


def integrated(apply_fn, params, x, y, gamma, l2):
    """f at λt = SPAN."""
    h = 2.5 / gamma
    steps = int(np.ceil(SPAN / l2 / h))

    def force(p):
        gradient = jax.grad(lambda p: 0.5 * jnp.mean((apply_fn(p, x) - y) ** 2))(p)
        return jax.tree.map(lambda g, w: -g - l2 * w, gradient, p)

    def moved(p, k, h):
        return jax.tree.map(lambda w, g: w + h * g, p, k)

    def step(_, p):
        k1 = force(p)
        k2 = force(moved(p, k1, h / 2))
        k3 = force(moved(p, k2, h / 2))
        k4 = force(moved(p, k3, h))
        return jax.tree.map(
            lambda w, a, b, c, d: w + h / 6 * (a + 2 * b + 2 * c + d), p, k1, k2, k3, k4
        )

    return jax.jit(lambda p: apply_fn(jax.lax.fori_loop(0, steps, step, p), x))(params)


def predicted(apply_fn, params, x, y, l2):
    predict_fn = finite_width.next_order(apply_fn, params, x, y, l2=l2, degree=2, restarts=20)
    return predict_fn(SPAN / l2)


@pytest.mark.benchmark(group=f"f of a network of width {WIDTH} at λt = {SPAN}, N = {N}, γ/λ = 1e5")
@pytest.mark.parametrize("name", RATIOS[0])
def test_late(benchmark, medians, network, name):
    apply_fn, params, x, y, _, l2 = network
    run = (
        (lambda: predicted(apply_fn, params, x, y, l2))
        if name == RATIOS[0][1]
        else (lambda: integrated(*network))
    )
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=1, warmup_rounds=1)
    medians[name] = benchmark.stats.stats.median
    found.append(np.asarray(run()))
    if len(found) == 2:
        print(f"\nlargest difference {np.abs(found[0] - found[1]).max():.1e}")


found = []
