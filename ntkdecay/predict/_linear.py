"""A linear function with a transpose of one's own, for every transformation of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def linear_call(
    forward: Callable[[Any], Any], backward: Callable[[Any], Any], x: Any, like: Any
) -> Any:
    """`forward(x)`, linear in x and of the shapes of `like`, whose transpose is `backward`.

    As the solution of a linear system, which JAX lets bring both and can batch: (x, 0) ↦ (0, forward(x)).
    """
    # The solver is transposed in all of its right side or not at all: each leaf depends on x.
    nothing = sum(0 * leaf.reshape(-1)[0] for leaf in jax.tree.leaves(x) if leaf.size)
    x = jax.tree.map(lambda leaf: leaf + nothing, x)
    empty = jax.tree.map(lambda leaf: jnp.broadcast_to(nothing, leaf.shape), like)

    def solve(_, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        return jax.tree.map(jnp.zeros_like, pair[0]), forward(pair[0])

    def transposed(_, pair: tuple[Any, Any]) -> tuple[Any, Any]:
        return backward(pair[1]), jax.tree.map(jnp.zeros_like, pair[1])

    return jax.lax.custom_linear_solve(lambda pair: pair, (x, empty), solve, transposed)[1]
