"""The axes of outputs: those that the kernel has, and `trace_axes`, which it lacks.

Inside, outputs are matrices (m, o): m runs over the samples and the outputs that the kernel tells
apart, o over the traced ones. Axes are counted from the end.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

Shape = tuple[int, ...]


def canonical(trace_axes: int | Shape, y_shape: Shape) -> Shape:
    """`trace_axes` in ascending order, counted from the end; axis 0, the samples, is never one.

    Labels without an axis for outputs have nothing to trace: (-1,), the default, means none there.
    """
    ndim = len(y_shape)
    axes = tuple(int(axis) for axis in np.atleast_1d(np.asarray(trace_axes, int)))
    if ndim == 1 and axes == (-1,):
        return ()
    if any(not -ndim <= axis < ndim or axis % ndim == 0 for axis in axes):
        raise ValueError(
            f"`trace_axes` is {axes}; it may name the output axes of labels of shape {y_shape}, not their samples."
        )
    found = tuple(sorted({axis % ndim - ndim for axis in axes}))
    if len(found) < len(axes):
        raise ValueError(f"`trace_axes` is {axes}; it names an axis twice.")
    return found


def kept(shape: Shape, trace_axes: Shape) -> Shape:
    """The sizes of the axes that the kernel has."""
    return tuple(size for axis, size in enumerate(shape, -len(shape)) if axis not in trace_axes)


def flatten(f: Array, trace_axes: Shape) -> Array:
    """Outputs as (m, traced outputs)."""
    rows = math.prod(kept(f.shape, trace_axes))
    return jnp.moveaxis(f, trace_axes, tuple(range(-len(trace_axes), 0))).reshape(rows, -1)


def restore(f: Array, lead: Shape, shape: Shape, trace_axes: Shape) -> Array:
    """(…, m, traced outputs) as `lead + shape`."""
    traced = tuple(shape[axis] for axis in trace_axes)
    f = f.reshape(lead + kept(shape, trace_axes) + traced)
    return jnp.moveaxis(f, tuple(range(-len(traced), 0)), trace_axes)


def test_shape(k_shape: Shape, y_shape: Shape, trace_axes: Shape) -> Shape:
    """The shape of the outputs on the test set of a kernel of shape `k_shape` = (n_test, n_train, …)."""
    rows = kept(y_shape, trace_axes)
    if len(k_shape) != 2 * len(rows) or k_shape[1::2] != rows or k_shape[2::2] != rows[1:]:
        pairs = "".join(f", {n}, {n}" for n in rows[1:])
        raise ValueError(
            f"`k_test_train` has shape {k_shape}; with these training labels it must be (n_test, {rows[0]}{pairs})."
        )
    return (k_shape[0], *y_shape[1:])
