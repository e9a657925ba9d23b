r"""The networks of `l2` (SM A), each as a pair of functions of a batch of images.

.. math:: W \sim \mathcal N(0, \sigma_w^2 / n_\mathrm{in}), \qquad b \sim \mathcal N(0, \sigma_b^2)

Batch normalization is by the statistics of the batch at hand, in training and in testing alike, as
in the paper: `apply` is a pure function, and an image's output depends on the batch it comes in.
Images are (n, height, width, channels).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from ntkdecay._checks import (
    Rule,
    array,
    checked,
    choice,
    flag,
    integer,
    number,
    prng_key,
    sequence,
    shown,
    tree,
)
from ntkdecay._convolutions import fast
from ntkdecay._extras import extra
from ntkdecay._given import given

with extra("examples"):
    import flax.linen as nn

__all__ = ["Network", "cnn", "fully_connected", "wide_resnet"]


class Network(NamedTuple):
    """A network: how its parameters are drawn, and what it does with them.

    Attributes:
        init: `init(key, x, w_std=…, b_std=0.0) -> params`: a pytree in JAX's default floating
            dtype. `x` is a batch or its `jax.ShapeDtypeStruct`, of which only the shape is used;
            `w_std` is σ_w, by default the paper's, and `b_std` σ_b; both may be traced.
        apply: `apply(params, x) -> outputs`, (n, outputs), in the dtype of the parameters, to
            which `x` is cast: bfloat16 parameters make a bfloat16 network.

    Equal networks are the same two functions: what was compiled for one serves the other.
    """

    init: Callable[..., Any]
    apply: Callable[[Any, ArrayLike], Array]


SIZE = integer(low=1)


@checked(
    widths=sequence(SIZE, empty=True),
    outputs=SIZE,
    parameterization=choice("standard", "ntk"),
    bias=flag(),
)
def fully_connected(
    widths: Sequence[int] = (2048, 2048, 2048),
    outputs: int = 10,
    *,
    parameterization: Literal["standard", "ntk"] = "standard",
    bias: bool = True,
) -> Network:
    r"""A fully connected ReLU network: the FC of `l2` (SM A), with its σ_w = √2 as default.

    .. math:: z^{l+1} = W^l \phi(z^l) + b^l \quad\text{or}\quad
              z^{l+1} = W^l \phi(z^l) / \sqrt{n_l} + b^l

    in the standard and the NTK parameterization, where W is drawn with deviation σ_w/√n_l and σ_w:
    the same functions at initialization, with other gradients. neural-tangents keeps σ_w and σ_b
    outside of its parameters: gradients by W here, times σ_w, are gradients by its parameters, and
    its NTK is σ_w² (for biases σ_b²) times this one.

    Without biases it is homogeneous of degree len(widths) + 1.

    Args:
        widths: of the hidden layers, from the first.
        outputs: number of outputs.
        parameterization: "standard" or "ntk".
        bias: whether layers have biases.

    Raises:
        ValueError: if a width is not positive or the parameterization unknown; from `init` if
            `b_std` is given without biases.

    >>> import jax, jax.numpy as jnp
    >>> from ntkdecay import networks
    >>> network = networks.fully_connected((16, 16))
    >>> params = network.init(jax.random.key(0), jnp.ones((2, 5)))
    >>> network.apply(params, jnp.ones((2, 5))).shape
    (2, 10)
    """
    fields = ((*widths, outputs), bias)
    return _network(_FullyConnected, fields, math.sqrt(2), parameterization == "ntk")


@checked(
    outputs=SIZE,
    batch_norm=flag(),
    filters=SIZE,
    dense=SIZE,
    pool=SIZE,
    bias=flag(),
    epsilon=number(low=0),
)
def cnn(
    outputs: int = 10,
    *,
    batch_norm: bool,
    filters: int = 300,
    dense: int = 500,
    pool: int = 6,
    bias: bool = True,
    epsilon: float = 1e-5,
) -> Network:
    """The CNN of `l2` (SM A), with its σ_w = √2 as default.

    Twice: a 3 × 3 convolution that keeps the size, one that does not, a maximum over windows of
    pool × pool pixels, placed at every pixel; then two dense layers. After the first three
    convolutions comes ReLU, with batch normalization before it if asked for; as in the paper no
    nonlinearity follows the fourth convolution but the maximum, and none the first dense layer.
    Windows of 6 × 6 side by side would not fit twice into 32 × 32 pixels: like stax's default, the
    stride is 1.

    Without biases and batch normalization it is homogeneous of degree 6.

    Args:
        outputs: number of outputs.
        batch_norm: whether there is batch normalization.
        filters: channels of each convolution.
        dense: width of the first dense layer.
        pool: height and width of the pooling windows; images need 2 pool + 3 pixels a side or more.
        bias: whether layers have biases; a convolution before batch normalization never has one,
            which would change nothing.
        epsilon: of batch normalization.

    Raises:
        ValueError: if a size is not positive; from `init` and `apply` if images are too small.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay import networks
    >>> network = networks.cnn(batch_norm=True, filters=4, dense=8, pool=2)
    >>> x = jnp.zeros((2, 8, 8, 1))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)  # or network.init(key, x)
    >>> jax.eval_shape(network.apply, params, x).shape
    (2, 10)
    """
    fields = (outputs, batch_norm, filters, dense, pool, bias, epsilon)
    return _network(_CNN, fields, math.sqrt(2))


@checked(
    depth=SIZE,
    width=SIZE,
    outputs=SIZE,
    norm=choice("batch", "layer"),
    epsilon=number(low=0),
)
def wide_resnet(
    depth: int = 28,
    width: int = 10,
    outputs: int = 10,
    *,
    norm: Literal["batch", "layer"] = "batch",
    epsilon: float = 1e-5,
) -> Network:
    """The wide residual network WRN-depth-width for small images, with the σ_w = 1 of `l2` (SM A) as default.

    Zagoruyko & Komodakis (2016): blocks of two 3 × 3 convolutions, each after batch normalization
    and ReLU, in three groups of (depth − 4)/6 with 16, 32 and 64 times width channels. Only the last, dense
    layer has a bias. `width=1` is an ordinary, narrow residual network.

    Args:
        depth: 6 n + 4: 10, 16, 22, 28, …
        width: factor of the channels.
        outputs: number of outputs.
        norm: over the batch and the pixels of a channel, as in the paper; or over a sample's pixels and channels ("layer"), with
            which samples do not meet and `kernels.analytic` has its kernel.
        epsilon: of normalization.

    Raises:
        ValueError: if `depth` is another number or a size is not positive.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay import networks
    >>> network = networks.wide_resnet(depth=10, width=1)
    >>> x = jnp.zeros((2, 8, 8, 3))
    >>> params = jax.eval_shape(network.init, jax.random.key(0), x)
    >>> sum(p.size for p in jax.tree.leaves(params))
    77850
    """
    blocks, rest = divmod(depth - 4, 6)
    if rest or blocks < 1:
        raise ValueError(f"`depth` is {depth}; allowed are 6 n + 4: 10, 16, 22, 28, …")
    return _network(_WideResNet, (blocks, width, outputs, norm, epsilon), 1.0)


class _Batch(Rule):
    """Of x `init` uses the shape alone: it may be a `jax.ShapeDtypeStruct`, and hold what it will."""

    refuses = frozenset({"text", "none", "mapping", "object"})

    def __call__(self, name: str, value: Any) -> None:
        if not hasattr(value, "shape") or 0 in value.shape or not value.shape:
            raise TypeError(
                f"`{name}` is {shown(value)}; it must be a batch, or its jax.ShapeDtypeStruct."
            )


BATCH = _Batch()


@functools.cache
def _network(
    layers: type[nn.Module], fields: tuple, default_w_std: float, ntk: bool = False
) -> Network:
    """A flax module with LeCun's initialization, or with the NTK parameterization."""
    module = layers(*fields)

    @checked(key=prng_key(), x=BATCH, w_std=array(low=0), b_std=array(low=0))
    def init(key: Array, x: Any, w_std: ArrayLike = default_w_std, b_std: ArrayLike = 0.0) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(float))
        empty = jax.eval_shape(module.init, key, shape)["params"]
        leaves, treedef = jax.tree.flatten_with_path(empty)
        layout = tuple((path[-1].key, leaf.shape) for path, leaf in leaves)
        _check_deviations(w_std, b_std, "bias" in dict(layout))
        return treedef.unflatten(_drawn(key, w_std, b_std, layout, ntk))

    @checked(params=tree(nan=True), x=array(nan=True, inf=True))
    def apply(params: Any, x: ArrayLike) -> Array:
        return applied(params, given(x))

    @functools.partial(jax.jit, inline=True)
    @fast
    def applied(params: Any, x: Array) -> Array:
        if ntk:
            params = jax.tree.map_with_path(
                lambda path, p: p / _root_fan_in(p.shape) if path[-1].key == "kernel" else p, params
            )
        outputs: Any = module.apply(
            {"params": params}, jnp.asarray(x, jax.tree.leaves(params)[0].dtype)
        )
        return outputs

    return Network(init, apply)


