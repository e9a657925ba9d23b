r"""Krylov spaces of a kernel known by its products, one for each column of labels or starts.

.. math:: \Theta Q = Q T + \beta\, q\, e_d^\top, \qquad \phi(\Theta)\,b \approx \|b\|\, Q\, \phi(T)\, e_1

One space serves every function φ: all times, all λ, all k. Lanczos' method with full reorthogonalization. The
arrays have room for `capacity` vectors of which `depth` are there, so that one program serves every depth.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay.predict._modes import negligible

Product = Callable[[Array], Array]


class Krylov(NamedTuple):
    """Lanczos' decomposition for each of o columns b of m entries."""

    size: Array  # (o,), ‖b‖
    basis: Array  # (o, capacity + 1, m), Qᵀ and q; zeros behind them
    diagonal: Array  # (o, capacity + 1), of T; zeros behind it
    coupling: Array  # (o, capacity + 1), below the diagonal of T; entry `depth` − 1 is β
    depth: Array

    @property
    def capacity(self) -> int:
        return self.basis.shape[1] - 1

    @property
    def left_out(self) -> Array:
        """The couplings that T lacks, (o, capacity + 1): β, and what is rounding where a space is exhausted."""
        last = (jnp.arange(self.capacity + 1) == self.depth - 1)[None]
        rounding = _rounding(self.diagonal)[:, None]
        return jnp.where(last | (self.coupling <= rounding), self.coupling, 0.0)

    @property
    def inner(self) -> Array:
        """The couplings that T has, (o, capacity + 1)."""
        return self.coupling - self.left_out

    @property
    def beta(self) -> Array:
        """β, (o,): 0 where the space is exhausted."""
        beta = self.coupling[:, self.depth - 1]
        return jnp.where(beta > _rounding(self.diagonal), beta, 0.0)

    def modes(self) -> "Modes":
        ritz = self._ritz()
        return Modes(ritz, self._rounded(ritz), self._widest(ritz))

    def _ritz(self) -> "Ritz":
        return self._eigh(self.diagonal, self.inner)

    def _widest(self, ritz: "Ritz") -> "Ritz":
        r"""The modes of T with one row more, which makes its least eigenvalue 0: Gauss-Radau quadrature's matrix.

        .. math:: \tilde T = \begin{pmatrix} T & \beta e_d \\ \beta e_d^\top & \beta^2 (T^{-1})_{dd} \end{pmatrix}

        It puts as much of b as the products allow where the kernel would not learn at all.
        """
        floor = negligible(ritz.rates.max(1, keepdims=True), self.basis.shape[-1])
        inverse = ritz.vectors[:, self.depth - 1] ** 2 / jnp.maximum(ritz.rates, floor)
        corner = jnp.where(self.beta > 0, self.beta**2 * inverse.sum(1), 0.0)
        inner = self.inner.at[:, self.depth - 1].set(self.beta)
        return self._eigh(self.diagonal.at[:, self.depth].set(corner), inner)

    def _rounded(self, ritz: "Ritz") -> "Ritz":
        """The modes of T moved as rounding may move the kernel: by a random matrix of norm ε γ_max."""
        p = self.capacity + 1
        noise = jnp.triu(jax.random.normal(jax.random.key(0), (p, p), self.basis.dtype))
        inside = jnp.arange(p) < self.depth
        noise = jnp.where(inside[:, None] & inside[None], noise + noise.T, 0.0)
        size = jnp.finfo(noise.dtype).eps * ritz.rates.max(1) / (2 * jnp.sqrt(1.0 * self.depth))
        return self._eigh(self.diagonal, self.inner, size[:, None, None] * noise[None])

    def _eigh(self, diagonal: Array, coupling: Array, moved: Any = 0.0) -> "Ritz":
        def tridiagonal(diagonal: Array, coupling: Array) -> Array:
            off = jnp.diag(coupling[:-1], -1)
            return jnp.diag(diagonal) + off + off.T

        values, vectors = jnp.linalg.eigh(jax.vmap(tridiagonal)(diagonal, coupling) + moved)
        largest, m = jnp.abs(values).max(1, keepdims=True), self.basis.shape[-1]
        rates = jnp.where(values > negligible(largest, m), values, 0.0)
        wrong = (values < -10 * m * jnp.finfo(values.dtype).eps * largest).any()
        return Ritz(rates, vectors, self.size[:, None] * vectors[:, 0], wrong)


class Ritz(NamedTuple):
    """Eigenmodes of a small matrix for each of o columns, each negligible eigenvalue 0."""

    rates: Array  # (o, p)
    vectors: Array  # (o, p, p), in columns
    start: Array  # (o, p), ‖b‖Vᵀe_1
    indefinite: Array  # whether it has an eigenvalue that is clearly below 0


def begin(b: Array, capacity: int) -> Krylov:
    """Spaces of depth 0 of the columns of b, (m, o)."""
    size = jnp.linalg.norm(b, axis=0)
    first = b / jnp.where(size > 0, size, 1.0)[None]
    basis = jnp.zeros((b.shape[1], capacity + 1, b.shape[0]), b.dtype).at[:, 0].set(first.T)
    row = jnp.zeros((b.shape[1], capacity + 1), b.dtype)
    return Krylov(size, basis, row, row, jnp.zeros((), int))


class Modes(NamedTuple):
    """The eigenmodes of T, and of what T may as well be."""

    ritz: Ritz  # of T itself
    rounded: Ritz  # of T moved by rounding
    widest: Ritz  # of Gauss-Radau quadrature's T


@partial(jax.jit, static_argnums=3)
def deepened(
    product: Product, space: Krylov, depth: Array | int, capacity: int
) -> tuple[Krylov, Modes]:
    """The same spaces, `depth` deep, and their modes, by as many products as are missing; `product` takes one vector (m,)."""
    m = space.basis.shape[-1]
    space = _with_room(space, capacity)

    def step(j: Array, space: Krylov) -> Krylov:
        _, basis, diagonal, coupling, _ = space
        q = basis[:, j]
        pulled = jax.vmap(product)(q)
        diagonal = diagonal.at[:, j].set((q * pulled).sum(1))
        for _ in range(2):  # one pass leaves what rounding has kept of the basis
            inside = jnp.einsum("odm,om->od", basis, pulled)
            pulled = pulled - jnp.einsum("od,odm->om", inside, basis)
        beta = jnp.linalg.norm(pulled, axis=1)
        beta = jnp.where(j + 1 < m, beta, 0.0)
        # Where a space is exhausted, to rounding, what is left is noise, and its direction too.
        goes_on = beta > _rounding(diagonal)
        following = jnp.where(goes_on, 1 / jnp.where(goes_on, beta, 1.0), 0.0)[:, None] * pulled
        return space._replace(
            basis=basis.at[:, j + 1].set(following),
            diagonal=diagonal,
            coupling=coupling.at[:, j].set(beta),
        )

    depth = jnp.maximum(depth, space.depth)
    space = jax.lax.fori_loop(space.depth, depth, step, space)._replace(depth=depth)
    return space, space.modes()


def _rounding(diagonal: Array) -> Array:
    return 10 * jnp.finfo(diagonal.dtype).eps * jnp.abs(diagonal).max(1)


def _with_room(space: Krylov, capacity: int) -> Krylov:
    def padded(rows: Array) -> Array:
        more = capacity - space.capacity
        return jnp.pad(rows, ((0, 0), (0, more), *((0, 0),) * (rows.ndim - 2)))

    return space._replace(
        basis=padded(space.basis),
        diagonal=padded(space.diagonal),
        coupling=padded(space.coupling),
    )
