r"""The Jacobian of a network in factors, one pair for each use of a weight, and their contraction.

.. math:: \partial_w f(x) = \sum_y \frac{\partial f}{\partial y} \frac{\partial y}{\partial w}

where y are the outputs of the primitives (products, convolutions, sums, …) that take w. ∂y/∂w is
nearly all zeros and repetitions: neural-tangents' structure rules say which (Novak et al. 2022),
so that it is never formed in full. The kernel is contracted in the order of the fewest operations.
Where that begins with the sum over y, it goes by the Jacobian of w.
"""

import itertools
import math
import warnings
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.interpreters import ad

from ntkdecay._neural_tangents import structured_derivatives
from ntkdecay._program import Program

Method = Literal["structured", "jacobian"]


class Use(NamedTuple):
    """One use of a weight w in a primitive y: samples (if they are apart), f's axes, y's, w's."""

    df_dy: Array
    dy_dw: Array
    structure: Any


class Leaf(NamedTuple):
    """A weight: its uses, and its Jacobian by reverse mode; one of the two may be None."""

    uses: list[Use] | None
    jacobian: Array | None


def factors(
    method: Method,
    network: Program,
    params: Any,
    x: Array,
    apart: bool,
    *,
    seed: Array | None = None,
) -> list[Leaf]:
    """The factors of each leaf of params. Compiled, what `contract` leaves aside costs nothing.

    Args:
        network: of one sample if `apart`, else of all of x.
        apart: an output depends on its own sample alone.
        seed: a cotangent of one sample's output (of all the outputs if not apart). f is replaced
            by its product with it, of shape (1,) for each sample, and all factors are structured.
    """

    def leaves(x: Array) -> list[Leaf]:
        def f(params: Any) -> Array:
            return network(params, x[None])[0] if apart else network(params, x)

        out = network.out.update(shape=network.out.shape[1:]) if apart else network.out
        if seed is None:
            seeds = jnp.eye(out.size, dtype=out.dtype).reshape(out.size, *out.shape)
        else:
            seeds = seed[None]
        rows = (1,) if seed is not None else out.shape

        def split(df_dy: Array) -> Array:
            return df_dy.reshape(*rows, *df_dy.shape[1:])

        if seed is None:
            reverse = jax.tree.leaves(jax.vmap(jax.vjp(f, params)[1])(seeds))
            jacobians = [split(j) for j in reverse]
        else:
            jacobians = [None for _ in jax.tree.leaves(params)]
        if method == "jacobian":
            return [Leaf(None, j) for j in jacobians]
        with warnings.catch_warnings():
            # a primitive without a rule has its derivative formed in full: larger, as right
            warnings.filterwarnings("ignore", message="No Jacobian rule found")
            found = structured_derivatives(f, params, seeds)
        uses = [
            [
                Use(split(df_dy), dy_dw, structure)
                for df_dy, dy_dw, structure in leaf
                if not (isinstance(df_dy, ad.Zero) or isinstance(dy_dw, ad.Zero))
            ]
            for leaf in found
        ]
        return [Leaf(*both) for both in zip(uses, jacobians, strict=True)]

    return jax.vmap(leaves)(x) if apart else leaves(x)


def contract(
    leaf1: Leaf,
    leaf2: Leaf,
    shape1: tuple[int, ...],
    shape2: tuple[int, ...],
    apart: bool,
    trace: tuple[int, ...],
    diagonal: tuple[int, ...],
) -> Array | float:
    """One weight's part of the kernel between outputs of these shapes, averaged over `trace`."""
    size = math.prod(shape1[axis] for axis in trace)
    if leaf1.uses is None or leaf2.uses is None:
        product = _product(leaf1.jacobian, leaf2.jacobian, len(shape1), trace, diagonal)
        return jnp.einsum(*product) / size
    pairs = [
        _pair(a, b, len(shape1), apart, trace, diagonal)
        for a, b in itertools.product(leaf1.uses, leaf2.uses)
    ]
    if not pairs:
        return 0.0
    alone = [_alone(use, len(shape1), apart) for use in (*leaf1.uses, *leaf2.uses)]
    entries = math.prod(kernel_shape(shape1, shape2, trace, diagonal)) * size
    row = jax.eval_shape(lambda: jnp.einsum(*alone[0])).size // math.prod(shape1)
    if sum(map(_flops, pairs)) < sum(map(_flops, alone)) + 2 * entries * row:
        return sum(jnp.einsum(*pair) for pair in pairs) / size
    jacobian1 = _jacobian(leaf1, len(shape1), apart)
    jacobian2 = jacobian1 if leaf1 is leaf2 else _jacobian(leaf2, len(shape1), apart)
    return jnp.einsum(*_product(jacobian1, jacobian2, len(shape1), trace, diagonal)) / size


def kernel_shape(shape1, shape2, trace, diagonal) -> tuple[int, ...]:
    """The shapes of f(x1) and f(x2) zipped, without `trace` and with `diagonal` once."""
    shape = ()
    for axis, (a, b) in enumerate(zip(shape1, shape2, strict=True)):
        if axis not in trace:
            shape += (a,) if axis in diagonal else (a, b)
    return shape


