r"""The flow of a loss with ∂L/∂f = c f + b on one kernel, in the kernel's eigenbasis, where it falls into modes.

With Θ = V γ Vᵀ and hats for Vᵀ from the left, c one number,

.. math:: \dot{\hat w} = -\lambda \hat w - F (c \hat f + \hat b), \qquad \hat f = A \hat f_0 + F \gamma \hat w,

so that an implicit step divides by numbers, where it would factorize. The basis is a constant to derivatives: one of
the kernel is a matrix in it, not a diagonal one, so that equal eigenvalues have them as well.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay.predict._affine import is_affine
from ntkdecay.predict._dynamics import Dynamics
from ntkdecay.predict._modes import negligible
from ntkdecay.predict._state import Loss, Wide


def falls_into_modes(net: Wide, loss: Loss) -> bool:
    """Whether the flow is known to do so, from the loss's program."""
    if len(net.kernels) > 1:
        return False
    like = jax.ShapeDtypeStruct(net.shape, net.y.dtype)
    return is_affine(lambda f: jax.grad(loss)(f, net.labels(net.y)), like)


def price_of_modes(m: int, o: int) -> tuple[float, float]:
    """Seconds that the eigenbasis and a step in it cost, by operations."""
    return m**3 / 8e9 + 4e-8 * m**2 + 2e-5, 2e-5 + 2e-7 * m * o


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagonal:
    """A kernel in its eigenbasis."""

    kernel: Array
    vectors: Array  # in columns
    rates: Array  # γ

    def __matmul__(self, v: Array) -> Array:
        return _product(self.kernel, self.vectors, self.rates, v)


@jax.custom_jvp
def _product(kernel: Array, vectors: Array, rates: Array, v: Array) -> Array:
    return rates[:, None] * v


def _product_jvp(primals: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Any]:
    _, vectors, rates, v = primals
    change, _, _, moved = tangents
    zero = jax.custom_derivatives.SymbolicZero
    found = _product(*primals)
    parts = [] if isinstance(moved, zero) else [rates[:, None] * moved]
    if not isinstance(change, zero):
        parts.append(vectors.T @ (change @ (vectors @ v)))
    return found, sum(parts) if parts else jnp.zeros_like(found)


_product.defjvp(_product_jvp, symbolic_zeros=True)


@dataclass(frozen=True)
class InModes(Dynamics):
    """`Dynamics` in the eigenbasis."""

    bend: Any = None  # c
    pull: Any = None  # b, (m, o)

    def still(self) -> "InModes":
        bend, pull = jax.lax.stop_gradient((self.bend, self.pull))
        return replace(super().still(), bend=bend, pull=pull)  # pyright: ignore[reportReturnType]

    def slope(self, f: Array) -> Array:
        return self.bend * f + self.pull

    def factorized(self, f: Array, weights: Array) -> Any:
        (kernel,), scale = self.net.kernels, weights[0] * self.bend
        divisor = jax.lax.stop_gradient(1 + scale * kernel.rates[:, None])  # pyright: ignore
        return lambda r: jax.lax.custom_linear_solve(
            lambda v: v + scale * (kernel @ v), r, lambda _, r: r / divisor, symmetric=True
        )


def in_modes(dynamics: Dynamics) -> InModes:
    """The same flow in the eigenbasis of its kernel."""
    net, nothing = dynamics.net, jnp.zeros_like(dynamics.f0)
    kernel = net.kernels[0]
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(kernel))
    rates = jnp.where(values > negligible(values.max(), values.size), values, 0.0)
    pull, bends = jax.jvp(dynamics.slope, (nothing,), (jnp.ones_like(nothing),))
    return InModes(
        net=replace(net, kernels=(Diagonal(kernel, vectors, rates),)),  # pyright: ignore
        loss=dynamics.loss,
        f0=vectors.T @ dynamics.f0,
        l2=dynamics.l2,
        friction=dynamics.friction,
        start=dynamics.start,
        a=dynamics.a,
        velocity=dynamics.velocity,
        changes=dynamics.changes,
        bend=bends[0, 0],
        pull=vectors.T @ pull,
    )


def turned(vectors: Array, y: Array) -> Array:
    """Vectors over the samples, (…, m, o), from the columns' basis into that of the samples; `vectors.T`: back."""
    return jnp.einsum("ia,...ao->...io", vectors, y)
