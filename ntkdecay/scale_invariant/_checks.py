"""What this package asks of its numbers."""

from typing import Any

import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

Scalar = Array | float  # traced or not


def known(*values: Any) -> bool:
    """Whether these are numbers now, and not traced."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def check(name: str, value: Any, allowed: Any, sentence: str) -> None:
    """A sentence for a number, or an array of them, outside its range; a traced one passes."""
    if known(value) and not np.all(allowed(np.asarray(value))):
        raise ValueError(f"`{name}` is {value}; it must be {sentence}.")


def check_positive(name: str, value: Any, meaning: str) -> None:
    check(name, value, lambda v: (v > 0) & np.isfinite(v), f"positive and finite: {meaning}")


def check_rates(learning_rate: Any, l2: Any) -> None:
    """η > 0, λ >= 0 and ηλ < 1: with more, a step does not shrink the weights but turns them."""
    check_positive("learning_rate", learning_rate, "it is η of a step")
    check("l2", l2, lambda v: v >= 0, "at least 0: it is λ of the loss's λ/2 ‖w‖²")
    if known(learning_rate, l2):
        check_intrinsic(np.asarray(learning_rate) * np.asarray(l2))


def check_intrinsic(intrinsic_lr: Any) -> None:
    check(
        "intrinsic_lr",
        intrinsic_lr,
        lambda v: (v >= 0) & (v < 1),
        "from 0 to below 1: at ηλ >= 1 a step of weight decay takes all of the weights or turns them; "
        "lower the learning rate or l2",
    )


def check_norm2(norm2: Any) -> None:
    check_positive(
        "norm2", norm2, "a scale-invariant function is not defined at weights that are zero"
    )


def together(*values: Any) -> list[Array]:
    """The values as arrays of one shape, broadcast as NumPy does."""
    return jnp.broadcast_arrays(*(jnp.asarray(value) for value in values))
