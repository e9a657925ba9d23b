"""What the scripts behind Figures 1 to 4 and S1 to S12 of the L2 paper share: data, loss and what is read off a grid.

A grid is what `ntkdecay.training.sweep` returns with a test set: the paper looks at the step t_* of the
best test accuracy, at that accuracy, and at the best one within a budget of steps. Its first observation is
t_* = c'/(ηλ) for plain SGD, a line of slope −1 in logarithms.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
import optax
import xarray as xr

from ntkdecay import datasets, networks, report, training
from ntkdecay.report import colors as colors

WITHIN = 0.005
"""Half a percent: the test accuracy counts as best when this near to its maximum."""


LEARNED = 0.2
"""Twice the accuracy of chance: a run that never gets there does not count where t_* is compared."""


def images(
    options: report.Options, name: datasets.Name, samples: int, test_samples: int, size: int = 0
) -> datasets.Dataset:
    """The first images of a data set, of mean 0 and variance 1, enlarged to `size` pixels a side if not 0, with one-hot labels.

    Raises:
        ValueError: if there are fewer images.
    """
    found = datasets.standardized(datasets.load(name, options.data_dir), samples, test_samples)
    x, x_test = (
        np.asarray(jax.block_until_ready(datasets.upsampled(x, size))) if size else x
        for x in (found.x_train, found.x_test)
    )
    y, y_test = (datasets.one_hot(y, datasets.classes(name)) for y in (found.y_train, found.y_test))
    return datasets.Dataset(x, y, x_test, y_test)


def softmax_loss(fx: jax.Array, y: jax.Array) -> jax.Array:
    r"""The paper's loss, with the minus sign that SM A leaves out.

    .. math:: L = -\frac{1}{2k|B|} \sum_{(x,y) \in B,\, i} y_i \log p_i(x)

    The 2k, 20 for k = 10 classes, is in η and λ alike: the mean cross entropy has the same steps with
    η/2k and 2kλ, and the same ηλ.
    """
    return optax.softmax_cross_entropy(fx, y).mean() / (2 * fx.shape[-1])


def best(
    grid: xr.Dataset, budget: float | xr.DataArray = np.inf, name: str = "test_accuracy"
) -> xr.DataArray:
    """The maximum of `name` in the first `budget` steps; NaN where nothing was trained."""
    trained = (grid["step"] <= budget) & (grid["last_step"] > 0)
    return grid[name].where(trained).max("step")


def time_to_best(
    grid: xr.Dataset, within: float = WITHIN, name: str = "test_accuracy"
) -> xr.DataArray:
    """t_*: the first recorded step at which `name` is within `within` of its maximum; NaN where nothing was trained."""
    return (
        grid["step"]
        .where(grid[name] >= best(grid, name=name) - within)
        .min("step")
        .where(grid["last_step"] > 0)
    )


def peaked(grid: xr.Dataset, within: float = WITHIN) -> xr.DataArray:
    """t_* of the runs that made at least twice as many steps; NaN of others, whose peak may be still to come.

    Without this a grid whose runs have c'/(ηλ) steps would find t_* ∝ 1/(ηλ) where accuracy rises to the end.
    """
    times = time_to_best(grid, within)
    return times.where(2 * times <= grid["last_step"])


def time_to_least(loss: xr.DataArray) -> xr.DataArray:
    """The first recorded step at which a loss is least."""
    return loss["step"].where(loss == loss.min("step")).min("step")


def time_to_reach(grid: xr.Dataset, level: float, name: str = "accuracy") -> xr.DataArray:
    """The first recorded step at which `name` is `level` or more; NaN where it never is."""
    return grid["step"].where(grid[name] >= level).min("step")


def final(grid: xr.Dataset, name: str) -> xr.DataArray:
    """`name` at each run's last step; NaN of a run that diverged between measurements."""
    return grid[name].where(grid["step"] == grid["last_step"]).max("step")


def slopes(times: xr.DataArray, along: str, least: int = 3) -> xr.DataArray:
    """Slopes of log t against the logarithm of the coordinate `along`, one for each line of the others.

    NaN where fewer than `least` points are positive and finite, or the coordinate is 0.
    """
    usable = (times > 0) & (times[along] > 0)
    t, x = (xr.apply_ufunc(np.log, a.where(usable)) for a in (times, times[along]))
    x = x - x.mean(along)
    return ((x * t).sum(along) / (x**2).sum(along)).where(usable.sum(along) >= least)


def averaged(grid: xr.Dataset) -> xr.Dataset:
    """A grid over seeds as one of mean curves, which end with the first of their seeds.

    `error` is the standard error of the mean test accuracy over seeds, 0 of a single one.
    """
    curves = [str(name) for name, values in grid.data_vars.items() if "step" in values.dims]
    found = grid[curves].mean("seed", skipna=False)
    count = grid.sizes["seed"]
    spread = grid["test_accuracy"].std("seed", ddof=min(1, count - 1))
    found["error"] = (spread / np.sqrt(count)).fillna(0.0)
    found["last_step"] = grid["last_step"].min("seed")
    first = grid["status"].isel(seed=0, drop=True)
    found["status"] = xr.where((grid["status"] == first).all("seed"), first, "diverged")
    return found


def error(grid: xr.Dataset, budget: float = np.inf) -> xr.DataArray:
    """The standard error of `best`."""
    accuracy = grid["test_accuracy"].where(grid["step"] <= budget)
    return grid["error"].where(accuracy == accuracy.max("step")).max("step").fillna(0.0)


def lead(one: xr.Dataset, other: xr.Dataset, budget: float = np.inf) -> tuple[float, float]:
    """How much better the best of one run is than that of another, and the standard error of that."""
    difference = float(best(one, budget) - best(other, budget))
    return difference, float(np.hypot(error(one, budget), error(other, budget)))


