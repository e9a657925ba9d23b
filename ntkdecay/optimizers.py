r"""Optimizers for L2 regularization, as optax transformations, and the rule λ = c/T.

.. math:: \theta \leftarrow \theta - \eta\, (\nabla L(\theta) + \lambda \theta)

L2 is coupled: λθ is part of the gradient, before momentum or any rescaling. AutoL2 (SM E of `l2`:
Lewkowycz & Gur-Ari 2020) lowers λ during training; λ = c/T (Section 3) chooses a constant one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from ntkdecay._agree import alike, common_shape
from ntkdecay._checks import (
    Rule,
    Scalar,
    anything,
    array,
    checked,
    either,
    flag,
    function,
    instance,
    integer,
    is_traced,
    number,
    optional,
    shown,
)
from ntkdecay._pieces import LIKE_PARAMS, piece, state_of

RATE = either(number(low=0), function("of the step"))


@checked(
    learning_rate=RATE,
    l2=RATE,
    momentum=optional(number(low=0)),
    nesterov=flag(),
)
def sgd(
    learning_rate: Scalar | optax.Schedule,
    *,
    l2: Scalar | optax.Schedule = 0.0,
    momentum: Scalar | None = None,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD on L + λ/2 ‖θ‖².

    .. math:: v \leftarrow \beta v + \nabla L + \lambda\theta, \qquad \theta \leftarrow \theta - \eta v

    Without momentum θ ← (1 − ηλ)θ − η∇L: the optimizer of `l2`. Its `update` needs `params`.

    Args:
        learning_rate: η, a number, traced or not, or a schedule of the step.
        l2: λ >= 0, likewise.
        momentum: β; None: no momentum.
        nesterov: as in `optax.sgd`.

    Raises:
        ValueError: if `l2` or `learning_rate` is a negative number; from `update` if `params` is not given.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import optimizers
    >>> optimizer = optimizers.sgd(0.1, l2=0.5)
    >>> theta = jnp.array([2.0])
    >>> update, _ = optimizer.update(jnp.array([1.0]), optimizer.init(theta), theta)
    >>> float(update[0])
    -0.2
    """
    return piece(_sgd, learning_rate=learning_rate, l2=l2, momentum=momentum, nesterov=nesterov)


def _sgd(learning_rate: Any, l2: Any, momentum: Any, nesterov: bool) -> Any:
    return optax.chain(optax.add_decayed_weights(l2), optax.sgd(learning_rate, momentum, nesterov))


class AutoL2State(NamedTuple):
    """Where AutoL2 is. Loss and error stand side by side on the last axis."""

    l2: Array  # λ now
    step: Array  # of the next update
    min_step: Array  # λ does not fall up to and including this step, an integer
    least: Array  # (2,): MINLOSS, MINERROR
    recent: Array  # (patience − 1, 2): the latest measurements, the oldest first


AUTO_L2_STATE = state_of(AutoL2State)
MEASURED = number(nan=True, inf=True)


