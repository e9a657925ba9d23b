"""Figure S7 of the L2 paper: a network too narrow for its data, where the scaling does not hold.

t_* ∝ 1/λ above the best λ and constant, that of λ = 0, below; the best accuracy has a maximum at a λ ≠ 0, and
comes before training accuracy 1 (SM D). The quick preset makes the network narrower still, as digits are few.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr
from _panels import PEAKED
from _sweeps import (
    WITHIN,
    ahead,
    averaged,
    best,
    colors,
    every,
    images,
    lead,
    peaked,
    percent,
    plain,
    slopes,
    softmax_loss,
    spread,
    time_to_best,
)

from ntkdecay import datasets, networks, report, training


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    data: datasets.Name = "digits"
    """Which images."""
    samples: report.Count = 1200
    """Training samples."""
    test_samples: report.Count = 597
    """Test samples."""
    widths: tuple[report.Count, ...] = (8, 8, 8)
    """Hidden layers: few parameters for each training label."""
    learning_rate: report.Positive = 2.0
    """η."""
    l2: report.Ascending[report.NonNegative] = (
        0.0,
        1e-6,
        1e-5,
        5e-5,
        1e-4,
        2e-4,
        5e-4,
        1e-3,
        2e-3,
        5e-3,
    )
    """λ, ascending, from 0."""
    seeds: report.Count = 4
    """Initializations: curves are their means."""
    epochs: report.Count = 500
    """Of every run."""
    batch_size: report.Count = 128
    """Samples of a step."""
    record: report.Count = 50
    """Measurements of a run, spaced geometrically."""
    members_per_batch: report.Count | None = 1
    """Runs side by side; none: measured."""


DESK = Options(
    data="cifar10",
    samples=10_000,
    test_samples=10_000,
    widths=(64, 64, 64),
    learning_rate=1.0,
    l2=(0.0, 1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3e-2),
    seeds=3,
    epochs=200,
    batch_size=512,
    record=60,
)
PAPER = Options(
    data="cifar10",
    samples=50_000,
    test_samples=10_000,
    widths=(64, 64, 64),
    learning_rate=0.1,
    l2=(0.0, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    seeds=1,
    epochs=4000,
    batch_size=512,
    record=200,
    members_per_batch=None,
)


WHY = {
    "below the best λ, t_* is constant, that of λ = 0": "Criterion: accuracy is flat from 10 epochs on, and noise of 0.8 % says when "
    "it is within 0.5 % of its best"
}


def main(options: Options) -> None:
    """Figure S7: t_* and the best accuracy against λ for a narrow network."""
    words = f"{options.data}, {options.samples} training and {options.test_samples} test samples, {options.seeds} seeds"
    out = report.Report("l2", "s7", options, data=words)
    x, y, x_test, y_test = images(options, options.data, options.samples, options.test_samples)
    epoch = options.samples // options.batch_size
    network = networks.fully_connected(options.widths)
    grid = training.sweep(
        lambda key: network.init(key, x),
        network.apply,
        softmax_loss,
        lambda: optax.sgd(options.learning_rate),
        {"l2": options.l2, "seed": np.arange(options.seeds)},
        x,
        y,
        steps=options.epochs * epoch,
        record=options.record,
        x_test=x_test,
        y_test=y_test,
        batch_size=options.batch_size,
        metrics=["accuracy", "test_accuracy"],
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress="FC",
    )
    grid = averaged(grid)
    times, accuracy = time_to_best(grid) / epoch, best(grid)
    out.numbers |= {
        "epochs to the best test accuracy": plain(times),
        "best test accuracy": plain(accuracy),
        "best training accuracy": plain(best(grid, name="accuracy")),
    }
    claims(out, grid, accuracy)
    out.explain(WHY)
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    draw(
        axes,
        times,
        accuracy,
        grid,
        grid["step"] / epoch,
        f"FC {options.widths}, η = {options.learning_rate:g}",
    )
    out.save(figure)


def claims(out: report.Report, grid: xr.Dataset, accuracy: xr.DataArray) -> None:
    """What SM D says of this figure."""
    some = accuracy[1:]
    top = int(some.argmax("l2"))
    optimal, good = float(some["l2"][top]), some["l2"].where(some >= some[top] - WITHIN, drop=True)
    low, high = float(good.min()), float(good.max())
    gains = [lead(grid.isel(l2=1 + top), grid.isel(l2=other)) for other in (0, 1)]
    out.claim(
        "the best accuracy has a maximum at a λ ≠ 0",
        expected="more than 0.5 % above λ = 0 and the smallest λ, by two standard errors",
        measured=f"at λ = {optimal:g}: {percent(*gains[0])} above λ = 0, {percent(*gains[1])} above λ = {float(some['l2'][0]):g}",
        holds=every(ahead(*gain, WITHIN) for gain in gains),
    )
    times = peaked(grid)
    slope = spread(slopes(times.sel(l2=slice(high, None)), "l2"))
    out.claim(
        "above the best λ, t_* is proportional to 1/λ",
        expected="slope of log t_* against log λ −1 ± 0.2, from the largest λ within 0.5 % of the best",
        measured=f"{slope}, from λ = {high:g} to {float(some['l2'][-1]):g}",
        holds=slope.near(-1, 0.2),
        revised="the best λ is a plateau, above and below which the two laws are asked for",
    )
    ratio = (times.sel(l2=slice(1e-30, 0.99 * low)) / times.sel(l2=0)).dropna("l2")
    out.claim(
        "below the best λ, t_* is constant, that of λ = 0",
        expected="within a factor 2 of λ = 0's at every λ smaller than those within 0.5 % of the best",
        measured=f"{float(ratio.min()):.2f} to {float(ratio.max()):.2f} of it, {ratio.size} λ"
        if ratio.size
        else "no such λ, or the runs end too early",
        holds=bool(ratio.min() > 0.5 and ratio.max() < 2) if ratio.size else None,
        revised=PEAKED,
    )
    peak = grid["accuracy"].where(grid["step"] == time_to_best(grid)).max("step")
    out.claim(
        "the peak comes before training accuracy 1",
        expected="training accuracy below 1 at t_*, for every λ",
        measured=f"{float(peak.max()):.4f} at most",
        holds=float(peak.max()) < 1,
    )


def draw(
    axes,
    times: xr.DataArray,
    accuracy: xr.DataArray,
    mean: xr.Dataset,
    epochs: xr.DataArray,
    name: str,
) -> None:
    """(a) t_*, (b) the best test accuracy, (c) test and training accuracy in time."""
    l2 = times["l2"][1:]
    axes[0].loglog(l2, times[1:], marker=".")
    axes[0].axhline(float(times[0]), color="black", ls="--", lw=1, label="λ = 0")
    axes[0].loglog(l2, float(times[-1]) * l2[-1] / l2, color="grey", lw=0.8, ls=":", label="∝ 1/λ")
    axes[0].set(
        xlabel="λ", ylabel="epochs to the best test accuracy (within 0.5 %)", title=f"(a) {name}"
    )
    axes[0].set_ylim(float(times.min()) / 2, 4 * float(times.max()))
    axes[1].semilogx(l2, accuracy[1:], marker=".")
    axes[1].axhline(float(accuracy[0]), color="black", ls="--", lw=1, label="λ = 0")
    axes[1].set(xlabel="λ", ylabel="best test accuracy", title="(b) how good it gets")
    for color, i in zip(colors(4), np.linspace(0, times.size - 1, 4).astype(int), strict=True):
        for metric, ls in (("test_accuracy", "-"), ("accuracy", ":")):
            label = f"λ = {float(times['l2'][i]):g}" if ls == "-" else None
            axes[2].semilogx(epochs[1:], mean[metric][i, 1:], color=color, ls=ls, label=label)
    axes[2].set(
        xlabel="epochs", ylabel="accuracy: test (solid), training (dotted)", title="(c) in time"
    )
    for ax in axes:
        ax.legend(fontsize="small")


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
