"""What a compiled program is given: by NumPy where JAX does not have it, so that nothing is compiled on the way to it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._checks import is_traced


def given(value: Any) -> Any:
    """A number or an array as it is, lists as an array."""
    if isinstance(value, (Array, np.ndarray)) or np.isscalar(value):
        return value
    return jnp.asarray(value) if is_traced(value) else np.asarray(value)


def as_array(value: Any, dtype: Any) -> Any:
    """The value as an array of this dtype."""
    if isinstance(value, Array):
        return value if value.dtype == dtype else value.astype(dtype)
    if is_traced(value):  # a list of traced numbers
        return jnp.asarray(value, dtype)
    return np.asarray(value, dtype)
