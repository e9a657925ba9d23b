r"""Networks whose outputs do not change when all their weights are multiplied by one number.

.. math:: f(c\,w; x) = f(w; x) \quad \text{for } c > 0

Every convolution is followed by a normalization without scale and offset, before the activation;
what a residual stream adds is normalized before it is used. The last, dense layer is frozen: no parameter of it is in
the tree, its weights are a constant of a set Frobenius norm (`intrinsic_lr`, Section 5 and Appendix A; `periodic`, Appendix B:
norm 10). Images are (n, height, width, channels).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import (
    Rule,
    array,
    checked,
    choice,
    integer,
    number,
    optional,
    prng_key,
    sequence,
    tree,
)
from ntkdecay._convolutions import fast
from ntkdecay._extras import extra
from ntkdecay._given import given
from ntkdecay.networks import BATCH, SIZE, Network

with extra("examples"):
    import flax.linen as nn

Norm = Literal["batch", "layer", "group", "instance"]

_HE = math.sqrt(2)
NO_BIASES = "the network has no biases"
_AXES = {
    "batch": (0, 1, 2),
    "layer": (1, 2, 3),
    "instance": (1, 2),
}  # of (n, height, width, channels)

FROZEN = {
    "norm": choice(*_AXES, "group"),
    "groups": SIZE,
    "epsilon": number(low=0),
    "head_norm": number(above=0),
    "head_seed": integer(),
}


class _Frozen(Rule):
    """What every network takes: each keyword by its own rule."""

    def __call__(self, name: str, value: Any) -> None:
        if name not in FROZEN:
            raise TypeError(
                f"`{name}` is no argument of a network; these are: {', '.join(FROZEN)}."
            )
        FROZEN[name](name, value)


@checked(
    outputs=SIZE,
    channels=sequence(SIZE),
    pooled=optional(sequence(integer(low=0), empty=True)),
    frozen=_Frozen(),
)
def cnn(
    outputs: int = 10,
    *,
    channels: tuple[int, ...] = (32, 32, 64, 64),
    pooled: tuple[int, ...] | None = None,
    **frozen: Any,
) -> Network:
    """3 × 3 convolutions one after another, some of them pooled by 2.

    By default the small CNN for MNIST of `intrinsic_lr` (Figure 3), which gives the number of layers, four, not their widths.

    Args:
        outputs: number of outputs.
        channels: of each convolution.
        pooled: numbers, from 0, of the convolutions before pooling; by default every other.
        frozen: `norm`, `groups`, `epsilon`, `head_norm`, `head_seed`, as in `conv_net`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay.scale_invariant import networks
    >>> network, x = networks.cnn(channels=(4, 8), pooled=(0,)), jnp.zeros((2, 8, 8, 1))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)  # or network.init(key, x)
    >>> jax.eval_shape(network.apply, params, x).shape
    (2, 10)
    """
    pooled = tuple(range(1, len(channels), 2)) if pooled is None else tuple(pooled)
    if max(pooled, default=0) >= len(channels):
        raise ValueError(f"`pooled` is {pooled}, of the {len(channels)} convolutions 0, 1, ….")
    return _network(_Plain, (tuple(channels), pooled), outputs, **frozen)


@checked(outputs=SIZE, width=SIZE, depth=SIZE, norm=FROZEN["norm"], frozen=_Frozen())
def fc(
    outputs: int = 10, *, width: int = 100, depth: int = 2, norm: Norm = "batch", **frozen: Any
) -> Network:
    """A fully connected network: `depth` dense layers, each normalized, then ReLU; the smallest that shows the papers' dynamics.

    Args:
        outputs: number of outputs.
        width: of each hidden layer.
        depth: number of hidden layers.
        norm: "batch", "layer" or "group"; there are no pixels for "instance".
        frozen: `groups`, `epsilon`, `head_norm`, `head_seed`, as in `conv_net`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay.scale_invariant import networks
    >>> network, x = networks.fc(width=8), jnp.zeros((2, 16))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)  # or network.init(key, x)
    >>> jax.eval_shape(network.apply, params, x).shape
    (2, 10)
    """
    if norm == "instance":
        raise ValueError(
            '`norm` is "instance", but a dense layer has one number a channel: its variance is 0.'
        )
    return _network(_Dense, (depth, width), outputs, norm=norm, **frozen)


@checked(outputs=SIZE, width=SIZE, **FROZEN)
def conv_net(
    outputs: int = 10,
    *,
    width: int = 32,
    norm: Norm = "batch",
    groups: int = 8,
    epsilon: float = 1e-10,
    head_norm: float = 10.0,
    head_seed: int = 0,
) -> Network:
    """The ConvNet of `periodic` (Appendix B): three 3 × 3 convolutions of 1, 2 and 4 times `width` channels, pooled by 2.

    Args:
        outputs: number of outputs.
        width: channels of the first convolution; the paper's factor is 32.
        norm: over the batch and the pixels of a channel ("batch"), all of a sample ("layer"), groups of its channels
            ("group") or one channel of it ("instance").
        groups: for "group".
        epsilon: added to each variance; invariance is exact as it goes to 0.
        head_norm: Frobenius norm of the last layer's weights.
        head_seed: of the last layer; it is the same for every key of `init`.

    Returns:
        `init(key, x, w_std=√2, b_std=0) -> params` without the last layer, and `apply(params, x)`.

    Raises:
        ValueError: if a size is not positive or `norm` unknown.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay.scale_invariant import networks
    >>> network, x = networks.conv_net(width=4), jnp.zeros((2, 8, 8, 3))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)  # or network.init(key, x)
    >>> jax.eval_shape(network.apply, params, x).shape
    (2, 10)
    """
    fields = (width, 2 * width, 4 * width), (0, 1, 2)
    return _network(
        _Plain, fields, outputs, norm=norm, groups=groups, epsilon=epsilon, head_norm=head_norm, head_seed=head_seed
    )  # fmt: skip


@checked(depth=SIZE, outputs=SIZE, width=SIZE, frozen=_Frozen())
def pre_resnet(depth: int = 20, outputs: int = 10, *, width: int = 16, **frozen: Any) -> Network:
    """PreResNet (He et al. 2016) of depth 6 n + 2 for small images: normalization and ReLU before each convolution.

    The weights of the stream and of what is added to it scale together, and the stream is normalized
    before each use: the network is invariant to the scale of all weights, not to that of one array.

    Args:
        depth: 6 n + 2: 8, 14, 20, 32, …
        outputs: number of outputs.
        width: channels of the first group; the papers' is 16.
        frozen: `norm`, `groups`, `epsilon`, `head_norm`, `head_seed`, as in `conv_net`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay.scale_invariant import networks
    >>> network, x = networks.pre_resnet(depth=8, width=4), jnp.zeros((2, 8, 8, 3))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)  # or network.init(key, x)
    >>> jax.eval_shape(network.apply, params, x).shape
    (2, 10)
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"`depth` is {depth}; allowed are 6 n + 2: 8, 14, 20, 32, …")
    return _network(_PreResNet, (blocks, width), outputs, **frozen)


