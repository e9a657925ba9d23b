"""One rule for each operation of JAX: the same on NumPy arrays, `rule(*inputs, **parameters)`."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.special
from numpy.lib.stride_tricks import sliding_window_view

Rule = Callable[..., Any]


class NoRule(Exception):
    """An operation, or a kind of numbers, that there is no rule for."""


def _of_floats(rule: Rule) -> Rule:
    """Of numbers that NumPy and SciPy have every function of."""

    def checked(*inputs: np.ndarray, **params: Any) -> Any:
        if any(x.dtype not in (np.float32, np.float64) for x in inputs):
            raise NoRule(f"numbers of {inputs[0].dtype}")
        return rule(*inputs, **params)

    return checked


def _plain(function: Callable) -> Rule:
    return lambda *inputs, **_: function(*inputs)


_FLOATS = {
    "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atan2": np.arctan2, "atanh": np.arctanh, "cbrt": np.cbrt, "ceil": np.ceil, "cos": np.cos,
    "cosh": np.cosh, "div": np.true_divide, "erf": scipy.special.erf, "erf_inv": scipy.special.erfinv,
    "erfc": scipy.special.erfc, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "floor": np.floor,
    "is_finite": np.isfinite, "log": np.log, "log1p": np.log1p, "logistic": scipy.special.expit,
    "rsqrt": lambda x: 1 / np.sqrt(x), "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "tan": np.tan,
    "tanh": np.tanh,
}  # fmt: skip
_ANY = {
    "abs": np.abs, "add": np.add, "add_any": np.add, "and": np.bitwise_and, "copy": np.copy,
    "eq": np.equal, "ge": np.greater_equal, "gt": np.greater, "le": np.less_equal,
    "lt": np.less, "max": np.maximum, "min": np.minimum, "mul": np.multiply, "ne": np.not_equal,
    "neg": np.negative, "not": np.invert, "or": np.bitwise_or, "pow": np.power, "rem": np.fmod,
    "sign": np.sign, "square": np.square, "stop_gradient": np.copy, "sub": np.subtract,
    "xor": np.bitwise_xor, "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}  # fmt: skip


def _select_n(which: np.ndarray, *cases: np.ndarray, **_: Any) -> np.ndarray:
    which = np.broadcast_to(which, cases[0].shape).astype(int)
    return np.take_along_axis(np.stack(cases), which[None], 0)[0]


def _convert(x: np.ndarray, *, new_dtype: Any, **_: Any) -> np.ndarray:
    if np.issubdtype(x.dtype, np.floating) and np.issubdtype(new_dtype, np.integer):
        raise NoRule("a number cut to a whole one")
    return x.astype(new_dtype)


def _bitcast(x: np.ndarray, *, new_dtype: Any) -> np.ndarray:
    if np.dtype(new_dtype).itemsize != x.dtype.itemsize:
        raise NoRule("bits that are another number of numbers")
    return np.ascontiguousarray(x).view(new_dtype).reshape(x.shape)


def _polynomial(x: np.ndarray, *coefficients: np.ndarray, **_: Any) -> np.ndarray:
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def _round(x: np.ndarray, *, rounding_method: Any) -> np.ndarray:
    if int(rounding_method) != 1:
        raise NoRule("halves away from zero")
    return np.rint(x)


def _broadcast(x: np.ndarray, *, shape: Any, broadcast_dimensions: Any, **_: Any) -> np.ndarray:
    wide = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        wide[axis] = size
    return np.broadcast_to(x.reshape(wide), shape)


def _reshape(x: np.ndarray, *, new_sizes: Any, dimensions: Any = None, **_: Any) -> np.ndarray:
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _slice(x: np.ndarray, *, start_indices, limit_indices, strides) -> np.ndarray:
    steps = strides or (1,) * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _dynamic_slice(x: np.ndarray, *starts: np.ndarray, slice_sizes: Any, **_: Any) -> np.ndarray:
    first = [
        int(np.clip(s, 0, n - k)) for s, n, k in zip(starts, x.shape, slice_sizes, strict=True)
    ]
    return x[tuple(slice(a, a + k) for a, k in zip(first, slice_sizes, strict=True))]


def _split(x: np.ndarray, *, sizes: Any, axis: int) -> list[np.ndarray]:
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _iota(*, dtype: Any, shape: Any, dimension: int, **_: Any) -> np.ndarray:
    wide = [-1 if axis == dimension else 1 for axis in range(len(shape))]
    return np.broadcast_to(np.arange(shape[dimension], dtype=dtype).reshape(wide), shape)


def _pad(x: np.ndarray, value: Any, *, padding_config: Any) -> np.ndarray:
    """Numbers between, before and after; fewer than none are cut away."""
    sizes = [
        max(n + max(n - 1, 0) * inner, 0)
        for n, (_, _, inner) in zip(x.shape, padding_config, strict=True)
    ]
    dilated = np.full(sizes, value, x.dtype)
    dilated[tuple(slice(None, None, inner + 1) for _, _, inner in padding_config)] = x
    around = [(max(low, 0), max(high, 0)) for low, high, _ in padding_config]
    wide = np.pad(dilated, around, constant_values=value)
    cut = (
        slice(max(-low, 0), n - max(-high, 0))
        for n, (low, high, _) in zip(wide.shape, padding_config, strict=True)
    )
    return wide[tuple(cut)]


def _dot_general(x: np.ndarray, y: np.ndarray, *, dimension_numbers, **_: Any) -> np.ndarray:
    (over_x, over_y), (batch_x, batch_y) = dimension_numbers
    own_x = [a for a in range(x.ndim) if a not in (*over_x, *batch_x)]
    own_y = [a for a in range(y.ndim) if a not in (*over_y, *batch_y)]
    batch, inner = [x.shape[a] for a in batch_x], math.prod(x.shape[a] for a in over_x)
    rows, columns = [x.shape[a] for a in own_x], [y.shape[a] for a in own_y]
    left = x.transpose(*batch_x, *own_x, *over_x).reshape(*batch, math.prod(rows), inner)
    right = y.transpose(*batch_y, *over_y, *own_y).reshape(*batch, inner, math.prod(columns))
    return (left @ right).reshape(*batch, *rows, *columns)


def _windows(
    x: np.ndarray, sizes, strides, padding, base_dilation, window_dilation, fill: Any
) -> np.ndarray:
    """Of an array its windows: (positions…, entries of a window…)."""
    config = [(*pads, d - 1) for pads, d in zip(padding, base_dilation, strict=True)]
    x = _pad(x, fill, padding_config=config)
    spans = [(n - 1) * d + 1 for n, d in zip(sizes, window_dilation, strict=True)]
    if any(span > n for span, n in zip(spans, x.shape, strict=True)):
        raise NoRule("windows larger than the array")
    every = sliding_window_view(x, spans)
    steps = (slice(None, None, s) for s in (*strides, *window_dilation))
    return every[tuple(steps)]


def _reduce_window(reduce: Callable, fill: float) -> Rule:
    def rule(x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
        windows = _windows(
            x, window_dimensions, window_strides, padding, base_dilation, window_dilation, fill
        )
        return reduce(windows, tuple(range(x.ndim, 2 * x.ndim)))

    return _of_floats(rule)


def _select_and_scatter_add(
    source: np.ndarray, x: np.ndarray, *, select_prim, window_dimensions, window_strides, padding
) -> np.ndarray:
    """Each source to the first greatest (or least) entry of its window."""
    pick, fill = {"ge": (np.argmax, -np.inf), "le": (np.argmin, np.inf)}[select_prim.name]
    ones = (1,) * x.ndim
    windows, places = (
        _windows(a, window_dimensions, window_strides, padding, ones, ones, f)
        for a, f in ((x, fill), (np.arange(x.size).reshape(x.shape), -1))
    )
    chosen = pick(windows.reshape(source.size, -1), 1)
    at = places.reshape(source.size, -1)[np.arange(source.size), chosen]
    total = np.zeros(x.size, x.dtype)
    np.add.at(total, at, source.ravel())
    return total.reshape(x.shape)


def _convolution(
    x: np.ndarray, w: np.ndarray, *, dimension_numbers, window_strides, padding, lhs_dilation, rhs_dilation,
    feature_group_count, batch_group_count, **_: Any,
) -> np.ndarray:  # fmt: skip
    if batch_group_count != 1:
        raise NoRule("groups of samples")
    of_x, of_w, of_y = dimension_numbers
    x, w = x.transpose(of_x), w.transpose(of_w)
    groups, space = feature_group_count, x.ndim - 2
    outer = (1, 1)
    windows = _windows(
        x, (*outer, *w.shape[2:]), (*outer, *window_strides), ((0, 0), (0, 0), *padding),
        (*outer, *lhs_dilation), (*outer, *rhs_dilation), 0,
    )  # fmt: skip
    windows = windows.reshape(*windows.shape[: 2 + space], *w.shape[2:])
    over_x, over_w = [1, *range(2 + space, 2 + 2 * space)], list(range(1, 2 + space))
    parts = zip(np.split(windows, groups, 1), np.split(w, groups, 0), strict=True)
    y = np.concatenate([np.tensordot(a, b, (over_x, over_w)) for a, b in parts], -1)
    return np.moveaxis(y, -1, 1).transpose(np.argsort(of_y))


def _platform_index(*, platforms: Any) -> np.int32:
    """Of the branches that depend on the platform the one that a program would take."""
    here = [jax.default_backend() in (names or ()) for names in platforms]
    return np.int32(here.index(True) if any(here) else platforms.index(None))


RULES: dict[str, Rule] = {
    "platform_index": _platform_index,
    **{name: _of_floats(_plain(function)) for name, function in _FLOATS.items()},
    **{name: _plain(function) for name, function in _ANY.items()},
    "integer_pow": _of_floats(lambda x, *, y: x**y),
    # since JAX 0.12
    **({"polynomial": _of_floats(_polynomial)} if hasattr(jax.lax, "polynomial") else {}),
    "round": _of_floats(_round),
    "select_n": _select_n,
    "convert_element_type": _convert,
    "bitcast_convert_type": _bitcast,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": lambda x, *, dimensions: np.squeeze(x, dimensions),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "rev": lambda x, *, dimensions: np.flip(x, dimensions),
    "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "split": _split,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "iota": _iota,
    "pad": _pad,
    "reduce_sum": lambda x, *, axes, **_: x.sum(axes),
    "reduce_max": lambda x, *, axes, **_: x.max(axes),
    "reduce_min": lambda x, *, axes, **_: x.min(axes),
    "reduce_and": lambda x, *, axes, **_: x.all(axes),
    "reduce_or": lambda x, *, axes, **_: x.any(axes),
    "argmax": lambda x, *, axes, index_dtype: x.argmax(axes[0]),
    "argmin": lambda x, *, axes, index_dtype: x.argmin(axes[0]),
    "cumsum": lambda x, *, axis, reverse: _along(np.cumsum, x, axis, reverse),
    "dot_general": _of_floats(_dot_general),
    "conv_general_dilated": _of_floats(_convolution),
    "reduce_window_sum": _reduce_window(np.sum, 0.0),
    "reduce_window_max": _reduce_window(np.max, -np.inf),
    "reduce_window_min": _reduce_window(np.min, np.inf),
    "select_and_scatter_add": _of_floats(_select_and_scatter_add),
}


def _along(function: Callable, x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    return np.flip(function(np.flip(x, axis), axis), axis) if reverse else function(x, axis)
