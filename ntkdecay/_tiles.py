"""A kernel computed by tiles of samples, so that it fits in memory.

A kernel here is an array, or a pytree of arrays of one shape (one for each layer, say).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import SingleDeviceSharding
from tqdm import tqdm

Kernel = Callable[[Array, Array | None], Any]


def by_tiles(
    kernel: Kernel,
    transposition: tuple[int, ...],
    x1: Array,
    x2: Array | None,
    tile: int | None,
    diagonal: bool = False,
) -> Any:
    """kernel(x1, x2) by tiles of samples, one at a time; exactly symmetric if x2 is None.

    `transposition` are the kernel's axes with x and x' exchanged. If `diagonal`, the samples are
    one axis of the kernel, not two.
    """
    symmetric = _symmetric(kernel, transposition)
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    if tile is None or tile >= max(n1, n2):
        return symmetric(x1) if x2 is None else kernel(x1, x2)
    a, b = _split(x1, tile), _split(x1 if x2 is None else x2, tile)
    if diagonal:
        k = lax.map(symmetric, a) if x2 is None else lax.map(lambda ab: kernel(*ab), (a, b))
        return jax.tree.map(lambda k: k.reshape(-1, *k.shape[2:])[:n1], k)

    def put(k: Any, block: Any, i, j) -> Any:
        def one(k: Array, block: Array) -> Array:
            start = (i * tile, j * tile, *(0 for _ in block.shape[2:]))
            return lax.dynamic_update_slice(k, block, start)

        return jax.tree.map(one, k, block)

    def on_diagonal(k: Any, i) -> tuple[Any, None]:
        return put(k, symmetric(a[i]), i, i), None

    def above_diagonal(k: Any, ij) -> tuple[Any, None]:
        i, j = ij
        block = kernel(a[i], b[j])
        return put(put(k, block, i, j), _transposed(block, transposition), j, i), None

    def anywhere(k: Any, ij) -> tuple[Any, None]:
        i, j = ij
        return put(k, kernel(a[i], b[j]), i, j), None

    k = jax.tree.map(
        lambda block: jnp.zeros((len(a) * tile, len(b) * tile, *block.shape[2:]), block.dtype),
        jax.eval_shape(kernel, a[0], b[0]),
    )
    if x2 is None:
        k, _ = lax.scan(on_diagonal, k, jnp.arange(len(a)))
        k, _ = lax.scan(above_diagonal, k, np.triu_indices(len(a), 1))
    else:
        k, _ = lax.scan(anywhere, k, tuple(np.indices((len(a), len(b))).reshape(2, -1)))
    return jax.tree.map(lambda k: k[:n1, :n2], k)


def on_devices(
    kernel: Callable[[Any, Array, Array], Any],
    params: Any,
    transposition: tuple[int, ...],
    x1: Array,
    x2: Array | None,
    tile: int,
    diagonal: bool = False,
    progress: str | None = None,
) -> Any:
    """The same for a compiled kernel(params, a, b), tiles dealt to all devices, put together here.

    None if the kernel depends on traced values.
    """
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    a, b = np.asarray(x1), np.asarray(x1 if x2 is None else x2)
    pairs = [
        (i, j)
        for i in range(-(-n1 // tile))
        for j in range(-(-n2 // tile))
        if (i == j if diagonal else x2 is not None or i <= j)
    ]
    devices = jax.local_devices()
    replicas = [jax.device_put(params, device) for device in devices[: len(pairs)]]
    result: Any = None
    pending: list[tuple[int, int, Any]] = []

    def collect(i: int, j: int, block: Any) -> None:
        nonlocal result
        block = jax.tree.map(np.asarray, block)
        if result is None:
            samples = (n1,) if diagonal else (n1, n2)
            result = jax.tree.map(
                lambda k: np.empty((*samples, *k.shape[len(samples) :]), k.dtype), block
            )
        if x2 is None and i == j:
            block = jax.tree.map(lambda k: (k + k.transpose(transposition)) / 2, block)
        _write(result, block, i * tile, i * tile if diagonal else j * tile, diagonal)
        if x2 is None and i != j:
            mirrored = jax.tree.map(lambda k: k.transpose(transposition), block)
            _write(result, mirrored, j * tile, i * tile, diagonal)

    with tqdm(total=len(pairs), desc=progress, unit="tile", disable=progress is None) as bar:
        for number, (i, j) in enumerate(pairs):
            device = number % len(replicas)
            samples = _of_tile(a, i, tile), _of_tile(b, j, tile)
            block = kernel(replicas[device], *jax.device_put(samples, devices[device]))
            if any(isinstance(k, Tracer) for k in jax.tree.leaves(block)):
                return None
            pending.append((i, j, block))
            if len(pending) > len(replicas):
                collect(*pending.pop(0))
            bar.update()
        for item in pending:
            collect(*item)
    return jax.device_put(result)


def _write(result: Any, block: Any, row: int, column: int, diagonal: bool) -> None:
    for k, part in zip(jax.tree.leaves(result), jax.tree.leaves(block), strict=True):
        if diagonal:
            k[row : row + len(part)] = part[: len(k) - row]
        else:
            target = k[row : row + part.shape[0], column : column + part.shape[1]]
            target[...] = part[: target.shape[0], : target.shape[1]]


def tile_within(
    block: Callable[[int], int], largest: int, whole: int, max_bytes: int, asked: int | None
) -> int | None:
    """The largest tile found that takes at most `max_bytes`, or the smaller one `asked` for; None: no tile is needed.

    Args:
        block: block(tile), the bytes of a block.
        largest: how many samples there are.
        whole: the bytes of the kernel in one.
    """
    if whole <= max_bytes:
        return asked
    tile, bytes_, power = largest, whole, 1.4  # memory grows as the tile or as its square
    while bytes_ > max_bytes:
        if tile == 1:
            raise ValueError(
                f"`max_bytes` is {max_bytes}, but the kernel of a single pair of samples takes "
                f"{bytes_} bytes."
            )
        last = tile, bytes_
        tile = max(1, min(tile - 1, int(0.95 * tile * (max_bytes / bytes_) ** (1 / power))))
        bytes_ = block(tile)
        power = np.clip(np.log(last[1] / bytes_) / np.log(last[0] / tile), 0.5, 2.0)
    return tile if asked is None else min(tile, asked)


def bytes_of(lowered: Any) -> int:
    """What a program takes beside its inputs."""
    stats = lowered.compile().memory_analysis()
    return stats.temp_size_in_bytes + stats.output_size_in_bytes


def placed_shapes(tree: Any) -> Any:
    """The shapes of arrays that lie where `on_devices` puts those of its first block."""
    place = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=place), tree)


def shapes_of(tree: Any) -> Any:
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), tree)


def _symmetric(kernel: Kernel, transposition: tuple[int, ...]) -> Callable[[Array], Any]:
    def mean(k: Any) -> Any:
        return jax.tree.map(lambda k, k_t: (k + k_t) / 2, k, _transposed(k, transposition))

    def symmetric(x: Array) -> Any:
        k = kernel(x, None)
        first = jax.tree.leaves(k)[0].ravel()[0]
        # a branch has its operand in memory: fused with what made it, a kernel is computed twice where it is transposed
        return lax.cond(jnp.isfinite(first), mean, lambda k: k, k)

    return symmetric


def _transposed(k: Any, transposition: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda k: k.transpose(transposition), k)


def _split(x: Array, tile: int) -> Array:
    """x in tiles, (n_tiles, tile, ...), the last one filled up with the last sample."""
    fill = jnp.repeat(x[-1:], -x.shape[0] % tile, axis=0)
    return jnp.concatenate([x, fill]).reshape(-1, tile, *x.shape[1:])


def _of_tile(x: np.ndarray, i: int, tile: int) -> np.ndarray:
    """The i-th tile of x, the last one filled up with the last sample."""
    return x[np.minimum(np.arange(i * tile, (i + 1) * tile), len(x) - 1)]


def bytes_in(tree: Any) -> int:
    """Of its arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