def transposition(ndim: int, trace: tuple[int, ...], diagonal: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of such a kernel with x and x' exchanged."""
    axes: tuple[int, ...] = ()
    for axis in set(range(ndim)) - set(trace):
        i = len(axes)
        axes += (i,) if axis in diagonal else (i + 1, i)
    return axes


def _flops(einsum: tuple) -> int:
    """Operations of an einsum contracted in its best order."""
    return jnp.einsum_path(*einsum, optimize="optimal")[1].opt_cost


def _f_axes(f_ndim, trace, diagonal) -> tuple[list[int], list[int], list[int]]:
    """Names of the axes of f(x1), of f(x2) and of their kernel."""
    f1 = list(range(f_ndim))
    f2 = [i if i in trace or i in diagonal else i + f_ndim for i in f1]
    out = []
    for i in f1:
        if i not in trace:
            out += [i] if i in diagonal else [i, i + f_ndim]
    return f1, f2, out


def _product(jacobian1, jacobian2, f_ndim, trace, diagonal) -> tuple:
    """The einsum of two Jacobians: of matrices, all that is summed over in one axis."""
    f1, f2, out = _f_axes(f_ndim, trace, diagonal)
    kept = [i for i in f1 if i not in trace]

    def matrix(jacobian: Array) -> Array:
        moved = jnp.moveaxis(jacobian, trace, range(len(kept), f_ndim))
        return moved.reshape(*moved.shape[: len(kept)], -1)

    summed = [2 * f_ndim]
    names1, names2 = ([f[i] for i in kept] + summed for f in (f1, f2))
    return matrix(jacobian1), names1, matrix(jacobian2), names2, out


def _pair(use1: Use, use2: Use, f_ndim, apart, trace, diagonal) -> tuple:
    """The einsum of two uses of a weight."""
    f1, f2, out = _f_axes(f_ndim, trace, diagonal)
    fresh = itertools.count(2 * f_ndim)
    y1 = [next(fresh) for _ in range(use1.df_dy.ndim - f_ndim)]
    y2 = [next(fresh) for _ in range(use2.df_dy.ndim - f_ndim)]
    for i, j in zip(_shared(use1, y1), _shared(use2, y2), strict=True):
        y2[j] = y1[i]
    w = [next(fresh) for _ in range(use1.dy_dw.ndim - apart - len(y1))]
    dy_dw1, axes1 = _trimmed(use1, y1, f1[:1] if apart else [])
    dy_dw2, axes2 = _trimmed(use2, y2, f2[:1] if apart else [])
    return use1.df_dy, f1 + y1, dy_dw1, axes1 + w, dy_dw2, axes2 + w, use2.df_dy, f2 + y2, out


def _alone(use: Use, f_ndim, apart) -> tuple:
    """The einsum of one use to its part of the Jacobian, of f's axes and w's."""
    fresh = itertools.count(f_ndim)
    f, y = list(range(f_ndim)), [next(fresh) for _ in range(use.df_dy.ndim - f_ndim)]
    w = [next(fresh) for _ in range(use.dy_dw.ndim - apart - len(y))]
    dy_dw, axes = _trimmed(use, y, f[:1] if apart else [])
    return use.df_dy, f + y, dy_dw, axes + w, f + [y[i] for i in _shared(use, y)] + w


def _jacobian(leaf: Leaf, f_ndim, apart) -> Array:
    """Its Jacobian, each axis that y shares with w in the place of y's.

    A product of matrices where the rules give a ∂y/∂w no larger than itself, as the patches of a
    convolution's input; else by reverse mode. Where the program is lowered for a CPU it is one
    product a sample after the other, to stay in the cache; elsewhere one of all samples.
    """
    assert leaf.uses is not None
    if leaf.jacobian is not None:
        for use in leaf.uses:
            ruled = use.structure.out_trace or use.structure.out_diagonal
            if not ruled or use.dy_dw.size > leaf.jacobian.size:
                return leaf.jacobian
    total: Any = 0
    for use in leaf.uses:
        df_dy, axes1, dy_dw, axes2, out = _alone(use, f_ndim, apart)
        summed = set(axes1) & set(axes2) - set(out)
        together = partial(_einsum, axes1, axes2, out)
        one = partial(_einsum, axes1[1:], axes2[1:], out[1:])
        if apart and summed:
            each = partial(lax.map, one)
            total += lax.platform_dependent((df_dy, dy_dw), cpu=each, default=together)
        else:
            total += together((df_dy, dy_dw))
    return total


def _einsum(axes1: list[int], axes2: list[int], out: list[int], operands: tuple) -> Array:
    return jnp.einsum(operands[0], axes1, operands[1], axes2, out)


def _shared(use: Use, y: list) -> list[int]:
    """The axes of y that are axes of w."""
    return [i % len(y) for i in (*use.structure.out_trace, *use.structure.out_diagonal)]


def _trimmed(use: Use, y: list[int], sample: list[int]) -> tuple[Any, list[int]]:
    """∂y/∂w without the axes of y along which it only repeats, and the names of those left."""
    repeated = {i % len(y) for i in use.structure.out_trace + use.structure.out_broadcast}
    kept = [i for i in range(len(y)) if i not in repeated]
    axes = tuple(i + len(sample) for i in repeated)
    return jnp.squeeze(use.dy_dw, axes), sample + [y[i] for i in kept]
