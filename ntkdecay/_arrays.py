"""Numbers of the caller's as arrays of JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def own(x: Any) -> Array:
    """`jnp.asarray(x)`, without the program that it compiles for each shape of a NumPy array.

    `jax.device_put` may read the caller's memory for as long as the array lives: it is given a copy.
    """
    if isinstance(x, (bool, int, float, complex)) and not isinstance(x, np.generic):
        return jax.device_put(x)
    if isinstance(x, (np.ndarray, np.generic)) and not isinstance(x, np.ma.MaskedArray):
        return jax.device_put(np.array(x))
    return jnp.asarray(x)
