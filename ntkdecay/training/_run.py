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


class Journal:
    """How far a grid has come: all of it but the members' states."""

    def __init__(self, plan: Plan, block: int) -> None:
        members = len(plan.budget)
        self.plan, self.block = plan, block
        self.at = self.row = 0  # the step reached, and the next record
        self.records: dict[str, np.ndarray] = {}
        self.status, self.reached = np.full(members, RUNNING), np.full(members, -1)

    @property
    def running(self) -> np.ndarray:
        return self.status == RUNNING

    @property
    def over(self) -> bool:
        return self.row == len(self.plan.record) or not self.running.any()

    def next(self, steps: int) -> tuple[np.ndarray, bool]:
        """Where to stop within so many steps, not past the end of a member, and whether these are steps to record at."""
        stop = min(self.at + steps, self.plan.budget[self.running].min())
        ends = self.plan.record[self.row : self.row + _engine.RECORDS]
        ends = ends[ends <= stop]
        return (ends, True) if len(ends) else (np.array([stop]), False)

    def note(
        self, ends: np.ndarray, finite: np.ndarray, metrics: dict[str, np.ndarray] | None
    ) -> int:
        """Enter what all members were at `ends`, with metrics if recorded; returns how many steps they have made in all."""
        running = self.running
        for i in range(len(ends)):
            running = running & finite[:, i]
            if metrics is not None:
                for name, values in metrics.items():
                    self._rows(name, values)[running, self.row + i] = values[running, i]
                self.reached[running] = ends[i]
        self.status[self.running & ~running] = DIVERGED
        self.status[running & (self.plan.budget <= ends[-1])] = DONE
        before, self.at = self.at, int(ends[-1])
        self.row += 0 if metrics is None else len(ends)
        return int(
            np.sum(np.minimum(self.plan.budget, self.at) - np.minimum(self.plan.budget, before))
        )

    def _rows(self, name: str, values: np.ndarray) -> np.ndarray:
        """The table of a metric. Whole numbers and verdicts become floats, which can say that nothing was measured."""
        if name not in self.records:
            shape = (len(self.status), len(self.plan.record), *values.shape[2:])
            kind = values.dtype if jnp.issubdtype(values.dtype, jnp.inexact) else float
            self.records[name] = np.full(shape, np.nan, kind)
        return self.records[name]

    def save(self, path: Path, states: Any) -> None:
        arrays = tables(self) | _store.flat(states, "state")
        _store.write(path, arrays, {"block": self.block, "at": self.at, "row": self.row})

    @classmethod
    def load(cls, path: Path, plan: Plan, like: Any) -> "tuple[Journal, Any] | None":
        """The journal and the states of an unfinished grid; None where there is none."""
        saved = _store.read(path)
        if saved is None:
            return None
        arrays, meta = saved
        journal = cls(plan, meta["block"])
        journal.at, journal.row = meta["at"], meta["row"]
        journal.records, journal.status, journal.reached = from_tables(arrays)
        return journal, _store.unflat(arrays, "state", like)


def tables(of: Journal | Outcome) -> dict[str, np.ndarray]:
    """Status, last steps and records as a file's arrays."""
    records = {f"records/{name}": values for name, values in of.records.items()}
    return {"status": of.status, "reached": of.reached} | records


def from_tables(
    arrays: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The records, status and last steps that `tables` gave."""
    names = (name for name in arrays if name.startswith("records/"))
    records = {name.removeprefix("records/"): arrays[name] for name in names}
    return records, arrays["status"], arrays["reached"]


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
    row_of, member_of = _rows(len(plan.budget), len(devices))
    cells = {name: jnp.asarray(values[member_of]) for name, values in plan.cells.items()}
    states = _engine.started(problem, data, cells)
    found = Journal.load(checkpoint, plan, jax.eval_shape(lambda: states)) if checkpoint else None
    states = states if found is None else found[1]
    cells, states = (_engine.placed(tree, devices, by_member=True) for tree in (cells, states))
    programs = Programs(
        problem, _engine.placed(data, devices, by_member=False), cells, states, devices
    )
    if found is None:
        steps = int(plan.budget.mean())
        block = members_per_batch or block_size(programs, states, steps, len(plan.record))
        journal = Journal(plan, min(block, programs.rows))
    else:
        journal = found[0]

    chunk, saved = 16, time.monotonic()
    with tqdm(
        total=int(plan.budget.sum()), initial=int(np.minimum(plan.budget, journal.at).sum()), desc=progress,
        unit="step", unit_scale=True, disable=progress is None,
    ) as bar:  # fmt: skip
        while not journal.over:
            bar.set_postfix(alive=int(journal.running.sum()), refresh=False)
            living = np.zeros(len(member_of), bool)
            living[row_of] = journal.running
            block = journal.block
            while block > 1 and living.reshape(len(devices), -1).sum(1).max() <= block // 2:
                block //= 2
            ends, recorded = journal.next(chunk)
            begin, compiled = time.perf_counter(), block in programs
            states, measured = programs.advance(block, states, living, journal.at, ends, recorded)
            finite, metrics = np.asarray(measured.finite)[row_of], None
            if recorded:
                metrics = {name: np.asarray(a)[row_of] for name, a in measured.metrics.items()}
            if compiled:
                seconds = max(time.perf_counter() - begin, 1e-6)
                chunk = max(1, int(chunk * min(4.0, CHUNK_SECONDS / seconds)))
            bar.update(journal.note(ends, finite, metrics))
            if checkpoint and time.monotonic() - saved >= save_seconds:
                journal.save(checkpoint, states)
                saved = time.monotonic()
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[row_of], states.params)
    return Outcome(journal.records, journal.status, journal.reached, params, journal.block)


def _rows(members: int, devices: int) -> tuple[np.ndarray, np.ndarray]:
    """The row of each member and the member of each row.

    Neighbours on the grid, whose budgets are alike, go to different devices; rows left over repeat member 0 and never live.
    """
    each, member = -(-members // devices), np.arange(members)
    row_of = member % devices * each + member // devices
    member_of = np.zeros(each * devices, int)
    member_of[row_of] = member
    return row_of, member_of
