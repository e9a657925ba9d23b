"""The kernel of a network at given parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._bar import PROGRESS, title
from ntkdecay._blocks import block_labels, blocks_of
from ntkdecay._checks import (
    array,
    checked,
    choice,
    either,
    flag,
    function,
    integer,
    is_traced,
    optional,
    sequence,
    tree,
)
from ntkdecay._program import Program
from ntkdecay._tiles import by_tiles, bytes_of, on_devices, placed_shapes, shapes_of, tile_within
from ntkdecay.kernels._apart import check_apart
from ntkdecay.kernels._checks import (
    ApplyFn,
    canonical_axes,
    check_network,
    exact,
    name_of,
)
from ntkdecay.kernels._choice import method_for
from ntkdecay.kernels._factors import Method, contract, factors, kernel_shape, transposition

AXES = either(integer(), sequence(integer(), empty=True))


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x1=array(),
    x2=optional(array()),
    trace_axes=AXES,
    diagonal_axes=AXES,
    per_layer=flag(),
    blocks=optional(block_labels()),
    vmap_axes=choice(0, None),
    tile=optional(integer(low=1)),
    max_bytes=optional(integer(low=1)),
    progress=PROGRESS,
)
def empirical_ntk(
    apply_fn: ApplyFn,
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    trace_axes: int | Sequence[int] = (-1,),
    diagonal_axes: int | Sequence[int] = (),
    per_layer: bool = False,
    blocks: Any = None,
    vmap_axes: Literal[0] | None = 0,
    tile: int | None = None,
    max_bytes: int | None = None,
    progress: str | bool | None = None,
) -> Any:
    r"""The neural tangent kernel of a network at given parameters.

    .. math:: \Theta_{oo'}(x, x') = \sum_\mu \partial_\mu f_o(x)\, \partial_\mu f_{o'}(x')
              = \sum_l \Theta^{(l)}_{oo'}(x, x')

    The kernel of Theorem 1 of `l2`, with the conventions of `neural_tangents.empirical_ntk_fn`.
    neural-tangents' structured derivatives (Novak et al. 2022) make it fast; a network is tried on
    two samples first, and one whose kernel they do not give gets the Jacobian and a warning, once.
    The network is read at each call, so that what it computes now is what counts, and compiled
    once for all calls and functions that compute the same.

    Args:
        apply_fn: the network, f(params, x) -> (n, ...): stax, flax or a plain function.
        params: pytree of arrays of one floating dtype.
        x1: (n1, ...), the samples; x2: (n2, ...), or None for x1, and then exactly symmetric.
        trace_axes: axes of f over which the kernel is averaged (not summed) with o = o'.
        diagonal_axes: axes of f of which only o = o' is kept; 0 for the kernel's diagonal.
        per_layer: give Θ^(l) for each array of params, from the same pass.
        blocks: give Θ^(b) for each block of parameters: labels as in `optax.multi_transform`, a tree like params or a
            prefix of it, as {"body": "body", "head": "head"}, or a function of params that gives one.
        vmap_axes: 0 if an output depends on its own sample alone, which is faster by a factor n
            and is verified; None if samples meet, as in batch normalization with
            batch statistics.
        tile: compute the kernel in blocks of tile × tile samples, dealt to all devices (under a
            JAX transformation, one after the other); None: in one. Needs vmap_axes=0.
        max_bytes: what a block may take beside its inputs; chooses the tile.
        progress: a bar over the tiles of this name, or with True one without; none when False or None.

    Returns:
        The shape of f(x1) zipped with that of f(x2), without `trace_axes` and with
        `diagonal_axes` once: (n1, n2) for the default axes and an (n, O) network, (n1, n2, O, O)
        for trace_axes=(). The dtype is that of params. If `per_layer`, a pytree like params of
        such kernels, whose sum is the kernel; with `blocks` a mapping from labels to them.

    Raises:
        TypeError: if the dtypes of params, x1 and x2 differ or are not floating, or if apply_fn
            changes them.
        ValueError: if JAX would round the inputs, apply_fn's output is not (n, ...), an axis is
            not one of the output's, `vmap_axes` or `tile` do not suit the network, or not even
            one pair of samples fits in `max_bytes`.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import kernels
    >>> def f(w, x):
    ...     return x @ w
    ...
    >>> kernels.empirical_ntk(f, jnp.ones((2, 1)), jnp.eye(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    apart = vmap_axes == 0
    network = check_network(apply_fn, params, apart, x1=x1, x2=x2)
    out, (a, b) = network.out, network.arrays
    trace = canonical_axes(trace_axes, out.ndim, "trace_axes")
    diagonal = canonical_axes(diagonal_axes, out.ndim, "diagonal_axes")
    if 0 in (*trace, *diagonal) and b is not None and len(a) != len(b):
        raise ValueError(
            "Axis 0 in `trace_axes` or `diagonal_axes` pairs the samples one by one, but `x1` has "
            f"{len(a)} and `x2` has {len(b)}."
        )
    if per_layer and blocks is not None:
        raise ValueError("`per_layer` and `blocks` part the kernel in two ways: give one of them.")
    names, parts = (), None
    if blocks is not None:
        names, parts = blocks_of(params, blocks)
    elif per_layer:
        parts = tuple(range(len(jax.tree.leaves(params))))
    if not apart and (tile is not None or max_bytes is not None):
        raise ValueError(
            f"`{'tile' if tile is not None else 'max_bytes'}` needs vmap_axes=0: samples that meet "
            "in a batch cannot be separated."
        )
    if apart:
        for x in (a,) if b is None else (a, b):
            check_apart(apply_fn, network.f1, params, x)
    method = method_for(name_of(apply_fn), network.f1, params, a, apart)
    mean = apart and 0 in trace  # the mean of the diagonal, not the trace of a square
    if mean:
        trace, diagonal = trace[1:], (0, *diagonal)

    options = (method, apart, trace, diagonal, parts)
    functions = (network.f1, network.f2)
    largest = max(len(a), 0 if b is None else len(b))
    if max_bytes is not None:
        whole = bytes_of(_whole.lower(*options, None, *shapes_of((functions, params, a, b))))
        needed = partial(_needed, options, functions, params, a)
        tile = tile_within(needed, largest, whole, max_bytes, tile)
    kernel = None
    if tile is not None and tile < largest and not is_traced(functions, params, a, b):
        axes = transposition(out.ndim, trace, diagonal)
        block = partial(_block, *options)
        given = (functions, params)
        kernel = on_devices(block, given, axes, a, b, tile, 0 in diagonal, title(progress))
    if kernel is None:
        kernel = _whole(*options, tile, functions, params, a, b)
    kernel = jax.tree.map(lambda k: jnp.mean(k, 0), kernel) if mean else kernel
    if per_layer:
        return jax.tree.structure(params).unflatten(kernel)
    return kernel if blocks is None else dict(zip(names, kernel, strict=True))


@partial(jax.jit, static_argnums=range(5))
def _block(method, apart, trace, diagonal, parts, given, x1, x2) -> Any:
    """The kernel between two batches."""
    functions, params = given
    with exact():
        return ntk_of(method, apart, trace, diagonal, parts, functions, params, x1, params, x2)


def _needed(options: tuple, functions: tuple, params: Any, x: Array, tile: int) -> int:
    """Bytes that a block of so many samples takes, compiled once."""
    samples = jax.ShapeDtypeStruct((tile, *x.shape[1:]), x.dtype)
    return bytes_of(_block.lower(*options, *placed_shapes(((functions, params), samples, samples))))


@partial(jax.jit, static_argnums=range(6))
def _whole(method, apart, trace, diagonal, parts, tile, functions, params, x1, x2) -> Any:
    """The kernel, tile after tile."""

    def kernel(a: Array, b: Array | None) -> Any:
        return ntk_of(method, apart, trace, diagonal, parts, functions, params, a, params, b)

    with exact():
        axes = transposition(len(functions[0].out.shape), trace, diagonal)
        return by_tiles(kernel, axes, x1, x2, tile, 0 in diagonal)


def ntk_of(
    method: Method,
    apart: bool,
    trace: tuple[int, ...],
    diagonal: tuple[int, ...],
    parts: tuple[int, ...] | None,
    functions: tuple[Program, Program],
    params1: Any,
    x1: Array,
    params2: Any,
    x2: Array | None,
) -> Any:
    """Σ ∂f(x1) ∂f(x2), the first derivative taken at params1, the second at params2; of each part apart, if there are."""
    f1, f2 = functions
    leaves1 = factors(method, f1, params1, x1, apart)
    leaves2 = leaves1 if x2 is None else factors(method, f2, params2, x2, apart)
    shape1 = (len(x1), *f1.out.shape[1:])
    shape2 = (len(x1 if x2 is None else x2), *shape1[1:])
    zeros = jnp.zeros(kernel_shape(shape1, shape2, trace, diagonal), f1.out.dtype)
    kernels = [
        zeros + contract(a, b, shape1, shape2, apart, trace, diagonal)
        for a, b in zip(leaves1, leaves2, strict=True)
    ]
    if parts is None:
        return sum(kernels, start=zeros)
    return tuple(
        sum((k for k, at in zip(kernels, parts, strict=True) if at == part), start=zeros)
        for part in range(max(parts) + 1)
    )
