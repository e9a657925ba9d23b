"""SGD under L2 on any loss: the exact recursion of the state (a, w), step by step."""

from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict._checks import (
    check_ascending,
    check_l2,
    check_momentum,
    check_non_negative,
    refuse,
)
from ntkdecay.predict._request import Origin
from ntkdecay.predict._state import Loss, Point, PredictFnState, predictor, wide_network


def sgd(
    loss: Loss,
    k_train_train: ArrayLike | Mapping[Hashable, ArrayLike],
    y_train: ArrayLike,
    *,
    l2: ArrayLike | optax.Schedule | Mapping[Hashable, ArrayLike],
    degree: float | None = None,
    learning_rate: ArrayLike | optax.Schedule,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    batches: ArrayLike | None = None,
    l2_from: Origin = "origin",
    trace_axes: int | tuple[int, ...] = (-1,),
) -> PredictFnState:
    r"""Discrete steps of SGD on an infinitely wide network with L2: full batch or minibatches, any loss.

    .. math:: v_a \leftarrow \beta v_a + \lambda a, \quad
              v_w \leftarrow \beta v_w + \lambda w + a^{k-1} \partial L_B/\partial f, \quad
              (a, w) \leftarrow (a, w) - \eta (v_a, v_w)

    and f = a^k f_0 + a^{k−1} Θ_0 w on training and test points. The network is its linearization around
    the shrunken initialization (Theorem 1 of Lewkowycz & Gur-Ari, 2020, in discrete time): full batch
    without momentum this is f ← α^k f − η α^{k−1} a^{2(k−1)} Θ_0 ∂L/∂f with α = 1 − ηλ. The optimizer is
    `optax.sgd` on the gradient of L + λ/2 ‖θ‖² (coupled L2).

    Args:
        loss: `loss(fx, y)`, a scalar; it is given the samples of the minibatch alone.
        k_train_train, y_train, degree, l2_from, trace_axes: as in `gradient_descent`.
        l2: λ >= 0, an optax schedule of the step, or a mapping from layers to either.
        learning_rate: η, or an optax schedule of the step.
        momentum, nesterov: as in `optax.sgd`.
        batches: (steps, batch size) indices of samples, the minibatch of each step; it starts anew when it
            has been gone through. None: all samples at every step.

    Returns:
        `predict_fn(t, fx_train_or_state_0=0., fx_test_0=None, k_test_train=None)` as `gradient_descent`'s, with
        t in steps: ascending whole numbers, of any shape.

    Raises:
        ValueError: as `gradient_descent`, or if `batches` or `t` is not what is said above.
    """
    numbers = jax.tree.map(lambda one: 0.0 if callable(one) else one, l2, is_leaf=callable)
    check_l2(numbers)
    momentum = check_momentum(momentum)
    if not callable(learning_rate):
        learning_rate = check_non_negative(
            learning_rate, "learning_rate", "it is the length of a step"
        )
    net = wide_network(k_train_train, y_train, numbers, degree, l2_from, trace_axes)
    dtype, samples = net.y.dtype, net.y.shape[0]
    beta = jnp.asarray(0.0 if momentum is None else momentum, dtype)
    order = None if batches is None else _check_batches(batches, samples)
    each = net.kernels.shape[1] // samples  # rows of the kernel that belong to a sample

    def at(schedule: Any, step: Array) -> Any:
        return jax.tree.map(
            lambda one: one(step) if callable(one) else one, schedule, is_leaf=callable
        )

    def slope(step: Array, point: Point, f0: Array) -> Array:
        """∂L_B/∂f on all training points, from the outputs of the minibatch alone."""
        if order is None:
            return net.slope(loss, net.outputs(point, f0, net.kernels), net.y)
        samples = order[step % len(order)]
        rows = (samples[:, None] * each + jnp.arange(each)[None]).reshape(-1)
        fx = net.outputs(point, f0[rows], net.kernels[:, rows])
        return jnp.zeros_like(f0).at[rows].add(net.slope(loss, fx, net.y[samples]))

    def update(step: Array, state: tuple[Point, Point], f0: Array) -> tuple[Point, Point]:
        point, velocity = state
        eta = jnp.asarray(at(learning_rate, step), dtype)
        gradient = net.gradient(point, slope(step, point, f0), net.rates_of_l2(at(l2, step)))
        velocity = jax.tree.map(lambda g, v: g + beta * v, gradient, velocity)
        change = velocity
        if nesterov:
            change = jax.tree.map(lambda g, v: g + beta * v, gradient, velocity)
        return jax.tree.map(lambda p, c: p - eta * c, point, change), velocity

    def advance(
        steps: Array, point: Point, velocity: Point, f0: Array, first: Any
    ) -> tuple[Point, Point]:
        def until(state, bounds):
            first, last = bounds
            state = jax.lax.fori_loop(first, last, lambda i, state: update(i, state, f0), state)
            return state, state

        bounds = (first + jnp.concatenate([jnp.zeros(1, steps.dtype), steps[:-1]]), first + steps)
        return jax.lax.scan(until, (point, velocity), bounds)[1]

    return predictor(net, _whole_steps, jax.jit(advance))


def _whole_steps(t: Any) -> Array:
    """t as ascending whole numbers of steps."""
    if t is None:
        raise ValueError("`t` is None, but `sgd` has no limit to jump to; give numbers of steps.")
    t = jnp.asarray(check_non_negative(t, "t", "it counts steps from the state that is given"))
    t = refuse(t, (t != jnp.floor(t)).any(), "`t` must be whole numbers: `sgd` counts steps.")
    return check_ascending(t.astype(int))


def _check_batches(batches: Any, samples: int) -> Array:
    """The minibatches, (steps, batch size)."""
    order = np.asarray(batches)
    if order.ndim != 2 or not order.size or not np.issubdtype(order.dtype, np.integer):
        raise ValueError(
            f"`batches` has shape {order.shape} and dtype {order.dtype}; it must be (steps, batch size) indices."
        )
    if order.min() < 0 or order.max() >= samples:
        raise ValueError(
            f"`batches` has indices from {order.min()} to {order.max()}, but there are {samples} samples."
        )
    return jnp.asarray(order)
