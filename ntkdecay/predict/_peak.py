"""When L2 begins to undo what was learned: the minimum of the training loss."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict._checks import (
    as_float,
    check_degree,
    check_l2,
    check_non_negative,
    check_shape,
)
from ntkdecay.predict._modes import decompose
from ntkdecay.predict._request import Reduction
from ntkdecay.predict._response import on_training_set


def peak_time(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    fx_train_0: ArrayLike = 0.0,
    *,
    l2: ArrayLike,
    degree: float,
    reduction: Reduction = "mean",
    learning_rate: ArrayLike = 1.0,
    trace_axes: int | tuple[int, ...] = (-1,),
) -> Array:
    r"""The time at which the training loss is at its minimum under L2.

    .. math:: t_\mathrm{peak} = \arg\min_{t \ge 0} \tfrac12 \sum_a (f_a(t) - y_a)^2

    with f_a of `mode` and the loss without its L2 term. Section 4 of Lewkowycz & Gur-Ari (2020) has
    it proportional to 1/λ. So it is where modes of γ near λ carry the loss; a single mode with γ >> λ
    is at its peak earlier, γt ≈ log(γ²/(2k(k−1)λ²)), when it has caught up with the decaying kernel.
    Found on a logarithmic grid, then by bisection of dL/dt to the last digit.

    Args:
        k_train_train, y_train, l2, degree, reduction, learning_rate, trace_axes: as in
            `gradient_descent_mse`. A single mode is the kernel [[γ]] with the label [[y]].
        fx_train_0: the function on the training points at t = 0.

    Returns:
        t, a scalar in the units of `gradient_descent_mse`'s; inf where the loss falls for ever (at λ = 0,
        at k = 0, and at k = 1 from f_0 = 0). Differentiable, and vmap runs over `l2`.

    Raises:
        ValueError: as `gradient_descent_mse`.
    """
    degree = check_degree(degree)
    l2 = check_l2(l2)
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    k_train_train, y_train = as_float(k_train_train, y_train)
    modes = decompose(k_train_train, y_train.shape, trace_axes, reduction)
    y = modes.project(y_train)
    start = modes.project(
        check_shape(jnp.asarray(fx_train_0, y.dtype), y_train.shape, "fx_train_0")
    )
    products = tuple((a * b).sum(-1) for a, b in ((start, start), (start, y), (y, y)))
    return _peak_time(modes.rates, jnp.asarray(l2, y.dtype), *products, degree) / learning_rate


@partial(jax.jit, static_argnums=5)
def _peak_time(rates: Array, l2: Array, ff: Array, fy: Array, yy: Array, degree: float) -> Array:
    """t_peak from the modes' rates and, mode by mode, the products of f_0 and y over the outputs."""

    def loss_and_fall(t: Array) -> tuple[Array, Array]:
        """Twice the loss, and −dL/dt = Σ γe^{−ct} r² + kλ r f with r = f − y."""
        kept, learned, unlearned = on_training_set(t[None], rates, l2[None], degree)
        error = kept**2 * ff - 2 * kept * unlearned * fy + unlearned**2 * yy
        overlap = kept**2 * ff + kept * (learned - unlearned) * fy - learned * unlearned * yy
        pull = rates * jnp.exp(-2 * (degree - 1) * l2 * t)
        return error.sum(), (pull * error + degree * l2 * overlap).sum()

    fastest = rates.max() + degree * l2
    slowest = jnp.where(l2 > 0, l2, fastest)
    end = (50 + jnp.log1p(fastest / slowest)) / slowest
    grid = jnp.geomspace(1e-4 / fastest, end, 512)
    losses, _ = jax.lax.map(loss_and_fall, grid, batch_size=32)
    best = jnp.argmin(losses)
    low = jnp.where(best == 0, 0.0, grid[best - 1])
    high = grid[jnp.minimum(best + 1, grid.size - 1)]

    def fall(t: Array) -> Array:
        return loss_and_fall(t)[1]

    def halve(_, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        falling = fall(middle) > 0
        return jnp.where(falling, middle, low), jnp.where(falling, high, middle)

    low, high = jax.lax.fori_loop(0, jnp.finfo(grid.dtype).nmant + 8, halve, (low, high))
    t = jax.lax.stop_gradient((low + high) / 2)
    value, slope = jax.jvp(fall, (t,), (jnp.ones_like(t),))
    # One Newton step, whose only purpose is the derivative of t by the implicit function theorem.
    t = t - (value - jax.lax.stop_gradient(value)) / jax.lax.stop_gradient(slope)
    level = losses[-1] <= losses[best] * (1 + 64 * jnp.finfo(grid.dtype).eps)
    for_ever = (l2 == 0) | level | (degree == 0)
    at_once = fall(jnp.zeros_like(t)) <= 0
    return jnp.where(for_ever, jnp.inf, jnp.where((best == 0) & at_once, 0.0, t))
