r"""Convolutions as matrix products, for training on a CPU.

.. math:: y_o(p) = \sum_{i,c} w_{ico}\, x_c(p s + i)

XLA's CPU compiler brings convolutions into the form that its fast library knows in a program's entry, but not in
loops: there the gradient of a small residual network takes ten times as long as with these products.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax


def products(apply_fn: Callable[[Any, Any], Array]) -> Callable[[Any, Any], Array]:
    """The same flax network, on a CPU with each convolution a product of patches and the kernel."""
    if jax.default_backend() != "cpu":
        return apply_fn

    def patchwise(next_fun, args, kwargs, context):
        conv = context.module
        if not isinstance(conv, nn.Conv) or context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        kernel = conv.get_variable("params", "kernel")
        out = _product(args[0], kernel, conv.strides, conv.padding)
        bias = conv.get_variable("params", "bias") if conv.use_bias else 0.0
        return out + jnp.reshape(bias, (1, 1, 1, -1))

    def apply(params: Any, x: Any) -> Array:
        with nn.intercept_methods(patchwise):
            return apply_fn(params, x)

    return apply


def _product(x: Array, kernel: Array, strides: Any, padding: Any) -> Array:
    """A convolution of images (n, height, width, channels) by a kernel (height, width, in, out)."""
    strides = (strides,) * 2 if isinstance(strides, int) else tuple(strides or (1, 1))
    shape = kernel.shape[:2]
    sides = lax.padtype_to_pads(x.shape[1:3], shape, strides, padding)
    x = jnp.pad(x, ((0, 0), *sides, (0, 0)))
    spans = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], shape, strides, strict=True)]
    patches = [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(shape[0])
        for j in range(shape[1])
    ]
    return jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[-1])
