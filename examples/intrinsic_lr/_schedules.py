r"""Schedules of η and λ that the scripts of the intrinsic learning rate's paper compare, and what (10) says of them.

.. math:: \frac{d\gamma}{dt} = -4\eta\lambda\gamma + 2\,\mathrm{Tr}\,\Sigma, \qquad \gamma = (\|w\|^2/\eta)^2

A schedule is a list of phases with constant η and λ. Where η changes by a factor, γ jumps by its
inverse square while the weights stay. Time is counted in steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from ntkdecay import scale_invariant as si


class Phase(NamedTuple):
    """Constant η and λ from the step `start` on."""

    start: float
    learning_rate: float
    l2: float


Schedule = tuple[Phase, ...]


def in_order(options: Any, *names: str) -> None:
    """Options of a script that are steps of its runs, in the order in which they come.

    Raises:
        ValueError: if one does not come after the one before it; it names both.
    """
    last, before = 0, "the start"
    for name in names:
        value, option = getattr(options, name), f"`--{name.replace('_', '-')}`"
        for one in np.atleast_1d(value):
            if one <= last:
                raise ValueError(
                    f"{option} is {value}; it must come after {before}, {last}: each phase of a run begins after the last."
                )
            last, before = int(one), option


def check_decay(schedules: Sequence[Schedule]) -> None:
    """Weight decay by itself shrinks the weights, |1 − ηλ| < 1, in every phase.

    Raises:
        ValueError: if it does not.
    """
    product = max(phase.learning_rate * phase.l2 for phases in schedules for phase in phases)
    if product >= 2:
        raise ValueError(
            f"`--learning-rate` times `--l2` is {product:g} in a phase; it must be below 2: weight decay alone would make the "
            "weights grow without end."
        )


def schedule(
    starts: Sequence[float], learning_rates: Sequence[float], l2: Sequence[float]
) -> Schedule:
    """Phases from three lists of one length, the steps ascending from 0.

    Raises:
        ValueError: if they are not.
    """
    phases = tuple(Phase(*numbers) for numbers in zip(starts, learning_rates, l2, strict=True))
    if not phases or starts[0] != 0 or np.any(np.diff(starts) <= 0):
        raise ValueError(f"A schedule's phases begin at {list(starts)}; they must ascend from 0.")
    return phases


def table_1(learning_rate: float, l2: float, phase: int) -> dict[str, Schedule]:
    """The five schedules of Table 1: six phases that end with the same η and λ, and a last one with η/10 and λ = 0.

    The table's "LR,WD×4" of the fourth is read as a change of λ alone: it is the third with λ for η.

    Args:
        learning_rate: η and l2: λ, of the beginning and of the sixth phase.
        phase: steps of each of the first five; the sixth is five times as long.
    """
    starts = [phase * i for i in (0, 1, 2, 3, 4, 5, 10)]
    hot = (1, 4, 2, 1, 1 / 4, 1)
    rates = ((1, 1 / 4, 1, 1 / 4, 1 / 2, 1), (1,) * 6, hot, (1,) * 6, (32, 16, 8, 4, 2, 1))
    decays = ((1,) * 6, (1,) * 6, (1,) * 6, hot, (1,) * 6)
    return {
        f"schedule {i}": schedule(
            starts,
            [learning_rate * f for f in (*rate, 1 / 10)],
            [l2 * f for f in (*decay, 0)],
        )
        for i, (rate, decay) in enumerate(zip(rates, decays, strict=True), 1)
    }


class Table(NamedTuple):
    """Several schedules as arrays (schedules, phases): the grid of a sweep reads its row by number."""

    starts: Array
    learning_rates: Array
    decays: Array

    @classmethod
    def of(cls, schedules: Sequence[Schedule]) -> "Table":
        """Shorter schedules repeat their last phase, from a step that no run reaches."""
        longest = max(map(len, schedules))
        never = Phase(np.inf, 0.0, 0.0)
        rows = [
            [*phases, *[phases[-1]._replace(start=never.start)] * (longest - len(phases))]
            for phases in schedules
        ]
        return cls(*jnp.asarray(np.moveaxis(np.array(rows), -1, 0), jnp.float32))

    def _at(self, values: Array, number: ArrayLike, step: ArrayLike) -> Array:
        phase = jnp.sum(jnp.asarray(step) >= self.starts[number]) - 1
        return values[number, phase]

    def learning_rate(self, number: ArrayLike, step: ArrayLike) -> Array:
        """η of the schedule `number` at a step."""
        return self._at(self.learning_rates, number, step)

    def l2(self, number: ArrayLike, step: ArrayLike) -> Array:
        """λ, likewise."""
        return self._at(self.decays, number, step)


def predicted_rate(
    phases: Schedule, steps: np.ndarray, rate_0: float, trace: np.ndarray
) -> np.ndarray:
    r"""The effective learning rate γ^{−1/2} that (11) predicts from a measured Tr Σ.

    Args:
        phases: the schedule.
        steps: ascending from 0, (n,), among them the starts of the phases.
        rate_0: η/‖w_0‖².
        trace: Tr Σ at unit norm at these steps, (n,); between two of them it is their mean.

    Returns:
        γ^{−1/2} at the steps, (n,).
    """
    found, gamma_0 = np.full(len(steps), np.nan), rate_0**-2.0
    ends = [*(phase.start for phase in phases[1:]), np.inf]
    for i, (phase, end) in enumerate(zip(phases, ends, strict=True)):
        here = np.flatnonzero((steps >= phase.start) & (steps <= end))
        if not here.size:
            break
        between = (trace[here[1:]] + trace[here[:-1]]) / 2
        path = si.gamma_path(steps[here] * 1.0, gamma_0, between, phase.learning_rate * phase.l2)
        found[here] = np.asarray(path) ** -0.5
        if i + 1 < len(phases):
            change = phase.learning_rate / phases[i + 1].learning_rate
            gamma_0 = float(path[-1]) * change**2
            found[here[-1]] = gamma_0**-0.5  # at its start a phase's own η counts
    return found


def settling_time(
    t: np.ndarray, values: np.ndarray, equilibrium: ArrayLike, tolerance: float
) -> np.ndarray:
    r"""When a series has come to its equilibrium: the first time after which it is never farther off than a share of its start.

    .. math:: T = \min\{t : |x_s - x_\infty| \le \text{tolerance}\cdot |x_0 - x_\infty| \ \forall s \ge t\}

    Args:
        t: ascending, (n,).
        values: x at these times, (…, n).
        equilibrium: x_∞, (…,).
        tolerance: between 0 and 1.

    Returns:
        T, (…,), on the straight line between the last point outside and the first inside; NaN where
        the last point is outside.
    """
    off = np.abs(values - np.asarray(equilibrium)[..., None])
    off = off / off[..., :1]
    outside = off > tolerance
    after = off.shape[-1] - np.argmax(outside[..., ::-1], axis=-1)  # the first inside for good
    inside = np.minimum(after, off.shape[-1] - 1)
    high, low = (
        np.take_along_axis(off, index[..., None], -1)[..., 0] for index in (inside - 1, inside)
    )
    share = (high - tolerance) / np.where(high > low, high - low, 1.0)
    return np.where(after < off.shape[-1], t[inside - 1] + share * (t[inside] - t[inside - 1]), np.nan)  # fmt: skip


def recovery_time(t: np.ndarray, values: np.ndarray, equilibrium: float) -> float:
    """When a noisy series that has fallen below its equilibrium is half way back from its lowest point, for the first time.

    Args:
        t: ascending, (n,); values: at these times, (n,); equilibrium: above the lowest of them.

    Returns:
        The time, on the straight line between two points; NaN where it does not come back.
    """
    lowest = int(np.argmin(values))
    half = (values[lowest] + equilibrium) / 2
    back = np.flatnonzero(values[lowest:] >= half)
    if not back.size or back[0] == 0:
        return np.nan
    i = lowest + int(back[0])
    share = (half - values[i - 1]) / (values[i] - values[i - 1])
    return float(t[i - 1] + share * (t[i] - t[i - 1]))
