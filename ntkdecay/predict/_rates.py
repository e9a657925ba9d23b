"""λ and η of `gradient_descent` and `sgd` that change: pieces of time, and functions of the step."""

from collections.abc import Callable, Hashable
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntkdecay.predict._schedule import PiecewiseConstant, own


def of_layers(l2: Any, layers: tuple[Hashable, ...] | None, dtype: Any) -> tuple[Any, ...]:
    """λ of each layer."""
    return tuple(
        own(one, dtype, "l2") for one in ([l2] if layers is None else [l2[name] for name in layers])
    )


def split(rates: Any) -> tuple[tuple[Callable | None, ...], tuple[Any, ...]]:
    """Functions, which a program is made for, and the rest, which it is given."""
    given = [callable(one) and not isinstance(one, PiecewiseConstant) for one in rates]
    return (
        tuple(one if is_one else None for one, is_one in zip(rates, given, strict=True)),
        tuple(None if is_one else one for one, is_one in zip(rates, given, strict=True)),
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
