"""What a predictor on MSE is asked, by neural-tangents' conventions, apart from how it answers."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    check_degree,
    check_non_negative,
    check_origin,
    check_reduction,
    check_request,
    check_shape,
)
from ntkdecay.predict._schedule import Pieces, PiecewiseConstant, pieces

Reduction = Literal["mean", "sum"]
Origin = Literal["origin", "init"]


class PredictFn(Protocol):
    """`predict_fn(t, fx_train_0, fx_test_0, k_test_train)`, as in neural_tangents.predict."""

    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any: ...


class Task(NamedTuple):
    """The arguments of a predictor, checked."""

    y: Array  # labels, (m, traced outputs)
    shape: tuple[int, ...]  # as they were given
    trace_axes: tuple[int, ...]
    outputs: int  # what the loss divides every kernel by: the number of outputs, or 1 for their sum
    learning_rate: Array
    decay: Pieces
    degree: float
    still: bool  # L2 from the initialization: a linear model of f − f_0 for the labels y − f_0


Solve = Callable[[Array, Array, Any, bool], tuple[Any, Any, Any]]


def describe(
    y_train: Array,
    l2: ArrayLike | PiecewiseConstant,
    degree: float,
    reduction: str,
    learning_rate: ArrayLike,
    l2_from: str,
    trace_axes: int | tuple[int, ...],
) -> Task:
    """The task, its arguments as `gradient_descent_mse` documents them."""
    degree = check_degree(degree)
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    check_origin(l2_from)
    check_reduction(reduction)
    axes = _axes.canonical(trace_axes, y_train.shape)
    rate = jnp.asarray(learning_rate, y_train.dtype)
    still = l2_from == "init"
    return Task(
        _axes.flatten(y_train, axes),
        y_train.shape,
        axes,
        math.prod(y_train.shape) if reduction == "mean" else 1,
        rate,
        pieces(l2, rate, y_train.dtype),
        1.0 if still else degree,
        still,
    )


def predictor(
    task: Task, test_side: Callable[[Any], tuple[Any, tuple[int, ...]]], solve: Solve
) -> PredictFn:
    """The `predict_fn` around a way to solve the task.

    `test_side(k_test_train)` gives what `solve` needs of it and the shape of the outputs on the test set;
    `solve(time, start, test, wants_train)` gives f on the training points (of a `still` task: less `start`),
    (times, m, o), what multiplies f_0 on test points, (times, 1), and the rest of f there; None for what was
    not asked.
    """
    dtype = task.y.dtype

    def predict_fn(
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any:
        check_request(fx_train_0, fx_test_0, k_test_train)
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "gradient-flow time starts at initialization"
        )
        times = jnp.asarray(t, dtype)
        time = (task.learning_rate * times).reshape(-1, 1)
        start = flat(0.0 if fx_train_0 is None else fx_train_0, task.shape, "fx_train_0")
        test, shape = (None, ()) if fx_test_0 is None else test_side(k_test_train)
        start_test = None if fx_test_0 is None else flat(fx_test_0, shape, "fx_test_0")
        fx_train, far, pulled = solve(time, start, test, fx_train_0 is not None)
        if fx_train is not None:
            fx_train = fx_train + start[None] if task.still else fx_train
            fx_train = _axes.restore(fx_train, times.shape, task.shape, task.trace_axes)
        if start_test is None:
            return fx_train
        far = jnp.ones_like(far) if task.still else far
        fx_test = far[..., None] * start_test[None] + pulled
        fx_test = _axes.restore(fx_test, times.shape, shape, task.trace_axes)
        return fx_test if fx_train_0 is None else (fx_train, fx_test)

    def flat(f: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
        return _axes.flatten(check_shape(jnp.asarray(f, dtype), shape, name), task.trace_axes)

    return predict_fn
