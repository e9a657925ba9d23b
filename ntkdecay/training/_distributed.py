"""A grid shared by the processes of `jax.distributed`: each trains every P-th member, and all learn all results."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def share(members: int) -> np.ndarray:
    """The members of this process; where there are fewer than processes, some are trained more than once."""
    processes = jax.process_count()
    if processes == 1:
        return np.arange(members)
    return np.arange(jax.process_index(), max(members, processes), processes) % members


def agreed(verdicts: np.ndarray) -> np.ndarray:
    """What all processes hold for true."""
    if jax.process_count() == 1:
        return verdicts
    return np.asarray(np.asarray(multihost_utils.process_allgather(verdicts)).all(0))


def gathered(tree: Any, members: int) -> Any:
    """Every process's rows as one, in the order that `share` took them from."""
    processes = jax.process_count()
    if processes == 1:
        return tree
    each = -(-max(members, processes) // processes)

    def whole(rows: np.ndarray) -> np.ndarray:
        rows = np.concatenate([rows, np.repeat(rows[:1], each - len(rows), axis=0)])
        bits = np.ascontiguousarray(rows).view(np.uint8).reshape(each, -1)  # no cast on the way
        every = np.asarray(multihost_utils.process_allgather(bits))
        every = every.reshape(processes, each, -1).swapaxes(0, 1).reshape(processes * each, -1)
        return (
            np.ascontiguousarray(every[:members]).view(rows.dtype).reshape(members, *rows.shape[1:])
        )

    return jax.tree.map(whole, tree)
