"""The host's side of a grid: which steps next, who still lives, what is saved, what is shown."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ntkdecay.training import _engine, _store
from ntkdecay.training._choice import Programs, block_size
from ntkdecay.training._problem import Data, Problem

RUNNING, DONE, DIVERGED = 0, 1, 2
CHUNK_SECONDS = 1.0


class Plan(NamedTuple):
    """What is asked of a grid."""

    cells: dict[str, np.ndarray]  # (members,) each
    record: np.ndarray  # ascending steps
    budget: np.ndarray  # (members,): the last step of each, itself one of `record`


class Outcome(NamedTuple):
    """What came of it."""

    records: dict[str, np.ndarray]  # (members, records, …); NaN past a member's last
    status: np.ndarray  # (members,)
    reached: np.ndarray  # (members,): the last step with a finite measurement
    params: Any  # leaves (members, …)
    members_per_batch: int


def run(
    problem: Problem,
    data: Data,
    plan: Plan,
    *,
    devices: tuple[Any, ...],
    members_per_batch: int | None,
    progress: str | None,
    checkpoint: Path | None,
    save_seconds: float,
) -> Outcome:
    """Train every member to its budget; go on from `checkpoint` where there is one."""
    members, row_of = len(plan.budget), _rows(len(plan.budget), len(devices))
    rows = len(devices) * -(-members // len(devices))
    member_of = np.zeros(rows, int)
    member_of[row_of] = np.arange(members)
    cells = {name: jnp.asarray(values[member_of]) for name, values in plan.cells.items()}
    states = _engine.started(problem, data, cells)
    like = jax.eval_shape(lambda: states)
    cells, states = (_engine.placed(tree, devices, by_member=True) for tree in (cells, states))
    data = _engine.placed(data, devices, by_member=False)

    saved = _store.read(checkpoint) if checkpoint else None
    programs = Programs(problem, data, cells, states, devices)
    if saved is None:
        first_block = members_per_batch or block_size(
            programs, states, int(plan.budget.mean()), len(plan.record)
        )
        first_block, at, records = min(first_block, programs.rows), 0, {}
        status, reached = np.full(members, RUNNING), np.full(members, -1)
        row = 0
    else:
        arrays, meta = saved
        first_block, at, row = meta["block"], meta["at"], meta["row"]
        status, reached = arrays["status"], arrays["reached"]
        records = {name[8:]: a for name, a in arrays.items() if name.startswith("records/")}
        states = _engine.placed(_store.unflat(arrays, "state", like), devices, by_member=True)

    def save() -> None:
        arrays = {"status": status, "reached": reached} | _store.flat(states, "state")
        arrays |= {f"records/{name}": values for name, values in records.items()}
        _store.write(checkpoint, arrays, {"block": first_block, "at": at, "row": row})  # pyright: ignore

    chunk, last_save = 16, time.monotonic()
    with tqdm(
        total=int(plan.budget.sum()), initial=int(np.minimum(plan.budget, at).sum()), desc=progress,
        unit="step", unit_scale=True, disable=progress is None,
    ) as bar:  # fmt: skip
        while row < len(plan.record) and (status == RUNNING).any():
            bar.set_postfix(alive=int((status == RUNNING).sum()), refresh=False)
            living = np.zeros(rows, bool)
            living[row_of] = status == RUNNING
            block = first_block
            while block > 1 and living.reshape(len(devices), -1).sum(1).max() <= block // 2:
                block //= 2
            stop = min(at + chunk, plan.budget[status == RUNNING].min())
            ends = plan.record[row : row + _engine.RECORDS]
            ends = ends[ends <= stop]
            whole = len(ends)  # the others are no steps to record at
            ends = ends if whole else np.array([stop])
            begin, compiled = time.perf_counter(), block in programs
            order, alive = programs.queue(living, block)
            states, measured = programs[block](
                cells, states, order, alive, programs.interval(at, ends), data
            )
            measured = {name: np.asarray(values)[row_of] for name, values in measured.items()}
            seconds = time.perf_counter() - begin
            before, at = at, int(ends[-1])
            if compiled:
                chunk = max(1, int(chunk * min(4.0, CHUNK_SECONDS / max(seconds, 1e-6))))
            finite = measured.pop(FINITE)
            for name, values in measured.items():
                if name not in records:
                    shape = (members, len(plan.record), *values.shape[2:])
                    records[name] = np.full(shape, *_missing(values.dtype))
            running = status == RUNNING
            for i in range(whole):
                good = running & finite[:, i]
                for name, values in measured.items():
                    records[name][good, row + i] = values[good, i]
                reached[good], running = plan.record[row + i], good
            if not whole:
                running &= finite[:, 0]
            status[(status == RUNNING) & ~running] = DIVERGED
            status[running & (plan.budget <= at)] = DONE
            row += whole
            bar.update(int((np.minimum(plan.budget, at) - np.minimum(plan.budget, before)).sum()))
            if checkpoint and time.monotonic() - last_save >= save_seconds:
                save()
                last_save = time.monotonic()
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[row_of], states.params)
    return Outcome(records, status, reached, params, first_block)


FINITE = "all parameters are finite"


def _rows(members: int, devices: int) -> np.ndarray:
    """The row of each member: neighbours on the grid go to different devices, as their budgets are alike."""
    each = -(-members // devices)
    member = np.arange(members)
    return member % devices * each + member // devices


def _missing(dtype: np.dtype) -> tuple[Any, np.dtype]:
    """What stands where nothing was measured; whole numbers and verdicts become floats that can say so."""
    kind = dtype if jnp.issubdtype(dtype, jnp.inexact) else np.dtype(float)
    return np.nan, kind
