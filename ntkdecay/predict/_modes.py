"""The eigenmodes of a training kernel."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay._checks import is_traced
from ntkdecay.predict._checks import (
    as_matrix,
    refuse_kernel,
    refuse_kernel_shape,
    refuse_spectrum,
    symmetric,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Modes:
    r"""A kernel's eigenvectors and the rates γ at which their modes learn.

    Eigenvalues below 4√m ε γ_max, with ε the dtype's precision, count as 0: the kernel cannot learn what they
    carry, neither on training nor on test points. (Rounding moves the zeros of a rank-deficient kernel by at most
    3 ε γ_max up to m = 1500, growing like √m; a threshold of m ε γ_max would in float32 cut modes that are there.)
    """

    rates: Array  # (m,), ascending; divided by the number of outputs when the loss is their mean
    vectors: Array  # (m, m), in columns
    outputs: int = field(metadata={"static": True})  # what the loss divides every kernel by


def negligible(largest: Array, size: int) -> Array:
    """Below what an eigenvalue of a matrix (size, size) is 0 to rounding, whose largest this is."""
    return 4 * math.sqrt(size) * jnp.finfo(largest.dtype).eps * largest


def decompose(
    k_train_train: Array, y_shape: tuple[int, ...], trace_axes: tuple[int, ...], outputs: int
) -> Modes:
    """The modes of a training kernel for labels of shape `y_shape`, checked."""
    refuse_kernel_shape(k_train_train, y_shape, trace_axes)
    modes, symmetry, spectrum = _decompose(k_train_train, outputs)
    facts = (modes.rates, symmetry, spectrum)
    rates, symmetry, spectrum = facts if is_traced(facts) else jax.device_get(facts)
    (finite, skew, size), (least, largest) = symmetry, spectrum
    refused = refuse_kernel(rates, finite, skew, size)
    refused = refuse_spectrum(refused, least, largest, rates.size)
    return replace(modes, rates=refused) if is_traced(refused) else modes


@partial(jax.jit, static_argnums=1)
def _decompose(k: Array, outputs: int) -> tuple[Modes, Any, Any]:
    """Modes, and what the kernel is asked."""
    k, symmetry = symmetric(as_matrix(k))
    values, vectors = jnp.linalg.eigh(k)
    rates = jnp.where(values > negligible(values.max(), values.size), values, 0.0) / outputs
    return Modes(rates, vectors, outputs), symmetry, (values.min(), jnp.abs(values).max())
