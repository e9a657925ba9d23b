"""Formulas of numbers that broadcast as NumPy's do, each compiled whole."""

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay._agree import common_shape
from ntkdecay._given import given

_R = TypeVar("_R")


def elementwise(formula: Callable[..., _R]) -> Callable[..., _R]:
    """`formula` as one program. Its positional arguments reach it in one shape; keyword-only ones are part of it.

    Raises:
        ValueError: if the shapes do not broadcast, by the names of the formula's arguments.
    """
    parameters = inspect.signature(formula).parameters.values()
    static = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]

    @functools.partial(jax.jit, static_argnames=static, inline=True)
    def program(*numbers, **options) -> _R:
        return formula(*jnp.broadcast_arrays(*numbers), **options)

    @functools.wraps(formula)
    def together(*values, **options) -> _R:
        numbers = [given(value) for value in values]
        common_shape(**dict(zip(names, map(np.shape, numbers), strict=True)))
        return program(*numbers, **options)

    return together
