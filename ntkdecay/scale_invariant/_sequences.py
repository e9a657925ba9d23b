r"""Sequences that decay by a fixed share and grow by the inverse of what they are.

.. math:: x_{t+1} = (1-\alpha)\,x_t + \beta_t/x_t, \qquad 0 < \alpha < 1/2, \quad
          0 \le a \le \beta_t \le b

(10) of `periodic` (Lobacheva et al. 2021), A.4. The squared norm of scale-invariant weights is one,
with α = 1 − (1 − ηλ)² and β_t = η² g̃_t². In units of its stationary point √(β/α), a sequence with
constant β is γ ← φ(γ) = (1 − α)γ + α/γ, whatever β.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape
from ntkdecay._checks import array, checked, integer, is_traced, optional
from ntkdecay._elementwise import elementwise
from ntkdecay._given import as_array, given
from ntkdecay.scale_invariant._checks import check_interval

SHARE = array(
    above=0, below=0.5, why="below 1/2: the share that a step takes away, 2ηλ for squared norms"
)

BETWEEN = "they are a <= β_t <= b"


class Bounds(NamedTuple):
    """A lower and an upper bound."""

    lower: Array
    upper: Array


@checked(
    x_0=array(above=0),
    beta=array(low=0),
    alpha=array(low=0, below=1),
    steps=optional(integer(low=0)),
)
def sequence(x_0: ArrayLike, beta: ArrayLike, alpha: ArrayLike, steps: int | None = None) -> Array:
    r"""The sequence x_0, x_1, …

    .. math:: x_{t+1} = (1-\alpha)\,x_t + \beta_t/x_t

    (10), and (11) with constant β, of `periodic`.

    Args:
        x_0: x_0 > 0, of any shape S.
        beta: β_t >= 0, shape (steps, …), … broadcasting with S; or, where `steps` is given, a constant
            of a shape that broadcasts with S.
        alpha: α in [0, 1), likewise.
        steps: how many steps, where β is constant.

    Returns:
        Shape (steps + 1, …).

    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.sequence(2.0, 0.1, 0.1, steps=2).round(4).tolist()
    [2.0, 1.85, 1.7191]
    """
    x_0, beta, alpha = map(given, (x_0, beta, alpha))
    if steps is None and np.ndim(beta) == 0:
        raise ValueError("`beta` is one number: say how many `steps`, or give one β for each step.")
    each = {"beta": np.shape(beta)} if steps is not None else {"beta[0]": np.shape(beta)[1:]}
    shape = common_shape(x_0=np.shape(x_0), alpha=np.shape(alpha), **each)
    dtype = jnp.result_type(x_0, beta, alpha, float)
    return _sequence(as_array(x_0, dtype), beta, as_array(alpha, dtype), shape, steps)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _sequence(
    x_0: Array, beta: Array, alpha: Array, shape: tuple[int, ...], steps: int | None
) -> Array:
    start, share = jnp.broadcast_to(x_0, shape), jnp.broadcast_to(alpha, shape)

    def advance(x: Array, growth: Array | None) -> tuple[Array, Array]:
        after = (1 - share) * x + jnp.broadcast_to(beta if growth is None else growth, shape) / x
        return after, after

    path = jax.lax.scan(advance, start, beta if steps is None else None, length=steps)[1]
    return jnp.concatenate([start[None], path])


@checked(ratio=array(above=0), alpha=SHARE)
def phi(ratio: ArrayLike, alpha: ArrayLike) -> Array:
    r"""One step in units of the stationary point.

    .. math:: \varphi(\gamma) = (1-\alpha)\,\gamma + \alpha/\gamma

    (12) of `periodic`. Figure 8 draws it.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.phi(1.0, 0.1))
    1.0
    """
    return _phi(ratio, alpha)


@elementwise
def _phi(ratio: Array, alpha: Array) -> Array:
    return (1 - alpha) * ratio + alpha / ratio


@checked(beta=array(low=0), alpha=SHARE)
def stationary_point(beta: ArrayLike, alpha: ArrayLike) -> Array:
    """√(β/α), where a sequence with constant β stays.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.stationary_point(0.4, 0.1))
    2.0
    """
    return _stationary_point(beta, alpha)


@elementwise
def _stationary_point(beta: Array, alpha: Array) -> Array:
    return jnp.sqrt(beta / alpha)


@checked(alpha=SHARE)
def hop_threshold(alpha: ArrayLike) -> Array:
    """α/(1 − α): φ takes smaller ratios beyond 1, (13c), (13d) of `periodic`.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.hop_threshold(0.2))
    0.25
    """
    return _hop_threshold(alpha)


@elementwise
def _hop_threshold(alpha: Array) -> Array:
    return alpha / (1 - alpha)


@checked(alpha=SHARE)
def turning_point(alpha: ArrayLike) -> Array:
    """√(α/(1 − α)): φ falls below this ratio and rises above it, (13e), (13f) of `periodic`.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.turning_point(0.2))
    0.5
    """
    return _turning_point(alpha)


@elementwise
def _turning_point(alpha: Array) -> Array:
    return jnp.sqrt(_hop_threshold(alpha))


@checked(alpha=SHARE)
def least_value(alpha: ArrayLike) -> Array:
    """2√(α(1 − α)), the least value of φ, (13g) of `periodic`.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.least_value(0.2))
    0.8
    """
    return _least_value(alpha)


@elementwise
def _least_value(alpha: Array) -> Array:
    return 2 * jnp.sqrt(alpha * (1 - alpha))


@checked(t=array(low=0), x_0=array(above=0), beta=array(low=0), alpha=SHARE)
def determined_bounds(t: ArrayLike, x_0: ArrayLike, beta: ArrayLike, alpha: ArrayLike) -> Bounds:
    r"""Bounds on a sequence with constant β that starts above its stationary point.

    .. math:: x^* + (1-2\alpha)^t (x_0 - x^*) \le x_t \le x^* + (1-\alpha)^t (x_0 - x^*), \qquad
              x^* = \sqrt{\beta/\alpha}

    Lemma 1 of `periodic`.

    Args:
        t: steps; x_0, beta, alpha: as in `sequence`. All broadcast.

    Raises:
        ValueError: if x_0 is not above x*.

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.determined_bounds(100, 20.0, beta=1.0, alpha=0.01)
    >>> x = scale_invariant.sequence(20.0, [1.0] * 100, alpha=0.01)[-1]
    >>> bool(low <= x <= high)
    True
    """
    t, x_0, beta, alpha = map(given, (t, x_0, beta, alpha))
    common_shape(t=np.shape(t), x_0=np.shape(x_0), beta=np.shape(beta), alpha=np.shape(alpha))
    point = stationary_point(beta, alpha)
    if not is_traced(x_0, point) and not np.all(np.asarray(x_0) > np.asarray(point)):
        raise ValueError(
            "`x_0` is not above the stationary point √(`beta`/`alpha`): Lemma 1 is about sequences that "
            "fall; below it a sequence rises or hops."
        )
    return _determined_bounds(t, x_0, beta, alpha)


@elementwise
def _determined_bounds(t: Array, x_0: Array, beta: Array, alpha: Array) -> Bounds:
    point = _stationary_point(beta, alpha)
    return Bounds(*(point + (1 - k * alpha) ** t * (x_0 - point) for k in (2, 1)))


@checked(
    x_0=array(above=0),
    least=array(low=0),
    most=array(low=0),
    alpha=array(low=0, below=1),
    steps=integer(low=0),
)
def bounding_sequences(
    x_0: ArrayLike, least: ArrayLike, most: ArrayLike, alpha: ArrayLike, steps: int
) -> Bounds:
    r"""The sequences with β = a and β = b from the same start.

    Lemma 2 of `periodic`: x_{a,t} <= x_t always, and x_t <= x_{b,t} as long as x_s > √(b/(1 − α)) for
    all s < t; for all t if x_0 > √(b/α) and `attracts` (Remark 2).

    Args:
        x_0, alpha, steps: as in `sequence`; least, most: a <= b. They broadcast.

    Returns:
        Each of shape (steps + 1, …).

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.bounding_sequences(20.0, 1.0, 4.0, alpha=0.01, steps=500)
    >>> round(float(low[-1]), 2), round(float(high[-1]), 2)
    (10.0, 20.0)
    """
    check_interval(least, most, BETWEEN)
    return _bounding_sequences(x_0, least, most, alpha, steps=int(steps))


@elementwise
def _bounding_sequences(
    x_0: Array, least: Array, most: Array, alpha: Array, *, steps: int
) -> Bounds:
    return Bounds(*(sequence(x_0, beta, alpha, steps) for beta in (least, most)))


@checked(t=array(low=0), x_0=array(above=0), least=array(low=0), most=array(low=0), alpha=SHARE)
def rate_bounds(
    t: ArrayLike, x_0: ArrayLike, least: ArrayLike, most: ArrayLike, alpha: ArrayLike
) -> Bounds:
    r"""Bounds on a sequence with any β_t in [a, b].

    .. math:: \sqrt{a/\alpha} + (1-2\alpha)^t (x_0 - \sqrt{a/\alpha}) \le x_t \le
              \sqrt{b/\alpha} + (1-\alpha)^t (x_0 - \sqrt{b/\alpha})

    Corollary 2 of `periodic`. The lower one is for x_0 > √(a/α), else 0 is returned; the upper one
    is for x_0 > √(b/α), else ∞ is returned. It holds while x_t >= √(αb)/(1 − α): always, if `attracts`.

    Args:
        t: steps; least, most: a <= b; x_0, alpha: as in `sequence`. All broadcast.

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.rate_bounds(100, 30.0, 1.0, 4.0, alpha=0.01)
    >>> round(float(low), 2), round(float(high), 2)
    (12.65, 23.66)
    """
    check_interval(least, most, BETWEEN)
    return _rate_bounds(t, x_0, least, most, alpha)


@elementwise
def _rate_bounds(t: Array, x_0: Array, least: Array, most: Array, alpha: Array) -> Bounds:
    bottom, top = jnp.sqrt(least / alpha), jnp.sqrt(most / alpha)
    lower = bottom + (1 - 2 * alpha) ** t * (x_0 - bottom)
    upper = top + (1 - alpha) ** t * (x_0 - top)
    return Bounds(jnp.where(x_0 > bottom, lower, 0.0), jnp.where(x_0 > top, upper, jnp.inf))


@checked(least=array(low=0), most=array(low=0), alpha=SHARE)
def attracts(least: ArrayLike, most: ArrayLike, alpha: ArrayLike) -> Array:
    r"""Whether α√b/(1 − α) <= √a, the condition of Proposition 5: no term in the interval hops out.

    >>> from ntkdecay import scale_invariant
    >>> [bool(scale_invariant.attracts(1.0, most, alpha=0.01)) for most in (4.0, 1e5)]
    [True, False]
    """
    return _attracts(least, most, alpha)


@elementwise
def _attracts(least: Array, most: Array, alpha: Array) -> Array:
    return _hop_threshold(alpha) * jnp.sqrt(most) <= jnp.sqrt(least)


@checked(least=array(low=0), most=array(low=0), alpha=SHARE)
def attracting_interval(least: ArrayLike, most: ArrayLike, alpha: ArrayLike) -> Bounds:
    r"""Where every sequence with β_t in [a, b] ends.

    .. math:: \sqrt{a/\alpha} \le x_t \le \sqrt{b/\alpha}, \qquad t \gg 1

    Proposition 5 of `periodic`, for α√b/(1 − α) <= √a.

    Raises:
        ValueError: if that condition fails, or for numbers outside their ranges.

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.attracting_interval(1.0, 4.0, alpha=0.01)
    >>> float(low), float(high)
    (10.0, 20.0)
    """
    check_interval(least, most, BETWEEN)
    holds = attracts(least, most, alpha)
    if not is_traced(holds) and not np.all(np.asarray(holds)):
        raise ValueError(
            "`least`, `most` and `alpha` break α√b/(1 − α) <= √a: a sequence near √(a/α) can hop over "
            "√(b/α), and Proposition 5 says nothing; narrow the interval or lower α."
        )
    return Bounds(stationary_point(least, alpha), stationary_point(most, alpha))
