"""What this package asks of its numbers."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._checks import array, check, check_positive, is_traced

NORM2 = array(above=0, why="a scale-invariant function is not defined at weights that are zero")
TURNS = "at ηλ >= 1 a step of weight decay takes all of the weights or turns them; lower the learning rate or l2"


def check_rates(learning_rate: Any, l2: Any) -> None:
    """η > 0, λ >= 0 and ηλ < 1: with more, a step does not shrink the weights but turns them."""
    check_positive("learning_rate", learning_rate, "it is η of a step")
    check("l2", l2, lambda v: v >= 0, "at least 0: it is λ of the loss's λ/2 ‖w‖²")
    if not is_traced(learning_rate, l2):
        check_intrinsic(np.asarray(learning_rate) * np.asarray(l2))


def check_intrinsic(intrinsic_lr: Any) -> None:
    check(
        "intrinsic_lr",
        intrinsic_lr,
        lambda v: (v >= 0) & (v < 1),
        "from 0 to below 1: at ηλ >= 1 a step of weight decay takes all of the weights or turns them; "
        "lower the learning rate or l2",
    )


def together(*values: Any) -> list[Array]:
    """The values as arrays of one shape, broadcast as NumPy does."""
    return jnp.broadcast_arrays(*(jnp.asarray(value) for value in values))
