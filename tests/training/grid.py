"""A small grid with minibatches, as a script: `python grid.py STORE [--width W] [--shuffle SEED] [--processes I N PORT]`.

It prints a digest of each member's numbers, so that runs of it can be compared bit by bit.
"""

import argparse
import hashlib
import json

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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--shuffle", type=int)
    parser.add_argument("--processes", type=int, nargs=3)
    options = parser.parse_args()
    if options.processes:
        index, count, port = options.processes
        jax.distributed.initialize(f"localhost:{port}", count, index)
    cells = shuffled(options.shuffle)
    found = grid(options.store, by_seed(options.steps), cells, members_per_batch=options.width)
    print(json.dumps([digests(found), jax.local_device_count()]), flush=True)
