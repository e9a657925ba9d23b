r"""The gain G_s of a mode that tracks its label while its kernel decays.

.. math:: G_s(u) = u^{1-s} e^{u} \Gamma(s, u), \qquad s = \frac{k-2}{2(k-1)}, \qquad
          u_t = \frac{\gamma}{c} e^{-ct}, \quad c = 2(k-1)\lambda

With :math:`p = 1-s` it is the mean of u/(u+T) for T drawn from the Gamma distribution of shape p: it
rises from 0 at u = 0 to 1 at u = ∞. Once k is fixed it is a function of one variable, so its
expansion is made once, in numpy at trace time, and what runs is three short polynomials:

- u < 1: :math:`G = u\,[A(u) - u^m B(u) \varphi_\sigma(u)]`, B = Ce^u, with φ_σ(u) = (1 − u^{−σ})/σ (log u at σ = 0),
  where s = σ − m and |σ| <= 1/2: written so that the poles of Γ(s) at s = 0, −1, … have cancelled;
- u >= 1: :math:`1 - G = \frac{p}{u+p+1} S(\frac{1}{u+p+1})`, S = E[(u+p+1)/(u+T)] with T of shape and mean p + 1
  (S → 1 at u = ∞ and as k → 1).

A, B and S are polynomials fitted at Chebyshev nodes.
"""

from functools import lru_cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.polynomial import Polynomial, chebyshev

from ntkdecay._checks import array, checked
from ntkdecay.homogeneity import Degree
from ntkdecay.predict._checks import as_degree, as_float, network_degree, traced_non_negative


class Expansion(NamedTuple):
    """G_s for one degree k: the numbers of the module's two formulas."""

    p: float  # 1 − s
    sigma: float  # s = σ − m
    m: int
    regular: np.ndarray  # A, ascending
    singular: np.ndarray  # B, ascending; empty where it is negligible
    inverse: np.ndarray  # S, ascending in 2(p + 2)/(u + p + 1) − 1

    @property
    def far_from_pole(self) -> bool:
        """Whether u^{−σ} − 1 keeps its digits."""
        return abs(self.sigma) >= 0.1


@lru_cache
def expansion(degree: float) -> Expansion:
    """The expansion of G_s for degree k > 1, accurate to about 1e-15."""
    s, p = (degree - 2) / (2 * (degree - 1)), degree / (2 * (degree - 1))
    m = max(0, int(np.floor(0.5 - s)))
    power, c = _power_series(s, m)
    u = (1 + _NODES) / 2
    regular = _shifted(_fit(np.polynomial.polynomial.polyval(u, power)))
    singular = _shifted(_fit(c * np.exp(u))) if c else np.zeros(0)
    return Expansion(p, s + m, m, regular, singular, _fit(_inverse_values(p)))


_NODES = np.cos(np.pi * (np.arange(64) + 0.5) / 64)


def _fit(values: np.ndarray, negligible: float = 1e-15) -> np.ndarray:
    """The polynomial with these values at `_NODES`, ascending, without its negligible terms.

    Its Chebyshev coefficients fall by 3.5 and more from one to the next, above the 1 + √2 that keeps
    powers stable.
    """
    import scipy.fft

    series = np.asarray(scipy.fft.dct(values)) / len(values)
    series[0] /= 2
    kept = np.nonzero(np.abs(series) > negligible * np.max(np.abs(values)))[0]
    return chebyshev.cheb2poly(series[: 1 + kept[-1]])


def _shifted(coefficients: np.ndarray) -> np.ndarray:
    """Ascending in u, from ascending in 2u − 1."""
    return Polynomial(coefficients)(Polynomial([-1.0, 2.0])).coef  # pyright: ignore


def _power_series(s: float, m: int, negligible: float = 1e-20) -> tuple[np.ndarray, float]:
    """A and C. Before the pole at n = m the terms are −1/(s)_{n+1}; they may end before they reach it."""
    import scipy.special as sc  # a third of a second, for the first expansion only

    head, product = [], 1.0
    for n in range(m):
        product /= s + n
        head.append(-product)
        if abs(product) < negligible / abs(s):
            return np.array(head), 0.0
    # From the pole on, A_n = Γ(σ)/n! − 1/(σ)_{n+1} as Γ(1+σ)/n! · (1 − e^{−D_n})/σ, exact as σ → 0,
    # with D_n = log Γ(n+1+σ)/n!.
    sigma, n = s + m, np.arange(21)
    j = np.arange(2, 60)
    d_over_sigma = -np.euler_gamma - np.sum(sc.zeta(j) * (-sigma) ** (j - 1) / j)
    log_gamma = sigma * d_over_sigma
    x = sigma / n[1:]
    log1p_over_sigma = np.where(x == 0, 1.0, np.log1p(x) / np.where(x == 0, 1.0, x)) / n[1:]
    d_over_sigma += np.concatenate([[0.0], np.cumsum(log1p_over_sigma)])
    gamma = product * np.exp(log_gamma)
    tail = gamma / sc.factorial(n) * d_over_sigma * sc.exprel(-sigma * d_over_sigma)
    return np.concatenate([head, tail]), float(gamma)


