"""How many members a block holds: tried while they train, as a plain vmap can lose to a loop.

New members begin in blocks of a width that is seldom far from the best. What their first chunks took tells what the run
will cost; only where that is long do some of them take their next steps in blocks of another width, and all follow where
these are faster. No step is made twice, and choosing takes at most `SHARE` of the whole.
"""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ntkdecay.training._programs import Programs
from ntkdecay.training._progress import Progress, Turn

SHARE = 0.05  # of a run's cost that may go into choosing
FASTER = 0.9  # of the present time: what a width must reach to be taken up
TRIAL_SECONDS, TRIAL_TURNS = (
    0.2,
    8,
)  # a trial is over after two turns of so many seconds, or so many turns


def _widths(rows: int, platform: str) -> list[int]:
    """In the order in which they are tried."""
    widths = sorted({rows, 2 ** round(np.log2(rows) / 2), 1}, reverse=True)
    if platform == "cpu" and len(widths) == 3:
        widths = [widths[1], widths[2], widths[0]]
    return widths


def first_width(rows: int, platform: str) -> int:
    """The width in which members begin."""
    return _widths(rows, platform)[0]


@dataclass
class Trial:
    width: int
    members: np.ndarray
    turns: int = 0
    seconds: float = 0.0
    expected: float = 0.0  # in the present blocks

    @property
    def is_over(self) -> bool:
        return self.turns >= TRIAL_TURNS or (self.turns > 1 and self.seconds > TRIAL_SECONDS)


class Choice:
    """The width of the members `mine`, whose `progress.width` it sets."""

    def __init__(self, programs: Programs, progress: Progress, mine: np.ndarray) -> None:
        self._programs, self._progress, self._mine = programs, progress, mine
        self._devices = programs.places.groups
        self.spent = self._trained = 0.0
        self.trial: Trial | None = None
        self._forget()
        rows = programs.rows
        self.width, *self._untried = _widths(rows, programs.places.devices[0].platform)
        if mine.any():
            self._begin()

    def adapt(self) -> None:
        """Before a turn: begin or end a trial, or make blocks narrower that are half empty."""
        progress = self._progress
        living = self._mine & progress.running
        if self.trial is not None:
            if self.trial.is_over or not living[self.trial.members].any():
                self._conclude(self.trial)
        elif living.any() and self._is_known and not self._narrow(living):
            self._try(living)

    def _begin(self) -> None:
        """In blocks of the first width that fits the memory."""
        while not self._fits(self.width):
            self._untried = [width for width in self._untried if width < self.width]
            self.width = self._untried.pop(0)
        self._progress.width[self._mine] = self.width

    def heard(self, turn: Turn, seconds: float) -> bool:
        """What a turn took; whether it was a trial's."""
        steps, records = int(turn.ends[-1]) - turn.begin, len(turn.ends) * turn.recorded
        trial, width = self.trial, self._progress.width[turn.rows[0]]
        if trial is not None and width == trial.width:
            trial.turns += 1
            trial.seconds += seconds
            blocks = self._most(turn.rows) / self.width
            trial.expected += blocks * float(self._pace @ (steps, records))
            return True
        if self._mine[turn.rows].all() and width == self.width:
            self._trained += seconds
            blocks = -(-self._most(turn.rows) // self.width)
            if self._chunks_seen:  # the first one is slower
                self._chunks.append((blocks * steps, blocks * records, seconds))
            self._chunks_seen = True
        return False

    def _forget(self) -> None:
        self._chunks, self._chunks_seen = deque[tuple[int, int, float]](maxlen=8), False

    @property
    def _is_known(self) -> bool:
        """Whether chunks were long enough to tell the pace."""
        return len(self._chunks) > 1 and self._trained > self._programs.compile_seconds / 2

    @property
    def _pace(self) -> np.ndarray:
        """Seconds of a block's step and of its measurement."""
        table = np.array(self._chunks, float)
        return nnls(table[:, :2], table[:, 2])[0]

    def _most(self, members: np.ndarray) -> int:
        """Of these members, how many are on one device."""
        return int(np.bincount(members % self._devices, minlength=self._devices).max())

    def _left(self, living: np.ndarray) -> float:
        """Seconds that the members still take in blocks of the present width: a block lasts as long as its longest member."""
        progress, seconds = self._progress, 0.0
        for device in range(self._devices):
            here = np.flatnonzero(living)
            here = here[here % self._devices == device]
            at, budget = progress.at[here, None], progress.budget[here, None]
            records = ((progress.steps > at) & (progress.steps <= budget)).sum(1)
            blocks = [
                np.sort(left)[::-1][:: self.width].sum() for left in ((budget - at)[:, 0], records)
            ]
            seconds = max(seconds, float(self._pace @ blocks))
        return seconds

    def _fits(self, width: int) -> bool:
        try:
            self._programs[width]
        except MemoryError:
            if width == 1:
                raise
            return False
        return True

    def _narrow(self, living: np.ndarray) -> bool:
        narrower, most = self.width, self._most(np.flatnonzero(living))
        while narrower > 1 and most <= narrower // 2:
            narrower //= 2
        cost = 0.0 if narrower in self._programs else self._programs.compile_seconds
        if narrower == self.width or self._left(living) * (1 - narrower / self.width) < 2 * cost:
            return False
        self._take_up(narrower)
        return True

    def _try(self, living: np.ndarray) -> None:
        """Give a block of the members furthest behind the next width, if the run is long enough for that."""
        whole = self._trained + self._left(living)
        if not self._untried or self.spent + 1.5 * self._programs.compile_seconds > SHARE * whole:
            return
        width, progress = self._untried[0], self._progress
        behind = np.flatnonzero(living & (progress.at == progress.at[living].min()))
        count = max(width, self.width)
        some = [behind[behind % self._devices == device][:count] for device in range(self._devices)]
        if any(len(members) < count for members in some):
            return
        self._untried.pop(0)
        begin = time.perf_counter()
        if self._fits(width):
            self.trial = Trial(width, np.concatenate(some))
            progress.width[self.trial.members] = width
        self.spent += time.perf_counter() - begin

    def _conclude(self, trial: Trial) -> None:
        self.trial = None
        self.spent += trial.seconds
        better = trial.turns > 0 and trial.seconds < FASTER * trial.expected
        further = [w for w in self._untried if (w < trial.width) == (trial.width < self.width)]
        self._untried = further if better else [w for w in self._untried if w not in further]
        if better:
            self._take_up(trial.width)
        else:
            running = trial.members[self._progress.running[trial.members]]
            self._progress.width[running] = self.width

    def _take_up(self, width: int) -> None:
        self._progress.width[self._mine & self._progress.running] = width
        self.width = width
        self._forget()
