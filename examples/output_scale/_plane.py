"""What the figures of the output-scale paper share: data, network, optimizers and the plane of η and α.

A plane is what `ntkdecay.training.sweep` returns for one optimizer over learning rates and output
scales, each cell trained from the same θ_0 on the loss (3). A column, one α, has an interval of η that are
near-best, and with gradient descent an η from which on all diverge; how they move with α is what the paper looks at.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from ntkdecay import datasets, output_scale, report, training

GD, RMSPROP, MODIFIED = "gradient descent", "RMSProp", "modified RMSProp"
OPTIMIZERS = {
    GD: lambda learning_rate: optax.sgd(learning_rate),
    RMSPROP: lambda learning_rate: optax.rmsprop(
        learning_rate, decay=0.999, eps=1e-8, eps_in_sqrt=False
    ),
    MODIFIED: lambda learning_rate, alpha: output_scale.rescaled_rmsprop(learning_rate, alpha),
}
"""With Section 3's ρ and ε: (5), (6) with (7), and (6) with (10)."""

WITHIN = 0.03
"""An accuracy this near to the best of its column is near-best."""

LEARNED = 0.9
"""The best training accuracy of a column whose runs are long enough to say which η is proper."""

TINY = 1 + 1e-9
"""For comparisons of powers of ten with their own kind."""

GONE = 1e-3
"""A gradient so many times smaller than the first counts as none."""


def powers(first: float, last: float, spacing: float = 1.0) -> tuple[float, ...]:
    """Powers of ten from 10^first to 10^last."""
    return tuple(float(10.0**n) for n in np.arange(first, last + spacing / 2, spacing))


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    data: datasets.Name = "digits"
    """Which images."""
    samples: report.Count = 200
    """Training samples; 10,000 in the paper."""
    test_samples: report.Count = 297
    """Test samples; 10,000 in the paper."""
    pooled: report.Count = 1
    """Pixels a side that are averaged into one."""
    width: report.Count = 64
    """h, hidden units; 1000 in the paper."""
    steps: report.Count = 200
    """Steps on all samples; 5000 in the paper."""
    seeds: tuple[report.Seed, ...] = (0,)
    """Seeds of θ_0: means over them."""
    members_per_batch: report.Count | None = 8
    """Runs side by side; none: measured."""


RATES, ALPHAS = powers(-9, 16, 0.5), powers(-6, 12, 2)


@dataclasses.dataclass(frozen=True)
class PlaneOptions(Options):
    """Sizes of the experiment; the quick grid is coarse in α."""

    steps: report.Count = 500
    """Steps on all samples; 5000 in the paper."""

    learning_rates: report.Ascending[report.Positive] = RATES
    """η, ascending, at equal ratios."""
    alphas: report.Ascending[report.Positive] = ALPHAS
    """α, ascending."""
    highest: report.Positive = 1e4
    """Cells are trained up to η = so many times max(1, α): what is stable grows with α."""


SIZES: dict[str, Any] = dict(
    data="mnist",
    samples=10_000,
    test_samples=10_000,
    width=1000,
    steps=5000,
    members_per_batch=None,
)
"""The paper's."""

PAPER_PLANE = PlaneOptions(**SIZES, alphas=powers(-6, 12))
"""The paper's sizes on a finer grid, whose ends the paper does not print."""
DESK_SIZES: dict[str, Any] = dict(data="mnist", test_samples=10_000, pooled=2, seeds=(0, 1, 2))
"""MNIST at half its resolution, and three seeds."""
DESK_PLANE = PlaneOptions(**DESK_SIZES, alphas=(1e-6, 1e-4, 1e-2, 1.0, 1e4, 1e8, 1e12))


class Images(NamedTuple):
    """Samples on the sphere Σ x_i² = d, (n, d), and labels ±1 for each class, (n, 10)."""

    x: jax.Array
    y: np.ndarray
    x_test: jax.Array
    y_test: np.ndarray


