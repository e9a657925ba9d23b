"""The host's side of a grid: which steps next, who still lives, what is saved, what is shown."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay._arrays import own
from ntkdecay.training import _engine
from ntkdecay.training._choice import Choice
from ntkdecay.training._places import Places
from ntkdecay.training._problem import Data, Problem, start
from ntkdecay.training._program import plain
from ntkdecay.training._programs import Programs
from ntkdecay.training._progress import Progress, turn

CHUNK_SECONDS = 1.0

Cells = dict[str, np.ndarray]  # (members,) each
Saved = dict[int, list[np.ndarray]]  # the leaves of a member's state


def run(
    problem: Problem,
    data: Data,
    cells: Cells,
    progress: Progress,
    saved: Saved,
    *,
    places: Places,
    members_per_batch: int | None,
    bar: Any,
    save: Callable[[Progress, list[np.ndarray]], None] | None,
    save_seconds: float,
) -> list[np.ndarray]:
    """Advance every member to its budget, those in `saved` from where they were; `progress` is written to.

    Returns the leaves of the members' states, (members, …) each.
    """
    bar.total, bar.n = int(progress.budget.sum()), int(progress.at.sum())
    bar.initial = bar.n
    bar.set_postfix_str("initializing")
    row_of, member_of = _rows(len(progress.budget), places.groups)
    rows = {name: own(values[member_of]) for name, values in cells.items()}
    states = _resumed(
        _engine.started(problem, data, rows), {row_of[m]: s for m, s in saved.items()}
    )
    rows, states, data = places.members(rows), places.members(states), places.everywhere(data)
    programs = Programs(problem, data, rows, states, places, bar.set_postfix_str)
    new = progress.width == 0
    if members_per_batch is not None:
        progress.width[new], new = min(members_per_batch, programs.rows), np.zeros_like(new)
    choice = Choice(programs, progress, new)

    def leaves() -> list[np.ndarray]:
        return [plain(leaf)[row_of] for leaf in jax.tree.leaves(states)]

    chunk, longest, last_saved = 1, int(progress.budget.max()), time.monotonic()
    while progress.running.any():
        choice.adapt()
        now = turn(progress, chunk, _engine.RECORDS)
        living = np.zeros(len(member_of), bool)
        living[row_of[now.rows]] = True
        block = int(progress.width[now.rows[0]])
        programs[block]  # compiled outside of the clock
        doing = "trying" if choice.trial else f"{progress.running.sum()} left,"
        bar.set_postfix_str(f"{doing} {block} at a time", refresh=bar.n == bar.initial)
        begin = time.perf_counter()
        states, measured = programs.advance(
            block, states, living, now.begin, now.ends, now.recorded
        )
        finite, metrics = np.asarray(measured.finite)[row_of[now.rows]], {}
        if now.recorded:
            metrics = {n: np.asarray(a)[row_of[now.rows]] for n, a in measured.metrics.items()}
        seconds = max(time.perf_counter() - begin, 1e-6)
        if not choice.heard(now, seconds):
            chunk = int(np.clip(chunk * min(4.0, CHUNK_SECONDS / seconds), 1, longest))
        bar.update(progress.note(now.rows, now.ends, finite, metrics))
        if save and time.monotonic() - last_saved >= save_seconds:
            save(progress, leaves())
            last_saved = time.monotonic()
    return leaves()


def _resumed(states: Any, saved: Saved) -> Any:
    """The members' states, with those of some rows as they were saved."""
    if not saved:
        return states
    leaves, structure = jax.tree.flatten(states)
    rows = np.array(list(saved))
    for i, leaf in enumerate(leaves):
        table = np.array(plain(leaf))
        table[rows] = np.stack([state[i] for state in saved.values()])
        leaves[i] = like(table, leaf)
    return jax.tree.unflatten(structure, leaves)


def like(table: np.ndarray, leaf: Any) -> Any:
    """Stored numbers as what they were: an array, or random keys."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(own(table)) if is_key else own(table)


def shapes(problem: Problem, data: Data, cells: Cells) -> Any:
    """One member's state, without its numbers."""
    one = {name: values[0] for name, values in cells.items()}
    return jax.eval_shape(partial(start, problem), data, one)


def _rows(members: int, devices: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of each member and the member of each row.

    Neighbours on the grid, whose budgets are alike, go to different devices; rows left over repeat member 0 and never live.
    """
    each, member = -(-members // devices), np.arange(members)
    row_of = member % devices * each + member // devices
    member_of = np.zeros(each * devices, int)
    member_of[row_of] = member
    return row_of, member_of
