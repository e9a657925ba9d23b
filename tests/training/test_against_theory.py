"""Small steps of a wide network follow the gradient flow of `predict`, the closer the wider."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay import kernels, predict
from ntkdecay.training import train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)) / 5**0.5
Y = np.sign(X[:, :1])
L2, RATE, STEPS = 0.1, 0.05, np.array([0, 20, 60, 200, 600])
WIDTHS = (64, 512, 4096)


def apply_fn(params, x):
    """Two layers in NTK parameterization: k = 2."""
    inner, outer = params
    return jax.nn.relu(x @ inner) @ outer * (2 / len(outer)) ** 0.5


def loss(fx, y):
    return 0.5 * jnp.sum((fx - y) ** 2)


def distance(width):
    inner, outer = jax.random.split(jax.random.key(1))
    params = jax.random.normal(inner, (5, width)), jax.random.normal(outer, (width, 1))
    run = train(
        apply_fn, params, loss, X, Y, optax.sgd(RATE), steps=STEPS[-1], record=STEPS, l2=L2, metrics={"fx": lambda s: s.fx}
    )  # fmt: skip
    kernel = kernels.empirical_ntk(apply_fn, params, X)
    predict_fn = predict.gradient_descent_mse(kernel, Y, l2=L2, degree=2, reduction="sum")
    flow = predict_fn(RATE * STEPS, apply_fn(params, X))
    return float(np.sqrt(np.mean((run.data["fx"].to_numpy() - flow) ** 2)))


def test_the_distance_to_gradient_flow_falls_with_the_width():
    distances = [distance(width) for width in WIDTHS]
    assert distances[2] < distances[1] / 2 < distances[0] / 4
    assert distances[2] < 0.02
