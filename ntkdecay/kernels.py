r"""Kernels of a network: at infinite width, and of given parameters at finite width.

.. math:: \Theta(x, x') = \sum_\mu \partial_\mu f(x)\, \partial_\mu f(x'), \qquad
          K(x, x') = \mathbb{E}_\theta [f(x) f(x')]

The neural tangent kernel (NTK) Θ drives the evolution of f in Theorem 1 of `l2` (Lewkowycz &
Gur-Ari 2020); the NNGP kernel K is the covariance of f at initialization.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from ntkdecay._neural_tangents import NtkImplementation, empirical_ntk_fn
from ntkdecay._tiles import by_tiles

ApplyFn = Callable[[Any, Any], Array]


def analytic_kernel(
    kernel_fn: Callable,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    get: Literal["ntk", "nngp"] = "ntk",
    *,
    tile: int | None = None,
) -> Array:
    r"""The NTK or NNGP kernel of an infinitely wide network.

    .. math:: \Theta(x, x') = \lim_{n \to \infty}
              \frac{1}{O} \sum_{o, \mu} \partial_\mu f_o(x)\, \partial_\mu f_o(x')

    over O outputs, and likewise the NNGP kernel E[f f']. The kernel of Theorem 1 of `l2` at t = 0.

    Args:
        kernel_fn: the third function of a network from `ntkdecay.stax`.
        x1: (n1, ...), floating; x2: (n2, ...), or None for x1, and then exactly symmetric.
        get: which kernel.
        tile: compute the kernel in blocks of tile × tile samples; None: in one.

    Returns:
        (n1, n2), in float64 if JAX has it enabled, whatever the dtype of the inputs. Where two
        samples coincide the NTK of a ReLU network is exact to the square root of the precision
        only, 1e-8 in float64, as neural-tangents computes it.

    Raises:
        TypeError: if an input is not floating.
        ValueError: if JAX would round the inputs, or the network's output is not (n, O).
    """
    _check_dtypes((), x1=x1, x2=x2)
    if get not in ("ntk", "nngp"):
        raise ValueError(f'get is {get!r}; allowed are "ntk" and "nngp".')
    _check_tile(tile)
    x1, x2 = jnp.asarray(x1), None if x2 is None else jnp.asarray(x2)
    return _analytic_kernel(x1, x2, kernel_fn, get, tile)


@partial(jax.jit, static_argnames=("kernel_fn", "get", "tile"))
def _analytic_kernel(x1, x2, kernel_fn, get, tile):
    def kernel(a: Array, b: Array | None) -> Array:
        k = kernel_fn(a, b, get)
        if k.ndim != 2:
            raise ValueError(
                f"kernel_fn gives a kernel of shape {k.shape}, not (n1, n2): end the network with "
                "Flatten or GlobalAvgPool so that its output is (n, outputs)."
            )
        return k

    with _exact():
        return by_tiles(kernel, (1, 0), x1, x2, tile)


def empirical_ntk(
    apply_fn: ApplyFn,
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    trace_axes: int | Sequence[int] = (-1,),
    diagonal_axes: int | Sequence[int] = (),
    vmap_axes: Literal[0] | None = 0,
    tile: int | None = None,
    implementation: NtkImplementation | int = NtkImplementation.STRUCTURED_DERIVATIVES,
) -> Array:
    r"""The neural tangent kernel of a network at given parameters.

    .. math:: \Theta_{oo'}(x, x') = \sum_\mu \partial_\mu f_o(x)\, \partial_\mu f_{o'}(x')

    The kernel of Theorem 1 of `l2`, with the conventions of `neural_tangents.empirical_ntk_fn`.

    Args:
        apply_fn: the network, f(params, x) -> (n, ...): stax, flax or a plain function. Compiled
            once for each function object: pass the same one, not a new lambda at each call.
        params: pytree of arrays of one floating dtype.
        x1: (n1, ...), the samples; x2: (n2, ...), or None for x1, and then exactly symmetric.
        trace_axes: axes of f over which the kernel is averaged (not summed) with o = o'.
        diagonal_axes: axes of f of which only o = o' is kept; 0 for the kernel's diagonal.
        vmap_axes: 0 if an output depends on its own sample alone, which is faster by a factor n
            and is verified on two samples except under a JAX transformation; None if samples
            meet, as in batch normalization with batch statistics.
        tile: compute the kernel in blocks of tile × tile samples, which bounds memory; None: in
            one. Needs vmap_axes=0.
        implementation: how neural-tangents computes it. The default needs the least time and
            memory; JACOBIAN_CONTRACTION works for every network.

    Returns:
        The shape of f(x1) zipped with that of f(x2), without `trace_axes` and with
        `diagonal_axes` once: (n1, n2) for the default axes and an (n, O) network, (n1, n2, O, O)
        for trace_axes=(). The dtype is that of params.

    Raises:
        TypeError: if the dtypes of params, x1 and x2 differ or are not floating, or if apply_fn
            changes them.
        ValueError: if JAX would round the inputs, apply_fn's output is not (n, ...), an axis is
            not one of the output's or `vmap_axes` or `tile` do not suit the network.
    """
    dtype = _check_dtypes(params, x1=x1, x2=x2)
    _check_tile(tile)
    x1, x2 = jnp.asarray(x1), None if x2 is None else jnp.asarray(x2)
    out = jax.eval_shape(apply_fn, params, x1)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape[:1] != x1.shape[:1]:
        raise ValueError(
            f"apply_fn gives {out} for {x1.shape[0]} samples; it must give one array whose axis 0 "
            "is the sample: wrap a function of one sample in jax.vmap."
        )
    if out.dtype != dtype:
        raise TypeError(
            f"apply_fn gives {out.dtype} for {dtype} inputs: it casts inside, usually by a layer "
            "with a dtype of its own."
        )
    trace = _axes(trace_axes, out.ndim, "trace_axes")
    diagonal = _axes(diagonal_axes, out.ndim, "diagonal_axes")
    if 0 in diagonal and x2 is not None and len(x1) != len(x2):
        raise ValueError(
            f"diagonal_axes={diagonal_axes} pairs the samples one by one, but x1 has {len(x1)} and "
            f"x2 has {len(x2)}."
        )
    if tile is not None and (vmap_axes is None or 0 in trace):
        raise ValueError(
            f"tile={tile} needs vmap_axes=0 and axis 0 outside trace_axes: samples that meet in a "
            "batch cannot be separated (for the trace over samples, average diagonal_axes=0)."
        )
    if vmap_axes is not None:
        if vmap_axes != 0:
            raise ValueError(f"vmap_axes is {vmap_axes!r}; allowed are 0 and None.")
        _check_samples_apart(apply_fn, params, x1)
    options = (trace, diagonal, vmap_axes, tile, NtkImplementation(implementation))
    return _empirical_ntk(params, x1, x2, apply_fn, *options)


@partial(jax.jit, static_argnums=(3, 4, 5, 6, 7, 8))
def _empirical_ntk(
    params, x1, x2, apply_fn, trace_axes, diagonal_axes, vmap_axes, tile, implementation
):
    ntk_fn = empirical_ntk_fn(apply_fn, trace_axes, diagonal_axes, vmap_axes, implementation)
    ndim = jax.eval_shape(apply_fn, params, x1).ndim
    transposition: tuple[int, ...] = ()
    for axis in set(range(ndim)) - set(trace_axes):
        i = len(transposition)
        transposition += (i,) if axis in diagonal_axes else (i + 1, i)
    with _exact():
        return by_tiles(
            lambda a, b: ntk_fn(a, b, params), transposition, x1, x2, tile, 0 in diagonal_axes
        )


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """neural-tangents promotes ranks; a kernel's small eigenvalues do not survive TF32 products."""
    config: Any = jax.config
    precision = config.jax_default_matmul_precision or "highest"
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision(precision):
        yield


@partial(jax.jit, static_argnums=0)
def _meeting(apply_fn: ApplyFn, params: Any, x: Array) -> tuple[Array, Array]:
    """How far the outputs for x differ from those of its samples one by one, and their size."""
    together = apply_fn(params, x)
    alone = jnp.concatenate([apply_fn(params, x[i : i + 1]) for i in range(len(x))])
    return jnp.max(jnp.abs(together - alone)), jnp.max(jnp.abs(together))


def _check_samples_apart(apply_fn: ApplyFn, params: Any, x: Array) -> None:
    difference, size = _meeting(apply_fn, params, x[jnp.array([0, -1])])
    if isinstance(difference, Tracer) or not jnp.isfinite(size):
        return
    if not difference <= jnp.finfo(size.dtype).eps ** 0.5 * size:  # nor NaN, 0/0 in a batch of 1
        raise ValueError(
            f"apply_fn's output for a sample changes by {float(difference):.1e} with the rest of "
            "the batch, usually by batch normalization with batch statistics: pass vmap_axes=None."
        )


def _check_dtypes(params: Any, **inputs: Any) -> np.dtype:
    """The one floating dtype of params and inputs."""
    leaves = [("params", leaf) for leaf in jax.tree.leaves(params)]
    leaves += [(name, x) for name, x in inputs.items() if x is not None]
    first = None
    for name, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name} holds {type(leaf).__name__ if dtype is None else dtype}; a kernel needs "
                "arrays of a floating dtype."
            )
        first = first or (name, dtype)
        if dtype != first[1]:
            raise TypeError(
                f"{name} is {dtype} but {first[0]} is {first[1]}: convert one of them, so that "
                "the kernel's precision is the one you chose."
            )
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(
                f"{name} is {dtype}, which JAX would silently round: enable jax_enable_x64 or "
                "convert to float32."
            )
    assert first is not None
    return first[1]


def _check_tile(tile: int | None) -> None:
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}; allowed are None and a number of samples >= 1.")


def _axes(axes: int | Sequence[int], ndim: int, name: str) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(not -ndim <= axis < ndim for axis in axes):
        raise ValueError(f"{name}={axes} does not fit apply_fn's output, which has {ndim} axes.")
    return tuple(sorted({axis % ndim for axis in axes}))
