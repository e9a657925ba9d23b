r"""Periods of training with weight decay, found in a recorded run.

A period has three phases, named as in `periodic` (Lobacheva et al. 2021): A, the loss falls; B, the loss is low
and the norm goes on shrinking, so the effective learning rate η/ρ² grows; C, destabilization, steps
have become too large, the loss jumps up and the norm with it. Only the appendix is among our sources;
the borders are taken where the dynamics (3) has them:

.. math:: \rho_{t+1}^2 > \rho_t^2 \iff \eta^2\tilde g_t^2 > (1 - (1-\eta\lambda)^2)\,\rho_t^4

B ends when the norm begins to grow: that is the destabilization. C ends when it stops growing, at
the least effective learning rate before the next. A ends when the loss falls below the geometric
mean of its highest value since the last destabilization and the lowest that it will have.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter
from scipy.signal import find_peaks

from ntkdecay._checks import checked, integer, number
from ntkdecay.scale_invariant._record import RECORD, Record, read, steps

Numbers = np.ndarray


@dataclass(frozen=True)
class Periods:
    """The periods of a run in order, one row for each; the first has the warm-up in it.

    Attributes:
        start: where A begins, (n,); at the first, the least effective learning rate of the warm-up.
        low: where B begins, (n,).
        destabilization: where C begins: the norm starts to grow, (n,).
        end: where C ends and the next A begins, (n,). All four are in steps.
        loss: the highest loss of A and the lowest of A and B, (n, 2).
        learning_rate: the effective one at `start` and at `destabilization`, (n, 2).
        gradient: the largest effective gradient norm of A and the least of A and B, (n, 2).
    """

    start: Numbers
    low: Numbers
    destabilization: Numbers
    end: Numbers
    loss: Numbers
    learning_rate: Numbers
    gradient: Numbers

    @property
    def number(self) -> int:
        """How many destabilizations."""
        return self.destabilization.size

    @property
    def lengths(self) -> Numbers:
        """Steps from the start of each period to its end, (n,)."""
        return self.end - self.start

    @property
    def phases(self) -> dict[str, Numbers]:
        """Steps in each phase, (n,)."""
        borders = (self.start, self.low, self.destabilization, self.end)
        return {
            name: late - early
            for name, early, late in zip("ABC", borders[:-1], borders[1:], strict=True)
        }


@checked(
    record=RECORD,
    drop=number(above=1, why="a ratio of levels"),
    rise=number(above=1, why="a ratio of levels"),
    window=integer(low=1),
)
def periods(record: Record, *, drop: float = 1.5, rise: float = 2.0, window: int = 1) -> Periods:
    """Phases, destabilizations and levels of a recorded run.

    A destabilization is a maximum of the effective learning rate from which it falls by the factor
    `drop`, having risen as much, while the loss grows by the factor `rise`. With a fixed norm, or
    without weight decay, the effective learning rate never rises: there is none.

    Args:
        record: a mapping, an `xarray.Dataset` or a `Trajectory`, with `loss`; `norm2` (ρ²) or
            `effective_learning_rate` (η/ρ²); `effective_gradient_norm` or `gradient_norm`; and `step`, if it has it.
            Without `effective_learning_rate`, `learning_rate` levels are 1/ρ².
        drop, rise: > 1.
        window: the running median is taken over so many measurements first (odd; 1: none), to be
            chosen below the length of a destabilization: it removes the noise of minibatches.

    Raises:
        ValueError: for a record without these series, or arguments out of range.

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> path = scale_invariant.descend(np.array([0.7, 0.7]), 0.5, 0.05, 400)
    >>> scale_invariant.periods(path).lengths.shape
    (9,)
    """
    if window % 2 == 0:
        raise ValueError(f"`window` is {window}; it must be an odd number of measurements.")
    series = read(record, "loss", "effective_learning_rate", "effective_gradient_norm")
    loss, rate, slope = (median_filter(values, window, mode="nearest") for values in series)
    log_rate, log_loss = (np.log(np.maximum(v, np.finfo(v.dtype).tiny)) for v in (rate, loss))

    peaks, _ = find_peaks(log_rate, prominence=math.log(drop))
    edges = [0, *peaks, log_rate.size]
    peaks = [
        peak
        for before, peak, after in zip(edges[:-2], peaks, edges[2:], strict=True)
        if log_loss[peak:after].max() - log_loss[before : peak + 1].min() > math.log(rise)
    ]
    edges = [0, *peaks, log_rate.size]
    # The least effective learning rate before the first destabilization and after each.
    troughs = [a + int(np.argmin(log_rate[a:b])) for a, b in itertools.pairwise(edges)]
    lows, levels = [], []
    for before, trough, peak in zip(edges[:-2], troughs[:-1], peaks, strict=True):
        lowest = trough + int(np.argmin(log_loss[trough : peak + 1]))
        highest = before + int(np.argmax(log_loss[before : lowest + 1]))
        middle = (log_loss[highest] + log_loss[lowest]) / 2
        lows.append(trough + int(np.argmax(log_loss[trough : lowest + 1] <= middle)))
        steepest, flattest = slope[before : lowest + 1].max(), slope[trough : peak + 1].min()
        levels.append((loss[highest], loss[lowest], rate[trough], rate[peak], steepest, flattest))

    time, table = steps(record, loss.size), np.array(levels, float).reshape(-1, 3, 2)
    borders = (troughs[:-1], lows, peaks, troughs[1:])
    start, low, destabilization, end = (time[np.array(border, int)] for border in borders)
    return Periods(start, low, destabilization, end, table[:, 0], table[:, 1], table[:, 2])
