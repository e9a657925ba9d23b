r"""The Jacobian of a network in factors, one pair for each use of a weight, and their contraction.

.. math:: \partial_w f(x) = \sum_y \frac{\partial f}{\partial y} \frac{\partial y}{\partial w}

where y are the outputs of the primitives (products, convolutions, sums, …) that take w. ∂y/∂w is
nearly all zeros and repetitions: neural-tangents' structure rules say which (Novak et al. 2022),
so that neither it nor the Jacobian is ever formed. The Jacobian itself is the case y = w.
"""

import itertools
import warnings
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from ntkdecay._neural_tangents import structured_derivatives
from ntkdecay.kernels._checks import ApplyFn

Method = Literal["structured", "jacobian"]


class Use(NamedTuple):
    """One use of a weight w in a primitive y: samples (if they are apart), f's axes, y's, w's."""

    df_dy: Array
    dy_dw: Array | None  # None: y is w
    structure: Any


def factors(
    method: Method,
    apply_fn: ApplyFn,
    params: Any,
    x: Array,
    apart: bool,
    *,
    like: list[list[Use]] | None = None,
    seed: Array | None = None,
) -> list[list[Use]]:
    """The uses of each leaf of params.

    Where a weight's Jacobian is smaller than its structured factors, as that of a filter over a
    large image with few outputs, it takes their place.

    Args:
        apart: an output depends on its own sample alone.
        like: factors of the same network for another batch, to be contracted with.
        seed: a cotangent of one sample's output (of all the outputs if not apart). f is replaced
            by its product with it, of shape (1,) for each sample, and all factors are structured.
    """

    def uses(x: Array) -> list[list[Use]]:
        def f(params: Any) -> Array:
            return apply_fn(params, x[None])[0] if apart else apply_fn(params, x)

        out = jax.eval_shape(f, params)
        if seed is None:
            seeds = jnp.eye(out.size, dtype=out.dtype).reshape(out.size, *out.shape)
        else:
            seeds = seed[None]
        rows = (1,) if seed is not None else out.shape

        def split(df_dy: Array) -> Array:
            return df_dy.reshape(*rows, *df_dy.shape[1:])

        jacobians = jax.tree.leaves(jax.vmap(jax.vjp(f, params)[1])(seeds))
        whole = [[Use(split(j), None, None)] for j in jacobians]
        if method == "jacobian":
            return whole
        with warnings.catch_warnings():
            # a primitive without a rule has its derivative formed in full: larger, as right
            warnings.filterwarnings("ignore", message="No Jacobian rule found")
            found = structured_derivatives(f, params, seeds)
        structured = [
            [
                Use(split(df_dy), dy_dw, structure)
                for df_dy, dy_dw, structure in leaf
                if not (isinstance(df_dy, ad.Zero) or isinstance(dy_dw, ad.Zero))
            ]
            for leaf in found
        ]
        if seed is not None:
            return structured
        if like is None:
            return [min(both, key=_size) for both in zip(structured, whole, strict=True)]
        is_whole = [[use.dy_dw is None for use in leaf] == [True] for leaf in like]
        return [
            both[i] for both, i in zip(zip(structured, whole, strict=True), is_whole, strict=True)
        ]

    return jax.vmap(uses)(x) if apart else uses(x)


def _size(uses: list[Use]) -> int:
    return sum(a.size for use in uses for a in (use.df_dy, use.dy_dw) if a is not None)


def contract(
    uses1: list[Use],
    uses2: list[Use],
    shape1: tuple[int, ...],
    shape2: tuple[int, ...],
    apart: bool,
    trace: tuple[int, ...],
    diagonal: tuple[int, ...],
) -> Array | float:
    """One weight's part of the kernel between outputs of these shapes, averaged over `trace`."""
    size = 1
    for axis in trace:
        size *= shape1[axis]
    pairs = itertools.product(uses1, uses2)
    return sum(_contract(a, b, len(shape1), apart, trace, diagonal) for a, b in pairs) / size


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


def _contract(use1: Use, use2: Use, f_ndim, apart, trace, diagonal) -> Array:
    fresh = itertools.count()
    f1 = [next(fresh) for _ in range(f_ndim)]
    f2 = [f1[i] if i in trace or i in diagonal else next(fresh) for i in range(f_ndim)]
    out = []
    for axis in range(f_ndim):
        if axis not in trace:
            out += [f1[axis]] if axis in diagonal else [f1[axis], f2[axis]]

    if use1.dy_dw is None or use2.dy_dw is None:
        w = [next(fresh) for _ in range(use1.df_dy.ndim - f_ndim)]
        return jnp.einsum(use1.df_dy, f1 + w, use2.df_dy, f2 + w, out)

    ndim1, ndim2 = use1.df_dy.ndim - f_ndim, use2.df_dy.ndim - f_ndim
    y1, y2 = [next(fresh) for _ in range(ndim1)], [next(fresh) for _ in range(ndim2)]
    s1, s2 = use1.structure, use2.structure
    for name in ("out_trace", "out_diagonal"):
        axes = zip(getattr(s1, name), getattr(s2, name), strict=True)
        for i, j in axes:
            y2[j % ndim2] = y1[i % ndim1]
    w = [next(fresh) for _ in range(use1.dy_dw.ndim - apart - ndim1)]
    dy_dw1, axes1 = _trimmed(use1.dy_dw, s1, y1, f1[:1] if apart else [])
    dy_dw2, axes2 = _trimmed(use2.dy_dw, s2, y2, f2[:1] if apart else [])
    return jnp.einsum(
        use1.df_dy, f1 + y1, dy_dw1, axes1 + w, dy_dw2, axes2 + w, use2.df_dy, f2 + y2, out
    )


def _trimmed(dy_dw: Array, structure: Any, y: list[int], sample: list[int]):
    """∂y/∂w without the axes of y along which it only repeats, and the names of those left."""
    repeated = {i % len(y) for i in structure.out_trace + structure.out_broadcast}
    kept = [i for i in range(len(y)) if i not in repeated]
    return jnp.squeeze(dy_dw, tuple(i + len(sample) for i in repeated)), sample + [
        y[i] for i in kept
    ]
