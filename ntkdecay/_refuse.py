"""What may be known only when a program runs, and is refused then."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay._checks import is_traced


def refuse(value: Any, wrong: Any, message: str) -> Any:
    """`value`, unless `wrong`: then a ValueError, where that is known at the call.

    Within a program that the caller compiles, NaN stands for every number of a refused `value`, −1 for a whole one: to
    raise, an accelerator would have to ask its host at every call. `jax.experimental.checkify` of that program says the sentence.
    """
    if not is_traced(wrong):
        if wrong:
            raise ValueError(message)
        return value
    from jax.experimental import checkify  # for traced arguments only

    checkify.debug_check(jnp.logical_not(wrong), message.replace("{", "{{").replace("}", "}}"))

    def spoiled(x: Any) -> Array:
        x = jnp.asarray(x)
        return jnp.where(
            wrong, jnp.asarray(jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else -1, x.dtype), x
        )

    return jax.tree.map(spoiled, value)
