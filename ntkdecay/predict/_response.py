r"""How one mode answers to its start and its label, at any t, γ, λ, k, without losing a digit.

Theorem 1 of Lewkowycz & Gur-Ari (2020) on MSE, one eigenvalue γ of the kernel, c = 2(k−1)λ:

.. math:: \dot f = -\gamma e^{-ct}(f - y) - k\lambda f
          \quad\Rightarrow\quad f(t) = e^{-x_t} f(0) + X_t\, y, \qquad
          x_t = k\lambda t + \gamma\tau_t, \quad \tau_t = \frac{1 - e^{-ct}}{c}

with :math:`X_t = G_s(u_t) - e^{-x_t} G_s(u_0)`, u_t = γe^{−ct}/c. Points outside of the training set
need (e^{−kλt} − e^{−x})/γ and X/γ, which stay exact as γ → 0 and λ → 0: below u_0 = 1 the terms of
G_s that diverge there cancel by algebra, above it the differences are formed by expm1.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay.predict._quasi_static import (
    Expansion,
    complement_of_inverse,
    expansion,
    gain_over_u,
    phi_near_pole,
    polynomial,
)


class Response(NamedTuple):
    """The linear response of one mode: f(t) = kept·f(0) + learned·y."""

    kept: Array  # e^{−x}
    learned: Array  # X
    unlearned: Array  # 1 − X, to full relative precision
    forgotten: Array  # e^{−kλt}: what is left of f(0) at a point far from all training points
    kept_per_rate: Array  # (e^{−kλt} − e^{−x})/γ
    learned_per_rate: Array  # X/γ


class Driving(NamedTuple):
    """Driving over decay at t = 0, u_0 = γ/c, in each form that G_s needs."""

    u: Array
    v: Array  # 1/u, 0 at γ = λ = 0
    log_u: Array
    power: Array  # u^{−σ}


class Clock(NamedTuple):
    """How far the kernel has decayed; clipped where a form of it would overflow."""

    ct: Array
    down: Array  # e^{−ct}
    up: Array  # e^{ct}
    power: Array  # e^{σct}


class Prepared(NamedTuple):
    """What depends on t alone or on γ alone: what is left for the grid of both is their product."""

    exponent: Array  # kλt
    tau: Array
    clock: Clock
    driving: Driving
    start: Array  # G_s(u_0)


@partial(jax.jit, static_argnums=3)
def prepare(t: Array, rate: Array, l2: Array, degree: float) -> Prepared | None:
    """A program of its own: within that of the grid XLA would form all of this anew for every element."""
    if degree <= 1:
        return None
    t, rate, l2 = jax.lax.stop_gradient((t, rate, l2))
    e, c, at_infinity = expansion(degree), 2 * (degree - 1) * l2, jnp.isinf(t)
    t, decays = jnp.where(at_infinity, 0.0, t), l2 > 0
    end = jnp.where(decays, 1 / jnp.where(decays, c, 1.0), jnp.finfo(t.dtype).max)
    clock = _clock(jnp.where(at_infinity & decays, jnp.inf, c * t), e)
    driving, start = _driving(rate, c, e), _clock(jnp.zeros_like(c), e)
    return Prepared(
        jnp.where(at_infinity & decays, jnp.inf, degree * l2 * t),
        jnp.where(at_infinity, end, t * exprel(-c * t)),
        clock,
        driving,
        _gain(driving, start, e)[0],
    )


def on_training_set(t: Array, rate: Array, l2: Array, degree: float) -> tuple[Array, Array, Array]:
    """The response's `kept`, `learned` and `unlearned` by the shortest way."""
    return on_training_set_prepared(t, rate, l2, degree, prepare(t, rate, l2, degree))


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def on_training_set_prepared(
    t: Array, rate: Array, l2: Array, degree: float, prepared: Prepared | None
) -> tuple[Array, Array, Array]:
    """`on_training_set`; its derivatives are those of `response`."""
    if prepared is None:
        return response(t, rate, l2, degree)[:3]
    kept = jnp.exp(-(prepared.exponent + rate * prepared.tau))
    gain, short = _gain(prepared.driving, prepared.clock, expansion(degree))
    return kept, gain - kept * prepared.start, short + kept * prepared.start


