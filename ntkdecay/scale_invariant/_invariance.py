r"""Whether a network is scale-invariant, measured."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, function, number, tree


@checked(
    apply_fn=function("of parameters and inputs"), params=tree(), x=array(), tolerance=number(low=0)
)
def is_scale_invariant(
    apply_fn: Callable[[Any, Array], Any], params: Any, x: ArrayLike, *, tolerance: float = 1e-3
) -> tuple[bool, float]:
    r"""Whether f(cθ) = f(θ), by how far f moves when θ does so along itself and in length.

    .. math:: r = \max_{c \in \{1/2,\, 2\}} \frac{\|f(c\theta) - f(\theta)\|}{\|f(\theta)\|}

    Args:
        apply_fn: `apply_fn(params, x)`.
        params: θ, all that training would move; what is frozen must not be in it.
        x: a batch of inputs.
        tolerance: the largest r that counts as invariant.

    Returns:
        The verdict and r.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> def cosine(w, x):
    ...     return x @ (w / jnp.linalg.norm(w))
    ...
    >>> scale_invariant.is_scale_invariant(cosine, jnp.array([3.0, 4.0]), jnp.ones((2, 2)))[0]
    True
    """
    residual = float(_residual(apply_fn, params, jnp.asarray(x)))
    if math.isnan(residual):
        raise ValueError(
            "`apply_fn` gives NaN, or zero for every input: there is nothing to compare with."
        )
    return residual <= tolerance, residual


@functools.partial(jax.jit, static_argnums=0)
def _residual(apply_fn: Callable[[Any, Array], Any], params: Any, x: Array) -> Array:
    def at(c: float) -> Array:
        return apply_fn(jax.tree.map(lambda p: c * p, params), x)

    fx = at(1.0)
    moved = jnp.stack([jnp.linalg.norm(jnp.ravel(at(c) - fx)) for c in (0.5, 2.0)])
    return jnp.max(moved) / jnp.linalg.norm(jnp.ravel(fx))
