"""Figure 20 of the periodic paper: how alike the minima of different periods are, as weights and as functions.

The weights of least training loss in each period of several independent runs of SGD: cosines between their
directions, and test errors of pairs whose class probabilities are averaged, against the periods between the two.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import DESK, INITIAL, PAPER, Setup, images, listed, member, panels, run
from jax.flatten_util import ravel_pytree

from ntkdecay import report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Options(Setup):
    """Sizes of the experiment."""

    samples: report.Count = 512
    """Training samples."""
    test_samples: report.Count = 1285
    """Test samples."""
    batch_size: report.Count | None = 64
    """Samples of a step."""
    every: report.Count = 8
    """Steps between measurements: an epoch."""
    learning_rate: report.Positive = 1.0
    """η."""
    l2: report.Positive = 1e-3
    """λ."""
    steps: report.Count = 8000
    """Steps of each run."""
    seeds: report.Count = 4
    """Independent runs."""
    lags: report.Count = 8
    """Periods between two minima, at most."""
    window: report.Odd = 1
    """Measurements of the running median in which periods are sought."""


DESK_SIZES = Options(**DESK)
SIZES: dict[str, Any] = PAPER | dict(
    learning_rate=0.03, steps=391 * 1000, every=391 * 4, seeds=2, window=3
)


WHY = {
    "it can reach the error of an ensemble of two independent networks (on CIFAR-10)": "Size: seven periods on 512 images leave a cosine "
    "of 0.8 between the minima, where independent runs have 0",
}


CLAIMS = (
    "minima of different periods are different, the more the more periods lie between them",
    "an ensemble of minima of two periods is better than one minimum",
    "and the better the more periods lie between them",
    "it can reach the error of an ensemble of two independent networks (on CIFAR-10)",
)


class Minima(NamedTuple):
    """The least loss of each period of a run."""

    step: np.ndarray  # (periods,)
    direction: np.ndarray  # w/‖w‖, (periods, weights)
    probabilities: np.ndarray  # of the test samples, (periods, n, classes)


def main(options: Options) -> None:
    """Figure 20: cosines and ensembles of the minima of different periods."""
    out = report.Report("periodic", "fig20", options, data=options.words)
    data, network = images(options), options.net()
    grid = run(
        options,
        {"learning_rate": [options.learning_rate], "l2": [options.l2], "seed": range(options.seeds)},
        options.steps,
        metrics=si.metrics(batch_size=options.batch_size) | {"weights": lambda s: ravel_pytree(s.params)[0]},
        progress="independent runs",
    )  # fmt: skip
    start = network.init(jax.random.key(0), data.x_train, INITIAL)
    unravel = ravel_pytree(start)[1]

    @jax.jit
    def probabilities(weights: jax.Array, x: jax.Array) -> jax.Array:
        """Of each weights (m, …), (m, n, classes)."""
        return jax.lax.map(lambda w: jax.nn.softmax(network.apply(unravel(w), x)), weights)

    found = []
    for seed in range(options.seeds):
        record = member(grid, options.learning_rate, seed=seed)
        at = least(record, si.periods(record, window=options.window))
        weights = record["weights"].to_numpy()[at]
        found.append(
            Minima(
                record["step"].to_numpy()[at],
                weights / np.linalg.norm(weights, axis=1, keepdims=True),
                np.asarray(probabilities(jnp.asarray(weights), jnp.asarray(data.x_test))),
            )
        )
    if min(one.step.size for one in found) < 3:
        undecided(out, options, grid, [one.step.size for one in found])
        return
    truth = data.y_test.argmax(1)
    cosines, ensembles = lagged(found, truth, options.lags)
    single = np.concatenate([errors(one.probabilities, truth) for one in found])
    apart = list(itertools.combinations(found, 2))
    other = np.concatenate([(a.direction @ b.direction.T).ravel() for a, b in apart])
    pairs = np.concatenate([paired(a, b, truth) for a, b in apart])

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    first = found[0]
    picture = axes[0].imshow(first.direction @ first.direction.T, vmin=0, vmax=1)
    axes[0].set(xlabel="period", ylabel="period", title="cosines of the minima of one run")
    figure.colorbar(picture, ax=axes[0])
    lags = np.arange(1, len(cosines) + 1)
    axes[1].plot(lags, [c.mean() for c in cosines], "o-", label="of one run")
    axes[1].axhline(other.mean(), color="grey", ls="--", label="of independent runs")
    axes[1].set(xlabel="periods between two minima", ylabel="cosine", ylim=(-0.05, 1.05))
    axes[2].plot(lags, [100 * e.mean() for e in ensembles], "o-", label="two minima of one run")
    axes[2].axhline(100 * pairs.mean(), color="grey", ls="--", label="two independent runs")
    axes[2].axhline(100 * single.mean(), color="black", ls=":", label="one minimum")
    axes[2].set(xlabel="periods between two minima", ylabel="test error of the ensemble, %")
    for ax in axes[1:]:
        ax.legend(fontsize="small")
    out.numbers = {
        "periods": [one.step.size for one in found],
        "cosine by lag": [c.mean() for c in cosines],
        "cosine of independent runs": other.mean(),
        "test error of one minimum": single.mean(),
        "test error of ensembles by lag": [e.mean() for e in ensembles],
        "test error of independent ensembles": pairs.mean(),
    }
    means = np.array([c.mean() for c in cosines])
    out.claim(
        CLAIMS[0],
        expected="the mean cosine falls with every period between, and stays above that of independent runs",
        measured=f"{listed(means)} for 1 to {means.size} periods between; independent {other.mean():.3f}",
        holds=bool(np.all(np.diff(means) < 0)) and means[-1] > other.mean(),
    )
    ones = np.array([errors(one.probabilities, truth).mean() for one in found])  # (runs,)
    each = np.array([[e.mean() for e in lagged([one], truth, means.size)[1]] for one in found])
    two = np.array([[np.nan if a is b else paired(a, b, truth).mean() for b in found] for a in found])  # fmt: skip
    best = int(np.argmin(each.mean(0)))
    gains = [gain(ones - lag) for lag in each.T]
    further = gain(each[:, 0] - each[:, -1])
    behind = gain(each[:, best] - np.nanmean(two, 1)) if len(found) > 1 else Gain(np.nan, np.nan)
    out.claim(
        CLAIMS[1],
        expected="a lower test error at every number of periods between, by two standard errors over runs",
        measured=f"lower by {', '.join(map(str, gains))} % than {100 * ones.mean():.3g} %",
        holds=report.every([one.above for one in gains]),
        revised=CHANCE,
    )
    out.claim(
        CLAIMS[2],
        expected=f"a lower test error with {means.size} periods between than with 1, by two standard errors over runs",
        measured=f"{100 * each[:, -1].mean():.3g} % and {100 * each[:, 0].mean():.3g} %, lower by {further} %",
        holds=further.above,
        revised=CHANCE,
    )
    out.claim(
        CLAIMS[3],
        expected="the lowest over the numbers of periods between at or below it; undecided within two standard errors above",
        measured=f"{100 * each[:, best].mean():.3g} % and {100 * pairs.mean():.3g} %, higher by {behind} %",
        holds=True if behind.mean <= 0 else None if behind.above is None else False,
        revised=CHANCE,
    )
    out.explain(WHY)
    out.save(figure)


def undecided(
    out: report.Report, options: Options, grid: xr.Dataset, periods: Sequence[int]
) -> None:
    """The losses of runs that are too short, and claims that these do not decide."""
    figure, ax = plt.subplots(layout="constrained")
    for seed in range(options.seeds):
        record = member(grid, options.learning_rate, seed=seed)
        panels([ax], record, ["loss"], label=f"run {seed}")
    ax.legend(fontsize="small")
    out.numbers = {"periods": periods}
    for claim in CLAIMS:
        out.claim(
            claim,
            expected="three periods and more in each run",
            measured=f"{min(periods)} at least in {options.steps} steps: more --steps have more",
            holds=None,
        )
    out.save(figure)


CHANCE = (
    "a difference within two standard errors over runs, each compared with itself, decides nothing"
)


class Gain(NamedTuple):
    """A difference of errors, its mean over runs and the standard error of that."""

    mean: float
    error: float

    @property
    def above(self) -> bool | None:
        """Whether it is above 0; None within two standard errors of it, and where these are not known."""
        return bool(self.mean > 0) if abs(self.mean) > 2 * self.error else None

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} ± {100 * self.error:.2f}"


def gain(difference: np.ndarray) -> Gain:
    """Of one number for each run, (runs,)."""
    count = difference.size
    error = np.std(difference, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Gain(float(difference.mean()), float(error))


def paired(a: Minima, b: Minima, truth: np.ndarray) -> np.ndarray:
    """Test errors of ensembles of minima of two runs, each with that of the same number."""
    count = min(len(a.step), len(b.step))
    return errors(a.probabilities[:count] + b.probabilities[:count], truth)


def least(record: xr.Dataset, found: si.Periods) -> np.ndarray:
    """Where among the measurements the loss is least between the start of each period and its destabilization."""
    step, loss = record["step"].to_numpy(), record["loss"].to_numpy()
    borders = zip(*(np.searchsorted(step, b) for b in (found.start, found.destabilization)), strict=True)  # fmt: skip
    return np.array([a + np.argmin(loss[a : b + 1]) for a, b in borders], int)


def errors(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Test errors, (m,), of probabilities (m, n, classes)."""
    return np.mean(probabilities.argmax(-1) != truth, axis=-1)


def lagged(
    found: list[Minima], truth: np.ndarray, lags: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cosines and ensemble errors of all pairs with 1, 2, … periods between them."""
    cosines, ensembles = [], []
    for lag in range(1, min(lags, *(one.step.size - 1 for one in found)) + 1):
        cosines.append(
            np.concatenate([np.sum(m.direction[lag:] * m.direction[:-lag], 1) for m in found])
        )
        ensembles.append(
            np.concatenate(
                [errors(m.probabilities[lag:] + m.probabilities[:-lag], truth) for m in found]
            )
        )
    return cosines, ensembles


if __name__ == "__main__":
    report.cli(main, Options(), Options(**SIZES), desk=DESK_SIZES)