@on_training_set_prepared.defjvp
def _(degree, primals, tangents):
    (t, rate, l2, _), (*moved, _) = primals, tangents
    return jax.jvp(
        lambda t, rate, l2: response(t, rate, l2, degree)[:3], (t, rate, l2), tuple(moved)
    )


def response(t: Array, rate: Array, l2: Array, degree: float) -> Response:
    """The response at time `t` (>= 0 or inf) of the mode with γ = `rate`; the arguments broadcast."""
    at_infinity = jnp.isinf(t)
    t = jnp.where(at_infinity, 0.0, t)
    if degree == 0:
        finite = _growing(t, rate, l2)
    elif degree == 1:
        finite = _linear(t, rate, l2)
    else:
        finite = _decaying(t, rate, l2, degree)
    limit = _limit(rate, l2, degree)
    return Response(*(jnp.where(at_infinity, b, a) for a, b in zip(finite, limit, strict=True)))


def _limit(rate: Array, l2: Array, degree: float) -> Response:
    """t = inf. A mode with γ = 0 = its gradient never moves a test point: its 1/γ counts as 0."""
    pulled = rate > 0
    inverse = jnp.where(pulled, 1 / jnp.where(pulled, rate, 1.0), 0.0)
    still = l2 == 0 if degree else jnp.ones_like(l2, bool)
    forgotten = jnp.where(still, 1.0, 0.0)
    kept = jnp.where(pulled, 0.0, forgotten)
    if degree == 1:
        total = rate + l2
        learned_per_rate = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1.0), 0.0)
        unlearned = jnp.where(total > 0, l2 * learned_per_rate, 1.0)
    else:
        learned_per_rate = jnp.where(still, inverse, 0.0)
        unlearned = jnp.where(still & pulled, 0.0, 1.0)
    learned = rate * learned_per_rate
    return Response(
        kept, learned, unlearned, forgotten, jnp.where(still, inverse, 0.0), learned_per_rate
    )


def _linear(t: Array, rate: Array, l2: Array) -> Response:
    """k = 1: the kernel stands still."""
    forgotten = jnp.exp(-l2 * t)
    x = (l2 + rate) * t
    kept, per_rate = jnp.exp(-x), t * exprel(-x)
    kept_per_rate = forgotten * t * exprel(-rate * t)
    return Response(kept, rate * per_rate, kept + l2 * per_rate, forgotten, kept_per_rate, per_rate)


def _growing(t: Array, rate: Array, l2: Array) -> Response:
    """k = 0: the kernel grows as e^{2λt} and f only learns."""
    # Clipped where e^{2λt} would overflow: long before, e^{−x} is 0.
    tau = t * exprel(jnp.minimum(2 * l2 * t, 0.5 * jnp.log(jnp.finfo(t.dtype).max)))
    kept, per_rate = jnp.exp(-rate * tau), tau * exprel(-rate * tau)
    return Response(kept, rate * per_rate, kept, jnp.ones_like(t * l2), per_rate, per_rate)


