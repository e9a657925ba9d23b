"""The eigenmodes of a training kernel."""

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

    def project(self, f: Array) -> Array:
        """Outputs in the eigenbasis, (modes, traced outputs)."""
        return self.vectors.T @ _axes.flatten(f, self.trace_axes)


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