@checked(outputs=SIZE, width=SIZE, frozen=_Frozen())
def resnet_18(outputs: int = 10, *, width: int = 64, **frozen: Any) -> Network:
    """ResNet-18 (He et al. 2016) for small images: four groups of two blocks, each convolution normalized.

    Args:
        outputs: number of outputs.
        width: channels of the first group; the paper's is 64.
        frozen: `norm`, `groups`, `epsilon`, `head_norm`, `head_seed`, as in `conv_net`.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay.scale_invariant import networks
    >>> network, x = networks.resnet_18(width=4), jnp.zeros((2, 8, 8, 3))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)  # or network.init(key, x)
    >>> jax.eval_shape(network.apply, params, x).shape
    (2, 10)
    """
    return _network(_ResNet18, (width,), outputs, **frozen)


@functools.cache
def _network(
    layers: type[nn.Module],
    fields: tuple,
    outputs: int,
    *,
    norm: Norm = "batch",
    groups: int = 8,
    epsilon: float = 1e-10,
    head_norm: float = 10.0,
    head_seed: int = 0,
) -> Network:
    module = layers(functools.partial(_normalized, norm, groups, epsilon), *fields)

    @checked(
        key=prng_key(), x=BATCH, w_std=number(low=0), b_std=number(low=0, high=0, why=NO_BIASES)
    )
    def init(key: Array, x: Any, w_std: ArrayLike = _HE, b_std: float = 0.0) -> Any:
        return jax.tree.map(lambda kernel: w_std * kernel, drawn(key, x.shape))

    @functools.partial(jax.jit, static_argnums=1)
    def drawn(key: Array, shape: tuple[int, ...]) -> Any:
        return module.init(key, jnp.zeros(shape))["params"]

    @checked(params=tree(nan=True), x=array(nan=True, inf=True))
    def apply(params: Any, x: ArrayLike) -> Array:
        return applied(params, given(x))

    @functools.partial(jax.jit, inline=True)
    @fast
    def applied(params: Any, x: Array) -> Array:
        features: Any = module.apply(
            {"params": params}, jnp.asarray(x, jax.tree.leaves(params)[0].dtype)
        )
        shape = features.shape[-1], outputs
        head = jax.random.normal(jax.random.key(head_seed), shape, features.dtype)
        return features @ (head_norm / jnp.linalg.norm(head) * head)

    return Network(init, apply)


