"""What the scripts of the intrinsic learning rate's paper share: data, networks, and a sweep over schedules and seeds.

Every network is scale-invariant (`ntkdecay.scale_invariant.networks`): the last layer is frozen, and batch
normalization, without scale and offset, takes the statistics of the batch at hand, in testing too.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from _schedules import Schedule, Table, check_decay
from jax.flatten_util import ravel_pytree
from scipy import stats

from ntkdecay import datasets, networks, optimizers, report, training
from ntkdecay.report import colors as colors
from ntkdecay.scale_invariant import networks as invariant

VGG_16: dict[str, Any] = dict(
    channels=(64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
    pooled=(1, 3, 6, 9, 12),
)
"""Its thirteen convolutions, and those that are pooled."""


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Data, network and number of runs."""

    data: datasets.Name = "digits"
    """Which images."""
    samples: report.Count = 1000
    """Training samples."""
    test_samples: report.Count = 797
    """Test samples; training samples that are not trained on join them where they are too few."""
    network: Literal["fc", "cnn", "vgg_16", "pre_resnet_32"] = "fc"
    """fc: two hidden layers; cnn: the paper's for MNIST; the others are for CIFAR-10 (Figures 11 and 12: vgg_16)."""
    width: report.Count = 32
    """Units of a hidden layer, channels of the first convolution; vgg_16 has its own."""
    batch_size: report.Count = 32
    """Samples of a step."""
    augment: bool = False
    """Random crops and flips."""
    seeds: report.Count = 4
    """Runs of each schedule."""
    members_per_batch: report.Count | None = 1
    """Runs side by side; none: measured."""
    eval_batch_size: report.Count | None = None
    """Samples that are measured at a time; none: all."""

    @property
    def words(self) -> str:
        """Data, network and seeds, for the report."""
        return (
            f"{self.data}, {self.samples} training and {self.test_samples} test samples, {self.network} of width "
            f"{self.width}, batches of {self.batch_size}, {self.seeds} seeds, float32"
        )


DESK: dict[str, Any] = dict(
    data="cifar10", samples=10_000, test_samples=10_000, width=32, batch_size=128, seeds=3
)
"""Real images in a fully connected network: what two cores train for a few 1/λ_e in minutes."""

CIFAR: dict[str, Any] = dict(
    data="cifar10", samples=50_000, test_samples=10_000, network="pre_resnet_32", width=16,
    batch_size=128, augment=True, seeds=1, members_per_batch=None, eval_batch_size=1000,
)  # fmt: skip
"""The paper's sizes on CIFAR-10."""

EPOCH = 390
"""Steps of an epoch there."""


def images(options: Options) -> datasets.Dataset:
    """The first images of a data set, of mean 0 and variance 1 over all training pixels, and their classes.

    Raises:
        ValueError: if there are fewer than asked for.
    """
    data = datasets.load(options.data, options.data_dir)
    return datasets.standardized(data, options.samples, options.test_samples)


def network(options: Options) -> networks.Network:
    """The scale-invariant network of these options."""
    outputs = datasets.classes(options.data)
    if options.network == "fc":
        return invariant.fc(outputs, width=options.width)
    if options.network == "cnn":
        return invariant.cnn(outputs, channels=tuple(options.width * i for i in (1, 1, 2, 2)))
    if options.network == "vgg_16":
        return invariant.cnn(outputs, **VGG_16)
    return invariant.pre_resnet(32, outputs, width=options.width)


