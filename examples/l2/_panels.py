"""Panels and claims that the sweeps of the L2 paper share: a row of Figures 2 and 3, and the curves of S6."""

import numpy as np
import xarray as xr
from _sweeps import (
    LEARNED,
    Setup,
    best,
    colors,
    final,
    plain,
    slopes,
    smallest_decade,
    spread,
    time_to_best,
)
from matplotlib.ticker import LogFormatter

from ntkdecay import report

LAYOUT = ("when test accuracy is best", "how good it gets", "how good in a budget of epochs")


def row(
    axes,
    out: report.Report,
    grid: xr.Dataset,
    setup: Setup,
    name: str,
    letters: str,
    rate: float,
    budgets: tuple[float, ...],
) -> None:
    """Three panels: t_* and the best test accuracy against ηλ, and the best within a budget of epochs against λ.

    Args:
        axes: three of them.
        out: where numbers and claims go.
        grid: from `_sweeps.run`.
        setup: that it was run with.
        name: of the network.
        letters: of the panels.
        rate: η of the third panel.
        budgets: its epochs, ascending.
    """
    accuracy = best(grid)
    times = (time_to_best(grid) / setup.epoch).where(accuracy > LEARNED)
    for color, eta in zip(
        colors(len(grid["learning_rate"])), grid["learning_rate"].values, strict=True
    ):
        l2 = grid["l2"].values
        line = dict(color=color, marker=".", label=f"η = {eta:g}")
        axes[0].loglog(eta * l2[1:], times.sel(learning_rate=eta)[1:], **line)
        axes[1].semilogx(eta * l2[1:], accuracy.sel(learning_rate=eta)[1:], **line)
    reached = times.where(times > 0)
    product = float((reached * grid["learning_rate"] * grid["l2"].where(grid["l2"] > 0)).median())
    ends = np.array(axes[0].get_xlim())
    axes[0].loglog(ends, product / ends, color="grey", lw=0.8, ls=":", label=f"{product:.2g}/(ηλ)")
    axes[0].set(xlim=ends, xlabel="η λ", ylabel="epochs to the best test accuracy (within 0.5 %)")
    without = float(accuracy.sel(l2=0).max())
    axes[1].axhline(without, color="black", ls="--", lw=1, label="λ = 0, best η")
    axes[1].set(xlabel="η λ", ylabel="best test accuracy")
    here = grid.sel(learning_rate=[rate])
    within = {
        epochs: best(here, epochs * setup.epoch).sel(learning_rate=rate)[1:] for epochs in budgets
    }
    for color, (epochs, values) in zip(colors(len(budgets)), within.items(), strict=True):
        axes[2].semilogx(values["l2"], values, color=color, marker=".", label=f"{epochs:g} epochs")
    longest = accuracy.sel(learning_rate=rate)[1:]
    axes[2].semilogx(
        longest["l2"],
        longest,
        color="black",
        ls=":",
        marker="x",
        label=f"{setup.budget:g}/(ηλ) epochs",
    )
    axes[2].set(xlabel="λ", ylabel="best test accuracy in the budget")
    for ax, letter, title in zip(axes, letters, LAYOUT, strict=True):
        ax.set_title(
            f"({letter}) {name}: {title}" + (f", η = {rate:g}" if ax is axes[2] else ""),
            fontsize="medium",
        )
        ax.legend(fontsize="small")
    products = np.unique(np.outer(grid["learning_rate"], grid["l2"][1:]))
    for ax, values in zip(axes, (products, products, longest["l2"].values), strict=True):
        ticks(ax, values)
    out.numbers[name] = {
        "epochs to the best test accuracy": plain(times),
        "best test accuracy": plain(accuracy),
        "best training accuracy": plain(best(grid, name="accuracy")),
        "status": plain(grid["status"]),
        "budgets": {
            f"{epochs:g} epochs, η = {rate:g}": plain(values) for epochs, values in within.items()
        },
    }
    scaling(out, grid, name)
    fixed_budget(out, within[budgets[0]], name, f"{budgets[0]:g} epochs, η = {rate:g}")


