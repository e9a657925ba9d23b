r"""What training learns of a mode, as an entire function of its eigenvalue.

The closed form of Theorem 1 of `l2` (MSE, f_0 = 0, c = 2(k−1)λ, σ = k/(2(k−1))) with v = τ_t − τ_s is

.. math:: h_t(\gamma) = \int_0^{\tau_t} \gamma\, e^{-\gamma v}\, \big(1 + c\, e^{ct} v\big)^{-\sigma} dv,
          \qquad \tau_t = \frac{1 - e^{-ct}}{c},

whose last factor is e^{−λv} for k = 1 and 1 without L2: f = h_t(γ) y at the training points of a mode. A spectral filter
of the kernel, it is wanted at complex γ.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

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
    edges = low + (high - low) * jnp.linspace(0, 1, PANELS + 1)
    edges = jnp.concatenate([jnp.zeros_like(low), jnp.exp(edges)], -1)
    half = jnp.diff(edges) / 2
    nodes, weights = (jnp.asarray(x, tau.dtype) for x in (_NODES, _WEIGHTS))
    v = (edges[..., :-1] + half)[..., None] + half[..., None] * nodes
    v, weight = (x.reshape(*x.shape[:-2], -1) for x in (v, half[..., None] * weights))
    sigma = degree / (2 * (degree - 1))
    kept = weight * jnp.exp(-sigma * jnp.log1p(c * jnp.exp(log_growth) * v))
    found = z * (jnp.exp(-z[:, None] * v[..., None, :]) * kept[..., None, :]).sum(-1)
    return jnp.where(at_end & (l2 > 0), 0.0, found)
