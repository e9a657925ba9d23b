"""λ that changes with time, in pieces: the closed form holds in each and composes exactly."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import Rule, array, is_traced, number, shown
from ntkdecay._refuse import refuse
from ntkdecay.predict._checks import L2, as_own


class PiecewiseConstant(NamedTuple):
    """λ(t) = values[i] for boundaries[i−1] <= t < boundaries[i], in the units of the predictor's t.

    values: (pieces,), each >= 0. boundaries: (pieces − 1,), ascending and > 0.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> l2 = predict.PiecewiseConstant([0.1, 0.01], [50.0])  # 0.1 until t = 50
    >>> predict_fn = predict.gradient_descent_mse(np.eye(2), np.ones((2, 1)), l2=l2, degree=2)
    >>> predict_fn(100.0, 0.0).shape
    (2, 1)

    It is a function of t too, as optax's schedules are, and stands where those do:

    >>> float(l2(60))
    0.01
    """

    values: ArrayLike
    boundaries: ArrayLike

    def __call__(self, t: ArrayLike) -> Array:
        """Its value at t, of the shape of t."""
        edges = jnp.asarray(self.boundaries, float)
        return jnp.asarray(self.values, float)[jnp.searchsorted(edges, t, side="right")]


class rate(Rule):
    """A number >= 0 or `PiecewiseConstant`; with `steps` also a function of the step; with `layers` a mapping to them."""

    _boundaries = array(above=0, ndim=1, empty=True, why="times at which it changes")

    def __init__(self, why: str, *, steps: bool = False, layers: bool = False) -> None:
        self.one, self.steps, self.layers = number(low=0, why=why), steps, layers
        self.refuses = self.one.refuses

    @property
    def asks(self) -> str:
        return f"{self.one.asks}; or `PiecewiseConstant`"

    def __call__(self, name: str, value: Any) -> None:
        if self.layers and isinstance(value, Mapping) and value:
            for layer, one in value.items():
                rate(self.one.why, steps=self.steps)(f"{name}[{layer!r}]", one)
        elif isinstance(value, PiecewiseConstant):
            self._pieces(name, value)
        elif callable(value) and not is_traced(value):
            if not self.steps:
                raise TypeError(
                    f"`{name}` is {shown(value)}; here it is a number or `PiecewiseConstant`: `sgd` takes functions of "
                    "the step, as optax's schedules."
                )
        else:
            self.one(name, value)

    def _pieces(self, name: str, value: PiecewiseConstant) -> None:
        array(low=0, ndim=1, why=self.one.why)(f"{name}.values", value.values)
        self._boundaries(f"{name}.boundaries", value.boundaries)
        if np.size(value.boundaries) != np.size(value.values) - 1:
            raise ValueError(
                f"`{name}` has {np.size(value.values)} values and {np.size(value.boundaries)} boundaries; pieces need "
                "one boundary less than values."
            )


def penalty() -> Rule:
    """λ."""
    return rate(L2.why)


class constant(Rule):
    """What another rule asks, which does not change with time; `instead` says what is of use where it does."""

    def __init__(self, rule: Rule, instead: str) -> None:
        self.rule, self.instead, self.refuses = rule, instead, rule.refuses

    @property
    def asks(self) -> str:
        return self.rule.asks

    def __call__(self, name: str, value: Any) -> None:
        if isinstance(value, PiecewiseConstant) or (callable(value) and not is_traced(value)):
            raise TypeError(
                f"`{name}` is {shown(value)}; here it does not change with time: {self.instead}."
            )
        self.rule(name, value)


LEARNING_RATE = constant(
    number(low=0, why="it turns steps into gradient-flow time"),
    "give `t` as the integral of η over the steps, or take `sgd`, whose steps follow a schedule",
)


def own(value: Any, dtype: Any, name: str) -> Any:
    """A number or `PiecewiseConstant` as arrays; a function stays what it is."""
    if isinstance(value, PiecewiseConstant):
        edges = as_own(value.boundaries, dtype)
        ascending = jnp if is_traced(edges) else np
        falling = (ascending.diff(edges, prepend=ascending.zeros(1, dtype)) <= 0).any()
        edges = refuse(edges, falling, f"The boundaries of `{name}` must be ascending and > 0.")
        return PiecewiseConstant(_positive(as_own(value.values, dtype), name), edges)
    return (
        value if callable(value) and not is_traced(value) else _positive(as_own(value, dtype), name)
    )


def _positive(value: Any, name: str) -> Any:
    """Of a traced number it is known only when the program runs."""
    if not is_traced(value):
        return value
    return refuse(value, ~(value >= 0).all(), f"`{name}` must be >= 0.")


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
    return jnp.where(t < start, 0.0, jnp.where(t >= end, end, t) - start)  # NaN of NaN


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
    found: Any = own(l2, dtype, "l2")
    never: Any = np.zeros(0, dtype)
    return Schedule(*found) if isinstance(l2, PiecewiseConstant) else Schedule(found, never)
