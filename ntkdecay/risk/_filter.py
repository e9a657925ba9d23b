r"""What training learns of a mode, as an entire function of its eigenvalue.

The closed form of Theorem 1 of `l2` (MSE, f_0 = 0, c = 2(k−1)λ, σ = k/(2(k−1))) with v = τ_t − τ_s is

.. math:: h_t(\gamma) = \int_0^{\tau_t} \gamma\, e^{-\gamma v}\, \big(1 + c\, e^{ct} v\big)^{-\sigma} dv,
          \qquad \tau_t = \frac{1 - e^{-ct}}{c},

whose last factor is e^{−λv} for k = 1 and 1 without L2: f = h_t(γ) y at the training points of a mode. A spectral filter
of the kernel, it is wanted at complex γ. Where λ changes, a piece that begins with the kernel A Θ_0 and f = h makes of it

.. math:: h_t(A \gamma) + e^{-k\lambda t - A\gamma\tau_t}\, h.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

PANELS, POINTS = 24, 16  # geometric ones of the integral, and of each
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(POINTS)


def driven(t: Array, l2: Array, degree: float) -> Array:
    """τ_t: gradient-flow time of a kernel that has not decayed; at t = inf 1/c."""
    c = 2 * (degree - 1) * l2
    decays = c > 0
    c, finite = jnp.where(decays, c, 1.0), jnp.where(jnp.isinf(t), 0.0, t)
    tau = jnp.where(decays, -jnp.expm1(-c * finite) / c, finite)
    return jnp.where(jnp.isinf(t), jnp.where(decays, 1 / c, jnp.inf), tau)


def learned(z: Array, t: Array, l2: Array, degree: float) -> Array:
    """h_t(z), (…, m), of complex z (m,) with real parts above −O(1/τ), at t and λ of one shape (…)."""
    t, l2 = t[..., None], l2[..., None]
    at_end = jnp.isinf(t)
    if degree == 1:
        rate = z + l2
        fading = jnp.where(at_end, 0.0, jnp.exp(-rate * jnp.where(at_end, 0.0, t)))
        return jnp.where(rate == 0, z * t, z / jnp.where(rate == 0, 1.0, rate) * (1 - fading))
    c = 2 * (degree - 1) * l2
    finite = jnp.where(at_end, 0.0, t)
    tau = driven(finite, l2, degree)
    # in panels from shortest to longest: the last factor falls from 1/(c e^{ct}) on, the exponential from 1/|z|
    log_growth = c * finite
    tiny = jnp.finfo(tau.dtype).tiny
    shortest = jnp.minimum(1 / jnp.abs(z).max(), jnp.exp(-log_growth) / jnp.maximum(c, tiny))
    low = jnp.log(jnp.maximum(jnp.minimum(1e-2 * shortest, 0.5 * tau), tiny))
    high = jnp.log(jnp.maximum(tau, tiny))
    edges = low + (high - low) * jnp.linspace(0, 1, PANELS + 1, dtype=low.dtype)
    edges = jnp.concatenate([jnp.zeros_like(low), jnp.exp(edges)], -1)
    half = jnp.diff(edges) / 2
    nodes, weights = (jnp.asarray(x, tau.dtype) for x in (_NODES, _WEIGHTS))
    v = (edges[..., :-1] + half)[..., None] + half[..., None] * nodes
    v, weight = (x.reshape(*x.shape[:-2], -1) for x in (v, half[..., None] * weights))
    sigma = degree / (2 * (degree - 1))
    log_c = (
        jnp.log(jnp.maximum(c, tiny)) + log_growth
    )  # e^{ct} itself may be past the largest number
    kept = weight * jnp.exp(-sigma * jnp.logaddexp(0.0, log_c + jnp.log(v)))
    found = z * (jnp.exp(-z[:, None] * v[..., None, :]) * kept[..., None, :]).sum(-1)
    return jnp.where(at_end & (l2 > 0), 0.0, found)


class Pieces(NamedTuple):
    """The pieces of λ(t), (pieces, …): each its λ, its start and its end."""

    l2: Array
    start: Array
    end: Array


def _passed(t: Array, piece: Pieces) -> Array:
    """How much of a piece has passed at t."""
    return jnp.where(t > piece.start, jnp.minimum(t, piece.end) - piece.start, 0.0)


def time(t: Array, pieces: Pieces, degree: float) -> Array:
    """τ_t over all pieces, of the shape of t."""

    def following(carry: tuple[Array, Array], piece: Pieces) -> tuple[tuple[Array, Array], None]:
        tau, scale = carry
        passed = _passed(t, piece)
        return (
            tau + scale * driven(passed, piece.l2, degree),
            _shrunk(scale, passed, piece, degree),
        ), None

    zero = jnp.zeros_like(t)
    return lax.scan(following, (zero, zero + 1), pieces)[0][0]


def _shrunk(scale: Array, passed: Array, piece: Pieces, degree: float) -> Array:
    """The kernel's scale after a piece; that of the last, which has no end, is not used."""
    return scale * jnp.exp(-2 * (degree - 1) * piece.l2 * jnp.where(jnp.isinf(passed), 0.0, passed))


def scheduled(z: Array, t: Array, pieces: Pieces, degree: float) -> Array:
    """h_t(z), (t, m), of complex z (m,) where λ has pieces of shape (pieces, t)."""

    def following(carry: tuple[Array, Array], piece: Pieces) -> tuple[tuple[Array, Array], None]:
        h, scale = carry
        passed = _passed(t, piece)
        at = scale[:, None] * z
        gone = jnp.isinf(passed)
        finite = jnp.where(gone, 0.0, passed)
        fading = degree * piece.l2 * finite
        kept = jnp.exp(-fading[:, None] - at * driven(finite, piece.l2, degree)[:, None])
        kept = jnp.where(gone[:, None], 0.0, kept)
        return (
            jax.vmap(partial(_of_one, degree=degree))(at, passed, piece.l2) + kept * h,
            _shrunk(scale, passed, piece, degree),
        ), None

    first = jnp.zeros((len(t), len(z)), z.dtype), jnp.ones_like(t)
    return lax.scan(following, first, pieces)[0][0]


def _of_one(z: Array, t: Array, l2: Array, degree: float) -> Array:
    return learned(z, t, l2, degree)