@functools.partial(jax.jit, static_argnames=("layout", "ntk"))
def _drawn(key, w_std, b_std, layout, ntk) -> list[Array]:
    """The parameters of these names and shapes, from one draw: to compile one for each takes long."""
    sizes = [math.prod(shape) for _, shape in layout]
    normal = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])

    def parameter(name: str, shape: tuple[int, ...], normal: Array) -> Array:
        if name == "kernel":
            return w_std * normal.reshape(shape) / (1 if ntk else _root_fan_in(shape))
        if name == "bias":
            return b_std * normal
        return jnp.ones(shape) if name == "scale" else jnp.zeros(shape)

    return [
        parameter(name, shape, draw) for (name, shape), draw in zip(layout, normal, strict=True)
    ]


def _root_fan_in(shape: tuple[int, ...]) -> float:
    return math.sqrt(math.prod(shape[:-1]))


class _FullyConnected(nn.Module):
    widths: tuple[int, ...]
    bias: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(len(x), -1)
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width, self.bias)(x))
        return nn.Dense(self.widths[-1], self.bias)(x)


class _CNN(nn.Module):
    outputs: int
    batch_norm: bool
    filters: int
    dense: int
    pool: int
    bias: bool
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        smallest = 2 * self.pool + 3
        if x.ndim != 4 or min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"`x` is of shape {x.shape}; pooling by {self.pool} × {self.pool} needs images (n, height, "
                f"width, channels) of {smallest} × {smallest} or more: enlarge them by "
                "datasets.upsampled, or make `pool` smaller."
            )

        def activation(x: Array) -> Array:
            return nn.relu(_BatchNorm(self.epsilon)(x) if self.batch_norm else x)

        def conv(padding: str, bias: bool) -> nn.Conv:
            return nn.Conv(self.filters, (3, 3), padding=padding, use_bias=bias)

        inner_bias = self.bias and not self.batch_norm
        window = (self.pool, self.pool)
        x = activation(conv("SAME", inner_bias)(x))
        x = activation(conv("VALID", inner_bias)(x))
        x = nn.max_pool(x, window)
        x = activation(conv("SAME", inner_bias)(x))
        x = conv("VALID", self.bias)(x)
        x = nn.max_pool(x, window).reshape(len(x), -1)
        x = nn.Dense(self.dense, self.bias)(x)
        return nn.Dense(self.outputs, self.bias)(x)


