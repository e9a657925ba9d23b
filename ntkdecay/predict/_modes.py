"""The eigenmodes of a training kernel, and the axes of what lives on them."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ntkdecay.predict import _axes
from ntkdecay.predict._checks import check_kernel, check_reduction, check_spectrum


class Modes(NamedTuple):
    """A kernel's eigenvectors and the rates γ at which their modes learn."""

    rates: Array  # (m,), ascending; divided by the number of outputs when the loss is their mean
    vectors: Array  # (m, m), in columns
    trace_axes: tuple[int, ...]  # from the end, as y_train's
    outputs: int  # what the loss divides every kernel by: the number of outputs, or 1 for their sum

    def flatten(self, f: Array) -> Array:
        """Outputs as (m, traced outputs)."""
        return _axes.flatten(f, self.trace_axes)

    def project(self, f: Array) -> Array:
        """Outputs in the eigenbasis, (modes, traced outputs)."""
        return self.vectors.T @ self.flatten(f)

    def restore(self, f: Array, t_shape: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """(times, m, traced outputs) as `t_shape + shape`."""
        return _axes.restore(f, t_shape, shape, self.trace_axes)

    def test_shape(self, k_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the outputs on the test set of a kernel of shape `k_shape` = (n_test, n_train, …)."""
        return _axes.test_shape(k_shape, y_shape, self.trace_axes)


def decompose(
    k_train_train: Array,
    y_shape: tuple[int, ...],
    trace_axes: int | tuple[int, ...],
    reduction: str,
) -> Modes:
    """The modes of a training kernel for labels of shape `y_shape`."""
    check_reduction(reduction)
    traced = _axes.canonical(trace_axes, y_shape)
    values, vectors = jnp.linalg.eigh(check_kernel(k_train_train, y_shape, traced))
    outputs = math.prod(y_shape) if reduction == "mean" else 1
    return Modes(check_spectrum(values) / outputs, vectors, traced, outputs)
