"""λ and η of `gradient_descent` and `sgd` that change: pieces of time, and functions of the step."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._checks import Rule, array, is_traced, number, shown
from ntkdecay.predict._checks import as_own, refuse
from ntkdecay.predict._schedule import PiecewiseConstant


class rate(Rule):
    """A number >= 0 or `PiecewiseConstant`; with `steps` also a function of the step; with `layers` a mapping to them."""

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
        array(low=0, ndim=1, empty=True)(f"{name}.boundaries", value.boundaries)
        if np.size(value.boundaries) != np.size(value.values) - 1:
            raise ValueError(
                f"`{name}` has {np.size(value.values)} values and {np.size(value.boundaries)} boundaries; pieces need "
                "one boundary less than values."
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


def of_layers(l2: Any, layers: tuple[Hashable, ...] | None, dtype: Any) -> tuple[Any, ...]:
    """λ of each layer."""
    return tuple(
        own(one, dtype, "l2") for one in ([l2] if layers is None else [l2[name] for name in layers])
    )


def split(rates: Any) -> tuple[tuple[Callable | None, ...], tuple[Any, ...]]:
    """Functions, which a program is made for, and the rest, which it is given."""
    return (
        tuple(one if callable(one) else None for one in rates),
        tuple(None if callable(one) else one for one in rates),
    )


def boundaries(rates: tuple[Any, ...]) -> list[Array]:
    """Where any of them changes."""
    return [jnp.asarray(one.boundaries) for one in rates if isinstance(one, PiecewiseConstant)]


def before(one: Any, t: Array) -> Array:
    """The value that holds until t."""
    if not isinstance(one, PiecewiseConstant):
        return jnp.broadcast_to(one, t.shape)
    return jnp.asarray(one.values)[(t[:, None] > jnp.asarray(one.boundaries)[None]).sum(axis=1)]


def at_step(function: Callable | None, one: Any, step: Array, dtype: Any) -> Array:
    """The value of a step."""
    if function is not None:
        return jnp.asarray(function(step), dtype)
    if isinstance(one, PiecewiseConstant):
        return jnp.asarray(one.values)[(step >= jnp.asarray(one.boundaries)).sum()]
    return jnp.asarray(one, dtype)
