"""What a value in a network's program can be, beside a known constant (a NumPy array)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

Tag = Any  # of an axis: "batch", "channel", the number of a spatial axis, or None for one of size 1


@dataclass(frozen=True, eq=False)
class Parameter:
    """scale · leaf, reshaped; along an axis that is not `own` it repeats itself."""

    leaf: int
    shape: tuple[int, ...]
    own: tuple[bool, ...]
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Signal:
    """A layer's output: node number `node`, whose channels are alike and independent.

    `parts` are what it is a sum of: the last random weights of each term, or the node itself where
    it is no random linear map. Terms without a common part, at most one of them without random
    weights, have no covariance.
    """

    node: int
    tags: tuple[Tag, ...]
    shape: tuple[int, ...]
    gaussian: bool
    parts: frozenset


@dataclass(frozen=True, eq=False)
class Expression:
    """An operation on expressions and constants; without an operation, the argument itself."""

    equation: Any = None
    inputs: tuple[Any, ...] = ()

    def __call__(self, x: Array, *, scalar: bool) -> Array:
        """Its value at x; if `scalar`, of one entry alone, or of many as if each were alone."""
        return _evaluate(self, x, scalar, {})


@dataclass(frozen=True, eq=False)
class Local:
    """A function of one signal, entry by entry, or with statistics of a sample's channels."""

    base: Signal
    expression: Expression
    tags: tuple[Tag, ...]
    shape: tuple[int, ...]
    pointwise: bool
    gains: tuple[Parameter, ...] = ()


@dataclass(frozen=True, eq=False)
class Data:
    """A function of the inputs without parameters, computed as it stands."""

    expression: Expression
    shape: tuple[int, ...]


_MOVES = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p")


def uniform(value: Any) -> bool:
    """Whether a constant is one number, repeated."""
    value = np.asarray(value)
    return value.size > 0 and bool((value == value.flat[0]).all())


def _evaluate(expression: Any, x: Array, scalar: bool, known: dict) -> Any:
    if not isinstance(expression, Expression):
        value = np.asarray(expression)
        value = value.flat[0] if scalar else value
        real = np.issubdtype(value.dtype, np.floating)
        return jnp.asarray(value, x.dtype if real else None)
    if expression.equation is None:
        return x
    if id(expression) not in known:
        inputs = [_evaluate(e, x, scalar, known) for e in expression.inputs]
        known[id(expression)] = _apply(expression.equation, inputs, x.dtype, scalar)
    return known[id(expression)]


def _apply(equation: Any, inputs: list[Array], dtype: Any, scalar: bool) -> Array:
    name = equation.primitive.name
    if name == "convert_element_type":
        to = equation.params["new_dtype"]
        return inputs[0].astype(dtype if jnp.issubdtype(to, jnp.floating) else to)
    if scalar:
        if name in _MOVES:
            return inputs[0]
        shape = jnp.broadcast_shapes(*(one.shape for one in inputs))
        inputs = [jnp.broadcast_to(one, shape) for one in inputs]
    return equation.primitive.bind(*inputs, **equation.params)
