r"""Hyperparameters that give the same functions: weight decay as a schedule, scale as a rate.

.. math:: \nabla L(cw) = \nabla L(w)/c

for a scale-invariant loss (Lemma 3.1 of `intrinsic_lr`), so a learning rate and the scale of the
weights can stand for each other. Each function maps the hyperparameters of a run to those of
another with the same directions w/‖w‖ at every step, exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape
from ntkdecay._checks import Scalar, array, checked, number, tree
from ntkdecay._elementwise import elementwise
from ntkdecay._given import given
from ntkdecay.scale_invariant._checks import TURNS, check_product, check_rates, plain


class Rescaled(NamedTuple):
    """Initial parameters and hyperparameters of an equivalent run."""

    params: Any
    learning_rate: Scalar
    l2: Scalar


class RescaledAdamW(NamedTuple):
    """The same for `optax.adamw`, by the names of its arguments."""

    params: Any
    learning_rate: Scalar
    weight_decay: Scalar
    eps: Scalar


SCALE = number(above=0, why="it multiplies the initial weights")


@checked(learning_rate=number(above=0), l2=number(low=0))
def exponential_schedule(learning_rate: Scalar, l2: Scalar) -> optax.Schedule:
    r"""The schedule that does without weight decay what η and λ do with it.

    .. math:: \tilde\eta_t = \eta\,(1 - \eta\lambda)^{-2t-1}

    Appendix B of `intrinsic_lr` before Lemma B.4 (its exponent, −2t, is right from another initial
    norm). SGD with it visits w_t/(1 − ηλ)^t, if w_t are the weights with decay. In continuous time
    it is η e^{2ηλt}.

    Args:
        learning_rate: η; l2: λ, with ηλ < 1.

    Returns:
        A schedule for optax. The weights grow like (1 − ηλ)^{−t}: float64 ends at ηλt of about 350.

    >>> from ntkdecay import scale_invariant
    >>> schedule = scale_invariant.exponential_schedule(0.1, 0.5)
    >>> [round(float(schedule(step)), 4) for step in (0, 1)]
    [0.1053, 0.1166]
    """
    check_rates(learning_rate, l2)
    keep = 1 - learning_rate * l2

    @checked(count=array(low=0))
    def schedule(count: ArrayLike) -> Any:
        return learning_rate * keep ** (-2.0 * plain(count) - 1.0)

    return schedule


@checked(learning_rate=array(above=0), l2=array(low=0))
def schedule_without_decay(learning_rate: ArrayLike, l2: ArrayLike) -> Array:
    r"""The same for schedules η_t, λ_t.

    .. math:: \tilde\eta_t = \frac{\eta_t}{P_t P_{t+1}}, \qquad
              P_t = \prod_{s<t} (1 - \eta_s\lambda_s)

    Args:
        learning_rate: η_t for each step, shape (steps,).
        l2: λ_t, likewise or one number.

    Returns:
        η̃_t, shape (steps,).

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.schedule_without_decay(np.array([0.1, 0.1]), np.zeros(2)).tolist()
    [0.1, 0.1]
    """
    check_rates(learning_rate, l2)
    learning_rate, l2 = given(learning_rate), given(l2)
    shape = common_shape(learning_rate=np.shape(learning_rate), l2=np.shape(l2))
    if len(shape) != 1:
        raise ValueError(
            f"`learning_rate` and `l2` have shape {shape}; one of them must have one "
            "value for each step: for constants take `exponential_schedule`."
        )
    return _schedule_without_decay(learning_rate, l2)


@elementwise
def _schedule_without_decay(learning_rate: Array, l2: Array) -> Array:
    kept = jnp.cumprod(1 - learning_rate * l2)
    return learning_rate / (kept * jnp.concatenate([jnp.ones(1, kept.dtype), kept[:-1]]))


@checked(params=tree(), learning_rate=number(above=0), l2=number(low=0), scale=SCALE)
def rescaled(params: Any, learning_rate: Scalar, l2: Scalar, scale: Scalar) -> Rescaled:
    r"""SGD from c times the weights with the same functions at every step.

    .. math:: (w_0, \eta, \lambda) \to (c\,w_0,\ c^2\eta,\ \lambda/c^2)

    Proposition 4 of `periodic`; with momentum too, whose buffer starts at zero (C.1 of
    `intrinsic_lr`).

    Args:
        params: w_0, any pytree of arrays.
        learning_rate: η; l2: λ; scale: c > 0.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> scaled = scale_invariant.rescaled(jnp.ones(1), 0.1, 0.4, scale=2.0)
    >>> float(scaled.learning_rate), float(scaled.l2)
    (0.4, 0.1)
    """
    check_rates(learning_rate, l2)
    moved = jax.tree.map(lambda w: scale * w, params)
    return Rescaled(moved, scale**2 * learning_rate, l2 / scale**2)


@checked(
    params=tree(),
    learning_rate=number(above=0),
    weight_decay=number(low=0),
    scale=SCALE,
    eps=number(low=0),
)
def rescaled_adamw(
    params: Any, learning_rate: Scalar, weight_decay: Scalar, scale: Scalar, eps: Scalar = 0.0
) -> RescaledAdamW:
    r"""AdamW from c times the weights with the same functions at every step.

    .. math:: (w_0, \alpha, \lambda, \varepsilon) \to (c\,w_0,\ c\,\alpha,\ \lambda/c,\ \varepsilon/c)

    Theorem C.2 of `intrinsic_lr`, for `optax.adamw`: w ← w − α(m̂/(√v̂ + ε) + λw). The intrinsic
    learning rate αλ is that of both. The theorem has ε = 0; gradients are c times smaller, so an ε
    that is c times smaller keeps it exact. (The paper's λ is αλ here, over the schedule multiplier.)

    Args:
        params: w_0, any pytree of arrays.
        learning_rate: α; weight_decay: λ, decoupled; scale: c > 0; eps: ε >= 0, outside the root.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> start = scale_invariant.rescaled_adamw(jnp.ones(2), learning_rate=0.1, weight_decay=0.5, scale=2.0)
    >>> start.params.tolist(), float(start.learning_rate), float(start.weight_decay)
    ([2.0, 2.0], 0.2, 0.25)
    """
    check_product(1.0, TURNS, learning_rate=learning_rate, weight_decay=weight_decay)
    moved = jax.tree.map(lambda w: scale * w, params)
    return RescaledAdamW(moved, scale * learning_rate, weight_decay / scale, eps / scale)
