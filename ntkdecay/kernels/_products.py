"""The kernel as an operator: products with vectors, at the cost of a gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, function, integer, optional, tree
from ntkdecay.kernels._apart import check_apart
from ntkdecay.kernels._checks import ApplyFn, check_network, exact


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x1=array(),
    x2=optional(array()),
    tile=optional(integer(low=1)),
)
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
            then depend on its own sample alone, which is verified.

    Returns:
        `product(v)` for v of the shape of f(x2), which gives Θv of the shape of f(x1).

    Raises:
        TypeError, ValueError: as `empirical_ntk`, and if v is not of the shape of f(x2).

    >>> import jax.numpy as jnp
    >>> from ntkdecay import kernels
    >>> def f(w, x):
    ...     return x @ w
    ...
    >>> product = kernels.ntk_vector_product(f, jnp.ones((2, 1)), 2 * jnp.eye(2))
    >>> product(jnp.array([[1.0], [0.5]])).tolist()
    [[4.0], [2.0]]
    """
    apart = tile is not None
    f1, f2, out, (a, b) = check_network(apply_fn, params, apart, x1=x1, x2=x2)
    if apart:
        for x in (a,) if b is None else (a, b):
            check_apart(apply_fn, f1, params, x)
    b = a if b is None else b
    shape = (len(b), *out.shape[1:])

    @checked(v=array())
    def product(v: ArrayLike) -> Array:
        if jnp.shape(v) != shape:
            raise ValueError(f"`v` has shape {jnp.shape(v)}; it must have that of f(x2), {shape}.")
        with exact():
            return _product(tile, (f1, f2), params, a, b, jnp.asarray(v, out.dtype))

    return product


@partial(jax.jit, static_argnums=0)
def _product(tile, functions, params, x1, x2, v) -> Array:
    f1, f2 = functions

    def gradient(x: Array, v: Array) -> Any:
        return jax.vjp(lambda p: f2(p, x), params)[1](v)[0]

    def along(x: Array, direction: Any) -> Array:
        return jax.jvp(lambda p: f1(p, x), (params,), (direction,))[1]

    if tile is None:
        return along(x1, gradient(x2, v))

    def gradients(xs: Array, vs: Array) -> Any:
        def total(p: Any) -> Array:
            return jnp.sum(vs * jax.vmap(lambda x: f2(p, x[None])[0])(xs))

        return jax.grad(total)(params)

    def add(total: Any, xv: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients(*xv)), None

    whole = len(x2) // tile * tile
    split = (y[:whole].reshape(-1, tile, *y.shape[1:]) for y in (x2, v))
    total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, params), tuple(split))
    if whole < len(x2):
        total, _ = add(total, (x2[whole:], v[whole:]))
    return lax.map(lambda x: along(x[None], total)[0], x1, batch_size=tile)