@checked(
    l2=number(above=0, why="AutoL2 divides it"),
    factor=number(above=1, why="λ is divided by it"),
    refractory=number(low=0, why="in units of 1/λ steps"),
    every=number(low=1, integers=True),
    patience=integer(low=1),
)
def auto_l2(
    l2: Scalar = 0.1,
    *,
    factor: Scalar = 10.0,
    refractory: Scalar = 0.1,
    every: int = 10,
    patience: int = 2,
) -> optax.GradientTransformationExtraArgs:
    r"""AutoL2: add λθ to the gradient, and lower λ when the loss or the error rises.

    .. math:: \lambda \leftarrow \lambda / 10 \quad\text{if}\quad
              L_t, L_{t-k} > \min_{s<t-k} L_s \quad\text{or}\quad
              E_t, E_{t-k} > \min_{s<t-k} E_s

    Algorithm 1 in SM E of `l2`, with MINERROR where it prints ERROR, and with its constants. It goes
    before the optimizer, `optax.chain(auto_l2(), optax.sgd(0.2, 0.9))`, and
    `update(grads, state, params, value=loss, error=error)` takes the measurements at `params`, the
    loss without its L2 term. They count at steps 0, `every`, 2 `every`, …; other steps' are ignored.

    Args:
        l2: λ at the start.
        factor: what λ is divided by.
        refractory: after a fall to λ it stays for `refractory`/λ steps (steps, not step × η).
        every: steps from one measurement to the next: 10 in SM A, 5 in SM E.
        patience: how many measurements in a row must be above the minimum of those before them.

    Returns:
        A transformation whose state is an `AutoL2State`. `error` may be left out: then the loss alone
        decides. Numbers may be traced, so that `jax.vmap` runs over them, all but `patience`.

    Raises:
        ValueError: if a constant is out of range, or `params` is not given to `update`.

    >>> import jax.numpy as jnp, optax
    >>> from ntkdecay import optimizers
    >>> optimizer = optax.chain(optimizers.auto_l2(0.1), optax.sgd(0.5))
    >>> theta = jnp.array([2.0])
    >>> state = optimizer.init(theta)
    >>> update, state = optimizer.update(jnp.zeros(1), state, theta, value=1.0, error=0.5)
    >>> round(float(update[0]), 6)
    -0.1
    """

    @checked(params=LIKE_PARAMS)
    def init(params: Any) -> AutoL2State:
        dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
        return auto_l2_state(l2, patience=patience, dtype=dtype)

    @checked(
        updates=LIKE_PARAMS,
        state=AUTO_L2_STATE,
        params=optional(LIKE_PARAMS),
        value=MEASURED,
        error=MEASURED,
        extra_args=anything(),
    )
    def update(
        updates: Any,
        state: AutoL2State,
        params: Any = None,
        *,
        value: ArrayLike,
        error: ArrayLike = 0.0,
        **extra_args: Any,
    ) -> tuple[Any, AutoL2State]:
        del extra_args
        if params is None:
            raise ValueError(
                "`params` is None, but AutoL2 adds λθ: call update(grads, state, params, …)."
            )
        alike(updates=updates, params=params)
        return _auto_l2(updates, state, params, value, error, factor, refractory, every)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


@jax.jit
def _auto_l2(
    updates: Any,
    state: AutoL2State,
    params: Any,
    value: Any,
    error: Any,
    factor: Any,
    refractory: Any,
    every: Any,
) -> tuple[Any, AutoL2State]:
    measured = _measured(state, value, error, factor, refractory)
    state = jax.tree.map(partial(jnp.where, state.step % every == 0), measured, state)
    updates = jax.tree.map(
        lambda g, p: None if g is None else g + state.l2.astype(g.dtype) * p,
        updates,
        params,
        is_leaf=lambda leaf: leaf is None,
    )
    return updates, state._replace(step=optax.safe_increment(state.step))


class _floating(Rule):
    """A dtype of real numbers."""

    refuses = function().refuses

    @property
    def asks(self) -> str:
        return "a floating dtype"

    def __call__(self, name: str, value: Any) -> None:
        try:
            if jnp.issubdtype(np.dtype(value), jnp.floating):
                return
        except (TypeError, ValueError):
            pass
        raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