def _normalized(norm: Norm, groups: int, epsilon: float, x: Array) -> Array:
    """Mean 0 and variance 1, without scale and offset."""
    if norm != "group":
        return jax.nn.standardize(x, _AXES[norm], epsilon=epsilon)
    if x.shape[-1] % groups:
        raise ValueError(
            f"`groups` is {groups}; {x.shape[-1]} channels do not divide into so many."
        )
    split = x.reshape(*x.shape[:-1], groups, -1)
    return jax.nn.standardize(split, (1, 2, 4), epsilon=epsilon).reshape(x.shape)


def _check_images(x: Array) -> None:
    if x.ndim != 4:
        raise ValueError(
            f"`x` is of shape {x.shape}; it must be images, (n, height, width, channels)."
        )


def _conv(channels: int, size: int = 3, stride: int = 1) -> nn.Conv:
    return nn.Conv(channels, (size, size), stride, use_bias=False)


class _Dense(nn.Module):
    norm: Callable[[Array], Array]
    depth: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(len(x), 1, 1, -1)  # images of one pixel
        for _ in range(self.depth):
            x = nn.relu(self.norm(nn.Dense(self.width, use_bias=False)(x)))
        return x[:, 0, 0]


class _Plain(nn.Module):
    norm: Callable[[Array], Array]
    channels: tuple[int, ...]
    pooled: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _check_images(x)
        for i, channels in enumerate(self.channels):
            x = nn.relu(self.norm(_conv(channels)(x)))
            if i in self.pooled:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return x.mean((1, 2))


class _PreResNet(nn.Module):
    norm: Callable[[Array], Array]
    blocks: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _check_images(x)
        x = _conv(self.width)(x)
        for group in range(3):
            channels = self.width * 2**group
            for block in range(self.blocks):
                stride = 2 if group and not block else 1
                h = nn.relu(self.norm(x))
                if x.shape[-1] != channels:
                    x = _conv(channels, 1, stride)(h)
                h = nn.relu(self.norm(_conv(channels, 3, stride)(h)))
                x = x + _conv(channels)(h)
        return nn.relu(self.norm(x)).mean((1, 2))


class _ResNet18(nn.Module):
    norm: Callable[[Array], Array]
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _check_images(x)
        x = nn.relu(self.norm(_conv(self.width)(x)))
        for group in range(4):
            channels = self.width * 2**group
            for block in range(2):
                stride = 2 if group and not block else 1
                h = nn.relu(self.norm(_conv(channels, 3, stride)(x)))
                h = self.norm(_conv(channels)(h))
                if x.shape[-1] != channels:
                    x = self.norm(_conv(channels, 1, stride)(x))
                x = nn.relu(x + h)
        return x.mean((1, 2))
