"""A small grid with minibatches, in this process or another, and a digest of each member's numbers to compare runs bit by bit."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay.training import sweep

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)), RNG.normal(size=(24, 1))
GRID = {"learning_rate": [0.001, 0.003, 3e5], "l2": [0.0, 0.01], "seed": [0, 1, 2]}


def init(key):
    first, second = jax.random.split(key)
    return jax.random.normal(first, (3, 4)), jax.random.normal(second, (4, 1))


def apply_fn(params, x):
    return jnp.tanh(x @ params[0]) @ params[1]


def loss(fx, y):
    return jnp.mean((fx - y) ** 2)


def optimizer(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


def by_seed(total):
    """Members of different lengths."""
    return lambda seed: total // (1 + seed)


def grid(store, steps, cells=GRID, **options):
    defaults = dict(
        record=12, batch_size=8, members_per_batch=4, return_params=True, save_seconds=0.0
    )
    return sweep(
        init,
        apply_fn,
        loss,
        optimizer,
        cells,
        X,
        Y,
        steps=steps,
        store=store,
        **(defaults | options),
    )


def shuffled(seed):
    """The grid in another order."""
    if seed is None:
        return GRID
    order = np.random.default_rng(seed)
    axes = order.permutation(list(GRID))
    return {str(name): order.permutation(GRID[name]) for name in axes}


def digests(found) -> dict[str, str]:
    """Of each member by its key: the width of its block, and a hash of its records, its end and its parameters."""
    data, params = found
    data = data.transpose(..., "step")
    members = data["key"].size
    arrays = [
        data[name].to_numpy().reshape(members, -1)
        for name in ("loss", "norm2", "last_step", "status")
    ]
    axes = data["key"].ndim
    arrays += [
        np.asarray(leaf).reshape(members, *leaf.shape[axes:]) for leaf in jax.tree.leaves(params)
    ]
    names, widths = data["key"].to_numpy().ravel(), data["members_per_batch"].to_numpy().ravel()
    return {
        str(key): f"{widths[m]}:"
        + hashlib.sha256(b"".join(a[m].tobytes() for a in arrays)).hexdigest()
        for m, key in enumerate(names)
    }


def answer(
    pipe, store, total, width=4, shuffle=None, devices=1, cache=None, keeps=True, distributed=()
) -> None:
    """In a process of its own: sends the digests, and how many devices there were.

    What it compiles is taken from `cache`, and kept there if it `keeps` it, which a process to be killed should not.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0 if keeps else 1e9)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if distributed:
        jax.distributed.initialize(*distributed)
    found = grid(store, by_seed(total), shuffled(shuffle), members_per_batch=width)
    pipe.send((digests(found), jax.local_device_count()))
