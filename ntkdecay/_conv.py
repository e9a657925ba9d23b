r"""A convolution that trains fast on every device.

.. math:: y_o(p) = \sum_{i,c} w_{ico}\, x_c(p s + i)

XLA's CPU compiler brings convolutions into the form that its fast library knows in a program's entry, but not in
loops, where all training is: there the gradient of a small residual network takes ten times as long as that of
the same sums as products of patches and kernels.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntkdecay._extras import extra

with extra("examples"):
    import flax.linen as nn


class Conv(nn.Module):
    """`flax.linen.Conv` of images (n, height, width, channels), with its parameters; on a CPU by matrix products."""

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: str = "SAME"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = *self.kernel_size, x.shape[-1], self.features
        kernel = jnp.asarray(
            self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        )
        dtype = jnp.promote_types(x.dtype, kernel.dtype)
        convolve = by_products if jax.default_backend() == "cpu" else by_convolution
        out = convolve(x.astype(dtype), kernel.astype(dtype), self.strides, self.padding)
        if not self.use_bias:
            return out
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32))
        return out + bias.reshape(1, 1, 1, -1)


def by_convolution(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_products(x: Array, kernel: Array, stride: int, padding: str) -> Array:
    """Patches are gathered along one axis after the other: six slices of a 3 × 3 kernel, not nine."""
    height, width, _, features = kernel.shape
    sides = lax.padtype_to_pads(x.shape[1:3], (height, width), (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *sides, (0, 0)))
    x = _shifts(x, 1, height, stride)
    x = _shifts(x, 2, width, stride)
    return x @ kernel.swapaxes(0, 1).reshape(-1, features)


def _shifts(x: Array, axis: int, count: int, stride: int) -> Array:
    """As many copies of `x` as a kernel is long, each moved by one along the axis, joined as channels."""
    span = (x.shape[axis] - count) // stride * stride + 1
    return jnp.concatenate(
        [lax.slice_in_dim(x, i, i + span, stride, axis) for i in range(count)], -1
    )