def images(options: Options) -> Images:
    """The first samples of a data set, prepared as in Section 3, in float64.

    Raises:
        ValueError: if there are fewer samples.
    """
    data = datasets.load(options.data, options.data_dir)
    for name, asked, x in (
        ("training", options.samples, data.x_train),
        ("test", options.test_samples, data.x_test),
    ):
        if not 0 < asked <= len(x):
            raise ValueError(
                f"{options.data} has {len(x)} {name} samples; {asked} of them were asked for."
            )

    def prepared(x, y, count):
        x = output_scale.on_sphere(averaged(x[:count], options.pooled))
        return x, output_scale.one_against_all(y[:count], 10)

    train = prepared(data.x_train, data.y_train, options.samples)
    return Images(*train, *prepared(data.x_test, data.y_test, options.test_samples))


def averaged(x: np.ndarray, factor: int) -> np.ndarray:
    """Images (n, side, side, channels), as floats, of which factor × factor pixels are averaged into one.

    Raises:
        ValueError: if the side is not a multiple of the factor.
    """
    n, side, _, channels = x.shape
    if side % factor:
        raise ValueError(f"`--pooled` is {factor}; it must divide the {side} pixels of a side.")
    blocks = x.reshape(n, side // factor, factor, side // factor, factor, channels)
    return blocks.mean((2, 4), dtype=float)


def described(options: Options) -> str:
    """The data and sizes of a run in words."""
    count, pooled = len(options.seeds), options.pooled
    return (
        options.data
        + (f" of 1/{pooled} the resolution" if pooled > 1 else "")
        + f", {options.samples} samples, h = {options.width}, {options.steps} steps, "
        + (f"{count} seeds, " if count > 1 else "")
        + "float64"
    )


def network(options: Options) -> output_scale.TwoLayer:
    """Equations (11) to (13), with an output for each class."""
    return output_scale.two_layer(options.width, outputs=10)


def loss(fx, y, alpha):
    """Equation (3) with the soft hinge (14)."""
    return output_scale.scaled_loss(output_scale.soft_hinge, alpha)(fx, y)


def trained(
    options: Options,
    optimizer: str,
    learning_rates: tuple[float, ...],
    alphas: tuple[float, ...],
    metrics: dict,
    record: tuple[int, ...] = (),
    steps: Callable[[float, float], int] | None = None,
) -> xr.Dataset:
    """One optimizer at every η and α, over (learning_rate, alpha, seed, step)."""
    net, data = network(options), images(options)

    def centred(params, x, params_0, alpha):
        return output_scale.centred(net.apply, params_0, alpha)(params, x)

    return training.sweep(
        lambda key: net.init(key, data.x),
        centred,
        loss,
        OPTIMIZERS[optimizer],
        {"learning_rate": learning_rates, "alpha": alphas, "seed": options.seeds},
        data.x,
        data.y,
        steps=steps or options.steps,
        record=record,
        x_test=data.x_test,
        y_test=data.y_test,
        metrics=metrics,
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress=optimizer,
    )


def planes(options: PlaneOptions) -> dict[str, xr.Dataset]:
    """Each optimizer's plane after the last step, over (learning_rate, alpha), the mean over seeds.

    `trained`: the cells that are, up to `highest`. `diverged`: from some seed θ is not finite, or training has thrown it to
    where hardly a gradient is left (`GONE` times the first) while the loss is not even half of what it was. `lost`: more than
    half of the weights are bit for bit what they were.
    """
    net = network(options)

    def sign_consistency(snapshot):
        features = (
            net.preactivations(p, snapshot.data.x_test)
            for p in (snapshot.params_0, snapshot.params)
        )
        return output_scale.sign_consistency(*features)

    def unmoved(snapshot):
        """The share of weights; those of pixels that are zero on all samples do not count."""
        seen = jnp.any(snapshot.data.x != 0, axis=0)[:, None]
        first, last = (a == b for a, b in zip(snapshot.params, snapshot.params_0, strict=True))
        weights = jnp.sum(seen) * first.shape[1] + last.size
        return (jnp.sum(first & seen) + jnp.sum(last)) / weights

    sign_consistency.needs_params_0 = unmoved.needs_params_0 = True
    metrics = {
        "loss": lambda s: s.loss_fn(s.fx, s.data.y) * s.cell["alpha"] ** 2,
        "accuracy": "accuracy",
        "test_accuracy": "test_accuracy",
        "gradient_norm": "gradient_norm",
        "sign_consistency": sign_consistency,
        "unmoved": unmoved,
    }
    first = (
        float(10 * output_scale.soft_hinge(0.0, 1.0)),
        float(optax.tree.norm(gradient_0(options, options.seeds[0]))),
    )

    def steps(learning_rate, alpha):
        return options.steps if learning_rate <= options.highest * max(1.0, alpha) * TINY else 0

    found = {}
    for name in OPTIMIZERS:
        rates, alphas = options.learning_rates, options.alphas
        grid = trained(options, name, rates, alphas, metrics, steps=steps).isel(step=-1)
        asked = [[steps(rate, alpha) > 0 for alpha in alphas] for rate in rates]
        ran = xr.DataArray(asked, {"learning_rate": list(rates), "alpha": list(alphas)})
        gone = grid["gradient_norm"] * grid["alpha"] < GONE * first[1]
        out = gone & (grid["loss"] > first[0] / 2)
        out = (out | (grid["status"] == "diverged") | grid["loss"].isnull()).any("seed") & ran
        mean = grid[list(metrics)].mean("seed")
        lost = ran & ~out & (mean["unmoved"] > 0.5)
        found[name] = mean.assign(trained=ran, diverged=out, lost=lost)
    return found


def gradient_0(options: Options, seed: int):
    """αG at θ_0, the same for every α."""
    net, data = network(options), images(options)
    params_0 = net.init(training.init_key(seed), data.x)
    outputs = output_scale.centred(net.apply, params_0, 1.0)
    return jax.grad(lambda params: loss(outputs(params, data.x), data.y, 1.0))(params_0)


def critical_alpha(options: Options, steps: int) -> float:
    """α* of the original RMSProp after so many steps, predicted from the gradient at θ_0; the mean over seeds."""
    gradients = (gradient_0(options, seed) for seed in options.seeds)
    moments = (output_scale.second_moment(gradient, steps) for gradient in gradients)
    return float(np.mean([output_scale.critical_alpha(v) for v in moments]))


def best_accuracy(plane: xr.Dataset) -> xr.DataArray:
    """The best test accuracy of each α, of cells that neither diverged nor were lost to rounding."""
    return _trusted(plane, "test_accuracy").max("learning_rate")


def near_best(plane: xr.Dataset, which: str = "test_accuracy") -> xr.DataArray:
    """Whether a cell's accuracy is within `WITHIN` of the best of its α; of no cell of an α where nothing has `LEARNED`."""
    accuracy = _trusted(plane, which)
    learned = _trusted(plane, "accuracy").max("learning_rate") >= LEARNED
    return (accuracy >= accuracy.max("learning_rate") - WITHIN) & learned


def _trusted(plane: xr.Dataset, which: str) -> xr.DataArray:
    return plane[which].where(plane["trained"] & ~plane["diverged"] & ~plane["lost"])


def lowest(plane: xr.Dataset) -> xr.DataArray:
    """The smallest near-best η of each α; NaN where that is the smallest trained, and it may be smaller."""
    found = plane["learning_rate"].where(near_best(plane)).min("learning_rate")
    return found.where(found > _rates(plane).min("learning_rate"))


def highest(plane: xr.Dataset, which: str = "test_accuracy") -> xr.DataArray:
    """The largest near-best η of each α; NaN where that is the largest trained, and it may be larger."""
    found = plane["learning_rate"].where(near_best(plane, which)).max("learning_rate")
    return found.where(found < _rates(plane).max("learning_rate"))


def stable(plane: xr.Dataset) -> xr.DataArray:
    """The largest η of each α with which the training samples are learned: an adaptive optimizer's need not diverge above it."""
    return highest(plane, "accuracy")


def middle(plane: xr.Dataset) -> xr.DataArray:
    """The middle of the near-best η of each α, in logarithms; NaN where one end is not known."""
    return (lowest(plane) * highest(plane)) ** 0.5


def edge(plane: xr.Dataset) -> xr.DataArray:
    """The η of each α from which on all that are trained diverge; NaN where the largest does not."""
    stays = _rates(plane).where(~plane["diverged"]).max("learning_rate").fillna(0.0)
    return _rates(plane).where(plane["learning_rate"] > stays).min("learning_rate")


def _rates(plane: xr.Dataset) -> xr.DataArray:
    return plane["learning_rate"].where(plane["trained"])


def decades(plane: xr.Dataset) -> xr.DataArray:
    """How many decades of η are near-best at each α."""
    spacing = np.diff(np.log10(plane["learning_rate"])).mean()
    return near_best(plane).sum("learning_rate") * spacing


def slope(values: xr.DataArray, first: float = 0.0, last: float = np.inf) -> float:
    """Slope of log(value) against log α for α from `first` to `last`; NaN if a value there is, or of fewer than two."""
    inside = values["alpha"].where((values["alpha"] >= first / TINY) & (values["alpha"] <= last * TINY))  # fmt: skip
    chosen = values.sel(alpha=inside.dropna("alpha")["alpha"])
    if chosen.size < 2 or chosen.isnull().any():
        return np.nan
    return float(np.polyfit(np.log(chosen["alpha"]), np.log(chosen), 1)[0])


def near(value: float, expected: float, within: float) -> bool | None:
    """Whether a measured number is what is expected; None of NaN, which could not be measured."""
    return None if np.isnan(value) else abs(value - expected) < within


def above(values: np.ndarray, least: float = 0.0) -> bool | None:
    """Whether differences, one for each seed, are above `least` in the mean; None where two standard errors do not tell."""
    mean, error = mean_and_error(values)
    undecided = np.isnan(mean) or (error > 0 and abs(mean - least) <= 2 * error)
    return None if undecided else mean > least


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean over seeds and its standard error, 0 of a single one."""
    values = np.asarray(values)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else 0.0
    return float(values.mean()), float(error)


def every(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all hold: False where one does not, None where none fails but one, or all, cannot be decided."""
    found = list(verdicts)
    if any(one is not None and not one for one in found):
        return False
    return None if None in found or not found else True


def explain(out: report.Report, why: Mapping[str, str]) -> None:
    """Say of each claim that fails why it does: size, criterion or the paper."""
    for i, claim in enumerate(out.claims):
        if claim.holds is False and claim.claim in why:
            out.claims[i] = claim._replace(measured=f"{claim.measured}. {why[claim.claim]}")


def draw(ax, plane: xr.Dataset, values: xr.DataArray, title: str, **style) -> None:
    """A plane as the paper draws it: diverged cells white, where the step is lost to rounding hatched, not trained grey."""
    alpha, rate = (np.log10(plane[name].to_numpy()) for name in ("alpha", "learning_rate"))
    left, low = borders(alpha).tolist(), borders(rate).tolist()

    def mark(which: str, **how) -> None:
        cells = plane[which].transpose("learning_rate", "alpha").to_numpy()
        patches = [
            Rectangle((left[j], low[i]), left[j + 1] - left[j], low[i + 1] - low[i])
            for i, j in np.argwhere(cells)
        ]
        ax.add_collection(PatchCollection(patches, linewidth=0, **how))

    shown = values.where(plane["trained"] & ~plane["diverged"])
    shown = shown.transpose("learning_rate", "alpha").to_numpy()
    ax.pcolormesh(left, low, shown, **style)
    ax.set_facecolor("0.85")
    mark("diverged", facecolor="white", edgecolor="none")
    mark("lost", facecolor="none", edgecolor="darkgrey", hatch="////")
    ax.set(xlabel="log₁₀ α", ylabel="log₁₀ η", title=title)


def borders(middles: np.ndarray) -> np.ndarray:
    """Where cells of a grid end: half way to the next, one more than there are cells."""
    inner = (middles[1:] + middles[:-1]) / 2
    first, last = 2 * middles[0] - inner[0], 2 * middles[-1] - inner[-1]
    return np.concatenate([[first], inner, [last]])


MARKS = "white: diverged, hatched: step lost to rounding, grey: not trained"


def plain(plane: xr.Dataset, names: tuple[str, ...]) -> dict:
    """Variables with the plane's η and α, as a report's numbers hold them."""
    return {name: plane[name].to_numpy() for name in ("learning_rate", "alpha", *names)}
