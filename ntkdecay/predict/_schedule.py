"""λ that changes with time, in pieces: the closed form holds in each and composes exactly."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict._checks import check_non_negative, refuse


class PiecewiseConstant(NamedTuple):
    """λ(t) = values[i] for boundaries[i−1] <= t < boundaries[i], in the units of the predictor's t.

    values: (pieces,), each >= 0. boundaries: (pieces − 1,), ascending and > 0.
    """

    values: ArrayLike
    boundaries: ArrayLike


class Pieces(NamedTuple):
    """The pieces of λ(t): each its λ, its start and its end in gradient-flow time."""

    l2: Array
    start: Array
    end: Array

    def kernel_scale(self, degree: float) -> Array:
        """e^{−2(k−1)∫λ} at the start of each piece, which multiplies Θ_0."""
        worn = self.l2[:-1] * (self.end[:-1] - self.start[:-1])  # the last piece has no end
        worn = jnp.concatenate([jnp.zeros_like(self.l2[:1]), worn])
        return jnp.exp(-2 * (degree - 1) * jnp.cumsum(worn))


def pieces(l2: Any, learning_rate: Array, dtype: Any) -> Pieces:
    """λ of the caller, a number or `PiecewiseConstant`, as pieces."""
    values, boundaries = l2 if isinstance(l2, PiecewiseConstant) else (l2, ())
    values = check_non_negative(values, "l2", "it multiplies ‖θ‖²/2 in the loss")
    values = jnp.asarray(values, dtype)
    boundaries = jnp.asarray(
        np.zeros(0) if isinstance(boundaries, tuple) and not boundaries else boundaries, dtype
    )
    if isinstance(l2, PiecewiseConstant) and (
        values.ndim != 1 or boundaries.shape != (values.size - 1,)
    ):
        raise ValueError(
            f"`l2` has {values.shape} values and {boundaries.shape} boundaries; pieces need one boundary less than values."
        )
    if not isinstance(l2, PiecewiseConstant) and values.ndim:
        raise ValueError(
            f"`l2` has shape {values.shape}; it must be a number (vmap over it) or `PiecewiseConstant`."
        )
    edges = jnp.concatenate([jnp.zeros(1, dtype), boundaries])
    boundaries = refuse(
        boundaries,
        (edges[1:] <= edges[:-1]).any(),
        "The boundaries of `l2` must be ascending and > 0.",
    )
    start = jnp.concatenate([jnp.zeros(1, dtype), learning_rate * boundaries])
    return Pieces(values.reshape(-1), start, jnp.append(start[1:], jnp.inf))