def loss(fx: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()


def flipped_and_cropped(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The augmentation of CIFAR-10."""
    flip, crop = jax.random.split(key)
    return datasets.random_crop(crop, datasets.random_flip(flip, x)), y


def evenly(end: float, count: int, schedules: Sequence[Schedule] = ()) -> np.ndarray:
    """About `count` steps from 0 to `end`, evenly spaced; of each phase the start, and the steps 1, 2, 4, … after it."""
    even = np.linspace(0, end, count + 1)
    starts = np.unique([0.0, *(phase.start for phases in schedules for phase in phases)])
    soon = starts[:, None] + 2 ** np.arange(max(1, int(np.log2(max(even[1], 2)))))
    steps = np.unique(np.round([*even, *starts, *soon.flat])).astype(int)
    return steps[steps <= end]


class Noise(NamedTuple):
    r"""A metric: the gradient of minibatches at w/‖w‖, (2,): its variance Tr Σ and its squared mean ‖∇L‖².

    Unbiased, from a few batches drawn anew. Training's own batches are those that the epoch has not had yet: there
    ‖∇L‖² is larger (at the quick size by a fifth), and so is the equilibrium norm.
    """

    batch_size: int
    augment: Callable | None = None
    batches: int = 8
    """At most so many."""

    def __call__(self, snapshot: training.Snapshot) -> jax.Array:
        count = min(self.batches, len(snapshot.data.x) // self.batch_size)
        if count < 2:
            raise ValueError(
                f"{len(snapshot.data.x)} samples hold {count} batches of {self.batch_size}; the noise of minibatches "
                "needs two: train on more samples or take smaller batches"
            )
        key = jax.random.key(snapshot.step)
        chosen = jax.random.permutation(key, len(snapshot.data.x))[: count * self.batch_size]

        def gradient(drawn: tuple[jax.Array, jax.Array]) -> jax.Array:
            x, y = snapshot.data.x[drawn[0]], snapshot.data.y[drawn[0]]
            if self.augment is not None:
                x, y = self.augment(drawn[1], x, y)
            slope = jax.grad(lambda w: snapshot.loss_fn(snapshot.apply_fn(w, x), y))
            return ravel_pytree(slope(snapshot.params))[0]

        found = jax.lax.map(
            gradient, (chosen.reshape(count, self.batch_size), jax.random.split(key, count))
        )
        variance = jnp.sum(jnp.var(found, 0, ddof=1))
        mean2 = jnp.sum(jnp.mean(found, 0) ** 2) - variance / count
        return optax.tree.norm(snapshot.params, squared=True) * jnp.stack([variance, mean2])


def run(
    options: Options,
    schedules: Sequence[Schedule],
    steps: int | Callable[..., Any],
    record: np.ndarray,
    *,
    momentum: Sequence[float] | None = None,
    metrics: dict[str, Any] | None = None,
    init: Callable[..., Any] | None = None,
    apply_fn: Callable[..., Any] | None = None,
    full_batch: bool = False,
    noise: bool = True,
    progress: str = "runs",
) -> xr.Dataset:
    """Every schedule from `seeds` initializations, over (schedule, seed, step); no two runs share theirs, or their batches.

    Args:
        options: data and network.
        schedules: of η and λ.
        steps: how many; or `steps(schedule)` of the schedule's number.
        record: steps to measure at.
        momentum: β of each schedule; none: plain SGD.
        metrics: beyond accuracy, test accuracy, loss, `norm2`, `rate` (η/‖w‖²), `noise` (Tr Σ at unit norm) and
            `mean2` (‖∇L‖² at unit norm).
        init, apply_fn: `init(key, schedule)` and `apply_fn(params, x, schedule)` instead of the network's.
        full_batch: gradient descent on all samples.
        noise: whether to measure the gradients of minibatches.
        progress: name of the progress bar.
    """
    check_decay(schedules)
    x, y, x_test, y_test = images(options)
    net, table = network(options), Table.of(schedules)
    augment = flipped_and_cropped if options.augment else None
    beta = None if momentum is None else jnp.asarray(momentum, jnp.float32)

    start = init or (lambda key, schedule: net.init(key, x))

    def schedule_of(seed):
        return seed // options.seeds

    def optimizer(seed):
        schedule = schedule_of(seed)
        return optimizers.sgd(
            lambda step: table.learning_rate(schedule, step),
            l2=lambda step: table.l2(schedule, step),
            momentum=None if beta is None else beta[schedule],
        )

    def rate(s: training.Snapshot) -> jax.Array:
        schedule = schedule_of(s.cell["seed"])
        return table.learning_rate(schedule, s.step) / optax.tree.norm(s.params, squared=True)

    measured: dict[str, Any] = {
        name: name for name in ("loss", "accuracy", "test_accuracy", "norm2")
    }
    measured |= {"rate": rate} | (metrics or {})
    if noise:
        measured["gradients"] = Noise(options.batch_size, augment)
    grid = training.sweep(
        (lambda key, seed: start(key, schedule_of(seed))),
        (lambda params, x, seed: apply_fn(params, x, schedule_of(seed))) if apply_fn else net.apply,
        loss,
        optimizer,
        {"seed": np.arange(len(schedules) * options.seeds)},
        x,
        y,
        steps=(lambda seed: steps(schedule_of(seed))) if callable(steps) else steps,
        record=record,
        x_test=x_test,
        y_test=y_test,
        batch_size=None if full_batch else options.batch_size,
        augment=augment,
        metrics=measured,
        eval_batch_size=options.eval_batch_size,
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress=progress,
    )
    grid = grid.rename(seed="run").drop_vars("run")
    grid = grid.coarsen(run=options.seeds).construct(run=("schedule", "seed"))
    if not noise:
        return grid
    split = {"noise": grid["gradients"][..., 0], "mean2": grid["gradients"][..., 1]}
    return grid.drop_vars("gradients").assign(split)


class Apart(NamedTuple):
    """How far several groups of runs are apart: means over seeds, their range, and whether it is more than chance."""

    means: np.ndarray
    range: float
    p: float
    """Of the analysis of variance: how often chance alone parts them so far; NaN for a single seed."""

    @property
    def chance(self) -> str:
        return "one seed each" if np.isnan(self.p) else f"p = {self.p:.2g}"


def apart(values: xr.DataArray, along: str = "schedule") -> Apart:
    """One number of each run, over `along` and seed."""
    values = values.transpose(along, "seed")
    means = values.mean("seed").to_numpy()
    p = stats.f_oneway(*values.to_numpy()).pvalue if values.sizes["seed"] > 1 else np.nan
    return Apart(means, float(np.ptp(means)), float(p))


def alike(found: Sequence[Apart], within: float) -> bool | None:
    """Whether in each comparison the means are within a range; None where one is not, but chance alone explains it, or one seed cannot tell.

    The level of p is 0.01 for all of them together: 0.01 over their number.
    """
    return report.every(
        [
            True if one.range < within else False if one.p < 0.01 / len(found) else None
            for one in found
        ]
    )


def settled(intrinsic_lr: float, steps: float) -> bool:
    """Whether a phase is long enough for the norm to come to its equilibrium: what is left of γ − γ_∞ is e⁻³ by (12), or less."""
    return 4 * intrinsic_lr * steps >= 3


FINITE = "a finite step adds ‖∇L‖² to Tr Σ ((3) of the periodic paper); Tr Σ alone is the limit of small steps"
SHORT = (
    "a record that ends before equilibrium, or a difference that chance explains, decides nothing"
)


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of log y against log x, by least squares; NaN of fewer than three points."""
    good = np.isfinite(y)
    return float(np.polyfit(np.log(x[good]), np.log(y[good]), 1)[0]) if good.sum() > 2 else np.nan


def log(values: xr.DataArray) -> xr.DataArray:
    """Natural logarithm."""
    return xr.apply_ufunc(np.log, values)


def mean_rate(grid: xr.Dataset) -> xr.DataArray:
    """The effective learning rate, its geometric mean over seeds."""
    return xr.apply_ufunc(np.exp, log(grid["rate"]).mean("seed"))
