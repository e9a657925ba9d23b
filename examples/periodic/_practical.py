"""The networks of the setup as practice has them: scales and offsets after each normalization, and a dense last layer, are trained."""

import itertools
from typing import Any

import flax.linen as nn
import jax


class Practical(nn.Module):
    """Two dense layers ("fc"), the ConvNet ("conv_net") or ResNet-18 ("resnet_18") with everything trained.

    Its parameters are `invariant_0`, … before a normalization over the batch, `scale_0`, `offset_0`, … after it, and `last`.
    """

    network: str
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        number, width = itertools.count(), self.width

        def layer(x: jax.Array, width: int, size: int = 3, stride: int = 1) -> jax.Array:
            """A linear map, normalized, scaled and shifted."""
            i = next(number)
            if x.ndim == 2:
                linear = nn.Dense(width, use_bias=False, name=f"invariant_{i}")
            else:
                linear = nn.Conv(width, (size, size), stride, use_bias=False, name=f"invariant_{i}")
            x = jax.nn.standardize(linear(x), tuple(range(x.ndim - 1)), epsilon=1e-10)
            scale = self.param(f"scale_{i}", nn.initializers.ones, (width,))
            offset = self.param(f"offset_{i}", nn.initializers.zeros, (width,))
            shape = (1,) * (x.ndim - 1) + (width,)
            return x * scale.reshape(shape) + offset.reshape(shape)

        if self.network == "fc":
            x = x.reshape(len(x), -1)
            for _ in range(2):
                x = nn.relu(layer(x, width))
            return nn.Dense(self.outputs, name="last")(x)
        if self.network == "conv_net":
            for factor in (1, 2, 4):
                x = nn.max_pool(nn.relu(layer(x, factor * width)), (2, 2), (2, 2))
        else:
            x = nn.relu(layer(x, width))
            for group, block in itertools.product(range(4), range(2)):
                channels, stride = 2**group * width, 2 if group and not block else 1
                h = layer(nn.relu(layer(x, channels, 3, stride)), channels)
                if x.shape[-1] != channels:
                    x = layer(x, channels, 1, stride)
                x = nn.relu(x + h)
        return nn.Dense(self.outputs, name="last")(x.mean((1, 2)))


def invariant(params: Any) -> Any:
    """The weights before a normalization; of a network without others, all."""
    return {name: leaf for name, leaf in params.items() if not name.startswith(("scale", "offset", "last"))}  # fmt: skip
