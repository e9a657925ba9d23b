r"""How a CPU sums a convolution, or its transpose: by its library, or as products of matrices.

.. math:: T(x, w, y) = \sum_{n, p, i, c, o} y_{no}(p)\, w_{ico}\, x_{nc}(p s + i d)

XLA's library for CPUs knows convolutions of images (n, …, c) with filters (…, c, o) alone. The compiler
brings others into that form in a program's entry, but not in loops, where all training is; and it has
none for groups of channels. There its code takes ten to a hundred times as long. Here all are brought
into it, or, where that is faster still, made products of patches and filters: for few channels, filters
of one pixel, steps of more than one, and the derivative by a small image without margins.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

X, W, Y = range(3)  # the arrays of T, of which a sum has two and gives the third
_MOST_POSITIONS = 64  # of a filter: as many times as large are its patches
_FEW = 16  # channels, for which the library has slow code
_BLOCK = 32  # channels of groups that are taken together


class Window(NamedTuple):
    """How a filter moves over an image, for each axis of space."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]


class _Sum(NamedTuple):
    """∂T/∂(array `wanted`), of x (n, …, c), w (…, c, o), y (n, …, o)."""

    wanted: int
    shape: tuple[int, ...] | None  # of x or w where it is wanted
    dtype: Any
    window: Window
    options: dict[str, Any]