class Spread(NamedTuple):
    """Several numbers in brief; as text "−0.98 (−1.10 to −0.91, 4 lines)"."""

    median: float
    low: float
    high: float
    count: int

    def near(self, value: float, tolerance: float) -> bool | None:
        """Whether the median is; None of nothing."""
        return abs(self.median - value) < tolerance if self.count else None

    def __str__(self) -> str:
        if not self.count:
            return "too few runs that end late enough"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f}, {self.count} lines)".replace(
            "-", "−"
        )


def spread(values: xr.DataArray | np.ndarray) -> Spread:
    """Median, minimum, maximum and count of what is finite; NaN of nothing."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return Spread(np.nan, np.nan, np.nan, 0)
    return Spread(float(np.median(finite)), float(finite.min()), float(finite.max()), finite.size)


def smallest_decade(accuracy: xr.DataArray) -> xr.DataArray:
    """The part of a grid with λ > 0 in the lowest decade for which there are numbers, for each line of the others."""
    l2 = accuracy["l2"].where(accuracy.notnull() & (accuracy["l2"] > 0))
    return accuracy.where(l2 <= 10 * l2.min("l2") * (1 + 1e-6))


def ahead(difference: float, error: float = 0.0, least: float = 0.0) -> bool | None:
    """Whether a difference is more than `least`; None where it is within two standard errors of that."""
    if error > 0 and abs(difference - least) <= 2 * error:
        return None
    return bool(difference > least)


def every(verdicts: Iterable[bool | None]) -> bool | None:
    """`report.every` of any iterable."""
    return report.every(list(verdicts))


def percent(difference: float, error: float = 0.0) -> str:
    """A difference of accuracies: "+0.38 ± 0.05 %"."""
    return f"{100 * difference:+.2f}" + (f" ± {100 * error:.2f}" if error > 0 else "") + " %"


def plain(array: xr.DataArray) -> dict:
    """An array with its coordinates, as a report's numbers hold it."""
    coords = {str(name): coord.to_numpy() for name, coord in array.coords.items()}
    return {"dims": array.dims, **coords, "values": array.to_numpy()}


@dataclasses.dataclass(frozen=True)
class Setup:
    """A grid over η and λ of one network."""

    data: datasets.Name
    """Which images."""
    samples: report.Count
    """Training samples."""
    test_samples: report.Count
    """Test samples."""
    learning_rates: report.Ascending[report.Positive]
    """η, ascending."""
    l2: report.Ascending[report.NonNegative]
    """λ, ascending, from 0."""
    budget: report.Positive
    """Epochs × η × λ of every run with λ > 0."""
    most_epochs: report.Unlimited = np.inf
    """Runs with λ > 0 that need more epochs are left out."""
    uncut: tuple[report.Positive, report.Positive] | None = None
    """η and λ of one that is not."""
    zero_epochs: report.NonNegative = 0.0
    """Epochs of the runs with λ = 0."""
    zero_over_rate: bool = True
    """Whether those are divided by η."""
    batch_size: report.Count | None = None
    """Samples of a step; none: all."""
    image_size: report.Whole = 0
    """Pixels a side that images are enlarged to; 0: as they are."""
    seeds: report.Count = 1
    """Initializations: curves are their means."""
    record: report.Count = 40
    """Measurements of a run, spaced geometrically."""
    members_per_batch: report.Count | None = None
    """Runs side by side; none: measured."""
    eval_batch_size: report.Count | None = None
    """Samples that are measured at a time; none: all."""

    @property
    def words(self) -> str:
        """The data in words."""
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.data}, {self.samples} training and {self.test_samples} test samples{seeds}"

    def check_rate(self, name: str, rate: float) -> None:
        """The η of one panel is one of the grid's.

        Raises:
            ValueError: if it is not.
        """
        if rate not in self.learning_rates:
            allowed = ", ".join(f"{one:g}" for one in self.learning_rates)
            raise ValueError(f"`{name}` is {rate:g}; it must be an η of the grid: {allowed}.")

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self.samples // self.batch_size if self.batch_size else 1

    def epochs(self, learning_rate: float, l2: float) -> float:
        """How long a run is."""
        if l2 == 0:
            return self.zero_epochs / learning_rate if self.zero_over_rate else self.zero_epochs
        epochs = self.budget / (learning_rate * l2)
        kept = (learning_rate, l2) == self.uncut or epochs <= self.most_epochs * (1 + 1e-6)
        return epochs if kept else 0.0


def run(
    setup: Setup,
    network: networks.Network,
    options: report.Options,
    progress: str,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = softmax_loss,
    optimizer: Callable[..., optax.GradientTransformation] = lambda learning_rate: optax.sgd(
        learning_rate
    ),
) -> xr.Dataset:
    """Every η and λ of a setup from the same initializations, by SGD without momentum if not said otherwise."""
    x, y, x_test, y_test = images(
        options, setup.data, setup.samples, setup.test_samples, setup.image_size
    )
    grid = training.sweep(
        lambda key: network.init(key, x),
        network.apply,
        loss,
        optimizer,
        {
            "learning_rate": setup.learning_rates,
            "l2": setup.l2,
            "seed": np.arange(setup.seeds),
        },
        x,
        y,
        steps=lambda learning_rate, l2: setup.epoch * setup.epochs(learning_rate, l2),
        record=setup.record,
        x_test=x_test,
        y_test=y_test,
        batch_size=setup.batch_size,
        metrics=["loss", "accuracy", "test_loss", "test_accuracy"],
        eval_batch_size=setup.eval_batch_size,
        members_per_batch=setup.members_per_batch,
        store=options.store,
        progress=progress,
    )
    return averaged(grid)
