"""Small networks of the NTK parameterization, and their training with L2, compiled once for all tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

LINEAR, RELU, SQUARE, SQUARED, CUBED = "linear", "ReLU", "square", "squared ReLU", "cubed ReLU"
RNG = np.random.default_rng(3)
X, X_TEST, Y = RNG.normal(size=(5, 3)), RNG.normal(size=(2, 3)), RNG.normal(size=(5, 1))
RECORDS = 60  # of `flow`
DEGREE = {LINEAR: 2, RELU: 2, SQUARE: 3, SQUARED: 3, CUBED: 4}


def network(kind, params, x):
    h = x @ params[0] / params[0].shape[0] ** 0.5
    if kind == SQUARE:
        h = h**2 / 3**0.5
    elif kind != LINEAR:
        h = 2**0.5 * jnp.maximum(h, 0) ** (DEGREE[kind] - 1)
    return h @ params[1] / params[1].shape[0] ** 0.5


NETWORKS = {kind: functools.partial(network, kind) for kind in DEGREE}


def draw(width, outputs=1, inputs=3, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s)) for s in ((inputs, width), (width, outputs))]


def squares(fx, y):
    return 0.5 * jnp.sum((fx - y) ** 2)


def _forces(kind, loss, params, x, y, l2):
    gradient = jax.grad(lambda p: loss(network(kind, p, x), y))(params)
    return [-g - l2 * p for p, g in zip(params, gradient, strict=True)]


def _moved(params, forces, h):
    return [p + h * f for p, f in zip(params, forces, strict=True)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def descend(kind, loss, params, x, y, l2, learning_rate, steps):
    """θ after so many steps of gradient descent on loss(f, y) + λ/2 ‖θ‖²."""

    def step(_, params):
        return _moved(params, _forces(kind, loss, params, x, y, l2), learning_rate)

    return jax.lax.fori_loop(0, steps, step, params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def flow(kind, loss, params, x, y, l2, h, steps):
    """θ by gradient flow (Runge-Kutta of order 4) every `steps` steps of length h, `RECORDS` times."""

    def step(_, params):
        k1 = _forces(kind, loss, params, x, y, l2)
        k2 = _forces(kind, loss, _moved(params, k1, h / 2), x, y, l2)
        k3 = _forces(kind, loss, _moved(params, k2, h / 2), x, y, l2)
        k4 = _forces(kind, loss, _moved(params, k3, h), x, y, l2)
        mean = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]
        return _moved(params, mean, h)

    def record(params, _):
        params = jax.lax.fori_loop(0, steps, step, params)
        return params, params

    return jax.lax.scan(record, params, length=RECORDS)[1]