def _inverse_values(p: float) -> np.ndarray:
    """S on u >= 1, its mean over T by the trapezoidal rule in log T."""
    w = (1 + _NODES) / 2
    u = 1 + (p + 1) * (1 - w)  # times w
    xi = np.arange(
        -42 / (p + 1) - 9 / np.sqrt(p), np.log1p((45 + 12 * np.sqrt(p)) / p), 0.08 / np.sqrt(p + 1)
    )
    weight = np.exp(p * (xi - np.expm1(xi)) + xi)
    t = p * np.exp(xi)
    return ((u + w * (p + 1))[:, None] / (u[:, None] + np.outer(w, t))) @ weight / weight.sum()


def complement_of_inverse(v: Array, e: Expansion) -> Array:
    """1 − G_s(1/v) for v = 1/u in [0, 1], to full relative precision."""
    reciprocal = v / (1 + (e.p + 1) * v)
    return e.p * reciprocal * polynomial(e.inverse, (4 + 2 * e.p) * reciprocal - 1)


def gain_over_u(u: Array, phi: Array, e: Expansion) -> Array:
    """G_s(u)/u for u in (0, 1], given φ_σ(u)."""
    regular = polynomial(e.regular, u)
    if not e.singular.size:
        return regular
    return regular - u**e.m * polynomial(e.singular, u) * phi


def phi_near_pole(log_u: Array, e: Expansion) -> Array:
    """φ_σ(u) for small σ."""
    return log_u if e.sigma == 0.0 else jnp.expm1(-e.sigma * log_u) / -e.sigma


def polynomial(coefficients: np.ndarray, x: Array) -> Array:
    """A polynomial with ascending coefficients: four Horner chains that do not wait for each other."""
    x2 = x * x
    x4 = x2 * x2
    a, b, c, d = (
        reduce(
            lambda total, term: total * x4 + term,
            coefficients[i::4][::-1].tolist(),
            jnp.zeros_like(x),
        )
        for i in range(4)
    )
    return (a + x * b) + x2 * (c + x * d)


@checked(u=array(low=0, inf=True, why="it is a rate over a rate"), degree=network_degree())
def quasi_static(u: ArrayLike, degree: float | Degree) -> Array:
    r"""The fraction of its label that a mode reaches while its decaying kernel still drives it.

    .. math:: G_s(u) = u^{1-s} e^{u} \Gamma(s, u), \qquad s = \frac{k-2}{2(k-1)}

    The first term of the closed form of eq. (3), Theorem 2 of Lewkowycz & Gur-Ari (2020), is
    :math:`y\,G_s(\gamma e^{-ct}/c)` with c = 2(k−1)λ.

    Args:
        u: driving over decay, γ_t / (2(k−1)λ), any shape; >= 0 or inf.
        degree: k of the network, any real > 1.

    Returns:
        G_s(u) in [0, 1], of the shape and dtype of `u`.

    Raises:
        ValueError: if `degree` is not above 1.

    >>> from ntkdecay import predict
    >>> round(float(predict.quasi_static(1.0, degree=2)), 4)
    0.5963
    """
    k = as_degree(degree)
    if k <= 1:
        raise ValueError(
            f"`degree` is {degree}; G_s is defined for degree > 1: at 0 and 1 the kernel does not decay."
        )
    (u,) = as_float(traced_non_negative(u, "u", "it is a rate over a rate"))
    return _quasi_static(u, k)


@partial(jax.jit, static_argnums=1)
def _quasi_static(u: Array, degree: float) -> Array:
    e = expansion(degree)
    tiny = jnp.finfo(u.dtype).tiny
    below = u < 1  # a clip would halve the derivative at the tie
    low = jnp.where(below, jnp.maximum(u, tiny), 1.0)
    # Where σ is not small, pow rounds once; exp(−σ log u) would lose the digits of its large exponent.
    phi = (low**-e.sigma - 1) / -e.sigma if e.far_from_pole else phi_near_pole(jnp.log(low), e)
    small = low * gain_over_u(low, phi, e)
    large = 1 - complement_of_inverse(1 / jnp.where(below, 1.0, u), e)
    return jnp.where(u == 0, 0.0, jnp.where(below, small, large))
