"""What the figures of the output-scale paper share: data, network, optimizers and the plane of η and α.

A plane is what `ntkdecay.training.sweep` returns for one optimizer over learning rates and output
scales, each cell trained from the same θ_0 on the loss (3). A column, one α, has a best η and a range of
η that are nearly as good; how they move with α is what the paper looks at.
"""

import dataclasses
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
"""A test accuracy this near to the best of its column is near-best."""

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
    width: report.Count = 64
    """h, hidden units; 1000 in the paper."""
    steps: report.Count = 200
    """Steps on all samples; 5000 in the paper."""
    seed: report.Seed = 0
    """Seed of θ_0."""
    members_per_batch: report.Count | None = 8
    """Runs side by side; none: measured."""


RATES, ALPHAS = powers(-9, 3, 0.5), powers(-6, 10, 2)


@dataclasses.dataclass(frozen=True)
class PlaneOptions(Options):
    """Sizes of the experiment; the quick grid is coarse in α."""

    learning_rates: report.Ascending[report.Positive] = RATES
    """η, ascending, at equal ratios."""
    alphas: report.Ascending[report.Positive] = ALPHAS
    """α, ascending."""


SIZES: dict[str, Any] = dict(
    data="mnist",
    samples=10_000,
    test_samples=10_000,
    width=1000,
    steps=5000,
    members_per_batch=None,
)
"""The paper's."""

PAPER_PLANE = PlaneOptions(**SIZES, learning_rates=powers(-9, 4, 0.5), alphas=powers(-6, 12))
"""The paper's sizes on a finer grid, whose ends the paper does not print."""


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
        x = output_scale.on_sphere(x[:count].astype(float))
        return x, output_scale.one_against_all(y[:count], 10)

    train = prepared(data.x_train, data.y_train, options.samples)
    return Images(*train, *prepared(data.x_test, data.y_test, options.test_samples))


def described(options: Options) -> str:
    """The data and sizes of a run in words."""
    return f"{options.data}, {options.samples} samples, h = {options.width}, {options.steps} steps, float64"


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
    seeds: tuple[int, ...] | None = None,
) -> xr.Dataset:
    """One optimizer at every η and α, over (learning_rate, alpha, seed, step); by default from one θ_0."""
    net, data = network(options), images(options)

    def centred(params, x, params_0, alpha):
        return output_scale.centred(net.apply, params_0, alpha)(params, x)

    return training.sweep(
        lambda key: net.init(key, data.x),
        centred,
        loss,
        OPTIMIZERS[optimizer],
        {"learning_rate": learning_rates, "alpha": alphas, "seed": seeds or (options.seed,)},
        data.x,
        data.y,
        steps=options.steps,
        record=record,
        x_test=data.x_test,
        y_test=data.y_test,
        metrics=metrics,
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress=optimizer,
    )


def planes(options: PlaneOptions) -> dict[str, xr.Dataset]:
    """Each optimizer's plane after the last step, over (learning_rate, alpha).

    `diverged`: θ is not finite, or training has thrown it to where hardly a gradient is left (`GONE` times
    the first) while the loss is not even half of what it was. `lost`: more than half of the weights are bit
    for bit what they were.
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
        float(optax.tree.norm(gradient_0(options))),
    )
    found = {}
    for name in OPTIMIZERS:
        grid = trained(options, name, options.learning_rates, options.alphas, metrics)
        grid = grid.isel(step=-1, seed=0)
        gone = grid["gradient_norm"] * grid["alpha"] < GONE * first[1]
        out = gone & (grid["loss"] > first[0] / 2)
        diverged = out | (grid["status"] == "diverged") | grid["loss"].isnull()
        found[name] = grid.assign(diverged=diverged, lost=~diverged & (grid["unmoved"] > 0.5))
    return found


def gradient_0(options: Options):
    """αG at θ_0, the same for every α."""
    net, data = network(options), images(options)
    params_0 = net.init(training.init_key(options.seed), data.x)
    outputs = output_scale.centred(net.apply, params_0, 1.0)
    return jax.grad(lambda params: loss(outputs(params, data.x), data.y, 1.0))(params_0)


def critical_alpha(options: Options, steps: int) -> float:
    """α* of the original RMSProp after so many steps, predicted from the gradient at θ_0."""
    v = output_scale.second_moment(gradient_0(options), steps)
    return float(output_scale.critical_alpha(v))


def best_accuracy(plane: xr.Dataset) -> xr.DataArray:
    """The best test accuracy of each α, of cells that neither diverged nor were lost to rounding."""
    return _trusted(plane).max("learning_rate")


def near_best(plane: xr.Dataset) -> xr.DataArray:
    """Whether a cell's test accuracy is within `WITHIN` of the best of its α."""
    return _trusted(plane) >= best_accuracy(plane) - WITHIN


def _trusted(plane: xr.Dataset) -> xr.DataArray:
    return plane["test_accuracy"].where(~plane["diverged"] & ~plane["lost"])


def best_rate(plane: xr.Dataset) -> xr.DataArray:
    """The smallest near-best η of each α: at large α there is no largest."""
    return plane["learning_rate"].where(near_best(plane)).min("learning_rate")


def decades(plane: xr.Dataset) -> xr.DataArray:
    """How many decades of η are near-best at each α."""
    spacing = np.diff(np.log10(plane["learning_rate"])).mean()
    return near_best(plane).sum("learning_rate") * spacing


def slope(values: xr.DataArray, first: float = 0.0, last: float = np.inf) -> float:
    """Slope of log(value) against log α for α from `first` to `last`; NaN of fewer than two points."""
    tiny = 1 + 1e-9
    inside = (values["alpha"] >= first / tiny) & (values["alpha"] <= last * tiny) & (values > 0)
    chosen = values.where(inside, drop=True)
    if chosen.size < 2:
        return np.nan
    return float(np.polyfit(np.log(chosen["alpha"]), np.log(chosen), 1)[0])


def draw(ax, plane: xr.Dataset, values: xr.DataArray, title: str, **style) -> None:
    """A plane as the paper draws it: diverged cells white, cells where the step is lost to rounding hatched."""
    alpha, rate = (np.log10(plane[name].to_numpy()) for name in ("alpha", "learning_rate"))
    shown = values.where(~plane["diverged"]).transpose("learning_rate", "alpha").to_numpy()
    ax.pcolormesh(alpha, rate, shown, shading="nearest", **style)
    lost = plane["lost"].transpose("learning_rate", "alpha").to_numpy()
    width, height = np.diff(alpha).mean(), np.diff(rate).mean()
    cells = [
        Rectangle((alpha[j] - width / 2, rate[i] - height / 2), width, height)
        for i, j in np.argwhere(lost)
    ]
    ax.add_collection(
        PatchCollection(cells, facecolor="none", edgecolor="darkgrey", linewidth=0, hatch="////")
    )
    ax.set(xlabel="log₁₀ α", ylabel="log₁₀ η", title=title)


def plain(plane: xr.Dataset, names: tuple[str, ...]) -> dict:
    """Variables with the plane's η and α, as a report's numbers hold them."""
    return {name: plane[name].to_numpy() for name in ("learning_rate", "alpha", *names)}
