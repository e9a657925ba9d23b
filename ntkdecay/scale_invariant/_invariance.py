r"""Whether a network is scale-invariant, measured."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def is_scale_invariant(
    apply_fn: Callable[[Any, Array], Array], params: Any, x: ArrayLike, *, tolerance: float = 1e-3
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

    @jax.jit
    def at(c: float) -> Array:
        return apply_fn(jax.tree.map(lambda p: c * p, params), jnp.asarray(x))

    fx = at(1.0)
    moved = [at(c) - fx for c in (0.5, 2.0)]
    residual = max(float(jnp.linalg.norm(change)) for change in moved) / float(jnp.linalg.norm(fx))
    return residual <= tolerance, residual
