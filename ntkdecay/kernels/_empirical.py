"""The kernel of a network at given parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from ntkdecay._tiles import by_tiles, on_devices, tile_within
from ntkdecay.kernels._checks import (
    ApplyFn,
    canonical_axes,
    check_network,
    check_tile,
    exact,
)
from ntkdecay.kernels._choice import method_for
from ntkdecay.kernels._factors import Method, contract, factors, kernel_shape, transposition


def empirical_ntk(
    apply_fn: ApplyFn,
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    trace_axes: int | Sequence[int] = (-1,),
    diagonal_axes: int | Sequence[int] = (),
    per_layer: bool = False,
    vmap_axes: Literal[0] | None = 0,
    tile: int | None = None,
    max_bytes: int | None = None,
    progress: str | None = None,
) -> Any:
    r"""The neural tangent kernel of a network at given parameters.

    .. math:: \Theta_{oo'}(x, x') = \sum_\mu \partial_\mu f_o(x)\, \partial_\mu f_{o'}(x')
              = \sum_l \Theta^{(l)}_{oo'}(x, x')

    The kernel of Theorem 1 of `l2`, with the conventions of `neural_tangents.empirical_ntk_fn`.
    neural-tangents' structured derivatives (Novak et al. 2022) make it fast; a network is tried on
    two samples first, and one whose kernel they do not give gets the Jacobian and a warning, once.

    Args:
        apply_fn: the network, f(params, x) -> (n, ...): stax, flax or a plain function. Compiled
            once for each function object: pass the same one, not a new lambda at each call.
        params: pytree of arrays of one floating dtype.
        x1: (n1, ...), the samples; x2: (n2, ...), or None for x1, and then exactly symmetric.
        trace_axes: axes of f over which the kernel is averaged (not summed) with o = o'.
        diagonal_axes: axes of f of which only o = o' is kept; 0 for the kernel's diagonal.
        per_layer: give Θ^(l) for each array of params, from the same pass.
        vmap_axes: 0 if an output depends on its own sample alone, which is faster by a factor n
            and is verified on two samples; None if samples meet, as in batch normalization with
            batch statistics.
        tile: compute the kernel in blocks of tile × tile samples, dealt to all devices (under a
            JAX transformation, one after the other); None: in one. Needs vmap_axes=0.
        max_bytes: what a block may take beside its inputs; chooses the tile.
        progress: name of a progress bar over the tiles; no bar when None.

    Returns:
        The shape of f(x1) zipped with that of f(x2), without `trace_axes` and with
        `diagonal_axes` once: (n1, n2) for the default axes and an (n, O) network, (n1, n2, O, O)
        for trace_axes=(). The dtype is that of params. If `per_layer`, a pytree like params of
        such kernels, whose sum is the kernel.

    Raises:
        TypeError: if the dtypes of params, x1 and x2 differ or are not floating, or if apply_fn
            changes them.
        ValueError: if JAX would round the inputs, apply_fn's output is not (n, ...), an axis is
            not one of the output's, `vmap_axes` or `tile` do not suit the network, or not even
            one pair of samples fits in `max_bytes`.
    """
    out, (a, b) = check_network(apply_fn, params, x1=x1, x2=x2)
    check_tile(tile)
    trace = canonical_axes(trace_axes, out.ndim, "trace_axes")
    diagonal = canonical_axes(diagonal_axes, out.ndim, "diagonal_axes")
    if 0 in (*trace, *diagonal) and b is not None and len(a) != len(b):
        raise ValueError(
            "Axis 0 in trace_axes or diagonal_axes pairs the samples one by one, but x1 has "
            f"{len(a)} and x2 has {len(b)}."
        )
    if vmap_axes not in (0, None):
        raise ValueError(f"vmap_axes is {vmap_axes!r}; allowed are 0 and None.")
    apart = vmap_axes == 0
    if not apart and (tile is not None or max_bytes is not None):
        raise ValueError(
            f"{'tile' if tile is not None else 'max_bytes'} needs vmap_axes=0: samples that meet "
            "in a batch cannot be separated."
        )
    method = method_for(apply_fn, params, a, apart)
    mean = apart and 0 in trace  # the mean of the diagonal, not the trace of a square
    if mean:
        trace, diagonal = trace[1:], (0, *diagonal)

    options = (apply_fn, method, apart, trace, diagonal, per_layer)
    block = partial(_block, *options)
    if max_bytes is not None:
        fits = tile_within(block, params, a, a if b is None else b, max_bytes)
        tile = fits if tile is None else min(fits, tile)
    kernel = None
    if tile is not None and tile < max(len(a), 0 if b is None else len(b)):
        traced = any(isinstance(v, Tracer) for v in jax.tree.leaves((params, a, b)))
        if not traced:
            axes = transposition(out.ndim, trace, diagonal)
            kernel = on_devices(block, params, axes, a, b, tile, 0 in diagonal, progress)
    if kernel is None:
        kernel = _whole(*options, tile, params, a, b)
    return jax.tree.map(lambda k: jnp.mean(k, 0), kernel) if mean else kernel


@partial(jax.jit, static_argnums=range(6))
def _block(apply_fn, method, apart, trace, diagonal, per_layer, params, x1, x2) -> Any:
    """The kernel between two batches."""
    with exact():
        return ntk_of(apply_fn, method, apart, trace, diagonal, per_layer, params, x1, params, x2)


@partial(jax.jit, static_argnums=range(7))
def _whole(apply_fn, method, apart, trace, diagonal, per_layer, tile, params, x1, x2) -> Any:
    """The kernel, tile after tile."""
    ndim = jax.eval_shape(apply_fn, params, x1).ndim

    def kernel(a: Array, b: Array | None) -> Any:
        return ntk_of(apply_fn, method, apart, trace, diagonal, per_layer, params, a, params, b)

    with exact():
        axes = transposition(ndim, trace, diagonal)
        return by_tiles(kernel, axes, x1, x2, tile, 0 in diagonal)


def ntk_of(
    apply_fn: ApplyFn,
    method: Method,
    apart: bool,
    trace: tuple[int, ...],
    diagonal: tuple[int, ...],
    per_layer: bool,
    params1: Any,
    x1: Array,
    params2: Any,
    x2: Array | None,
) -> Any:
    """Σ ∂f(x1) ∂f(x2), the first derivative taken at params1, the second at params2."""
    leaves1 = factors(method, apply_fn, params1, x1, apart)
    leaves2 = leaves1 if x2 is None else factors(method, apply_fn, params2, x2, apart)
    out = jax.eval_shape(apply_fn, params1, x1)
    shape1 = out.shape
    shape2 = (len(x1 if x2 is None else x2), *shape1[1:])
    zeros = jnp.zeros(kernel_shape(shape1, shape2, trace, diagonal), out.dtype)
    kernels = [
        zeros + contract(a, b, shape1, shape2, apart, trace, diagonal)
        for a, b in zip(leaves1, leaves2, strict=True)
    ]
    if per_layer:
        return jax.tree.structure(params1).unflatten(kernels)
    return sum(kernels, start=zeros)
