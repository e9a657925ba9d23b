"""Figure 20 of the periodic paper: how alike the minima of different periods are, as weights and as functions.

The weights of least training loss in each period of several independent runs of SGD: cosines between their
directions, and test errors of pairs whose class probabilities are averaged, against the periods between the two.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import DESK, INITIAL, PAPER, Setup, images, listed, member, run
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


WHY: dict[str, str] = {}


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
    def probabilities(weights: jax.Array) -> jax.Array:
        return jax.nn.softmax(network.apply(unravel(weights), data.x_test))

    found = []
    for seed in range(options.seeds):
        record = member(grid, options.learning_rate, seed=seed)
        at = least(record, si.periods(record, window=options.window))
        weights = record["weights"].to_numpy()[at]
        found.append(
            Minima(
                record["step"].to_numpy()[at],
                weights / np.linalg.norm(weights, axis=1, keepdims=True),
                np.asarray(jax.lax.map(probabilities, jnp.asarray(weights))),
            )
        )
    if min(one.step.size for one in found) < 3:
        raise ValueError(
            f"a run of {options.steps} steps has fewer than three periods: give more `--steps`, or a larger `--learning-rate` times `--l2`"
        )
    truth = data.y_test.argmax(1)
    cosines, ensembles = lagged(found, truth, options.lags)
    single = np.concatenate([errors(one.probabilities, truth) for one in found])
    apart = list(itertools.combinations(found, 2))
    other = np.concatenate([(a.direction @ b.direction.T).ravel() for a, b in apart])
    pairs = np.concatenate(
        [
            errors((a.probabilities[i] + b.probabilities[i])[None], truth)
            for a, b in apart
            for i in range(min(len(a.step), len(b.step)))
        ]
    )

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
        "minima of different periods are different, the more the more periods lie between them",
        expected="the mean cosine falls with every period between, and stays above that of independent runs",
        measured=f"{listed(means)} for 1 to {means.size} periods between; independent {other.mean():.3f}",
        holds=bool(np.all(np.diff(means) < 0)) and means[-1] > other.mean(),
    )
    each = np.array([e.mean() for e in ensembles])
    error = np.array([standard_error(e, options.seeds) for e in ensembles])
    alone, independent = standard_error(single, options.seeds), standard_error(pairs, len(apart))
    best = int(np.argmin(each))
    out.claim(
        "an ensemble of minima of two periods is better than one minimum",
        expected="a lower mean test error at every number of periods between, by two standard errors",
        measured=f"{listed(100 * each)} ± {listed(100 * error, '.2g')} %; one minimum {100 * single.mean():.3g} ± {100 * alone:.2g} %",
        holds=report.every([lower(single.mean() - e, np.hypot(alone, d)) for e, d in zip(each, error, strict=True)]),
        revised=CHANCE,
    )  # fmt: skip
    out.claim(
        "and the better the more periods lie between them",
        expected=f"a lower mean test error with {means.size} periods between than with 1, by two standard errors",
        measured=f"{100 * each[-1]:.3g} ± {100 * error[-1]:.2g} % and {100 * each[0]:.3g} ± {100 * error[0]:.2g} %",
        holds=lower(each[0] - each[-1], np.hypot(error[0], error[-1])),
        revised=CHANCE,
    )
    out.claim(
        "it can reach the error of an ensemble of two independent networks (on CIFAR-10)",
        expected="the lowest mean over the numbers of periods between at or below it; undecided within two standard errors above",
        measured=f"{100 * each[best]:.3g} ± {100 * error[best]:.2g} % and {100 * pairs.mean():.3g} ± {100 * independent:.2g} %",
        holds=True if each[best] <= pairs.mean() else lower(pairs.mean() - each[best], np.hypot(error[best], independent)),
        revised=CHANCE,
    )  # fmt: skip
    out.explain(WHY)
    out.save(figure)


CHANCE = "a difference within two standard errors decides nothing"


def standard_error(values: np.ndarray, count: int) -> float:
    """Of the mean of values of which `count` are independent: those of one run are near each other."""
    return float(np.std(values, ddof=1) / np.sqrt(count)) if values.size > 1 else np.nan


def lower(gain: float, error: float) -> bool | None:
    """Whether a gain is above 0; None within two standard errors of it, and where these are not known."""
    return bool(gain > 0) if abs(gain) > 2 * error else None


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
