"""Sentences for numbers out of their range; traced ones pass."""

from collections.abc import Callable
from typing import Any

import jax.core
import numpy as np
from jax import Array

Scalar = Array | float  # traced or not


def known(*values: Any) -> bool:
    """Whether these are numbers now, and not traced."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def check(name: str, value: Any, allowed: Callable[[np.ndarray], Any], sentence: str) -> None:
    """A sentence for a number, or an array of them, outside its range."""
    if known(value) and not np.all(allowed(np.asarray(value))):
        raise ValueError(f"`{name}` is {value}; it must be {sentence}.")


def positive(value: np.ndarray) -> np.ndarray:
    return (value > 0) & np.isfinite(value)


def check_positive(name: str, value: Any, meaning: str) -> None:
    check(name, value, positive, f"positive and finite: {meaning}")
