"""What this package asks of its numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ntkdecay._agree import common_shape
from ntkdecay._checks import array, is_traced

NORM2 = array(above=0, why="a scale-invariant function is not defined at weights that are zero")
TURNS = "at ηλ >= 1 a step of weight decay takes all of the weights or turns them; lower the learning rate or l2"


def plain(value: Any) -> Any:
    """A number as it is, anything longer as an array."""
    return value if np.ndim(value) == 0 else jnp.asarray(value)


def check_rates(learning_rate: Any, l2: Any) -> None:
    """ηλ < 1: with more, a step does not shrink the weights but turns them."""
    check_product(1.0, TURNS, learning_rate=learning_rate, l2=l2)


def check_product(below: float, why: str, **factors: Any) -> None:
    """The product of two named factors is smaller than a bound; they broadcast."""
    if is_traced(*factors.values()):
        return
    one, other = factors.values()
    common_shape(**{name: np.shape(value) for name, value in factors.items()})
    largest = np.max(np.asarray(one) * np.asarray(other))
    if not largest < below:
        names = " × ".join(f"`{name}`" for name in factors)
        raise ValueError(f"{names} is {largest:g}; it must be below {below:g}: {why}.")


def check_interval(least: Any, most: Any, why: str) -> None:
    if is_traced(least, most):
        return
    common_shape(least=np.shape(least), most=np.shape(most))
    if np.any(np.asarray(least) > np.asarray(most)):
        raise ValueError(f"`least` exceeds `most`: {why}.")
