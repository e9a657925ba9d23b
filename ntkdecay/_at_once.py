"""What is known before a program runs, computed where it is asked for: under jit, too."""

import contextlib
from contextlib import AbstractContextManager

import jax
from jax import device_put

from ntkdecay._checks import is_traced


def at_once() -> AbstractContextManager[None]:
    """In it numbers that are not traced are computed, not written into the program that is being traced.

    Where none is traced, `jax.ensure_compile_time_eval` would make a program of every constant of the functions
    that are compiled in it.
    """
    return jax.ensure_compile_time_eval() if tracing() else contextlib.nullcontext()


def tracing() -> bool:
    """Whether a program is being traced."""
    return is_traced(device_put(0.0))
