"""A path of λ, SGD and the ODE, each against what one would run otherwise; ratios are printed at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import predict, stax
from ntkdecay._neural_tangents import empirical_ntk_fn, linearize
from ntkdecay._neural_tangents import predict as nt_predict

N = 500
RATIOS = (
    ("64 calls of neural-tangents", "a path of 64 λ"),
    ("linearized network", "sgd"),
    ("neural-tangents' ODE", "flow"),
)
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def network():
    """A ReLU network of width 512 on 500 points, its kernel, labels of 10 classes."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(N, 64)))
    y = jnp.eye(10)[rng.integers(0, 10, N)]
    init, apply_fn, _ = stax.serial(
        stax.Dense(512, b_std=None), stax.Relu(), stax.Dense(10, b_std=None)
    )
    params = jax.tree.map(lambda p: p.astype(float), init(jax.random.key(0), x.shape)[1])
    k = empirical_ntk_fn(apply_fn, implementation=3, vmap_axes=0)(x, None, params)
    return apply_fn, params, x, y, (k + k.T) / 2


def cross_entropy(fx, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))


def measure(benchmark, medians, name, run, rounds=5):
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=rounds, warmup_rounds=1)
    medians[name] = benchmark.stats.stats.median


@pytest.mark.benchmark(group="a path of 64 values of λ, N = 500, 20 times")
@pytest.mark.parametrize("name", RATIOS[0])
def test_path(benchmark, medians, network, name):
    *_, y, k = network
    l2, t = jnp.geomspace(1e-6, 1.0, 64), jnp.geomspace(1.0, 1e5, 20)
    path = jax.jit(jax.vmap(lambda one: predict.gradient_descent_mse(k, y, l2=one, degree=2)(t)))
    run = (
        (lambda: path(l2))
        if name == RATIOS[0][1]
        else (lambda: [nt_predict.gradient_descent_mse(k, y)(t, jnp.zeros_like(y)) for _ in l2])
    )
    measure(benchmark, medians, name, run, rounds=3)


@pytest.mark.benchmark(group="1000 steps of SGD, batches of 32, momentum, cross-entropy, N = 500")
@pytest.mark.parametrize("name", RATIOS[1])
def test_sgd(benchmark, medians, network, name):
    apply_fn, params, x, y, k = network
    batches = jnp.asarray(np.random.default_rng(1).integers(0, N, (1000, 32)))
    l2, eta, beta = 1e-3, 0.1, 0.9
    linear = linearize(apply_fn, params)

    def step(state, chosen):
        p, v = state
        g = jax.grad(lambda p: cross_entropy(linear(p, x[chosen]), y[chosen]))(p)
        v = jax.tree.map(lambda g, p, v: g + l2 * p + beta * v, g, p, v)
        return (jax.tree.map(lambda p, v: p - eta * v, p, v), v), None

    loop = jax.jit(lambda p: jax.lax.scan(step, (p, jax.tree.map(jnp.zeros_like, p)), batches)[0])
    predict_fn = predict.sgd(
        cross_entropy, k, y, l2=l2, degree=2, learning_rate=eta, momentum=beta, batches=batches
    )
    measure(
        benchmark,
        medians,
        name,
        (lambda: predict_fn(1000)) if name == "sgd" else (lambda: loop(params)),
    )


@pytest.mark.benchmark(group="gradient flow, cross-entropy, N = 500, 10 outputs, 20 times, λ = 0")
@pytest.mark.parametrize("name", RATIOS[2])
def test_flow(benchmark, medians, network, name):
    *_, y, k = network
    t = jnp.geomspace(1.0, 1e3, 20)
    ours = predict.gradient_descent(cross_entropy, k, y, l2=0.0, degree=2, rtol=1.4e-8, atol=1.4e-8)
    theirs = nt_predict.gradient_descent(cross_entropy, k, y)
    start = jnp.zeros_like(y)
    run = (lambda: ours(t, start)) if name == "flow" else (lambda: theirs(t, start))
    measure(benchmark, medians, name, run, rounds=3)
