"""λ that changes with time, in pieces: the closed form holds in each and composes exactly."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import Rule, array, is_traced, shown
from ntkdecay.predict._checks import L2, as_own, refuse, traced_non_negative


class PiecewiseConstant(NamedTuple):
    """λ(t) = values[i] for boundaries[i−1] <= t < boundaries[i], in the units of the predictor's t.

    values: (pieces,), each >= 0. boundaries: (pieces − 1,), ascending and > 0.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> l2 = predict.PiecewiseConstant([0.1, 0.01], [50.0])  # 0.1 until t = 50
    >>> predict_fn = predict.gradient_descent_mse(np.eye(2), np.ones((2, 1)), l2=l2, degree=2)
    >>> predict_fn(100.0, 0.0).shape
    (2, 1)
    """

    values: ArrayLike
    boundaries: ArrayLike


class penalty(Rule):
    """λ: one number >= 0, or `PiecewiseConstant`."""

    refuses = L2.refuses
    _values = array(low=0, ndim=1, why="it multiplies ‖θ‖²/2 in the loss")
    _boundaries = array(above=0, ndim=1, empty=True, why="times at which λ changes")

    @property
    def asks(self) -> str:
        return f"{L2.asks}; or `PiecewiseConstant`"

    def __call__(self, name: str, value: Any) -> None:
        if callable(value):
            raise TypeError(
                f"`{name}` is {shown(value)}; a schedule must be `PiecewiseConstant` here: `sgd` takes functions of the step."
            )
        if not isinstance(value, PiecewiseConstant):
            return L2(name, value)
        self._values(f"{name}.values", value.values)
        self._boundaries(f"{name}.boundaries", value.boundaries)
        pieces, edges = np.size(value.values), np.size(value.boundaries)
        if edges != pieces - 1:
            raise ValueError(
                f"`{name}` has {pieces} values and {edges} boundaries; pieces need one boundary less than values."
            )


class Pieces(NamedTuple):
    """The pieces of λ(t): each its λ, its start and its end in gradient-flow time."""

    l2: Array
    start: Array
    end: Array

    def kernel_scale(self, degree: float) -> Array:
        """e^{−2(k−1)∫λ} at the start of each piece, which multiplies Θ_0."""
        worn = self.l2[:-1] * (self.end[:-1] - self.start[:-1])  # the last piece has no end
        worn = jnp.concatenate([jnp.zeros_like(self.l2[:1]), worn])
        return jnp.exp(-2 * (degree - 1) * jnp.cumsum(worn))


def elapsed(t: Array, start: Array, end: Array) -> Array:
    """How much of the piece from `start` to `end` has passed at `t`; its derivatives are those from the right."""
    return jnp.where(t >= start, jnp.where(t < end, t, end) - start, 0.0)


class Schedule(NamedTuple):
    """λ(t) as it was given, in the units of the predictor's t."""

    values: Array  # (pieces,) or ()
    boundaries: Array  # (pieces − 1,)

    def pieces(self, learning_rate: Array) -> Pieces:
        """Its pieces in gradient-flow time."""
        l2 = self.values.reshape(-1)
        start = jnp.concatenate([jnp.zeros_like(l2[:1]), learning_rate * self.boundaries])
        return Pieces(l2, start, jnp.append(start[1:], jnp.inf))


def schedule(l2: Any, dtype: Any) -> Schedule:
    """λ of the caller, a number or `PiecewiseConstant`, on which a rule has looked."""
    values, boundaries = l2 if isinstance(l2, PiecewiseConstant) else (l2, np.zeros(0))
    values = as_own(traced_non_negative(values, "l2", "it multiplies ‖θ‖²/2 in the loss"), dtype)
    boundaries = as_own(boundaries, dtype)
    np_ = jnp if is_traced(boundaries) else np
    falling = (np_.diff(boundaries, prepend=np_.zeros(1, dtype)) <= 0).any()
    boundaries = refuse(boundaries, falling, "The boundaries of `l2` must be ascending and > 0.")
    return Schedule(values, boundaries)
