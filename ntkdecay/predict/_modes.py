"""The eigenmodes of a training kernel, and the axes of what lives on them."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ntkdecay.predict._checks import check_kernel, check_spectrum


class Modes(NamedTuple):
    """A kernel's eigenvectors and the rates γ at which their modes learn."""

    rates: Array  # (m,), ascending; divided by the number of outputs when the loss is their mean
    vectors: (
        Array  # (m, m), in columns; m runs over the samples and the outputs that are not traced
    )
    trace_axes: tuple[int, ...]  # from the end, as y_train's
    outputs: int  # what the loss divides every kernel by: the number of outputs, or 1 for their sum

    def flatten(self, f: Array) -> Array:
        """Outputs as (m, traced outputs)."""
        last = tuple(range(-len(self.trace_axes), 0))
        f = jnp.moveaxis(f, self.trace_axes, last)
        kept = f.shape[: f.ndim - len(last)]
        return f.reshape(math.prod(kept), -1)

    def project(self, f: Array) -> Array:
        """Outputs in the eigenbasis, (modes, traced outputs)."""
        return self.vectors.T @ self.flatten(f)

    def restore(self, f: Array, t_shape: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """(times, m, traced outputs) as `t_shape + shape`."""
        traced = tuple(shape[axis] for axis in self.trace_axes)
        kept = tuple(
            size for axis, size in enumerate(shape, -len(shape)) if axis not in self.trace_axes
        )
        f = f.reshape(t_shape + kept + traced)
        return jnp.moveaxis(f, tuple(range(-len(traced), 0)), self.trace_axes)

    def test_shape(self, k_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the outputs on the test set of a kernel of shape `k_shape` = (n_test, n_train, …)."""
        kept = tuple(
            size for axis, size in enumerate(y_shape, -len(y_shape)) if axis not in self.trace_axes
        )
        if len(k_shape) != 2 * len(kept) or k_shape[1::2] != kept or k_shape[2::2] != kept[1:]:
            pairs = tuple(n for size in kept[1:] for n in (size, size))
            raise ValueError(
                f"`k_test_train` has shape {k_shape}; with these training labels it must be "
                f"(n_test, {kept[0]}{''.join(f', {n}' for n in pairs)})."
            )
        return (k_shape[0], *y_shape[1:])


def decompose(
    k_train_train: Array,
    y_shape: tuple[int, ...],
    trace_axes: int | tuple[int, ...],
    reduction: str,
) -> Modes:
    """The modes of a training kernel for labels of shape `y_shape`."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f'`reduction` is {reduction!r}; allowed are "mean" and "sum".')
    ndim = len(y_shape)
    axes = (trace_axes,) if isinstance(trace_axes, int) else tuple(trace_axes)
    if any(not -ndim <= axis < ndim for axis in axes) or any(axis % ndim == 0 for axis in axes):
        raise ValueError(
            f"`trace_axes` is {axes}; it may name the output axes of labels of shape {y_shape}, not their samples."
        )
    positive = tuple(sorted(axis % ndim for axis in axes))
    values, vectors = jnp.linalg.eigh(check_kernel(k_train_train, y_shape, positive))
    outputs = math.prod(y_shape) if reduction == "mean" else 1
    return Modes(
        check_spectrum(values) / outputs, vectors, tuple(axis - ndim for axis in positive), outputs
    )
