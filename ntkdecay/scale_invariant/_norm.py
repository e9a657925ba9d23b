r"""The squared norm of scale-invariant weights under gradient descent, and how far a step turns them.

.. math:: \rho_{t+1}^2 = (1-\eta\lambda)^2 \rho_t^2 + \eta^2 \tilde g_t^2 / \rho_t^2, \qquad
          \cos(w_t, w_{t+1}) = \Bigl(1 + \frac{\eta^2 \tilde g_t^2}{(1-\eta\lambda)^2\rho_t^4}\Bigr)^{-1/2}

(3) and (8) of `periodic` (Lobacheva et al. 2021): ρ = ‖w‖, and g̃ = ρ‖∇L(w)‖ is the norm of the gradient
at w/ρ, the effective gradient. With ℓ <= g̃ <= L, ρ² is a sequence of A.4 with α = 2ηλ − (ηλ)²,
a = η²ℓ², b = η²L². The paper leaves (ηλ)² and δ² out; so do these functions, unless `exact`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape
from ntkdecay._checks import (
    Scalar,
    array,
    checked,
    flag,
    number,
)
from ntkdecay._elementwise import elementwise
from ntkdecay._given import given
from ntkdecay.scale_invariant._checks import (
    NORM2,
    check_interval,
    check_product,
    check_rates,
)
from ntkdecay.scale_invariant._sequences import Bounds, sequence

DELTA = array(above=0, below=1, why="it is 1 − cos of a step")
LEAST_MOST = "they are ℓ <= g̃ <= L"


@checked(
    norm2_0=NORM2,
    effective_gradient_norm=array(low=0),
    learning_rate=number(above=0),
    l2=number(low=0),
)
def norm2_path(
    norm2_0: ArrayLike, effective_gradient_norm: ArrayLike, learning_rate: Scalar, l2: Scalar
) -> Array:
    r"""ρ² at each step, from the effective gradients.

    .. math:: \rho_{t+1}^2 = (1-\eta\lambda)^2 \rho_t^2 + \eta^2 \tilde g_t^2 / \rho_t^2

    (3) of `periodic`, exact for gradient descent on any scale-invariant loss.

    Args:
        norm2_0: ρ_0² > 0, of any shape S.
        effective_gradient_norm: g̃_t, shape (steps, …), … broadcasting with S.
        learning_rate: η; l2: λ.

    Returns:
        ρ_0², ρ_1², …, shape (steps + 1, …).

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.norm2_path(1.0, np.ones(2), 0.1, 0.0).round(4).tolist()
    [1.0, 1.01, 1.0199]
    """
    check_rates(learning_rate, l2)
    norm2_0, slope = given(norm2_0), given(effective_gradient_norm)
    _start_shape(norm2_0, effective_gradient_norm=slope)
    return _norm2_path(norm2_0, slope, learning_rate, l2)


@jax.jit
def _norm2_path(norm2_0: Array, slope: Array, learning_rate: Array, l2: Array) -> Array:
    growth = (learning_rate * slope) ** 2
    return sequence(norm2_0, growth, _share(learning_rate, l2, exact=True))


@checked(
    norm2_0=NORM2,
    gradient_norm=array(low=0),
    learning_rate=number(above=0),
    l2=number(low=0),
)
def norm2_from_gradients(
    norm2_0: ArrayLike, gradient_norm: ArrayLike, learning_rate: Scalar, l2: Scalar
) -> Array:
    r"""ρ² at each step, from the gradients themselves: a running average of their squares.

    .. math:: \rho_t^2 = (1-\eta\lambda)^{2t}\rho_0^2
              + \eta^2 \sum_{s<t} (1-\eta\lambda)^{2(t-s-1)} g_s^2

    (15) of `periodic`. It needs no lower bound on the effective gradient: for large t,
    ρ² = C ḡ², with ḡ² their average and C = η²/(1 − (1 − ηλ)²), about η/(2λ) (the paper has it inverted).

    Args:
        norm2_0, learning_rate, l2: as in `norm2_path`.
        gradient_norm: g_t = ‖∇L(w_t)‖, shape (steps, …).

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.norm2_from_gradients(1.0, np.ones(2), 0.1, 0.0).round(4).tolist()
    [1.0, 1.01, 1.02]
    """
    check_rates(learning_rate, l2)
    norm2_0, slope = given(norm2_0), given(gradient_norm)
    shape = _start_shape(norm2_0, gradient_norm=slope)
    return _running_average(norm2_0, slope, learning_rate, l2, shape)


@functools.partial(jax.jit, static_argnums=4)
def _running_average(
    norm2_0: Array, slope: Array, learning_rate: Array, l2: Array, shape: tuple[int, ...]
) -> Array:
    growth = (learning_rate * slope) ** 2
    start = jnp.broadcast_to(jnp.asarray(norm2_0, growth.dtype), shape)
    kept = jnp.asarray((1 - learning_rate * l2) ** 2, growth.dtype)

    def advance(norm2: Array, added: Array) -> tuple[Array, Array]:
        after = kept * norm2 + jnp.broadcast_to(added, norm2.shape)
        return after, after

    return jnp.concatenate([start[None], jax.lax.scan(advance, start, growth)[1]])


@checked(
    norm2=NORM2,
    effective_gradient_norm=array(low=0),
    learning_rate=array(above=0),
    l2=array(low=0),
)
def cosine_distance(
    norm2: ArrayLike, effective_gradient_norm: ArrayLike, learning_rate: ArrayLike, l2: ArrayLike
) -> Array:
    r"""How far a step turns the weights.

    .. math:: 1 - \cos(w_t, w_{t+1}), \qquad \cos(w_t, w_{t+1}) =
              \Bigl(1 + \frac{\eta^2 \tilde g_t^2}{(1-\eta\lambda)^2\rho_t^4}\Bigr)^{-1/2}

    (8) of `periodic`, to full precision where the step is small. A step is a δ-jump if it is above δ.

    Args:
        norm2: ρ_t²; effective_gradient_norm: g̃_t; learning_rate: η; l2: λ. All broadcast.

    >>> from ntkdecay import scale_invariant
    >>> round(float(scale_invariant.cosine_distance(1.0, 1.0, 1.0, 0.0)), 4)
    0.2929
    """
    check_rates(learning_rate, l2)
    return _cosine_distance(norm2, effective_gradient_norm, learning_rate, l2)


@elementwise
def _cosine_distance(
    norm2: Array, effective_gradient_norm: Array, learning_rate: Array, l2: Array
) -> Array:
    tangent = learning_rate * effective_gradient_norm / ((1 - learning_rate * l2) * norm2)
    return -jnp.expm1(-0.5 * jnp.log1p(tangent**2))


@checked(
    effective_gradient_norm=array(low=0),
    delta=DELTA,
    learning_rate=array(above=0),
    l2=array(low=0),
    exact=flag(),
)
def jump_threshold(
    effective_gradient_norm: ArrayLike,
    delta: ArrayLike,
    learning_rate: ArrayLike,
    l2: ArrayLike = 0.0,
    *,
    exact: bool = False,
) -> Array:
    r"""The ρ² below which a step is a δ-jump.

    .. math:: \rho^2 < \frac{\eta \tilde g}{\sqrt{2\delta}} \quad\text{or, exactly,}\quad
              \rho^2 < \frac{\eta \tilde g}{(1-\eta\lambda)\sqrt{(1-\delta)^{-2} - 1}}

    (9) of `periodic` and, with L and ℓ in place of g̃, Proposition 1: ρ² < ηL/√(2δ) is necessary (4a)
    and ρ² < ηℓ/√(2δ) is sufficient (4b) for a δ-jump, for small δ and ηλ.

    Args:
        effective_gradient_norm: g̃, L or ℓ; delta: δ in (0, 1); learning_rate: η; l2: λ. All broadcast.
        exact: leave nothing out; else l2 plays no part.

    >>> from ntkdecay import scale_invariant
    >>> round(float(scale_invariant.jump_threshold(1.0, 0.1, 0.1, 0.01)), 4)
    0.2236
    """
    check_rates(learning_rate, l2)
    return _jump_threshold(effective_gradient_norm, delta, learning_rate, l2, exact=bool(exact))


@elementwise
def _jump_threshold(
    effective_gradient_norm: Array, delta: Array, learning_rate: Array, l2: Array, *, exact: bool
) -> Array:
    if exact:
        tangent = jnp.sqrt(jnp.expm1(-2 * jnp.log1p(-delta)))
        return learning_rate * effective_gradient_norm / ((1 - learning_rate * l2) * tangent)
    return learning_rate * effective_gradient_norm / jnp.sqrt(2 * delta)


@checked(
    norm2_0=NORM2,
    least=array(low=0),
    most=array(above=0),
    delta=DELTA,
    learning_rate=array(above=0),
    l2=array(above=0, why="without decay the norm never falls"),
    exact=flag(),
)
def jump_times(
    norm2_0: ArrayLike,
    least: ArrayLike,
    most: ArrayLike,
    delta: ArrayLike,
    learning_rate: ArrayLike,
    l2: ArrayLike,
    *,
    exact: bool = False,
) -> Bounds:
    r"""The earliest and the latest time of the first δ-jump, for effective gradients in [ℓ, L].

    .. math:: t_{\min} = \frac{\ln \frac{\eta L/\sqrt{2\delta} - \kappa\ell}{\rho_0^2 - \kappa\ell}}
              {\ln(1 - 4\eta\lambda)}, \quad
              t_{\max} = \frac{\ln \frac{\eta\ell/\sqrt{2\delta} - \kappa L}{\rho_0^2 - \kappa L}}
              {\ln(1 - 2\eta\lambda)}, \quad \kappa = \sqrt{\eta/(2\lambda)}

    (5), (6), Proposition 2 of `periodic`. Where ρ_0² is below a threshold of Proposition 1 already, the
    time is 0; where ρ² need not reach it, δ >= ηλ L²/ℓ² or δ >= ηλ ℓ²/L², it is ∞. So ℓ = 0 leaves
    t_max = ∞.

    Args:
        norm2_0: ρ_0²; least: ℓ >= 0; most: L; delta: δ; learning_rate: η; l2: λ > 0, 2ηλ < 1/2. All
            broadcast.
        exact: with 2ηλ − (ηλ)² for 2ηλ, and the exact thresholds: strict bounds on the t of ρ_t.

    Returns:
        (t_min, t_max) in steps, not rounded: the first t whose step from w_t is a δ-jump is at least
        t_min, and at most the next whole number from t_max on.

    >>> from ntkdecay import scale_invariant
    >>> earliest, latest = scale_invariant.jump_times(10.0, 1.0, 1.2, delta=1e-3, learning_rate=0.1, l2=0.1)
    >>> round(float(earliest)), round(float(latest))
    (38, 93)
    """
    check_interval(least, most, LEAST_MOST)
    # α < 1/2: 2ηλ of it, or 2ηλ − (ηλ)²
    check_product(
        1 - 0.5**0.5 if exact else 0.25,
        "a step that takes half of ρ² or more, 2ηλ of it, is none of A.4",
        learning_rate=learning_rate,
        l2=l2,
    )
    return _jump_times(norm2_0, least, most, delta, learning_rate, l2, exact=bool(exact))


@elementwise
def _jump_times(
    norm2_0: Array,
    least: Array,
    most: Array,
    delta: Array,
    learning_rate: Array,
    l2: Array,
    *,
    exact: bool,
) -> Bounds:
    share = _share(learning_rate, l2, exact)
    low, high = (
        _jump_threshold(slope, delta, learning_rate, l2, exact=exact) for slope in (least, most)
    )
    kappa = learning_rate / jnp.sqrt(share)

    def crossing(threshold: Array, limit: Array, rate: Array) -> Array:
        """When limit + (1 − rate)^t (ρ_0² − limit) falls to the threshold."""
        reached = (norm2_0 > threshold) & (threshold > limit)
        ratio = jnp.where(reached, threshold - limit, 1.0) / jnp.where(
            reached, norm2_0 - limit, 1.0
        )
        late = jnp.where(reached, jnp.log(ratio) / jnp.log1p(-rate), jnp.inf)
        return jnp.where(norm2_0 <= threshold, 0.0, late)

    return Bounds(crossing(high, kappa * least, 2 * share), crossing(low, kappa * most, share))


@checked(
    least=array(low=0),
    most=array(above=0),
    learning_rate=array(above=0),
    l2=array(above=0, why="without decay there is no equilibrium"),
    exact=flag(),
)
def equilibrium_norm2(
    least: ArrayLike,
    most: ArrayLike,
    learning_rate: ArrayLike,
    l2: ArrayLike,
    *,
    exact: bool = False,
) -> Bounds:
    r"""The interval in which ρ² ends, for effective gradients in [ℓ, L].

    .. math:: \kappa\ell \le \rho^2 \le \kappa L, \qquad \kappa = \sqrt{\eta/(2\lambda)}, \qquad
              2\eta\lambda L \le \ell

    Proposition 3 of `periodic`. Where that condition fails, so that ρ² can hop over κL from below
    2ηλ κL/(1 − 2ηλ) (A.7 misses the factor κ), the upper end is that of the highest hop,
    (1 − ηλ)²κℓ + η²L²/(κℓ); for ℓ = 0 it is ∞: no bound is known then, but see `norm2_from_gradients`.

    Args:
        least: ℓ >= 0; most: L; learning_rate: η; l2: λ > 0. All broadcast.
        exact: with 2ηλ − (ηλ)² for 2ηλ: strict, once ρ² is inside.

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.equilibrium_norm2(1.0, 2.0, learning_rate=0.1, l2=0.05)
    >>> round(float(low), 3), round(float(high), 3)
    (1.0, 2.0)
    """
    check_interval(least, most, LEAST_MOST)
    check_rates(learning_rate, l2)
    return _equilibrium_norm2(least, most, learning_rate, l2, exact=bool(exact))


@elementwise
def _equilibrium_norm2(
    least: Array, most: Array, learning_rate: Array, l2: Array, *, exact: bool
) -> Bounds:
    share = _share(learning_rate, l2, exact)
    bottom, top = (learning_rate / jnp.sqrt(share) * slope for slope in (least, most))
    positive = jnp.where(bottom > 0, bottom, 1.0)
    hop = jnp.where(
        bottom > 0, (1 - share) * positive + (learning_rate * most) ** 2 / positive, jnp.inf
    )
    return Bounds(bottom, jnp.maximum(top, hop))


@checked(
    least=array(low=0),
    most=array(above=0),
    learning_rate=array(above=0),
    l2=array(above=0, why="without decay there is no equilibrium"),
    exact=flag(),
)
def equilibrium_learning_rate(
    least: ArrayLike,
    most: ArrayLike,
    learning_rate: ArrayLike,
    l2: ArrayLike,
    *,
    exact: bool = False,
) -> Bounds:
    r"""The interval in which the effective learning rate η/ρ² ends.

    .. math:: \sqrt{2\eta\lambda}/L \le \eta/\rho^2 \le \sqrt{2\eta\lambda}/\ell

    Remark 3 of `periodic`. Arguments as in `equilibrium_norm2`; only the product ηλ counts.

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.equilibrium_learning_rate(1.0, 2.0, learning_rate=0.1, l2=0.05)
    >>> round(float(low), 3), round(float(high), 3)
    (0.05, 0.1)
    """
    check_interval(least, most, LEAST_MOST)
    check_rates(learning_rate, l2)
    return _equilibrium_learning_rate(least, most, learning_rate, l2, exact=bool(exact))


@elementwise
def _equilibrium_learning_rate(
    least: Array, most: Array, learning_rate: Array, l2: Array, *, exact: bool
) -> Bounds:
    norm2 = _equilibrium_norm2(least, most, learning_rate, l2, exact=exact)
    return Bounds(learning_rate / norm2.upper, learning_rate / norm2.lower)


def _share(learning_rate: Any, l2: Any, exact: bool) -> Any:
    """α: the share of ρ² that a step of weight decay takes away."""
    product = learning_rate * l2
    return product * (2 - product) if exact else 2 * product


def _start_shape(norm2_0: Any, **gradients: Array) -> tuple[int, ...]:
    """The shape of ρ_t² at one step; axis 0 of the gradients is the step."""
    ((name, slope),) = gradients.items()
    if not np.ndim(slope):
        raise ValueError(f"`{name}` is one number; it must be one for each step, on axis 0.")
    return common_shape(norm2_0=np.shape(norm2_0), **{f"{name}[0]": np.shape(slope)[1:]})
