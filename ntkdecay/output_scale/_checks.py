"""What this package asks of α and its like."""

from typing import Any

import jax.core
import numpy as np
from jax import Array

Scalar = Array | float  # traced or not


def check_positive(name: str, value: Any, meaning: str) -> None:
    """A sentence for a number that is not positive and finite; a traced one passes."""
    if isinstance(value, jax.core.Tracer):
        return
    number = np.asarray(value)
    if not np.all((number > 0) & np.isfinite(number)):
        raise ValueError(f"`{name}` is {value}; it must be positive and finite: {meaning}.")


def check_alpha(alpha: Any) -> None:
    check_positive("alpha", alpha, "it multiplies the output, and 1/α² the loss")
