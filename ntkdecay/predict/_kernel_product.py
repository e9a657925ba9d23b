"""Products with an analytic kernel that is never stored."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, choice, function, integer, optional
from ntkdecay._tiles import _split
from ntkdecay.kernels import analytic_kernel
from ntkdecay.kernels._checks import check_dtypes
from ntkdecay.predict._checks import as_array, float_dtype


@checked(
    kernel_fn=function("of x1, x2 and get"),
    x1=array(),
    x2=optional(array()),
    get=choice("ntk", "nngp"),
    tile=integer(low=1),
)
def kernel_vector_product(
    kernel_fn: Callable,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    get: Literal["ntk", "nngp"] = "ntk",
    *,
    tile: int,
) -> Callable[[ArrayLike], Array]:
    r"""The product of an analytic kernel with vectors, block by block.

    .. math:: (\Theta v)(x) = \sum_{x'} \Theta(x, x')\, v(x')

    Each block of tile × tile samples is computed, multiplied and dropped; with x2=None the blocks
    below the diagonal are transposes of those above. vmap over v computes each block once for all.
    For a finite network, `ntkdecay.kernels.ntk_vector_product` is the same.

    Args:
        kernel_fn: the third function of a network from `ntkdecay.stax`.
        x1: (n1, ...), floating; x2: (n2, ...), or None for x1.
        get: which kernel.
        tile: samples on the side of a block. Memory is that of a dozen of blocks, about
            100·tile² bytes in float64.

    Returns:
        `product(v)` for v of shape (n2,), giving Θv of shape (n1,) and v's dtype. It works under
        jit and vmap.

    Raises:
        TypeError, ValueError: as `ntkdecay.kernels.analytic_kernel`, or if v does not fit.

    >>> import numpy as np
    >>> from ntkdecay import predict, stax
    >>> _, _, kernel_fn = stax.Dense(1, b_std=None)
    >>> product = predict.kernel_vector_product(kernel_fn, np.array([[1.0], [2.0]]), tile=1)
    >>> product(np.array([1.0, 0.5])).tolist()
    [2.0, 4.0]
    """
    check_dtypes((), x1=x1, x2=x2)  # before JAX would round them
    x1, x2 = jnp.asarray(x1), None if x2 is None else jnp.asarray(x2)
    jax.eval_shape(
        lambda a, b: analytic_kernel(kernel_fn, a, b, get, tile=tile),
        *(x if x is None else jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in (x1, x2)),
    )
    n2 = len(x1 if x2 is None else x2)

    @checked(v=array(nan=True, inf=True))
    def product(v: Any) -> Array:
        v = as_array(v, float_dtype(v))  # which the kernel must not take from whole numbers
        if v.shape != (n2,):
            raise ValueError(
                f"`v` has shape {v.shape}; it must be ({n2},), one entry for a sample."
            )
        return _product(x1, x2, v, kernel_fn, get, min(tile, max(len(x1), n2)))

    return product


@partial(jax.jit, static_argnums=(3, 4, 5))
def _product(
    x1: Array, x2: Array | None, v: Array, kernel_fn: Callable, get: str, tile: int
) -> Array:
    a, b = _split(x1, tile), _split(x1 if x2 is None else x2, tile)
    v = jnp.pad(v, (0, -len(v) % tile)).reshape(-1, tile)  # a filled-up sample counts for nothing

    def block(a: Array, b: Array | None) -> Array:
        return analytic_kernel(kernel_fn, a, b, get).astype(v.dtype)  # pyright: ignore

    def anywhere(total: Array, ij: Any) -> tuple[Array, None]:
        i, j = ij
        return total.at[i].add(block(a[i], b[j]) @ v[j]), None

    def above_diagonal(total: Array, ij: Any) -> tuple[Array, None]:
        i, j = ij
        k = block(a[i], a[j])
        return total.at[i].add(k @ v[j]).at[j].add(v[i] @ k), None

    if x2 is None:
        total = lax.map(lambda av: block(av[0], None) @ av[1], (a, v))
        total, _ = lax.scan(above_diagonal, total, np.triu_indices(len(a), 1))
    else:
        total = jnp.zeros((len(a), tile), v.dtype)
        total, _ = lax.scan(anywhere, total, tuple(np.indices((len(a), len(b))).reshape(2, -1)))
    return total.reshape(-1)[: len(x1)]
