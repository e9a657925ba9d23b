"""The closed form against an ODE solver, and the predictor against neural-tangents at l2 = 0.

Each group is one run on one machine; the ratios are printed at its end.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ntkdecay._neural_tangents import predict as nt_predict
from ntkdecay.predict import gradient_descent_mse, mode

L2 = 0.01
RANGES = {  # γ/λ of 2000 modes, λt of 1000 times
    "as in Figure 5": (np.geomspace(1e-4, 1e6, 2000), np.geomspace(1e-3, 10, 1000)),
    "all that `mode` promises": (np.geomspace(1e-12, 1e12, 2000), np.geomspace(1e-12, 1e6, 1000)),
}
RATIOS = (
    *((f"LSODA, {name}", f"mode, {name}") for name in RANGES),
    ("neural-tangents", "ntkdecay"),
)
pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.benchmark(group="2000 modes x 1000 times, k = 2")
def test_mode(benchmark, medians, name):
    t, rates = jnp.asarray(RANGES[name][1] / L2), jnp.asarray(RANGES[name][0] * L2)[:, None]
    benchmark.pedantic(
        lambda: jax.block_until_ready(mode(t, rates, L2, 2)), rounds=30, warmup_rounds=3
    )
    medians[f"mode, {name}"] = benchmark.stats.stats.median


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.benchmark(group="2000 modes x 1000 times, k = 2")
def test_lsoda(benchmark, medians, name):
    """scipy's LSODA with a diagonal Jacobian (lband = uband = 0) at rtol 1e-8, atol 1e-8."""
    rates, t = RANGES[name][0] * L2, RANGES[name][1] / L2

    def velocity(t, f):
        return -rates * np.exp(-2 * L2 * t) * (f - 1) - 2 * L2 * f

    def solve():
        start = np.zeros_like(rates)
        return solve_ivp(
            velocity, (0, t[-1]), start, "LSODA", t, rtol=1e-8, atol=1e-8, lband=0, uband=0
        )

    error = np.max(np.abs(solve().y - mode(t, rates[:, None], L2, 2)))
    print(f"\nLSODA, {name}: error {error:.1e}")
    benchmark.pedantic(solve, rounds=5)
    medians[f"LSODA, {name}"] = benchmark.stats.stats.median


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    n, n_test = 2000, 500
    a = rng.normal(size=(n + n_test, 2 * n))
    k = jnp.asarray(a @ a.T / n)
    y, start, start_test = (jnp.asarray(rng.normal(size=(size, 1))) for size in (n, n, n_test))
    t = jnp.geomspace(1.0, 1e5, 100)
    return k[:n, :n], k[n:, :n], y, t, start, start_test


@pytest.mark.benchmark(group="predictor, N = 2000, 100 times, 500 test points, l2 = 0")
@pytest.mark.parametrize("who", ["neural-tangents", "ntkdecay"])
def test_predictor(benchmark, medians, problem, who):
    k, k_test, y, t, start, start_test = problem

    def predict():
        if who == "ntkdecay":
            predict_fn = gradient_descent_mse(k, y, l2=0.0, degree=2)
        else:
            predict_fn = nt_predict.gradient_descent_mse(k, y)
        return jax.block_until_ready(predict_fn(t, start, start_test, k_test))

    benchmark.pedantic(predict, rounds=4, warmup_rounds=1)
    medians[who] = benchmark.stats.stats.median
