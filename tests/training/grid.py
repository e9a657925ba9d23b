"""A small grid with minibatches, as a script: `python grid.py STORE [--processes I N PORT] [--devices]`.

It prints the digest of all that it returns, so that runs of it can be compared bit by bit.
"""

import argparse
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay.training import sweep

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)), RNG.normal(size=(24, 1))


def init(key):
    first, second = jax.random.split(key)
    return jax.random.normal(first, (3, 4)), jax.random.normal(second, (4, 1))


def apply_fn(params, x):
    return jnp.tanh(x @ params[0]) @ params[1]


def grid(store, steps=4000, **options):
    return sweep(
        init,
        apply_fn,
        lambda fx, y: jnp.mean((fx - y) ** 2),
        lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
        {"learning_rate": [0.001, 0.003, 3e5], "l2": [0.0, 0.01], "seed": [0, 1, 2]},
        X,
        Y,
        steps=lambda seed: steps // (1 + seed),
        record=12,
        batch_size=8,
        members_per_batch=4,
        return_params=True,
        store=store,
        save_seconds=0.0,
        **options,
    )


def digest(found) -> str:
    data, params = found
    arrays = [data[name].to_numpy() for name in ("loss", "norm2", "last_step")]
    arrays += [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    total = hashlib.sha256("".join(data["status"].to_numpy().ravel()).encode())
    for array in arrays:
        total.update(array.tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--processes", type=int, nargs=3)
    options = parser.parse_args()
    if options.processes:
        index, count, port = options.processes
        jax.distributed.initialize(f"localhost:{port}", count, index)
    print(digest(grid(options.store, options.steps)), jax.local_device_count(), flush=True)
