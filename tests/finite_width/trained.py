"""Small networks of the NTK parameterization and gradient descent with L2 on them, compiled once for all tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

LINEAR, RELU, SQUARED = "linear", "ReLU", "squared ReLU"
DEGREE = {LINEAR: 2, RELU: 2, SQUARED: 3}


def network(kind, params, x):
    h = x @ params[0]
    if kind != LINEAR:
        h = jnp.maximum(h, 0) ** (2 if kind == SQUARED else 1)
    return h @ params[1] / params[1].shape[0] ** 0.5


NETWORKS = {kind: functools.partial(network, kind) for kind in DEGREE}


def draw(width, outputs=1, inputs=3, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s)) for s in ((inputs, width), (width, outputs))]


@functools.partial(jax.jit, static_argnums=(0, 1))
def descend(kind, loss, params, x, y, l2, learning_rate, steps):
    """θ after so many steps on loss(f, y) + λ/2 ‖θ‖²."""

    def step(_, params):
        gradient = jax.grad(lambda p: loss(network(kind, p, x), y))(params)
        return [p - learning_rate * (g + l2 * p) for p, g in zip(params, gradient, strict=True)]

    return jax.lax.fori_loop(0, steps, step, params)