def _decaying(t: Array, rate: Array, l2: Array, degree: float) -> Response:
    """k > 1: the kernel decays as e^{−ct}."""
    e = expansion(degree)
    c = 2 * (degree - 1) * l2
    rho, tau = jnp.exp(-c * t), t * exprel(-c * t)
    forgotten, x = jnp.exp(-degree * l2 * t), degree * l2 * t + rate * tau
    kept = jnp.exp(-x)
    rate_safe = jnp.where(rate > 0, rate, 1.0)
    slow = rate < c  # u_0 < 1; false for γ = λ = 0, where v_0 = c/γ counts as 0

    # u_0 >= 1: the quasi-static term and its start, early by what each is short of 1.
    v0 = jnp.where(slow, 1.0, c / rate_safe)
    short_0 = complement_of_inverse(v0, e)
    gain_t, short_t = _gain(_driving(rate, c, e), _clock(c * t, e), e)
    fast_per_rate = jnp.where(
        x > 0.5,
        (gain_t - kept * (1 - short_0)) / rate_safe,
        (short_0 - short_t) / rate_safe + (1 - short_0) * (tau + e.p * v0 * t) * exprel(-x),
    )

    # u_0 < 1, divided by γ: A's divided difference, the divided difference of e^{−ct} and e^{−x}, and
    # what is left of the singular part.
    u0 = jnp.where(slow, rate / jnp.where(slow, c, 1.0), 0.5)
    u_t = u0 * rho
    gap = (e.p - 1) * t + u0 * tau  # (x − ct)/c
    earlier = jnp.where(gap > 0, c * t, x)  # either would do, but that one cannot overflow
    slow_per_rate = (
        polynomial(e.regular, u0)
        * gap
        * jnp.exp(-earlier)
        * exprel(jnp.where(gap > 0, -c, c) * gap)
        - _divided_difference(e.regular, u_t, u0) * u0 * tau * rho
    )
    if e.singular.size:
        ramp = t * jnp.exp(-min(1.0, 1 - e.sigma) * c * t) * exprel(-abs(e.sigma) * c * t)
        slow_per_rate += u_t**e.m * polynomial(e.singular, u_t) * ramp

    learned_per_rate = jnp.where(slow, slow_per_rate, fast_per_rate)
    learned = rate * learned_per_rate
    unlearned = jnp.where(slow, 1 - learned, short_t + kept * (1 - short_0))
    kept_per_rate = forgotten * tau * exprel(-rate * tau)
    return Response(kept, learned, unlearned, forgotten, kept_per_rate, learned_per_rate)


def _driving(rate: Array, c: Array, e: Expansion) -> Driving:
    decays, pulled = c > 0, rate > 0
    c_safe, rate_safe = jnp.where(decays, c, 1.0), jnp.where(pulled, rate, 1.0)
    largest = 0.98 * jnp.log(jnp.finfo(rate.dtype).max)
    log_u = jnp.clip(jnp.log(rate_safe) - jnp.log(c_safe), -largest, largest)
    return Driving(
        jnp.where(decays, rate / c_safe, 2.0),
        jnp.where(pulled, c / rate_safe, 0.0),
        log_u,
        jnp.exp(-e.sigma * log_u),
    )


def _clock(ct: Array, e: Expansion) -> Clock:
    clipped = jnp.minimum(ct, 0.98 * jnp.log(jnp.finfo(ct.dtype).max))
    return Clock(clipped, jnp.exp(-ct), jnp.exp(clipped), jnp.exp(e.sigma * clipped))


def _gain(driving: Driving, clock: Clock, e: Expansion) -> tuple[Array, Array]:
    """G_s(u_t) and 1 − G_s(u_t) for u_t = u_0e^{−ct} at any size, c = 0 (u = ∞) included."""
    u = jnp.where(clock.down > 0, driving.u * clock.down, 0.0)
    if e.far_from_pole:
        phi = (driving.power * clock.power - 1) / -e.sigma
    else:
        phi = phi_near_pole(driving.log_u - clock.ct, e)
    low = u < 1  # no minimum or maximum: at a tie their derivatives are the mean of both sides
    u, v = jnp.where(low, u, 1.0), jnp.where(low, 1.0, driving.v * clock.up)
    short = complement_of_inverse(v, e)
    gain = jnp.where(low, u * gain_over_u(u, phi, e), 1 - short)
    return gain, jnp.where(low, 1 - gain, short)


