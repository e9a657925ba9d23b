"""A fully connected network with batch normalization: the wide residual network's stand-in where two cores are all there is."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay import networks

ROOT_2 = math.sqrt(2)


def fully_connected(
    widths: tuple[int, ...], outputs: int = 10, epsilon: float = 1e-5
) -> networks.Network:
    """Dense layers, each normalized over the batch, scaled, shifted and rectified, then a linear one.

    Its weights are drawn with deviation σ_w/√n, by default √2/√n; only the last layer has a bias.
    """

    def init(key: Array, x: Array, w_std: float | Array = ROOT_2) -> list[dict[str, Array]]:
        sizes = (math.prod(x.shape[1:]), *widths, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        return [
            {
                "kernel": w_std * jax.random.normal(one, (i, o)) / np.sqrt(i),
                "scale": jnp.ones((1, o)),
                "bias": jnp.zeros((1, o)),
            }
            for one, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

    def apply(params: list[dict[str, Array]], x: ArrayLike) -> Array:
        h = jnp.asarray(x)
        h = h.reshape(len(h), -1)
        *hidden, last = params
        for layer in hidden:
            z = jax.nn.standardize(h @ layer["kernel"], 0, epsilon=epsilon)
            h = jax.nn.relu(z * layer["scale"] + layer["bias"])
        return h @ last["kernel"] + last["bias"]

    return networks.Network(init, apply)
