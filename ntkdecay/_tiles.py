"""A kernel computed by tiles of samples, one at a time, so that it fits in memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Kernel = Callable[[Array, Array | None], Array]


def by_tiles(
    kernel: Kernel,
    transposition: tuple[int, ...],
    x1: Array,
    x2: Array | None,
    tile: int | None,
    diagonal: bool = False,
) -> Array:
    """kernel(x1, x2) by tiles of samples, one at a time; exactly symmetric if x2 is None.

    `transposition` are the kernel's axes with x and x' exchanged. If `diagonal`, the samples are
    one axis of the kernel, not two.
    """

    def symmetric(x: Array) -> Array:
        k = kernel(x, None)
        return (k + k.transpose(transposition)) / 2

    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    if tile is None or tile >= max(n1, n2):
        return symmetric(x1) if x2 is None else kernel(x1, x2)
    a, b = _split(x1, tile), _split(x1 if x2 is None else x2, tile)
    if diagonal:
        k = lax.map(symmetric, a) if x2 is None else lax.map(lambda ab: kernel(*ab), (a, b))
        return k.reshape(-1, *k.shape[2:])[:n1]

    block = jax.eval_shape(kernel, a[0], b[0])
    rest = block.shape[2:]

    def put(k: Array, block: Array, i, j) -> Array:
        return lax.dynamic_update_slice(k, block, (i * tile, j * tile, *(0 for _ in rest)))

    def on_diagonal(k: Array, i) -> tuple[Array, None]:
        return put(k, symmetric(a[i]), i, i), None

    def above_diagonal(k: Array, ij) -> tuple[Array, None]:
        i, j = ij
        block = kernel(a[i], b[j])
        return put(put(k, block, i, j), block.transpose(transposition), j, i), None

    def anywhere(k: Array, ij) -> tuple[Array, None]:
        i, j = ij
        return put(k, kernel(a[i], b[j]), i, j), None

    k = jnp.zeros((len(a) * tile, len(b) * tile, *rest), block.dtype)
    if x2 is None:
        k, _ = lax.scan(on_diagonal, k, jnp.arange(len(a)))
        k, _ = lax.scan(above_diagonal, k, np.triu_indices(len(a), 1))
    else:
        k, _ = lax.scan(anywhere, k, tuple(np.indices((len(a), len(b))).reshape(2, -1)))
    return k[:n1, :n2]


def _split(x: Array, tile: int) -> Array:
    """x in tiles, (n_tiles, tile, ...), the last one filled up with the last sample."""
    fill = jnp.repeat(x[-1:], -x.shape[0] % tile, axis=0)
    return jnp.concatenate([x, fill]).reshape(-1, tile, *x.shape[1:])
