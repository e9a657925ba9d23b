"""Members from the store where it has them, trained where it has not, and kept."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay._tiles import bytes_in
from ntkdecay.training._distributed import agreed, gathered, share
from ntkdecay.training._how import How
from ntkdecay.training._members import Found, Store, member_keys
from ntkdecay.training._plan import Plan
from ntkdecay.training._problem import Data, Problem
from ntkdecay.training._progress import DIVERGED, Progress
from ntkdecay.training._run import run, shapes


def trained(
    problem: Problem, data: Data, plan: Plan, how: How
) -> tuple[Progress, Any, np.ndarray | None]:
    """Every member at the end of its budget, its parameters if they are to be returned, and its key if it has one."""
    members = len(plan.budget)
    keys = store = None
    found = Found(
        Progress.fresh(plan.steps, plan.budget),
        np.zeros(members, bool),
        np.zeros(members, bool),
        {},
    )
    if how.store is not None:
        how.bar.set_postfix_str("looking into the store")
        program, keys = member_keys(problem, data, plan, how.places.devices[0])
        store = Store(how.store, program, how.title, list(plan.axes))
        found = store.find(keys, plan, how.return_params)
    found = found._replace(answered=agreed(found.answered), unkept=~agreed(~found.unkept))
    progress, states = found.progress, found.saved

    open_rows = np.flatnonzero(~found.answered | found.unkept)
    first, twin = _distinct(open_rows, keys, plan)
    if len(first):
        part, leaves = _advance(problem, data, plan, how, found, store, keys, first)
        progress.put(open_rows, part.take(twin))
        states |= {
            int(m): [leaf[i] for leaf in leaves] for m, i in zip(open_rows, twin, strict=True)
        }
    else:
        how.bar.update(how.bar.total)
        how.bar.set_postfix_str("found in the store")
    if store is not None and jax.process_index() == 0:
        store.tidy()
    params = _params(problem, data, plan, progress, states) if how.return_params else None
    return progress, params, keys


def _distinct(
    rows: np.ndarray, keys: np.ndarray | None, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """One row of each member asked for more than once, and which of these stands for each row."""
    if keys is None or not len(rows):
        return rows, np.arange(len(rows))
    names = np.char.add(keys[rows], plan.budget[rows].astype("S"))
    _, first, twin = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(first)  # as on the grid
    return rows[first[order]], np.argsort(order)[twin.ravel()]


def _advance(
    problem: Problem,
    data: Data,
    plan: Plan,
    how: How,
    found: Found,
    store: Store | None,
    keys: np.ndarray | None,
    rows: np.ndarray,
) -> tuple[Progress, list[np.ndarray]]:
    """Train and keep these members, this process its share; all of them, with their states' leaves if they are returned."""
    mine = rows[share(len(rows))]
    progress = found.progress.take(mine)
    cells = {name: values[mine] for name, values in plan.cells.items()}
    saved = {i: found.saved[m] for i, m in enumerate(mine.tolist()) if m in found.saved}

    def save(progress: Progress, leaves: list[np.ndarray]) -> None:
        if store is not None and keys is not None:
            store.save(keys[mine], cells, progress, leaves)

    if store is not None:
        store.probe(len(mine) * bytes_in(shapes(problem, data, cells)))
    places = how.places
    if places.shard is None:
        places = places._replace(devices=places.devices[: len(mine)])
    leaves = run(
        problem, data, cells, progress, saved, places=places, bar=how.bar,
        members_per_batch=how.members_per_batch, save=save if store else None, save_seconds=how.save_seconds,
    )  # fmt: skip
    save(progress, leaves)
    kept = leaves if how.return_params else []
    per_member = (progress.budget, progress.at, progress.status, progress.width, progress.measured)
    tables, records, kept = gathered((per_member, progress.records, kept), len(rows))
    return Progress(plan.steps, *tables, records=records), kept


def _params(
    problem: Problem,
    data: Data,
    plan: Plan,
    progress: Progress,
    states: dict[int, list[np.ndarray]],
) -> Any:
    """The parameters of all members, NaN where they diverged."""
    leaves, structure = jax.tree.flatten(shapes(problem, data, plan.cells).params)
    tables = [np.stack([states[m][i] for m in range(len(plan.budget))]) for i in range(len(leaves))]
    for table in tables:
        if jnp.issubdtype(table.dtype, jnp.inexact):
            table[progress.status == DIVERGED] = np.nan
    return jax.tree.unflatten(structure, tables)
