"""Late cross entropy without its ODE, and SGD's covariance without its runs.

20 samples and 3 classes, γ/λ = 1e6, at ten times of its window: `late_time` beside `gradient_descent`, which walks there.
40 samples, minibatches of 8, 300 steps: `sgd_moments` beside 2,000 runs of `sgd` in one program, which know a variance to 3 %.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import predict

RATIOS = (("gradient_descent", "late_time"), ("2,000 runs of sgd", "sgd_moments"))
pytestmark = pytest.mark.usefixtures("float64")


def cross_entropy(fx, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))


def squares(fx, y):
    return 0.5 * jnp.mean((fx - y) ** 2)


def problem(samples, outputs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 10))
    return x @ x.T / 10 + 0.1 * np.eye(samples), np.eye(outputs)[rng.integers(0, outputs, samples)]


@pytest.mark.benchmark(group="cross entropy late, 20 samples, 3 classes")
@pytest.mark.parametrize("name", RATIOS[0])
def test_late(benchmark, medians, name):
    k, y = problem(20, 3)
    late = predict.late_time(cross_entropy, k, y, l2=1e-7, degree=2)
    t = np.linspace(*(float(x) for x in late.valid), 10)
    flow = predict.gradient_descent(cross_entropy, k, y, l2=1e-7, degree=2)
    run = (lambda: late(t)) if name == RATIOS[0][1] else (lambda: flow(t, np.zeros_like(y)))
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=3, warmup_rounds=1)
    medians[name] = benchmark.stats.stats.median
    away = np.linalg.norm(late(t) - flow(t, np.zeros_like(y)), axis=(1, 2))
    assert (away < 0.02 * np.linalg.norm(late(t), axis=(1, 2))).all()


@pytest.mark.benchmark(group="covariance of f over minibatches, 40 samples, 300 steps")
@pytest.mark.parametrize("name", RATIOS[1])
def test_moments(benchmark, medians, name):
    k, y = problem(40, 1)
    y = y - 0.5 * np.sign(np.arange(40) % 3 - 1)[:, None]
    given = {"l2": 1e-3, "degree": 2}
    batches = np.random.default_rng(1).integers(0, 40, (2000, 300, 8))
    moments = predict.sgd_moments(k, y, 0.5, **given, batch_size=8, replace=True)
    runs = jax.jit(jax.vmap(lambda b: predict.sgd(squares, k, y, 0.5, **given, batches=b)(300)))
    run = (lambda: moments(300)) if name == RATIOS[1][1] else (lambda: runs(batches).var(0))
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=3, warmup_rounds=1)
    medians[name] = benchmark.stats.stats.median
