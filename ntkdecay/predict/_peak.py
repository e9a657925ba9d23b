"""When L2 begins to undo what was learned: the minimum of the training loss."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked
from ntkdecay.homogeneity import Degree
from ntkdecay.predict._checks import (
    L2,
    REDUCTION,
    TRACE_AXES,
    as_array,
    as_float,
    kernel,
    network_degree,
    refuse_shape,
)
from ntkdecay.predict._modes import Modes, decompose
from ntkdecay.predict._request import Reduction, Task, describe
from ntkdecay.predict._response import on_training_set, velocity
from ntkdecay.predict._schedule import LEARNING_RATE, constant


@checked(
    k_train_train=kernel(),
    y_train=array(),
    fx_train_0=array(),
    l2=constant(
        L2, "with `PiecewiseConstant`, take the least loss of `gradient_descent_mse` at many times"
    ),
    degree=network_degree(),
    reduction=REDUCTION,
    learning_rate=LEARNING_RATE,
    trace_axes=TRACE_AXES,
)
def peak_time(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    fx_train_0: ArrayLike = 0.0,
    *,
    l2: ArrayLike,
    degree: float | Degree,
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

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> round(float(predict.peak_time(np.eye(2), np.ones((2, 1)), l2=0.01, degree=2, reduction="sum")), 3)
    8.048
    """
    k_train_train, y_train = as_float(k_train_train, y_train)
    task = describe(y_train, l2, degree, reduction, learning_rate, "origin", trace_axes)
    start = as_array(fx_train_0, y_train.dtype)
    refuse_shape(start, task.shape, "fx_train_0")
    modes = decompose(k_train_train, task.shape, task.trace_axes, task.outputs)
    return _peak_time_of(task, modes, start)


@jax.jit
def _peak_time_of(task: Task, modes: Modes, start: Array) -> Array:
    f, y = (modes.vectors.T @ task.flat(one, task.shape) for one in (start, task.y))
    products = tuple((a * b).sum(-1) for a, b in ((f, f), (f, y), (y, y)))
    t = _peak_time(modes.rates, task.decay.values, *products, task.degree)
    return jnp.where(jnp.isnan(modes.rates).any(), jnp.nan, t / task.learning_rate)


def _response(t: Array, rates: Array, l2: Array, degree: float) -> tuple[Array, Array, Array]:
    return on_training_set(t[None], rates, l2[None], degree)


def _fall(
    t: Array,
    response: tuple[Array, Array, Array],
    rates: Array,
    l2: Array,
    products: tuple[Array, Array, Array],
    degree: float,
) -> Array:
    """A positive multiple of −dL/dt = −Σ r·ḟ with r = f − y, which does not underflow as r and ḟ do."""
    (kept, learned, unlearned), (ff, fy, yy) = response, products
    unit = jax.lax.stop_gradient(jnp.maximum(kept.max(), jnp.abs(unlearned).max()))
    unit = jnp.maximum(unit, jnp.finfo(unit.dtype).tiny)
    start, lack = kept / unit, unlearned / unit  # r = kept·f_0 − unlearned·y
    left, learns = velocity(t, rates, l2, degree, learned, unlearned)  # ḟ = learns·y − left·f_0
    return (start * left * ff - (start * learns + lack * left) * fy + lack * learns * yy).sum()


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def _peak_time(rates: Array, l2: Array, ff: Array, fy: Array, yy: Array, degree: float) -> Array:
    """t_peak from the modes' rates and, mode by mode, the products of f_0 and y over the outputs."""
    fastest = rates.max() + degree * l2
    fastest = jnp.where(fastest > 0, fastest, 1.0)
    slowest = jnp.where(l2 > 0, l2, fastest)
    end = (50 + jnp.log1p(fastest / slowest)) / slowest
    grid = jnp.append(jnp.zeros_like(end), jnp.geomspace(1e-4 / fastest, end, 512))

    def at(t: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        response = _response(t, rates, l2, degree)
        return _fall(t, response, rates, l2, (ff, fy, yy), degree), response

    # The loss has a minimum between two times of the grid where it ceases to fall, perhaps several.
    fall, responses = jax.lax.map(at, grid, batch_size=32)
    losses = _losses(responses, (ff, fy, yy))
    minimum = (fall[:-1] > 0) & (fall[1:] <= 0)
    lowest = jnp.where(minimum, jnp.minimum(losses[:-1], losses[1:]), jnp.inf)
    best = jnp.argmin(lowest)

    def halve(_, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        falling = at(middle)[0] > 0
        return jnp.where(falling, middle, low), jnp.where(falling, high, middle)

    bracket = (grid[best], grid[best + 1])
    low, high = jax.lax.fori_loop(0, jnp.finfo(grid.dtype).nmant + 8, halve, bracket)
    at_once = (fall[0] <= 0) & (losses[0] <= lowest[best])
    least = jnp.where(at_once, losses[0], lowest[best])
    rounding = 64 * jnp.finfo(grid.dtype).eps * jnp.abs(losses).max()
    for_ever = (l2 == 0) | (losses[-1] <= least + rounding) | (degree == 0)
    return jnp.where(for_ever, jnp.inf, jnp.where(at_once, 0.0, (low + high) / 2))


@_peak_time.defjvp
def _(degree, primals, tangents):
    """By the implicit function theorem: fall(t, …) = 0."""
    t = _peak_time(*primals, degree)
    moves = jnp.isfinite(t) & (t > 0)
    at = jnp.where(moves, t, 1.0)

    def fall(t: Array, rates: Array, l2: Array, *products: Array) -> Array:
        return _fall(t, _response(t, rates, l2, degree), rates, l2, products, degree)  # pyright: ignore

    change = jax.jvp(lambda *arguments: fall(at, *arguments), primals, tangents)[1]
    slope = jax.jvp(lambda t: fall(t, *primals), (at,), (jnp.ones_like(at),))[1]
    return t, jnp.where(moves, -change / jnp.where(moves, slope, 1.0), 0.0)


def _losses(responses: tuple[Array, Array, Array], products: tuple[Array, Array, Array]) -> Array:
    """Twice the loss at the times of `responses`, (times, modes), less its least: to the digits of their difference."""
    kept, learned, unlearned = responses
    ff, fy, yy = (product[None] for product in products)
    error = kept**2 * ff - 2 * kept * unlearned * fy + unlearned**2 * yy
    least = jnp.argmin(error.sum(-1))
    kept_, learned_, unlearned_ = (part[least][None] for part in responses)
    lost = kept - kept_
    # whatever is small keeps its digits: X where little has been learned, 1 − X where much has
    forgot = jnp.where(learned < 0.5, learned_ - learned, unlearned - unlearned_)
    change = lost * (kept + kept_) * ff - 2 * (kept * forgot + unlearned_ * lost) * fy
    return (change + forgot * (unlearned + unlearned_) * yy).sum(-1)