def scaling(out: report.Report, grid: xr.Dataset, name: str, tolerance: float = 0.2) -> None:
    """t_* ∝ 1/λ, ∝ 1/η where there are several η, and accuracies at small λ."""
    accuracy = best(grid)
    times = time_to_best(grid).where(accuracy > LEARNED)
    found = spread(slopes(times, "l2"))
    out.claim(
        f"{name}: t_* is proportional to 1/λ",
        expected=f"slope of log t_* against log λ −1 ± {tolerance}, median over η",
        measured=f"{found}",
        holds=abs(found.median + 1) < tolerance,
    )
    if grid.sizes["learning_rate"] > 1:
        found = spread(slopes(times.where(times["l2"] > 0), "learning_rate"))
        out.claim(
            f"{name}: t_* is proportional to 1/η",
            expected=f"slope of log t_* against log η −1 ± {tolerance}, median over λ",
            measured=f"{found}",
            holds=abs(found.median + 1) < tolerance,
        )
        several = accuracy.where(accuracy["l2"] > 0)
        apart = (several.max("learning_rate") - several.min("learning_rate")).where(
            several.count("learning_rate") > 1
        )
        small = float(apart.where(apart["l2"] <= apart["l2"][1:].median())[1:].max())
        out.claim(
            f"{name}: the best accuracy depends weakly on η",
            expected="within 2 % over η at every λ of the smaller half",
            measured=f"{100 * small:.1f} %",
            holds=small < 0.02,
        )
    constant(out, f"{name}: performance is constant at small λ", accuracy, 0.02)
    with_l2, without = float(accuracy[:, 1:].max()), float(accuracy.sel(l2=0).max())
    out.claim(
        f"{name}: a small λ > 0 is better than λ = 0",
        expected="a higher best test accuracy",
        measured=f"{with_l2:.4f} against {without:.4f}",
        holds=with_l2 > without,
    )


def constant(out: report.Report, claim: str, accuracy: xr.DataArray, within: float) -> None:
    """Accuracies of the smallest decade of λ, the median over lines of other values."""
    decade = smallest_decade(accuracy)
    lines = xr.apply_ufunc(np.log10, decade["l2"].where(decade.notnull()))
    decades = float((lines.max("l2") - lines.min("l2")).median())
    apart = float((decade.max("l2") - decade.min("l2")).median())
    out.claim(
        claim,
        expected=f"within {100 * within:g} % in the smallest decade of λ",
        measured=f"{100 * apart:.1f} % over {decades:.1f} decades",
        holds=apart < within,
    )


def fixed_budget(out: report.Report, within: xr.DataArray, name: str, budget: str) -> None:
    """With the same epochs for every λ there is a best λ, and a smaller one is worse."""
    within = within.dropna("l2")
    top, lowest = within.argmax("l2"), within[0]
    loss = float(within.max() - lowest)
    out.claim(
        f"{name}: at a fixed budget there is an optimal λ, below which performance falls",
        expected=f"more than 0.5 % lost at the smallest λ ({budget})",
        measured=f"best at λ = {float(within['l2'][top]):g}; {100 * loss:.1f} % lost at λ = {float(lowest['l2']):g}",
        holds=loss > 0.005,
    )


def dynamics(
    axes, out: report.Report, grid: xr.Dataset, setup: Setup, name: str, rate: float
) -> None:
    """Three panels: losses and accuracies in time, at the smallest, the median and the largest λ > 0 of one η."""
    here = grid.sel(learning_rate=rate)
    here = here.sel(l2=(here["l2"] > 0) & (here["last_step"] > 0))
    shown = here["l2"].values[[0, here.sizes["l2"] // 2, -1]]
    out.numbers[name] = {}
    for color, l2 in zip(colors(3), shown, strict=True):
        for ax, metric in zip(axes, ("loss", "accuracy", "test_accuracy"), strict=True):
            values = here[metric].sel(l2=l2)[1:].dropna("step")
            ax.semilogx(values["step"] / setup.epoch, values, color=color, label=f"λ = {l2:g}")
            out.numbers[name][f"λ = {l2:g}: {metric}"] = plain(values)
    labels = ("training loss without L2", "training accuracy", "test accuracy")
    for ax, label in zip(axes, labels, strict=True):
        ax.set(xlabel="epochs", ylabel=label, title=f"{name}, η = {rate:g}")
        ax.legend(fontsize="small")
    axes[0].set_yscale("log")
    least = here["loss"].min("step")
    rise = final(here, "loss") / least
    out.claim(
        f"{name}: the training loss has a minimum and increases after it",
        expected="at the end 5 % and more above the minimum, at the smallest, median and largest λ",
        measured=", ".join(
            f"{100 * float(rise.sel(l2=l2) - 1):.0f} % at λ = {l2:g}" for l2 in shown
        ),
        holds=bool(np.all(rise.sel(l2=shown) > 1.05)),
    )
    lowest = here["step"].where(here["loss"] == least).min("step")
    slope = float(slopes(lowest, "l2"))
    out.numbers[name]["epochs to the least training loss"] = plain(lowest / setup.epoch)
    out.claim(
        f"{name}: the minimum comes at a time proportional to 1/λ",
        expected="slope of its log time against log λ −1 ± 0.2",
        measured=f"{slope:.2f}",
        holds=abs(slope + 1) < 0.2,
    )


def ticks(ax, values) -> None:
    """On a logarithmic axis of less than two decades: few values marked as they are, and plain numbers upwards."""
    if len(values) <= 6:
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.set_xticks([], minor=True)
    if ax.get_yscale() == "log":
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
