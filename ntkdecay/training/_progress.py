"""How far each member of a grid has come, and what was measured of it on the way."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

RUNNING, DONE, DIVERGED = 0, 1, 2


@dataclass
class Progress:
    """A row for each member. It is what a run advances, what a store keeps and what a result is made of."""

    steps: np.ndarray  # (records,), ascending: where members are measured
    budget: np.ndarray  # (members,): the last step of each, itself one of `steps`
    at: np.ndarray  # the steps it has made
    status: np.ndarray
    width: np.ndarray  # members of the block that it is advanced in; 0 before its first step
    measured: np.ndarray  # (members, records)
    records: dict[str, np.ndarray] = field(default_factory=dict)  # (members, records, …), else NaN

    @classmethod
    def fresh(cls, steps: np.ndarray, budget: np.ndarray) -> "Progress":
        members, zeros = len(budget), np.zeros(len(budget), np.int64)
        measured = np.zeros((members, len(steps)), bool)
        return cls(steps, budget.copy(), zeros, zeros + RUNNING, zeros.copy(), measured)

    @property
    def running(self) -> np.ndarray:
        return self.status == RUNNING

    @property
    def reached(self) -> np.ndarray:
        """The last step that a member was measured at; −1 where there is none."""
        last = self.measured.shape[1] - 1 - self.measured[:, ::-1].argmax(1)
        return np.where(self.measured.any(1), self.steps[last], -1)

    def take(self, rows: np.ndarray) -> "Progress":
        """Some of the members."""
        per_member: list[Any] = [getattr(self, name)[rows] for name in PER_MEMBER]
        records = {name: values[rows] for name, values in self.records.items()}
        return Progress(self.steps, *per_member, records=records)

    def put(self, rows: np.ndarray, other: "Progress") -> None:
        """Let `other`, over the same steps, be what is known of these members."""
        for name in PER_MEMBER:
            getattr(self, name)[rows] = getattr(other, name)
        for name, values in other.records.items():
            self._table(name, values)[rows] = values

    def on(self, steps: np.ndarray) -> "Progress":
        """The same members over other steps: what was measured at those is kept."""
        here = np.minimum(np.searchsorted(self.steps, steps), len(self.steps) - 1)
        kept = self.measured[:, here] & (self.steps[here] == steps)
        moved = self.take(np.arange(len(self.budget)))
        moved.steps, moved.measured, moved.records = steps, kept, {}
        for name, values in self.records.items():
            table = values[:, here]
            table[~kept] = np.nan
            moved.records[name] = table
        return moved

    def note(
        self, rows: np.ndarray, ends: np.ndarray, finite: np.ndarray, metrics: dict[str, np.ndarray]
    ) -> int:
        """Enter what the members `rows` were at `ends`, with metrics where those are steps to measure at.

        Returns the steps that they have made in all.
        """
        alive = np.ones(len(rows), bool)
        for i, end in enumerate(ends):
            alive &= finite[:, i]
            if metrics:
                living, column = rows[alive], np.searchsorted(self.steps, end)
                for name, values in metrics.items():
                    self._table(name, values)[living, column] = values[alive, i]
                self.measured[living, column] = True
        made = len(rows) * int(ends[-1] - self.at[rows[0]])
        self.at[rows] = ends[-1]
        self.status[rows[~alive]] = DIVERGED
        self.status[rows[alive & (self.budget[rows] <= ends[-1])]] = DONE
        return made

    def _table(self, name: str, values: np.ndarray) -> np.ndarray:
        """The table of a metric. Whole numbers and verdicts become floats, which can say that nothing was measured."""
        if name not in self.records:
            shape = (*self.measured.shape, *values.shape[2:])
            kind = values.dtype if jnp.issubdtype(values.dtype, jnp.inexact) else float
            self.records[name] = np.full(shape, np.nan, kind)
        return self.records[name]


PER_MEMBER = ("budget", "at", "status", "width", "measured")


class Turn(NamedTuple):
    """The members to advance next, all from one step and in blocks of one width, and where to stop."""

    rows: np.ndarray
    begin: int
    ends: np.ndarray
    recorded: bool  # whether the ends are steps to measure at


def turn(progress: Progress, steps: int, most: int) -> Turn:
    """The members furthest behind, and at most `most` ends within so many steps and no member's end."""
    left = np.flatnonzero(progress.running)
    begin = progress.at[left].min()
    behind = left[progress.at[left] == begin]
    width = progress.width[behind[0]]
    rows = behind[progress.width[behind] == width]
    ahead = progress.at[left[(progress.width[left] == width) & (progress.at[left] > begin)]]
    stop = min([begin + steps, progress.budget[rows].min(), *ahead])  # those ahead will join
    new = (progress.steps > begin) | ~progress.measured[rows].all(0)
    ends = progress.steps[(progress.steps >= begin) & (progress.steps <= stop) & new][:most]
    return Turn(rows, int(begin), ends if len(ends) else np.array([stop]), len(ends) > 0)