def total(
    a: Array,
    b: Array,
    *,
    wanted: int,
    levels: int,
    shape: tuple[int, ...] | None,
    dtype: Any,
    dimension_numbers: Any,
    feature_group_count: int,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Array:
    """The sum of `_convolutions`: its axes in the library's order, its groups side by side."""
    names = [name for name in (X, W, Y) if name != wanted]
    orders = _orders(dimension_numbers)
    lead = a.shape[:levels]
    arrays = []
    for name, array in zip(names, (a, b), strict=True):
        order = (0, *(1 + i for i in orders[name]))
        arrays.append(array.reshape(-1, *array.shape[levels:]).transpose(order))
    ordered = None if shape is None else tuple(shape[i] for i in orders[wanted])
    groups = _groups(feature_group_count, names, arrays, ordered)
    inner = None if ordered is None else groups.shape(wanted, ordered)
    window = Window(window_strides, padding, lhs_dilation, rhs_dilation)
    dtype = dtype or preferred_element_type or a.dtype
    options = {"precision": precision, "preferred_element_type": preferred_element_type}
    sum_ = _Sum(wanted, inner, dtype, window, options)
    out = _each(sum_, *map(groups.split, names, arrays))
    out = groups.join(wanted, out)
    back = orders[wanted]
    out = out.transpose(0, *(1 + back.index(i) for i in range(len(back))))
    return out.reshape(*lead, *out.shape[1:])


def _orders(numbers: Any) -> list[tuple[int, ...]]:
    """For each array where its axes are, in the library's order."""
    x, w, y = numbers
    return [(x[0], *x[2:], x[1]), (*w[2:], w[1], w[0]), (y[0], *y[2:], y[1])]


class _Groups(NamedTuple):
    """Groups of channels, `together` in each of `blocks`: filters that are zero between groups.

    Arrays have one leading axis, into which the blocks are put. What is not finite in one group is
    multiplied by these zeros, and makes those in its block NaN.
    """

    blocks: int
    together: int

    def split(self, name: int, a: Array) -> Array:
        if self.blocks * self.together == 1:
            return a
        if name != W:
            a = a.reshape(*a.shape[:-1], self.blocks, -1)
            a = jnp.moveaxis(a, -2, 1)
        else:
            j = self.together
            a = a.reshape(*a.shape[:-1], self.blocks, j, -1)
            a = jnp.moveaxis(a, -3, 1)  # lead, blocks, …, c, j, o
            eye = jnp.eye(j, dtype=bool)[:, None, :, None]
            a = jnp.where(eye, a[..., None, :, :, :], 0)
            a = a.reshape(*a.shape[:-4], j * a.shape[-3], j * a.shape[-1])
        return a.reshape(-1, *a.shape[2:])

    def join(self, name: int, a: Array) -> Array:
        if self.blocks * self.together == 1:
            return a
        a = a.reshape(-1, self.blocks, *a.shape[1:])
        if name != W:
            a = jnp.moveaxis(a, 1, -2)
            return a.reshape(*a.shape[:-2], -1)
        j = self.together
        a = a.reshape(*a.shape[:-2], j, a.shape[-2] // j, j, a.shape[-1] // j)
        a = jnp.moveaxis(jnp.diagonal(a, 0, -4, -2), -1, -2)  # lead, blocks, …, c, j, o
        a = jnp.moveaxis(a, 1, -3)
        return a.reshape(*a.shape[:-3], -1)

    def shape(self, name: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of an array without the leading axis, once it is split."""
        if name != W:
            return (*shape[:-1], shape[-1] // self.blocks)
        return (*shape[:-2], shape[-2] * self.together, shape[-1] // self.blocks)


def _groups(count: int, names: list[int], arrays: list[Array], shape: Any) -> _Groups:
    """As few groups together as give a block enough channels."""
    shapes: dict[int, Any] = dict(zip(names, (a.shape for a in arrays), strict=True))
    channels = shapes.get(X, shape)[-1]
    divisors = (j for j in range(1, count + 1) if count % j == 0)
    together = next((j for j in divisors if j * channels // count >= _BLOCK), count)
    return _Groups(count // together, together)


def _each(sum_: _Sum, a: Array, b: Array) -> Array:
    """The sum for each entry of a leading axis."""
    if not _library_is_faster(sum_, a.shape[1:], b.shape[1:]):
        return jax.vmap(partial(_by_products, sum_))(a, b)
    if len(a) == 1:
        return _by_library(sum_, a[0], b[0])[None]
    return lax.map(lambda both: _by_library(sum_, *both), (a, b))


def _library_is_faster(sum_: _Sum, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    wanted = sum_.wanted
    x, w = {X: (sum_.shape, a), W: (a, sum_.shape), Y: (a, b)}[wanted]
    assert x is not None and w is not None
    positions, channels, features = math.prod(w[:-2]), *w[-2:]
    if positions > _MOST_POSITIONS:
        return True
    if positions == 1 or sum_.dtype not in (jnp.float32, jnp.float64):
        return False
    if wanted == X and max(sum_.window.strides, default=1) == 1 and max(channels, features) > _FEW:
        # the library pads y with a margin as wide as the filter, which is much of a small image
        margins = math.prod(x[1:-1]) / math.prod(b[1:-1])
        if margins > 1.3:
            return False
    if sum_.dtype == jnp.float64:
        spread = sum_.window.strides if wanted == X else sum_.window.lhs_dilation
        summed = x[0] if wanted == W else channels
        if max(spread, default=1) > 1 or max(summed, features) <= _FEW:
            return False
    few = _FEW // 2 if features > _FEW else _FEW
    return wanted == W or channels >= few


def _by_library(sum_: _Sum, a: Array, b: Array) -> Array:
    """As a convolution in the one form that the library knows."""
    last = a.ndim - 1
    if sum_.wanted == Y:
        lhs, rhs, window = a, b, sum_.window
    elif sum_.wanted == X:
        w, y = a, b
        assert sum_.shape is not None
        lhs, rhs = y, lax.rev(w, range(last - 1)).swapaxes(-1, -2)
        window = _spread(sum_.window, sum_.shape[1:-1], w.shape[:-2], y.shape[1:-1])
    else:
        x, y = a, b
        assert sum_.shape is not None
        lhs, rhs = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(y, 0, -2)
        window = _correlated(sum_.window, x.shape[1:-1], sum_.shape[:-2], y.shape[1:-1])
    lhs, window = _as_known(lhs, rhs.shape[:-2], window)
    numbers = lax.ConvDimensionNumbers(
        (0, last, *range(1, last)), (last, last - 1, *range(last - 1)), (0, last, *range(1, last))
    )
    same = jnp.promote_types(lhs.dtype, rhs.dtype)
    options: dict[str, Any]
    options = sum_.options if sum_.wanted == Y else sum_.options | {"preferred_element_type": None}
    out = lax.conv_general_dilated(
        lhs.astype(same), rhs.astype(same), *window, dimension_numbers=numbers, **options
    )
    if sum_.wanted == W:
        out = jnp.moveaxis(out, 0, -2)
    return out.astype(sum_.dtype)


def _as_known(lhs: Array, filter_: tuple[int, ...], window: Window) -> tuple[Array, Window]:
    """The image padded beforehand where the library does not know how: it takes one at least as large
    as the dilated filter and the result, in float64 without gaps. The compiler must not undo it.
    """
    spread = lhs.dtype != jnp.float32 and max(window.lhs_dilation, default=1) > 1
    for n, k, (low, high), s, e, d in zip(
        lhs.shape[1:-1], filter_, window.padding, window.strides, *window[2:], strict=True
    ):
        extent = (k - 1) * d
        known = (n - 1) * e + 1
        spread |= extent >= known or (known + low + high - extent - 1) // s >= known
    if not spread:
        return lhs, window
    zero = jnp.zeros((), lhs.dtype)
    lhs = lax.optimization_barrier(lax.pad(lhs, zero, _margins(window)))
    none = ((0, 0),) * len(filter_)
    return lhs, Window(window.strides, none, (1,) * len(filter_), window.rhs_dilation)


def _margins(window: Window) -> list[tuple[int, int, int]]:
    """What `lax.pad` adds to an image, its samples and channels apart."""
    sides = zip(window.padding, window.lhs_dilation, strict=True)
    return [(0, 0, 0), *((low, high, e - 1) for (low, high), e in sides), (0, 0, 0)]


def _spread(window: Window, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]) -> Window:
    """x from y and the reversed filter: what was a stride is a dilation."""
    padding = []
    for n, k, m, s, (low, _), e, d in zip(x, w, y, *window, strict=True):
        low = (k - 1) * d - low
        padding.append((low, (n - 1) * e + (k - 1) * d - (m - 1) * s - low))
    return Window(window.lhs_dilation, tuple(padding), window.strides, window.rhs_dilation)


def _correlated(
    window: Window, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...]
) -> Window:
    """w from x and y as its filter: what was a stride is the filter's dilation."""
    padding = []
    for n, k, m, s, (low, _), e, d in zip(x, w, y, *window, strict=True):
        padding.append((low, (k - 1) * d + (m - 1) * s - (n - 1) * e - low))
    return Window(window.rhs_dilation, tuple(padding), window.lhs_dilation, window.strides)


def _by_products(sum_: _Sum, a: Array, b: Array) -> Array:
    y = partial(_product, sum_.window, sum_.options)
    if sum_.wanted == Y:
        return y(a, b)
    along: Callable[[Array], Array] = (
        (lambda x: y(x, a)) if sum_.wanted == X else (lambda w: y(a, w))
    )
    return jax.linear_transpose(along, jax.ShapeDtypeStruct(sum_.shape, sum_.dtype))(b)[0]


def _product(window: Window, options: dict[str, Any], x: Array, w: Array) -> Array:
    """y of all patches of x, as rows of a matrix, and the filters as its columns.

    Patches are gathered along one axis after the other: six slices for a 3 × 3 filter, not nine.
    """
    margins = _margins(window)
    if any(map(any, margins)):
        x = lax.pad(x, jnp.zeros((), x.dtype), margins)
    x = patches(x, w.shape[:-2], window.strides, window.rhs_dilation)
    space = range(w.ndim - 2)
    w = w.transpose(*reversed(space), w.ndim - 2, w.ndim - 1).reshape(-1, w.shape[-1])
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), **options)


def patches(x: Array, filter_: Any, strides: Any, dilation: Any) -> Array:
    """What each position of a filter sees of x, as channels: its last axis of space first."""
    for axis, (count, s, d) in enumerate(zip(filter_, strides, dilation, strict=True), 1):
        span = (x.shape[axis] - (count - 1) * d - 1) // s * s + 1
        starts = itertools.islice(itertools.count(0, d), count)
        slices = [lax.slice_in_dim(x, i, i + span, s, axis) for i in starts]
        x = slices[0] if count == 1 else jnp.concatenate(slices, -1)
    return x
