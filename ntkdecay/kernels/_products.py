"""The kernel as an operator: products with vectors, at the cost of a gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ntkdecay.kernels._checks import ApplyFn, check_network, check_tile, exact


def ntk_vector_product(
    apply_fn: ApplyFn,
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    *,
    tile: int | None = None,
) -> Callable[[Array], Array]:
    r"""The product of the neural tangent kernel with vectors, without the kernel.

    .. math:: (\Theta v)_o(x) = \sum_\mu \partial_\mu f_o(x)
              \sum_{x', o'} \partial_\mu f_{o'}(x')\, v_{o'}(x')

    A vector-Jacobian and a Jacobian-vector product: what Krylov methods need where the kernel does
    not fit. It works for every network and under `jit`.

    Args:
        apply_fn, params, x1, x2: as for `empirical_ntk`; x2 None for x1.
        tile: take so many samples at a time, which bounds memory; None: all. An output must
            then depend on its own sample alone.

    Returns:
        `product(v)` for v of the shape of f(x2), which gives Θv of the shape of f(x1).

    Raises:
        TypeError, ValueError: as `empirical_ntk`, and if v is not of the shape of f(x2).
    """
    _, (a, b) = check_network(apply_fn, params, x1=x1, x2=x2)
    check_tile(tile)
    b = a if b is None else b
    shape = jax.eval_shape(apply_fn, params, b).shape

    def product(v: Array) -> Array:
        if jnp.shape(v) != shape:
            raise ValueError(f"v has shape {jnp.shape(v)}; it must have that of f(x2), {shape}.")
        with exact():
            return _product(apply_fn, tile, params, a, b, v)

    return product


@partial(jax.jit, static_argnums=(0, 1))
def _product(apply_fn, tile, params, x1, x2, v) -> Array:
    def gradient(x: Array, v: Array) -> Any:
        return jax.vjp(lambda p: apply_fn(p, x), params)[1](v)[0]

    def along(x: Array, direction: Any) -> Array:
        return jax.jvp(lambda p: apply_fn(p, x), (params,), (direction,))[1]

    if tile is None:
        return along(x1, gradient(x2, v))

    def add(total: Any, xv: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(*xv)), None

    whole = len(x2) // tile * tile
    split = (y[:whole].reshape(-1, tile, *y.shape[1:]) for y in (x2, v))
    total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, params), tuple(split))
    if whole < len(x2):
        total, _ = add(total, (x2[whole:], v[whole:]))
    return lax.map(lambda x: along(x[None], total)[0], x1, batch_size=tile)
