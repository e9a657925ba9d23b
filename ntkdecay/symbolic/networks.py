r"""Random homogeneous networks at float64, for the statements that are about any network.

Each is f(θ, x) of one flat parameter vector: a ReLU network (degree 3), a deep linear one
(degree 3), and a convolution with max-pooling and a dense layer (degree 2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Network = Callable[[Array, Array], Array]


def _dense(sizes: tuple[int, ...], activation: Callable[[Array], Array]) -> tuple[Network, int]:
    shapes = list(itertools.pairwise(sizes))
    cuts = np.cumsum([rows * columns for rows, columns in shapes])

    def apply_fn(theta: Array, x: Array) -> Array:
        pieces = jnp.split(theta, cuts[:-1])
        for i, (piece, shape) in enumerate(zip(pieces, shapes, strict=True)):
            x = (x @ piece.reshape(shape)) / np.sqrt(shape[0])
            x = activation(x) if i < len(shapes) - 1 else x
        return x[..., 0]

    return apply_fn, int(cuts[-1])


def _convolutional(width: int, channels: int) -> tuple[Network, int]:
    pooled = width // 2
    size = 3 * channels + pooled * channels

    def apply_fn(theta: Array, x: Array) -> Array:
        kernel, readout = jnp.split(theta, [3 * channels])
        windows = jnp.stack([x[..., i : i + width] for i in range(3)], axis=-1)
        hidden = jax.nn.relu(windows @ kernel.reshape(3, channels))
        hidden = hidden.reshape(*x.shape[:-1], pooled, 2, channels).max(axis=-2)
        return hidden.reshape(*x.shape[:-1], -1) @ readout

    return apply_fn, size


def examples(seed: int = 0) -> list[tuple[int, Network, Array, Array]]:
    """(degree, apply_fn, θ, inputs) of each random network."""
    rng = np.random.default_rng(seed)
    relu, relu_size = _dense((6, 9, 8, 1), jax.nn.relu)
    linear, linear_size = _dense((6, 5, 4, 1), lambda h: h)
    conv, conv_size = _convolutional(width=4, channels=5)
    cases = [(3, relu, relu_size), (3, linear, linear_size), (2, conv, conv_size)]
    return [
        (degree, f, jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.normal(size=(4, 6))))
        for degree, f, size in cases
    ]


def two_layer(
    width: int, inputs: int, activation: Callable[[Array], Array], seed: int
) -> tuple[Network, Array]:
    """A two-layer network in NTK parameterization and a draw of its parameters."""
    apply_fn, size = _dense((inputs, width, 1), activation)
    return apply_fn, jnp.asarray(np.random.default_rng(seed).normal(size=size))


def along(function: Callable[[Array], Array], theta: Array, direction: Array):
    """(value, directional derivative) of a function of θ, compiled once."""
    return jax.jit(lambda p, v: jax.jvp(function, (p,), (v,)))(theta, direction)


def relative(a, b) -> float:
    """max|a − b| in units of max|b|."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
