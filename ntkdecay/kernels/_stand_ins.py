"""Numbers to try a network on: a structure does not depend on values, but zeros would hide it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ntkdecay._program import Program


def stand_ins(programs: tuple[Program, ...], tree: Any) -> tuple[tuple[Program, ...], Any] | None:
    """Programs and arrays that can be run now, near those given.

    Every number in tree is moved a little, and those that are zero or traced are drawn. What a
    program has captured stays as it is unless traced; None if that is not floating, and so in a
    range that only the network knows.
    """
    captured = [array for program in programs for array in program.captured]
    if any(isinstance(a, Tracer) and not jnp.issubdtype(a.dtype, jnp.floating) for a in captured):
        return None
    drawn = (
        Program(
            program.text,
            tuple(_moved(-1, a) if isinstance(a, Tracer) else a for a in program.captured),
        )
        for program in programs
    )
    leaves, treedef = jax.tree.flatten(tree)
    return tuple(drawn), treedef.unflatten([_moved(i, x) for i, x in enumerate(leaves)])


def chosen(x: Array, count: int) -> Any:
    """As many samples of x, from the first to the last; numbers of their shape if x is traced."""
    if isinstance(x, Tracer):
        return numbers(0, (count, *x.shape[1:]), x.dtype)
    return np.asarray(x)[np.linspace(0, len(x) - 1, count).astype(int)]


def numbers(seed: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uniform numbers of variance one."""
    return np.random.default_rng(seed).uniform(-(3**0.5), 3**0.5, shape).astype(dtype)


def _moved(i: int, x: Any) -> np.ndarray:
    drawn = numbers(i + 1, x.shape, x.dtype)
    if isinstance(x, Tracer):
        return drawn
    x = np.asarray(x)
    return np.where(x == 0, drawn, x * (1 + drawn / 8)).astype(x.dtype)
