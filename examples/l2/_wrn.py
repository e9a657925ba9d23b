"""A network with batch normalization, momentum and augmentation: what Figures 1, 4, S2 to S4, S9, S10 and S12 of the L2 paper train.

The paper's is a wide residual network; on two cores a fully connected one shows more. Times are in epochs, as in the paper; an
epoch is `samples / batch_size` steps.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import _auto_l2
import _normalized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from _sweeps import averaged, best, error, every, images, softmax_loss, time_to_best
from jax import Array

from ntkdecay import datasets, networks, optimizers, report, training

DECAY, FALLS = 0.2, (0.3, 0.6, 0.9)
"""The schedule of Figure 1a: η is multiplied by 0.2 at 0.3 T, 0.6 T and 0.9 T."""


@dataclasses.dataclass(frozen=True)
class Setting(report.Options):
    """A network, its data and its optimizer; the defaults are the narrow stand-in."""

    data: datasets.Name = "digits"
    """Which images."""
    samples: report.Count = 256
    """Training samples."""
    test_samples: report.Count = 512
    """Test samples."""
    size: report.Whole = 0
    """Pixels a side, if the images are to be enlarged; digits have 8."""
    network: Literal["WRN", "FC"] = "WRN"
    """A wide residual network, or a fully connected one with batch normalization."""
    depth: report.Count = 10
    """Layers of the residual network."""
    width: report.Count = 1
    """Factor of its channels."""
    widths: tuple[report.Count, ...] = (256, 256)
    """Hidden layers of the fully connected one."""
    per_device: report.Count | None = None
    """Images that batch normalization takes its statistics over, which divides the batches; none: the whole batch."""
    batch_size: report.Count = 32
    """Samples of a step."""
    eval_batch_size: report.Count = 128
    """Samples of a measurement: batch normalization takes its statistics there too."""
    learning_rate: report.Positive = 0.4
    """η at the start, of the loss of SM A (mean cross entropy over 20)."""
    momentum: report.Share = 0.9
    """β."""
    flip: bool = False
    """Whether images are mirrored at random, which digits do not allow."""
    padding: report.Whole = 1
    """Border of the random crops, in pixels."""
    mixup: report.Positive = 1.0
    """α of mixup; the paper does not say which."""
    record: report.Count = 30
    """Measurements of a run."""
    seeds: report.Count = 1
    """Initializations, orders of batches and augmentations: curves are their means."""

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self.samples // self.batch_size

    @property
    def name(self) -> str:
        """The network in words."""
        if self.network == "FC":
            return f"FC {' × '.join(map(str, self.widths))} with BN"
        return f"WRN {self.depth}-{self.width}"

    @property
    def words(self) -> str:
        """The data in words."""
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.data}, {self.samples} training and {self.test_samples} test samples, {self.name}{seeds}"

    def built(self) -> networks.Network:
        """The network."""
        if self.network == "FC":
            network = _normalized.fully_connected(self.widths)
        else:
            network = networks.wide_resnet(self.depth, self.width)
        return in_groups(network, self.per_device) if self.per_device else network


DESK: dict[str, Any] = dict(
    data="mnist",
    samples=2000,
    test_samples=10_000,
    network="FC",
    batch_size=100,
    eval_batch_size=1000,
    learning_rate=0.2,
    padding=2,
    record=60,
    seeds=3,
)
"""A fully connected network on MNIST: a millisecond a step, so that t_* is passed even at small λ."""
PAPER: dict[str, Any] = dict(
    data="cifar10",
    samples=50_000,
    test_samples=10_000,
    depth=28,
    width=10,
    batch_size=1024,
    per_device=128,
    eval_batch_size=125,
    learning_rate=0.2,
    flip=True,
    padding=4,
    record=200,
)
"""WRN 28-10 on CIFAR-10, as in SM A; 125 images at a time, next to 128, divide the test set."""


def in_groups(network: networks.Network, size: int) -> networks.Network:
    """A network that sees `size` images at a time, as on devices that share a batch; all of them where there are fewer."""

    def apply(params: Any, x: Array) -> Array:
        if len(x) <= size:
            return network.apply(params, x)
        groups = x.reshape(-1, size, *x.shape[1:])
        return jax.vmap(network.apply, (None, 0))(params, groups).reshape(len(x), -1)

    return network._replace(apply=apply)


def train(
    setting: Setting,
    grid: dict[str, Any],
    epochs: Callable[..., float],
    name: str,
    optimizer: Callable[..., optax.GradientTransformation] | None = None,
    **options: Any,
) -> xr.Dataset:
    """The runs of a grid.

    Args:
        setting: what is trained.
        grid: of `training.sweep`: `l2`, `w_std`, …
        epochs: how many, of a cell's values, which it names.
        name: of the progress bar.
        optimizer: as in `training.sweep`; without, SGD with momentum and constant η and λ.
        options: others of `training.sweep`.

    Returns:
        xarray.Dataset over the grid and `step`, with the mean test accuracy over seeds and its standard error.
    """
    data = images(setting, setting.data, setting.samples, setting.test_samples, setting.size)
    network = setting.built()
    default = _normalized.ROOT_2 if setting.network == "FC" else 1.0

    @functools.wraps(epochs)
    def steps(**cell: float) -> int:
        return max(1, round(epochs(**cell) * setting.epoch))

    def augment(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        of_flip, of_crop, of_mixture = jax.random.split(key, 3)
        x = datasets.random_flip(of_flip, x) if setting.flip else x
        x = datasets.random_crop(of_crop, x, setting.padding)
        return datasets.mixup(of_mixture, x, y, setting.mixup)

    options = {"metrics": ["test_accuracy"], "record": setting.record} | options
    found = training.sweep(
        lambda key, w_std=default: network.init(key, data.x_train, w_std),
        network.apply,
        softmax_loss,
        optimizer or (lambda: optax.sgd(setting.learning_rate, setting.momentum)),
        {"seed": np.arange(setting.seeds)} | grid,
        data.x_train,
        data.y_train,
        steps=steps,
        x_test=data.x_test,
        y_test=data.y_test,
        batch_size=setting.batch_size,
        augment=augment,
        eval_batch_size=setting.eval_batch_size,
        members_per_batch=1,
        store=setting.store,
        progress=name,
        **options,
    )
    return averaged(found)


def schedule(setting: Setting, epochs: Any) -> optax.Schedule:
    """η of Figure 1a for a training of so many epochs, which may be traced."""
    falls = jnp.asarray(FALLS) * epochs * setting.epoch
    return lambda step: setting.learning_rate * DECAY ** jnp.sum(step >= falls)


def auto_l2(
    setting: Setting, start: Any, epochs: float, rate: float | optax.Schedule | None = None
) -> xr.Dataset:
    """Runs with AutoL2 from each ηλ/(1−β) of `start`, at a constant η or with a schedule that starts at it."""
    rate = setting.learning_rate if rate is None else rate
    unit = setting.learning_rate / (1 - setting.momentum)
    optimizer = _auto_l2.auto(optax.sgd(rate, setting.momentum), unit=unit)
    return train(setting, {"start": start}, lambda: epochs, "AutoL2", optimizer, metrics=_auto_l2.METRICS)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tuning(Setting):
    """What λ is tuned over, and what c = λ t_* is measured from, for Figures 1b, 1c, 4 and S2 to S4."""

    l2: tuple[report.Positive, ...] = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
    """λ of the runs that are tuned over."""
    budgets: report.Ascending[report.Positive] = (8, 16, 32, 64, 128)
    """Budgets T in epochs, ascending; every run has the last one."""
    large_l2: report.Positive = 0.015
    """λ of the short run that c is measured from; none of `l2`."""
    short_epochs: report.Positive = 8.0
    """Its epochs."""


DESK_TUNING: dict[str, Any] = DESK | dict(
    l2=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    budgets=(25, 50, 100, 200, 400),
    large_l2=0.01,
    short_epochs=8.0,
)
PAPER_TUNING: dict[str, Any] = PAPER | dict(
    l2=(5e-6, 1e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3, 2e-3),
    budgets=(50, 100, 250, 500, 1000, 1500, 2000),
    large_l2=0.01,
    short_epochs=2.0,
)
"""SM A, Figures 1b and 4."""


def tuning(options: Tuning) -> tuple[xr.Dataset, xr.Dataset]:
    """The runs with constant η and λ that are tuned over; and the short one with a large λ."""

    def epochs(l2):
        return options.short_epochs if l2 == options.large_l2 else options.budgets[-1]

    grid = train(options, {"l2": (*options.l2, options.large_l2)}, epochs, "constant λ")
    return grid.isel(l2=slice(-1)), grid.isel(l2=[-1])


def coefficient(setting: Setting, run: xr.Dataset) -> float:
    """c of t_* = c/λ, with t_* in epochs."""
    times = time_to_best(run.isel(step=slice(1, None))) / setting.epoch
    return optimizers.measure_c(run["l2"].to_numpy(), times.to_numpy()).c


def tuned(options: Tuning, grid: xr.Dataset) -> xr.Dataset:
    """For each budget: the `accuracy` of each λ, the `best` of them, its `error` and its `l2_best`, the first and the last within 0.1 %."""
    epochs = np.asarray(options.budgets, float)
    accuracy, spread = (
        xr.concat([read(grid, T * options.epoch) for T in epochs], "epochs")
        for read in (best, error)
    )
    accuracy = accuracy.assign_coords(epochs=epochs)
    near = accuracy["l2"].where(accuracy >= accuracy.max("l2") - 0.001)
    found = {"accuracy": accuracy, "best": accuracy.max("l2"), "l2_best": accuracy.idxmax("l2")}
    found["error"] = spread.where(accuracy == found["best"]).max("l2")
    return xr.Dataset(found | {"l2_low": near.min("l2"), "l2_high": near.max("l2")})


def off(found: xr.Dataset, predicted: np.ndarray) -> np.ndarray:
    """How far the λ predicted for each budget is from those within 0.1 % of the best: a factor, 1 among them."""
    low, high = (found[name].to_numpy() for name in ("l2_low", "l2_high"))
    return predicted / np.clip(predicted, low, high)


def of_order(found: xr.Dataset, predicted: np.ndarray) -> bool | None:
    """Whether every predicted λ is within a factor 10 of the best ones; None where one that is not is outside of the grid."""
    factor, l2 = off(found, predicted), found["l2"].to_numpy()
    far = (factor <= 0.1) | (factor >= 10)
    outside = (predicted < l2.min()) | (predicted > l2.max())
    return every(None if out else False for out in outside[far]) if far.any() else True
