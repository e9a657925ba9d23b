"""A grid shared by the processes of `jax.distributed`: each trains every P-th member, and all learn all results."""

import jax
import numpy as np
from jax.experimental import multihost_utils

from ntkdecay.training._run import Outcome


def share(members: int) -> np.ndarray:
    """The members of this process."""
    processes = jax.process_count()
    if members < processes:
        raise ValueError(f"{members} members cannot be shared by {processes} processes.")
    return np.arange(jax.process_index(), members, processes)


def gathered(outcome: Outcome, members: int) -> Outcome:
    """Every process's outcome as one, in the order of the grid."""
    processes = jax.process_count()
    if processes == 1:
        return outcome
    each = -(-members // processes)

    def whole(rows: np.ndarray) -> np.ndarray:
        rows = np.concatenate([rows, np.repeat(rows[:1], each - len(rows), axis=0)])
        bits = np.ascontiguousarray(rows).view(np.uint8).reshape(each, -1)  # no cast on the way
        every = np.asarray(multihost_utils.process_allgather(bits))
        every = every.reshape(processes, each, -1).swapaxes(0, 1).reshape(processes * each, -1)
        return (
            np.ascontiguousarray(every[:members]).view(rows.dtype).reshape(members, *rows.shape[1:])
        )

    trees = outcome.records, outcome.status, outcome.reached, outcome.params
    records, status, reached, params = jax.tree.map(whole, trees)
    return Outcome(records, status, reached, params, outcome.members_per_batch)