class _WideResNet(nn.Module):
    blocks: int
    width: int
    outputs: int
    norm: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        for group, channels in enumerate((16, 32, 64)):
            for block in range(self.blocks):
                stride = 2 if group > 0 and block == 0 else 1
                x = _Block(channels * self.width, stride, self.norm, self.epsilon)(x)
        x = nn.relu(_NORMS[self.norm](self.epsilon)(x))
        return nn.Dense(self.outputs)(x.mean((1, 2)))


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which is a 1 × 1 convolution where the channels change."""

    channels: int
    stride: int
    norm: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = functools.partial(nn.Conv, self.channels, use_bias=False)
        norm = functools.partial(_NORMS[self.norm], self.epsilon)
        h = nn.relu(norm()(x))
        if x.shape[-1] != self.channels:
            x = conv((1, 1), self.stride, name="shortcut")(h)
        h = conv((3, 3), self.stride, name="conv1")(h)
        h = nn.relu(norm()(h))
        return x + conv((3, 3), name="conv2")(h)


class _BatchNorm(nn.Module):
    """Mean 0 and variance 1 over the batch and the pixels, then a learnt scale and offset."""

    epsilon: float

    def over(self, axes: int) -> tuple[int, ...]:
        return tuple(range(axes - 1))

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        offset = self.param("offset", nn.initializers.zeros, x.shape[-1:])
        others = tuple(range(x.ndim - 1))
        precise = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        z = jax.nn.standardize(precise, self.over(x.ndim), epsilon=self.epsilon)
        return (z * lax.expand_dims(scale, others) + lax.expand_dims(offset, others)).astype(
            x.dtype
        )


class _LayerNorm(_BatchNorm):
    """The same over a sample's pixels and channels."""

    def over(self, axes: int) -> tuple[int, ...]:
        return tuple(range(1, axes))


_NORMS = {"batch": _BatchNorm, "layer": _LayerNorm}


def _check_deviations(w_std: ArrayLike, b_std: ArrayLike, bias: bool) -> None:
    for name, std in (("w_std", w_std), ("b_std", b_std)):
        if jnp.ndim(std):
            raise ValueError(
                f"`{name}` is of shape {jnp.shape(std)}, not one number: vmap `init` to draw a network for each."
            )
    if not bias and not isinstance(b_std, Tracer) and b_std != 0:
        raise ValueError(f"`b_std` is {b_std}, but the network has no biases.")
