"""What a predictor on MSE is asked, by neural-tangents' conventions, apart from how it answers."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import is_traced
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    as_array,
    as_degree,
    as_own,
    check_request,
    refuse_shape,
    traced_non_negative,
)
from ntkdecay.predict._schedule import Pieces, PiecewiseConstant, Schedule, schedule

Reduction = Literal["mean", "sum"]
Origin = Literal["origin", "init"]
STATIC: Any = {"static": True}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Task:
    """The arguments of a predictor, checked: its numbers are arguments of every program, the rest makes the program."""

    y: Array  # labels, as they were given
    learning_rate: Array
    decay: Schedule
    trace_axes: tuple[int, ...] = field(metadata=STATIC)
    outputs: int = field(metadata=STATIC)  # what the loss divides every kernel by: 1 for the sum
    degree: float = field(metadata=STATIC)
    still: bool = field(metadata=STATIC)  # L2 from the start: a linear model of f − f_0 for y − f_0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.y.shape

    def flat(self, f: Any, shape: tuple[int, ...]) -> Array:
        """Outputs, or one number for all of them, as (m, traced outputs)."""
        return _axes.flatten(jnp.broadcast_to(f, shape), self.trace_axes)

    def restore(self, f: Array, t: Array, shape: tuple[int, ...]) -> Array:
        """(times, m, traced outputs) as outputs of `shape`, the axes of t before them."""
        return _axes.restore(f, jnp.shape(t), shape, self.trace_axes)

    def time(self, t: Array) -> Array:
        """Gradient-flow time, (times, 1)."""
        return (self.learning_rate * jnp.asarray(t)).reshape(-1, 1)

    def pieces(self) -> Pieces:
        return self.decay.pieces(self.learning_rate)


def describe(
    y_train: Array,
    l2: ArrayLike | PiecewiseConstant,
    degree: Any,
    reduction: str,
    learning_rate: ArrayLike,
    l2_from: str,
    trace_axes: int | tuple[int, ...],
) -> Task:
    """The task, its arguments as `gradient_descent_mse` documents them and its rules have found them."""
    rate = traced_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    still = l2_from == "init"
    return Task(
        as_own(y_train, y_train.dtype),
        as_own(rate, y_train.dtype),
        schedule(l2, y_train.dtype),
        _axes.canonical(trace_axes, y_train.shape),
        math.prod(y_train.shape) if reduction == "mean" else 1,
        1.0 if still else as_degree(degree),
        still,
    )


class PredictFn:
    """f at any time: `predict_fn(t, fx_train_0, fx_test_0, k_test_train)`, as in neural_tangents.predict.

    Args:
        t: time, any shape, >= 0 or inf; None is inf.
        fx_train_0: the function on the training points at t = 0, a number or of the labels' shape; None: f on
            the training points is not asked.
        fx_test_0: the same on test points; None: f there is not asked.
        k_test_train: the kernel between test and training points, needed with `fx_test_0`.

    Returns:
        f on the training points, on the test points, or the pair of both; the axes of t lead.
    """

    task: Task

    @overload
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike = 0.0,
        fx_test_0: None = None,
        k_test_train: Any = None,
    ) -> Array: ...
    @overload
    def __call__(
        self, t: ArrayLike | None, fx_train_0: None, fx_test_0: ArrayLike, k_test_train: Any
    ) -> Array: ...
    @overload
    def __call__(
        self, t: ArrayLike | None, fx_train_0: ArrayLike, fx_test_0: ArrayLike, k_test_train: Any
    ) -> tuple[Array, Array]: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any: ...
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any:
        raise NotImplementedError

    def __repr__(self) -> str:
        told = f"degree={self.task.degree:g}"
        if not is_traced(self.task.decay):
            values = self.task.decay.values
            told += f", l2={values if values.ndim else f'{float(values):g}'}"
        return (
            f"<predict_fn(t=None, fx_train_0=0.0, fx_test_0=None, k_test_train=None) of {type(self).of} for labels of "
            f"shape {self.task.shape}, {told}>"
        )

    of = "a predictor"

    def _asked(
        self, t: Any, fx_train_0: Any, fx_test_0: Any, k_test_train: Any
    ) -> tuple[Array, Any, Any]:
        """t, fx_train_0 and fx_test_0 as programs take them, with what they ask of each other checked."""
        check_request(fx_train_0, fx_test_0, k_test_train)
        dtype = self.task.y.dtype
        t = jnp.inf if t is None else t
        t = traced_non_negative(t, "t", "gradient-flow time starts at initialization")
        starts = (None if f is None else as_array(f, dtype) for f in (fx_train_0, fx_test_0))
        train, test = starts
        if train is not None:
            refuse_shape(train, self.task.shape, "fx_train_0")
        return as_array(t, dtype), train, test