@checked(l2=number(above=0), patience=integer(low=1), dtype=optional(_floating()))
def auto_l2_state(
    l2: Scalar = 0.1, *, patience: int = 2, dtype: DTypeLike | None = None
) -> AutoL2State:
    """AutoL2 before its first measurement.

    >>> from ntkdecay import optimizers
    >>> float(optimizers.auto_l2_state(0.1).l2)
    0.1
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    return _start(l2, int(patience), np.dtype(dtype))


@partial(jax.jit, static_argnums=(1, 2))
def _start(l2: Any, patience: int, dtype: np.dtype) -> AutoL2State:
    return AutoL2State(
        l2=jnp.asarray(l2, dtype),
        step=jnp.zeros((), jnp.int32),
        min_step=jnp.zeros((), jnp.int32),
        least=jnp.full(2, jnp.inf, dtype),
        recent=jnp.full((patience - 1, 2), jnp.inf, dtype),
    )


@checked(
    state=AUTO_L2_STATE,
    loss=MEASURED,
    error=MEASURED,
    factor=number(above=1),
    refractory=number(low=0),
)
def auto_l2_rule(
    state: AutoL2State,
    loss: ArrayLike,
    error: ArrayLike = 0.0,
    *,
    factor: Scalar = 10.0,
    refractory: Scalar = 0.1,
) -> AutoL2State:
    """One measurement of AutoL2, at step `state.step`: the rule alone, for any kind of training.

    Args:
        state: from `auto_l2_state` or an earlier measurement.
        loss, error: on the training set, the loss without its L2 term.
        factor, refractory: as in `auto_l2`.

    >>> from ntkdecay import optimizers
    >>> state = optimizers.auto_l2_rule(optimizers.auto_l2_state(0.1), loss=1.0)
    >>> float(state.l2)
    0.1
    """
    return _measured(state, loss, error, factor, refractory)


@jax.jit
def _measured(
    state: AutoL2State, loss: Any, error: Any, factor: Any, refractory: Any
) -> AutoL2State:
    dtype = state.l2.dtype
    now = jnp.stack([jnp.asarray(loss, dtype), jnp.asarray(error, dtype)])
    row = jnp.concatenate([state.recent, now[None]])
    rises = jnp.any(jnp.all(row > state.least[None], axis=0)) & (state.step > state.min_step)
    l2 = jnp.where(rises, state.l2 / factor, state.l2)
    return AutoL2State(
        l2=l2,
        step=state.step,
        min_step=jnp.where(rises, state.step + _rest(refractory / l2, state.step), state.min_step),
        least=jnp.where(rises, state.least, jnp.fmin(state.least, row[0])),
        recent=row[1:],
    )


def _rest(steps: Array, step: Array) -> Array:
    """Whole steps within so many; rounding may have put just below a whole number what is one, 0.1/(0.1/10⁵)."""
    steps = jnp.floor(steps * (1 + 16 * jnp.finfo(steps.dtype).eps))
    whole = jnp.minimum(steps, 2.0**30).astype(jnp.int32)
    return jnp.minimum(whole, jnp.iinfo(jnp.int32).max - step)


class Coefficient(NamedTuple):
    """c of t_* = c/λ: the median over runs, the smallest and the largest."""

    c: float
    low: float
    high: float


@checked(l2=array(above=0), time=array(above=0), learning_rate=array(above=0))
def measure_c(l2: ArrayLike, time: ArrayLike, *, learning_rate: ArrayLike = 1.0) -> Coefficient:
    r"""The coefficient c from short runs with large λ.

    .. math:: c = \lambda\, t_* \qquad (c' = \eta\lambda\, t_*)

    Section 3 of `l2`: t_*, when the test accuracy comes within 0.5 % of its maximum, is inversely
    proportional to λ. c has the unit of `time`, and depends on all else, so on η too. Plain SGD has
    t_* = c'/(ηλ) with the same c' for every η: give `learning_rate` here and to `optimal_l2`.

    Args:
        l2: λ of each run, (runs,) or one number.
        time: t_* of each run, in epochs or in steps; from runs that go on after their peak.
        learning_rate: η of each run, for c'; left out, all runs have the same.

    Raises:
        ValueError: if there is no run, or a number is not positive and finite.

    >>> from ntkdecay import optimizers
    >>> optimizers.measure_c(l2=[0.01, 0.02], time=[100, 60])
    Coefficient(c=1.1, low=1.0, high=1.2)
    """
    runs = (np.asarray(value, float) for value in (l2, time, learning_rate))
    l2, time, learning_rate = runs
    common_shape(l2=l2.shape, time=time.shape, learning_rate=learning_rate.shape)
    c = (learning_rate * l2 * time).ravel()
    return Coefficient(float(np.median(c)), float(c.min()), float(c.max()))


@checked(
    c=either(array(above=0), instance(Coefficient, "a Coefficient")),
    time=array(above=0),
    decays=array(above=0, empty=True),
    learning_rate=array(above=0),
)
def optimal_l2(
    c: Any, time: Any, *, decays: Sequence[float] | np.ndarray = (), learning_rate: Any = 1.0
) -> Any:
    r"""The λ with which accuracy peaks at the end of a budget of training, or when η first falls.

    .. math:: \lambda = c / T, \qquad \lambda = c / T_1 \text{ with a schedule}

    Section 3 of `l2`. It is the smallest λ whose peak still comes in time.

    Args:
        c: from `measure_c`; with its `learning_rate` if one was given there.
        time: T, the budget, in the unit of c (epochs for the paper's c = 0.0066); numbers or arrays.
        decays: times at which the learning rate falls; the first one, T_1, takes the place of T.
        learning_rate: η of the training to come, if c is c'.

    Returns:
        λ, of the broadcast shape of the arguments.

    Raises:
        ValueError: if c, a time or η is not positive.

    >>> from ntkdecay import optimizers
    >>> optimizers.optimal_l2(0.0066, 200)
    3.3e-05
    """
    c = c.c if isinstance(c, Coefficient) else c
    c, time, learning_rate = (
        np.asarray(one) if isinstance(one, (list, tuple)) else one
        for one in (c, time, learning_rate)
    )
    common_shape(c=np.shape(c), time=np.shape(time), learning_rate=np.shape(learning_rate))
    falls = np.asarray(decays, float)
    if falls.size:
        time = (jnp if is_traced(time) else np).minimum(time, falls.min())
    return c / (learning_rate * time)
