"""Figure 4 of the L2 paper: the coefficient c = λ t_* from a short run, and the λ = c/T that it predicts.

(a) a run with a large λ, whose peak is c; (b) the tuned λ of several budgets T against c/T. Saves when and how
good the runs with constant η are as s2, accuracy against λ in each budget with c/T as s3, and with 2c/T as s4.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _panels import constant
from _sweeps import best, colors, peaked, plain, slopes, spread, time_to_best
from _wrn import DESK_TUNING, PAPER_TUNING, Tuning, coefficient, of_order, off, tuned, tuning

from ntkdecay import optimizers, report

PLATEAU = (
    "the λ within 0.1 % of the best are the paper's error bars; one arg max of a plateau is chance"
)


@dataclasses.dataclass(frozen=True)
class Options(Tuning):
    """Sizes of the experiment."""


LATE = (
    "Size: with batch normalization this small network comes to rest, as good as it gets, where a larger one declines; noise "
    "says when it is within 0.5 % of its best"
)
WHY = {
    "c is the same for small λ within a factor of about 2": LATE,
    "t_* is proportional to 1/λ with momentum and augmentation too": LATE,
}
DESK = Options(**DESK_TUNING)
PAPER = Options(**PAPER_TUNING)


def main(options: Options) -> None:
    """Figure 4, S2, S3 and S4: c from a short run with a large λ, and λ = c/T against the tuned one."""
    outs = {
        name: report.Report("l2", name, options, data=options.words)
        for name in ("fig4", "s2", "s3", "s4")
    }
    grid, short = tuning(options)
    c, found = coefficient(options, short), tuned(options, grid)

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    measurement(axes[0], outs["fig4"], options, short, grid, c)
    against_tuned(axes[1], outs["fig4"], options, found, c)
    outs["fig4"].explain(WHY)
    outs["fig4"].save(figure)

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    fixed_rate(axes, outs["s2"], options, grid)
    outs["s2"].explain(WHY)
    outs["s2"].save(figure)

    for name, factor in (("s3", 1.0), ("s4", 2.0)):
        figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
        in_budgets(ax, outs[name], options, found, factor * c)
        outs[name].save(figure)


def measurement(ax, out: report.Report, options: Options, short, grid, c: float) -> None:
    """(a): test accuracy of the short run against λ × epochs."""
    run = short.isel(l2=0).dropna("step")
    ax.plot(run["step"] / options.epoch * options.large_l2, run["test_accuracy"], marker=".")
    ax.axvline(c, color="grey", ls=":", label=f"c = {c:.2g}")
    ax.set(
        xlabel="λ × epochs",
        ylabel="test accuracy",
        title=f"(a) λ = {options.large_l2:g}, {options.short_epochs:g} epochs",
    )
    ax.legend()
    each = (peaked(grid) / options.epoch * grid["l2"]).dropna("l2")
    out.numbers |= {"c": c, "c in steps": c * options.epoch, "λ t_* of the long runs": plain(each)}
    out.claim(
        "c is the same for small λ within a factor of about 2",
        expected="λ t_* of every run that peaked in its first half between 1/3 and 3 times c",
        measured=f"λ t_*/c from {float((each / c).min()):.2f} to {float((each / c).max()):.2f}, {each.size} runs"
        if each.size
        else "no run peaked in its first half",
        holds=each.size > 0 and bool(((each / c > 1 / 3) & (each / c < 3)).all()),
    )


def against_tuned(ax, out: report.Report, options: Options, found: xr.Dataset, c: float) -> None:
    """(b): the tuned λ of each budget against c/T; the bars are λ within 0.1 % of the best accuracy."""
    predicted = optimizers.optimal_l2(c, np.array(options.budgets))
    l2, low, high = (found[name].to_numpy() for name in ("l2_best", "l2_low", "l2_high"))
    ax.errorbar(predicted, l2, [l2 - low, high - l2], fmt="o", capsize=3, label="tuned λ")
    ends = np.array([predicted.min() / 2, predicted.max() * 2])
    ax.plot(ends, ends, color="black", lw=1, label="c/T")
    ax.fill_between(ends, ends / 10, ends * 10, color="grey", alpha=0.15, label="a factor 10")
    ax.set(xscale="log", yscale="log", xlabel="λ = c/T", ylabel="tuned λ", title="(b) budgets T")
    ax.legend()
    factors = off(found, predicted)
    out.numbers["budgets"] = {"epochs": options.budgets, "c/T": predicted, "tuned": l2, "tuned, lowest": low, "tuned, highest": high}  # fmt: skip
    out.claim(
        "the tuned λ is within an order of magnitude of c/T",
        expected="a factor between 0.1 and 10 from c/T to the λ within 0.1 % of the best, at every budget",
        measured=", ".join(f"{one:.2g} at T = {T:g}" for one, T in zip(factors, options.budgets, strict=True)),
        holds=of_order(found, predicted),
        revised=PLATEAU,
    )  # fmt: skip


def fixed_rate(axes, out: report.Report, options: Options, grid: xr.Dataset) -> None:
    """S2: when accuracy peaks and how high, against λ, at the one η."""
    times, accuracy = peaked(grid) / options.epoch, best(grid)
    axes[0].loglog(grid["l2"], time_to_best(grid) / options.epoch, "o", mfc="none", color="C0", label="all runs")  # fmt: skip
    axes[0].loglog(grid["l2"], times, "o", color="C0", label="peaked in the first half")
    level = float((times * grid["l2"]).median())
    axes[0].loglog(grid["l2"], level / grid["l2"], color="grey", lw=0.8, ls=":", label=f"{level:.2g}/λ")  # fmt: skip
    axes[1].semilogx(grid["l2"], accuracy, marker="o")
    axes[0].set(xlabel="λ", ylabel="epochs to the best test accuracy (within 0.5 %)", title=f"η = {options.learning_rate:g}")  # fmt: skip
    axes[1].set(xlabel="λ", ylabel="best test accuracy", title=f"{options.budgets[-1]:g} epochs")
    axes[0].legend(fontsize="small")
    out.numbers |= {"epochs to the best": plain(times), "best test accuracy": plain(accuracy)}
    slope = spread(slopes(times, "l2"))
    out.claim(
        "t_* is proportional to 1/λ with momentum and augmentation too",
        expected="slope of log t_* against log λ −1 ± 0.2, of the runs that peaked in their first half",
        measured=f"{slope}; {int(times.notnull().sum())} runs",
        holds=slope.near(-1, 0.2),
    )
    constant(out, "the best accuracy is constant at small λ", accuracy, 0.01, times.notnull())


def in_budgets(ax, out: report.Report, options: Options, found: xr.Dataset, c: float) -> None:
    """S3, S4: the best accuracy in each budget against λ, and λ = c/T dashed."""
    lost = []
    every_one = optimizers.optimal_l2(c, np.array(options.budgets))
    factors = off(found, every_one)
    for color, T in zip(colors(len(options.budgets)), options.budgets, strict=True):
        here, predicted = found.sel(epochs=T), optimizers.optimal_l2(c, T)
        ax.semilogx(here["l2"], here["accuracy"], color=color, marker=".", label=f"{T:g} epochs")
        ax.axvline(predicted, color=color, ls="--", lw=1)
        nearest = here["accuracy"].isel(
            l2=int(np.argmin(np.abs(np.log(here["l2"].to_numpy() / predicted))))
        )
        lost.append(float(here["best"] - nearest))
    ax.set(
        xlabel="λ (dashed: c/T)", ylabel="best test accuracy in the budget", title=f"c = {c:.2g}"
    )
    ax.legend(fontsize="small")
    out.numbers |= {"c": c, "factor to the λ within 0.1 %": factors, "accuracy lost at the λ nearest to c/T": lost}  # fmt: skip
    out.numbers["accuracy"] = plain(found["accuracy"])
    out.claim(
        "c/T is the optimal λ within an order of magnitude",
        expected="a factor between 0.1 and 10 from the predicted λ to those within 0.1 % of the best, at every budget",
        measured=f"{factors.min():.2g} to {factors.max():.2g}, median {np.median(factors):.2g}; "
        f"at most {100 * max(lost):.1f} % lost",
        holds=of_order(found, every_one),
        revised=PLATEAU,
    )


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
