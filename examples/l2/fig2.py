"""Figure 2 of the L2 paper: when test accuracy is best over a grid of η and λ, and how good it gets.

t_* = c'/(ηλ) with plain SGD (Section 2). (a), (b), (c) a fully connected network on few samples; (d), (e), (f) a
wide residual network. Saves the time to training accuracy 1 as s1, and training curves as s6.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _panels import dynamics, row, ticks
from _sweeps import Setup, colors, plain, run, slopes, spread, time_to_reach

from ntkdecay import networks, report

FC = Setup(
    data="digits",
    samples=128,
    test_samples=1669,
    learning_rates=(2.0, 4.0, 8.0, 16.0),
    l2=(0.0, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
    budget=2.0,
    most_epochs=2500,
    zero_epochs=8000,
    members_per_batch=1,
)

WRN = Setup(
    data="digits",
    samples=128,
    test_samples=300,
    learning_rates=(2.0, 4.0, 8.0),
    l2=(0.0, 1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2),
    budget=0.75,
    most_epochs=75,
    zero_epochs=75,
    zero_over_rate=False,
    batch_size=32,
    record=16,
    members_per_batch=1,
)


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    fc: Setup = FC
    """The grid of (a), (b), (c): ηλ over two decades, where the paper has six."""
    fc_widths: tuple[report.Count, ...] = (256, 256, 256)
    """Hidden layers of the fully connected network."""
    fc_rate: report.Positive = 8.0
    """η of (c)."""
    fc_epochs: tuple[report.Positive, ...] = (50, 150, 500)
    """Budgets of (c)."""
    wrn: Setup = WRN
    """The grid of (d), (e), (f): ηλ over 1.2 decades, where the paper has three."""
    wrn_depth: report.Count = 10
    """Layers of the residual network."""
    wrn_width: report.Count = 1
    """Factor of its channels; 1 is a narrow stand-in."""
    wrn_rate: report.Positive = 4.0
    """η of (f)."""
    wrn_epochs: tuple[report.Positive, ...] = (5, 10, 20)
    """Budgets of (f)."""


DESK = Options(
    fc=Setup(
        data="mnist",
        samples=512,
        test_samples=10_000,
        learning_rates=(0.15, 0.5, 1.5, 4.0),
        l2=(0, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1),
        budget=2.0,
        most_epochs=25_000,
        zero_epochs=25_000,
        zero_over_rate=False,
        seeds=3,
        members_per_batch=1,
    ),
    fc_widths=(128, 128, 128),
    fc_rate=0.15,
    fc_epochs=(300, 1000, 5000),
    wrn=Setup(
        data="digits",
        samples=512,
        test_samples=1285,
        learning_rates=(1.0, 2.0, 4.0),
        l2=(0, 2.5e-4, 6e-4, 1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2),
        budget=0.5,
        most_epochs=500,
        zero_epochs=500,
        zero_over_rate=False,
        batch_size=64,
        seeds=3,
        record=25,
        members_per_batch=1,
    ),
    wrn_rate=2.0,
    wrn_epochs=(10, 30, 100),
)
"""MNIST and a narrower network, whose largest η is the larger; the residual network has digits, which are 12 times cheaper."""
PAPER = Options(
    fc=Setup(
        data="mnist",
        samples=512,
        test_samples=10_000,
        learning_rates=(
            0.0025,
            0.01,
            0.02,
            0.025,
            0.03,
            0.05,
            0.08,
            0.15,
            0.3,
            0.5,
            1,
            1.5,
            2,
            5,
            10,
            25,
            50,
        ),
        l2=(0, 1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 50, 100),
        budget=2.0,
        zero_epochs=1e6,
        record=200,
    ),
    fc_widths=(2048, 2048, 2048),
    fc_rate=0.15,
    fc_epochs=(1000, 10_000, 100_000),
    wrn=Setup(
        data="cifar10",
        samples=50_000,
        test_samples=10_000,
        learning_rates=(0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
        l2=(0, 1.5625e-5, 6.25e-5, 1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 0.016),
        budget=0.1,
        most_epochs=4000,
        uncut=(0.2, 6.25e-5),
        zero_epochs=10_000,
        zero_over_rate=False,
        batch_size=1024,
        record=200,
        eval_batch_size=1000,
    ),
    wrn_depth=28,
    wrn_width=10,
    wrn_rate=0.2,
    wrn_epochs=(50, 200, 1000),
)


WHY = {
    "WRN 10-1: t_* is proportional to 1/η": "Size: η by a factor 4 only, and a peak that is flat and noisy on 1,285 test images",
    "WRN 10-1: at a fixed budget there is an optimal λ, below which performance falls": "Size: 10 epochs are too few for this "
    "network and images to tell λ apart; panel (f) has the optimum at 30",
    "WRN 10-1: the training loss has a minimum and increases after it": "Size: with batch normalization a small λ leaves a "
    "flat minimum, between bursts of instability",
    "WRN 10-1: the minimum comes at a time proportional to 1/λ": "Size: few λ, and minima that bursts of instability cut short",
}


def main(options: Options) -> None:
    """Figure 2, S1 and S6: t_* and the best test accuracy over η and λ."""
    options.fc.check_rate("--fc-rate", options.fc_rate)
    options.wrn.check_rate("--wrn-rate", options.wrn_rate)
    wrn_name = f"WRN {options.wrn_depth}-{options.wrn_width}"
    fc_name = f"FC {' × '.join(map(str, options.fc_widths))}"
    words = f"{options.fc.words}, {fc_name}; {options.wrn.words}, {wrn_name}"
    outs = {name: report.Report("l2", name, options, data=words) for name in ("fig2", "s1", "s6")}
    fc = run(options.fc, networks.fully_connected(options.fc_widths), options, "FC")
    wide_resnet = networks.wide_resnet(options.wrn_depth, options.wrn_width)
    wrn = run(options.wrn, wide_resnet, options, wrn_name)

    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    row(axes[0], outs["fig2"], fc, options.fc, "FC", "abc", options.fc_rate, options.fc_epochs)
    row(
        axes[1],
        outs["fig2"],
        wrn,
        options.wrn,
        wrn_name,
        "def",
        options.wrn_rate,
        options.wrn_epochs,
    )
    outs["fig2"].explain(WHY)
    outs["fig2"].save(figure)

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    trained(axes[0], outs["s1"], fc, options.fc, "FC")
    trained(axes[1], outs["s1"], wrn, options.wrn, wrn_name)
    outs["s1"].save(figure)

    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    dynamics(axes[0], outs["s6"], fc, options.fc, "FC", options.fc_rate)
    dynamics(axes[1], outs["s6"], wrn, options.wrn, wrn_name, options.wrn_rate)
    outs["s6"].explain(WHY)
    outs["s6"].save(figure)


def trained(ax, out: report.Report, grid: xr.Dataset, setup: Setup, name: str) -> None:
    """S1: epochs to training accuracy 1 against η, a line for each λ."""
    times = time_to_reach(grid, 1.0) / setup.epoch
    for color, l2 in zip(colors(len(grid["l2"])), grid["l2"].values, strict=True):
        if times.sel(l2=l2).notnull().any():
            ax.loglog(
                grid["learning_rate"],
                times.sel(l2=l2),
                color=color,
                marker=".",
                label=f"λ = {l2:g}",
            )
    ax.set(xlabel="η", ylabel="epochs to training accuracy 1", title=name)
    ticks(ax, grid["learning_rate"].values)
    if ax.lines:
        ax.legend(fontsize="small")
    out.numbers[name] = plain(times)
    half = (grid.sizes["learning_rate"] + 1) // 2
    found = spread(slopes(times[:half, 1:], "learning_rate", least=2))
    out.claim(
        f"{name}: the time to training accuracy 1 scales like 1/η at small η",
        expected="slope of log t against log η −1 ± 0.2 in the smaller half of η, median over λ",
        measured=f"{found}",
        holds=found.near(-1, 0.2),
    )
    factor = spread(times.max("l2") / times.min("l2"))
    decades = spread(
        xr.apply_ufunc(np.log10, times["l2"].where(times.notnull()).where(times["l2"] > 0))
    )
    out.claim(
        f"{name}: it depends very mildly on λ",
        expected="within a factor 2 at every η, λ = 0 included",
        measured=f"a factor {factor.high:.2f} at most, over {decades.high - decades.low:.1f} decades of λ",
        holds=factor.high < 2 if factor.count else None,
    )


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