def velocity(
    t: Array, rate: Array, l2: Array, degree: float, learned: Array, unlearned: Array
) -> tuple[Array, Array]:
    """−d`kept`/dt and d`learned`/dt of all modes, divided by one positive number so that the largest is near 1.

    While a mode tracks its label, Ẋ = (γ_t + kλ) e^{−x} G_s(u_0) − c u_t G_s'(u_t): two terms of full precision,
    where γ_t (1 − X) − kλ X is the difference of two that agree to a relative λ/γ.
    """
    c = 2 * (degree - 1) * l2
    now = rate * jnp.exp(-c * t)
    total = now + degree * l2
    moves = total > 0
    log_left = jnp.log(jnp.where(moves, total, 1.0)) - degree * l2 * t - rate * t * exprel(-c * t)
    if degree <= 1:  # Ẋ = γ_t e^{−x}
        scale = jax.lax.stop_gradient(jnp.max(log_left, initial=-jnp.inf, where=moves))
        left = jnp.where(moves, jnp.exp(log_left - jnp.where(jnp.isfinite(scale), scale, 0.0)), 0.0)
        return left, left * now / jnp.where(moves, total, 1.0)
    e = expansion(degree)
    driving, start = _driving(rate, c, e), _clock(jnp.zeros_like(c), e)
    decays = (c > 0) & (rate > 0)
    log_lag = jnp.log(jnp.where(decays, c, 1.0)) + _log_slope(driving, _clock(c * t, e), e)
    largest = jnp.maximum(
        jnp.max(log_left, initial=-jnp.inf, where=moves),
        jnp.max(log_lag, initial=-jnp.inf, where=decays),
    )
    least = jnp.log(jnp.finfo(t.dtype).tiny)
    scale = jax.lax.stop_gradient(jnp.where(largest > least, largest, least))
    left = jnp.where(moves, jnp.exp(log_left - scale), 0.0)
    lag = jnp.where(decays, jnp.exp(log_lag - scale), 0.0)
    tracks = rate >= c
    slow = (now * unlearned - degree * l2 * learned) * jnp.exp(-scale)
    return left, jnp.where(tracks, left * _gain(driving, start, e)[0] - lag, slow)


def _log_slope(driving: Driving, clock: Clock, e: Expansion) -> Array:
    """log(u G_s'(u)) at u_t."""
    u = jnp.where(clock.down > 0, driving.u * clock.down, 0.0)
    low, log_u = u < 1, driving.log_u - clock.ct
    power = driving.power * clock.power
    phi = (power - 1) / -e.sigma if e.far_from_pole else phi_near_pole(log_u, e)
    u, v = jnp.where(low, u, 1.0), jnp.where(low, 1.0, driving.v * clock.up)
    gain, rise = jax.jvp(lambda u, phi: gain_over_u(u, phi, e), (u, phi), (u, power))
    fall = jax.jvp(lambda v: complement_of_inverse(v, e), (v,), (jnp.ones_like(v),))[1]
    return jnp.where(low, log_u + jnp.log(gain + rise), jnp.log(fall) - log_u)


def _divided_difference(coefficients: np.ndarray, x: Array, y: Array) -> Array:
    """(A(x) − A(y))/(x − y) of a polynomial with ascending coefficients."""
    value, slope = jnp.zeros_like(y), jnp.zeros_like(x)
    for a in coefficients[::-1].tolist():
        slope, value = slope * x + value, value * y + a
    return slope


def exprel(x: Array) -> Array:
    """(e^x − 1)/x, differentiable at 0."""
    near = jnp.abs(x) < 0.5
    series = polynomial(_EXPREL, jnp.where(near, x, 0.0))
    far = jnp.where(near, 1.0, x)
    return jnp.where(near, series, jnp.expm1(far) / far)


_EXPREL = 1 / np.cumprod(np.arange(1.0, 16.0))
