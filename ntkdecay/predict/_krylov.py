r"""Krylov spaces of a kernel known by its products, one for each column of labels or starts.

.. math:: \Theta Q = Q T + \beta\, q\, e_d^\top, \qquad \phi(\Theta)\,b \approx \|b\|\, Q\, \phi(T)\, e_1

One space serves every function φ: all times, all λ, all k.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from matfree import decomp

from ntkdecay.predict._checks import refuse

Product = Callable[[Array], Array]


class Krylov(NamedTuple):
    """Lanczos' decomposition of depth d for each of o columns b of m entries."""

    size: Array  # (o,), ‖b‖
    basis: Array  # (o, d, m), Qᵀ
    diagonal: Array  # (o, d), of T
    coupling: Array  # (o, d), below the diagonal of T; the last entry is β
    residual: Array  # (o, m), βq

    @property
    def depth(self) -> int:
        return self.diagonal.shape[1]

    def ritz(self, depth: int) -> tuple[Array, Array, Array]:
        """Eigenvalues (o, p) >= 0 and vectors (o, p, p) of T cut to `depth`, and ‖b‖Vᵀe_1.

        T is filled up with zeros, which nothing couples to, so that p takes few values.
        """
        size = max(64, 1 << (self.depth - 1).bit_length())

        def tridiagonal(diagonal: Array, coupling: Array) -> Array:
            off = jnp.diag(coupling[: depth - 1], -1)
            t = jnp.diag(diagonal[:depth]) + off + off.T
            return jnp.pad(t, (0, size - depth))

        t = jax.vmap(tridiagonal)(self.diagonal, self.coupling)
        values, vectors = jnp.linalg.eigh(t)
        rounding = jnp.finfo(values.dtype).eps * self.basis.shape[-1] * jnp.abs(values).max()
        values = refuse(
            jnp.maximum(values, 0.0),
            (values < -10 * rounding).any(),
            "`matvec` is not the product with a positive semi-definite matrix; compute the kernel in float64, or, if it "
            "is a sample estimate, from a larger batch of samples.",
        )
        return values, vectors, self.size[:, None] * vectors[:, 0]


def krylov(matvec: Product, b: Array, depth: int) -> Krylov:
    """The Krylov spaces of the columns of b, (m, o); `matvec` takes one vector (m,)."""
    columns, m = b.shape[1], b.shape[0]
    empty = jnp.zeros((columns, 0), b.dtype)
    start = Krylov(
        jnp.linalg.norm(b, axis=0), jnp.zeros((columns, 0, m), b.dtype), empty, empty, b.T
    )
    return deepen(matvec, start, depth)


def deepen(matvec: Product, space: Krylov, depth: int) -> Krylov:
    """The same spaces, `depth` deep. Lanczos goes on from the residual: its products are not repeated.

    What continues is Lanczos for (1 − QQᵀ)Θ(1 − QQᵀ). A space that is exhausted, that of a column of
    zeros for one, is filled up with zeros.
    """
    # Not decomp.tridiag_sym: it averages the two sides of T, and where a space is exhausted to rounding
    # the side above the diagonal is noise of any size.
    lanczos = decomp.hessenberg(depth - space.depth, reortho="full", custom_vjp=False)

    def more(basis: Array, residual: Array) -> tuple[Array, Array, Array, Array]:
        def project(v: Array) -> Array:
            return v - (basis @ v) @ basis

        found: Any = lanczos(lambda v: project(matvec(project(v))), residual)
        diagonal, last = jnp.diag(found.J_small), found.residual
        coupling = jnp.append(jnp.diag(found.J_small, -1), jnp.linalg.norm(last))
        # Where a space is exhausted, to rounding, what Lanczos divides by it is noise, or 0/0.
        end = coupling <= 10 * jnp.finfo(last.dtype).eps * jnp.nanmax(jnp.abs(diagonal))
        beyond = jnp.cumsum(jnp.append(~jnp.any(residual), end[:-1])) > 0
        basis = jnp.where(beyond[:, None], 0.0, found.Q_tall)
        coupling, last = (
            jnp.where(end | beyond, 0.0, coupling),
            jnp.where((end | beyond)[-1], 0.0, last),
        )
        return basis, jnp.where(beyond, 0.0, diagonal), coupling, last

    basis, diagonal, coupling, residual = jax.vmap(more)(space.basis, space.residual)
    diagonal = refuse(
        diagonal,
        ~jnp.isfinite(diagonal).all(),
        "`matvec` gives NaN or infinite entries; the usual cause is an input that is not finite, or an all-zero one "
        "under a normalization.",
    )
    return Krylov(
        space.size,
        jnp.concatenate([space.basis, basis], 1),
        jnp.concatenate([space.diagonal, diagonal], 1),
        jnp.concatenate([space.coupling, coupling], 1),
        residual,
    )
