"""SGD under L2 on any loss: the exact recursion of the state (a, w), step by step."""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import (
    array,
    checked,
    choice,
    either,
    flag,
    function,
    integer,
    is_traced,
    number,
    optional,
    sequence,
    shown,
)
from ntkdecay._refuse import refuse
from ntkdecay.predict._checks import as_own, check_ascending, kernel, network_degree
from ntkdecay.predict._predictor import PredictFnState
from ntkdecay.predict._rates import at_step, of_layers, split
from ntkdecay.predict._request import Origin
from ntkdecay.predict._schedule import PiecewiseConstant, own, rate
from ntkdecay.predict._state import (
    Advance,
    Loss,
    Point,
    Wide,
    by_layer,
    program,
    wide_network,
)


@checked(
    loss=function("of (fx, y)"),
    k_train_train=by_layer(kernel()),
    y_train=array(),
    l2=rate("it multiplies ‖θ‖²/2 in the loss", steps=True, layers=True),
    degree=optional(by_layer(network_degree())),
    learning_rate=rate("it is the length of a step", steps=True),
    momentum=optional(number(low=0, below=1, why="the fraction of the last step that is kept")),
    nesterov=flag(),
    batches=optional(array(integers=True, ndim=2, why="(steps, batch size) indices of samples")),
    l2_from=choice("origin", "init"),
    trace_axes=either(integer(low=None), sequence(integer(low=None), empty=True)),
)
def sgd(
    loss: Loss,
    k_train_train: ArrayLike | Mapping[Hashable, ArrayLike],
    y_train: ArrayLike,
    learning_rate: ArrayLike | PiecewiseConstant | optax.Schedule,
    momentum: ArrayLike | None = None,
    *,
    l2: ArrayLike | PiecewiseConstant | optax.Schedule | Mapping[Hashable, Any],
    degree: Any = None,
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
        learning_rate: η, `PiecewiseConstant` in steps, or an optax schedule of the step.
        momentum, nesterov: as in `optax.sgd`.
        l2: λ >= 0, or a schedule likewise, or a mapping from blocks to these.
        batches: (steps, batch size) indices of samples, the minibatch of each step; it starts anew when it
            has been gone through. None: all samples at every step.

    Returns:
        `predict_fn(t, fx_train_or_state_0=0., fx_test_0=None, k_test_train=None)` as `gradient_descent`'s, with
        t in steps: ascending whole numbers, of any shape.

    Raises:
        ValueError: as `gradient_descent`, or if `batches` or `t` is not what is said above.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> def loss(fx, y):
    ...     return 0.5 * ((fx - y) ** 2).sum()
    ...
    >>> predict_fn = predict.sgd(loss, np.eye(2), np.ones((2, 1)), 0.5, l2=0.01, degree=2)
    >>> np.round(predict_fn([1, 2, 3])[:, 0, 0], 3).tolist()
    [0.498, 0.74, 0.859]
    """
    shapes = dict.fromkeys(l2, 0.0) if isinstance(l2, Mapping) else 0.0
    net = wide_network(k_train_train, y_train, shapes, degree, l2_from, trace_axes)
    dtype, samples = net.y.dtype, net.y.shape[0]
    rates = (own(learning_rate, dtype, "learning_rate"), *of_layers(l2, net.layers, dtype))
    functions, numbers = split(rates)
    order = None if batches is None else _check_batches(batches, samples)
    beta = as_own(0.0 if momentum is None else momentum, dtype)
    run = program(_steps, loss, functions, bool(nesterov))
    settings = Settings(numbers, beta, order)
    told = {"learning_rate": learning_rate, "momentum": momentum, "l2": l2, "l2_from": l2_from}
    return PredictFnState("sgd", net, settings, loss, whole_steps, run, ENDS, told)


DIVERGED, REFUSED = 1, 2
ENDS = {
    REFUSED: "`t` or `batches` is not what `sgd` takes.",
    DIVERGED: "`learning_rate` is above what is stable, so that f is not finite at the last `t`, or `loss` is not finite "
    "itself; on MSE steps of all samples are stable below `predict.max_learning_rate`.",
}


class Settings(NamedTuple):
    """The numbers of `sgd`."""

    rates: tuple[
        Any, ...
    ]  # η, and λ of each layer: a number, `PiecewiseConstant`, or None where it is a function
    momentum: Array
    batches: Array | None


def _steps(loss: Loss, functions: tuple[Any, ...], nesterov: bool) -> Advance:
    """How the program of `sgd` advances the state."""

    def advance(
        net: Wide,
        settings: Settings,
        times: Array,
        point: Point,
        velocity: Point,
        f0: Array,
        age: Array,
    ) -> tuple[Point, Point, Array, Array]:
        order, beta = settings.batches, settings.momentum
        each = f0.shape[0] // net.y.shape[0]  # rows of the kernel that belong to a sample

        def slope(step: Array, point: Point) -> Array:
            """∂L_B/∂f on all training points, from the outputs of the minibatch alone."""
            if order is None:
                return net.slope(loss, net.outputs(point, f0, net.kernels), net.y)
            samples = order[step % len(order)]
            rows = (samples[:, None] * each + jnp.arange(each)[None]).reshape(-1)
            fx = net.outputs(point, f0[rows], tuple(k[rows] for k in net.kernels))
            return jnp.zeros_like(f0).at[rows].add(net.slope(loss, fx, net.y[samples]))

        def update(step: Array, state: tuple[Point, Point]) -> tuple[Point, Point]:
            point, velocity = state
            eta, *l2 = (
                at_step(function, number, step, f0.dtype)
                for function, number in zip(functions, settings.rates, strict=True)
            )
            gradient = net.gradient(point, slope(step, point), jnp.stack(l2))
            velocity = jax.tree.map(lambda g, v: g + beta * v, gradient, velocity)
            change = velocity
            if nesterov:
                change = jax.tree.map(lambda g, v: g + beta * v, gradient, velocity)
            return jax.tree.map(lambda p, c: p - eta * c, point, change), velocity

        def until(state: tuple[Point, Point], bounds: tuple[Array, Array]):
            state = jax.lax.fori_loop(*bounds, update, state)
            return state, state

        ages = age + times
        bounds = (jnp.concatenate([age[None], ages[:-1]]), ages)
        points, velocities = jax.lax.scan(until, (point, velocity), bounds)[1]
        last = jax.tree.map(lambda leaf: leaf[-1], points)
        finite = jnp.isfinite(net.outputs(last, f0, net.kernels)).all()
        refused = (times < 0).any() | (False if order is None else (order < 0).any())
        return points, velocities, ages, jnp.where(refused, REFUSED, jnp.where(finite, 0, DIVERGED))

    return advance


def whole_steps(t: Any, age: Any) -> tuple[Any, Any]:
    """t as ascending whole numbers of steps, and how many were done before."""
    if t is None:
        raise ValueError("`t` is None, but `sgd` has no limit to jump to; give numbers of steps.")
    array(low=0, inf=True, why="it counts steps from the state that is given")("t", t)
    counted = jax.dtypes.canonicalize_dtype(int)
    most = np.iinfo(np.int32).max
    if is_traced(t, age):
        t, age = jnp.asarray(t), jnp.asarray(age)
        broken, outside = (t != jnp.floor(t)).any(), (t < 0).any() | (t + age > most).any()
        t = refuse(t.astype(counted), broken, "`t` must be whole numbers: `sgd` counts steps.")
        t = refuse(t, outside, f"`t` must be from 0 to {most} steps.")
        return check_ascending(t), age.astype(counted)
    steps, age = np.asarray(t), np.asarray(age)
    if (steps.max() > most) or (age + steps.max().astype(float) > most):
        raise ValueError(
            f"`t` is {shown(t)}, up to step {float(steps.max()) + float(age):g}; `sgd` takes one step after the other, at most "
            f"{most} in all, and has no limit to jump to."
        )
    if (steps != np.floor(steps)).any():
        raise ValueError(f"`t` is {shown(t)}; it must be whole numbers: `sgd` counts steps.")
    return check_ascending(steps.astype(counted)), age.astype(counted)  # pyright: ignore[reportArgumentType]


def _check_batches(batches: Any, samples: int) -> Any:
    """The minibatches, (steps, batch size)."""
    if is_traced(batches):
        return refuse(
            batches,
            ((batches < 0) | (batches >= samples)).any(),
            f"`batches` must have indices from 0 to {samples - 1}.",
        )
    order = np.array(batches)
    if order.min() < 0 or order.max() >= samples:
        raise ValueError(
            f"`batches` has indices from {order.min()} to {order.max()}, but there are {samples} samples."
        )
    return order.astype(jax.dtypes.canonicalize_dtype(int))
