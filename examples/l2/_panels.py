"""Panels and claims that the sweeps of the L2 paper share: a row of Figures 2 and 3, and the curves of S6.

What a run that ends too early would say of its peak is not asked: t_* counts where the run made twice as many steps.
"""

import numpy as np
import xarray as xr
from _sweeps import (
    LEARNED,
    Setup,
    ahead,
    best,
    colors,
    every,
    final,
    lead,
    peaked,
    percent,
    plain,
    slopes,
    smallest_decade,
    spread,
    time_to_best,
    time_to_least,
)
from matplotlib.ticker import LogFormatter

from ntkdecay import report

PEAKED = "a run that still rises at its end gives its own length, which is ∝ 1/(ηλ), for t_*: such runs are left out"
"""Why slopes and plateaus are read off runs that peaked in their first half."""

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
    accuracy, l2 = best(grid), grid["l2"].values
    times = (time_to_best(grid) / setup.epoch).where(accuracy > LEARNED)
    ended = times.where(peaked(grid).notnull())
    for color, eta in zip(
        colors(len(grid["learning_rate"])), grid["learning_rate"].values, strict=True
    ):
        line = dict(color=color, marker=".", label=f"η = {eta:g}")
        axes[0].loglog(eta * l2[1:], times.sel(learning_rate=eta)[1:], **line | dict(mfc="white"))
        axes[0].loglog(eta * l2[1:], ended.sel(learning_rate=eta)[1:], ".", color=color)
        axes[1].semilogx(eta * l2[1:], accuracy.sel(learning_rate=eta)[1:], **line)
    axes[0].loglog([], [], ".", color="grey", mfc="white", label="too near to the run's end")
    reached = ended.where(ended > 0)
    product = float((reached * grid["learning_rate"] * grid["l2"].where(grid["l2"] > 0)).median())
    ends = np.array(axes[0].get_xlim())
    axes[0].loglog(ends, product / ends, color="grey", lw=0.8, ls=":", label=f"{product:.2g}/(ηλ)")
    axes[0].set(xlim=ends, xlabel="η λ", ylabel="epochs to the best test accuracy (within 0.5 %)")
    without = float(accuracy.sel(l2=0).max())
    axes[1].axhline(without, color="black", ls="--", lw=1, label="λ = 0, best η")
    axes[1].set(xlabel="η λ", ylabel="best test accuracy")
    here = grid.sel(learning_rate=[rate])
    within = {
        epochs: best(here, epochs * setup.epoch).sel(learning_rate=rate) for epochs in budgets
    }
    for color, (epochs, values) in zip(colors(len(budgets)), within.items(), strict=True):
        axes[2].semilogx(l2[1:], values[1:], color=color, marker=".", label=f"{epochs:g} epochs")
        axes[2].axhline(float(values[0]), color=color, ls="--", lw=0.8)
    axes[2].plot([], [], color="grey", ls="--", lw=0.8, label="λ = 0 in the budget")
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
    times = peaked(grid).where(accuracy > LEARNED)
    found = spread(slopes(times, "l2"))
    out.claim(
        f"{name}: t_* is proportional to 1/λ",
        expected=f"slope of log t_* against log λ −1 ± {tolerance}, median over η, of runs that peaked in their first half",
        measured=f"{found}",
        holds=found.near(-1, tolerance),
        revised=PEAKED,
    )
    ended = accuracy.where(times.notnull() & (accuracy["l2"] > 0))
    if grid.sizes["learning_rate"] > 1:
        found = spread(slopes(times.where(times["l2"] > 0), "learning_rate"))
        out.claim(
            f"{name}: t_* is proportional to 1/η",
            expected=f"slope of log t_* against log η −1 ± {tolerance}, median over λ, of runs that peaked in their first half",
            measured=f"{found}",
            holds=found.near(-1, tolerance),
            revised=PEAKED,
        )
        several = ended.where(ended.count("learning_rate") > 1)
        apart = several.max("learning_rate") - several.min("learning_rate")
        apart = spread(apart.where(apart["l2"] <= apart["l2"][1:].median()))
        out.claim(
            f"{name}: the best accuracy depends weakly on η",
            expected="within 2 % over η at every λ of the smaller half, of runs that peaked in their first half",
            measured=f"{100 * apart.high:.1f} % at most, {apart.count} λ"
            if apart.count
            else f"{apart}",
            holds=apart.high < 0.02 if apart.count else None,
            revised=PEAKED,
        )
    some = accuracy.where(accuracy["l2"] > 0)
    constant(out, f"{name}: performance is constant at small λ", some, 0.02, ended.notnull())
    better_than_none(out, grid, name)


def better_than_none(out: report.Report, grid: xr.Dataset, name: str) -> None:
    """A small λ against none, each with its best η; the run without has to be as long."""
    cells = grid.stack(cell=("learning_rate", "l2"))
    some, none = cells.sel(cell=cells["l2"] > 0), cells.sel(cell=cells["l2"] == 0)
    some, none = (one.isel(cell=int(best(one).fillna(0).argmax("cell"))) for one in (some, none))
    gain, spread_ = lead(some, none)
    enough = float(none["last_step"]) >= float(time_to_best(some))
    out.claim(
        f"{name}: a small λ > 0 is better than λ = 0",
        expected="a higher best test accuracy, each with its best η, by two standard errors; λ = 0 trained for as long",
        measured=f"{percent(gain, spread_)}: {float(best(some)):.4f} at λ = {float(some['l2']):g}, η = {float(some['learning_rate']):g} "
        f"against {float(best(none)):.4f}",
        holds=ahead(gain, spread_) if enough else None,
        revised="a difference within the spread over initializations decides nothing",
    )


def constant(
    out: report.Report,
    claim: str,
    accuracy: xr.DataArray,
    within: float,
    ended: xr.DataArray | None = None,
) -> None:
    """Accuracies of the smallest decade of λ, of runs that have `ended`; the median over lines of other values."""
    decade = smallest_decade(accuracy)
    decade = decade if ended is None else decade.where(ended)
    lines = xr.apply_ufunc(np.log10, decade["l2"].where(decade.notnull()))
    decades = spread(lines.max("l2") - lines.min("l2"))
    apart = spread(decade.max("l2") - decade.min("l2"))
    enough = bool(apart.count) and decades.median > 0.5
    out.claim(
        claim,
        expected=f"within {100 * within:g} % in the smallest decade of λ, half a decade at least",
        measured=f"{100 * apart.median:.1f} % over {decades.median:.1f} decades"
        if enough
        else "too few runs that end late enough",
        holds=apart.median < within if enough else None,
        revised="" if ended is None else PEAKED,
    )


def fixed_budget(out: report.Report, within: xr.DataArray, name: str, budget: str) -> None:
    """With the same epochs for every λ there is a best λ, and a smaller one, at last λ = 0, is worse."""
    within = within.dropna("l2")
    some = within[1:] if float(within["l2"][0]) == 0 else within
    good = some["l2"].where(some >= some.max() - 0.005, drop=True)
    loss, limit = float(some.max() - some[0]), float(some.max() - within[0])
    out.claim(
        f"{name}: at a fixed budget there is an optimal λ, below which performance falls",
        expected=f"more than 0.5 % lost at the smallest λ or in its limit, λ = 0 ({budget})",
        measured=f"best within 0.5 % from λ = {float(good.min()):g} to {float(good.max()):g}; {100 * loss:.1f} % lost at "
        f"λ = {float(some['l2'][0]):g}, {100 * limit:.1f} % at λ = {float(within['l2'][0]):g}",
        holds=max(loss, limit) > 0.005,
        revised="a grid whose smallest λ is still near the best one says nothing of what is below: λ = 0 does",
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
    lowest = time_to_least(here["loss"])
    late = 2 * lowest > here["last_step"]
    out.claim(
        f"{name}: the training loss has a minimum and increases after it",
        expected="at the end 5 % and more above the minimum, at the smallest, median and largest λ",
        measured=", ".join(
            f"{100 * float(rise.sel(l2=l2) - 1):.0f} % at λ = {l2:g}" for l2 in shown
        ),
        holds=every(
            bool(rise.sel(l2=l2) > 1.05) or (None if late.sel(l2=l2) else False) for l2 in shown
        ),
        revised="a minimum in the second half of the run may be followed by a rise that it does not see",
    )
    bottom = here["step"].where(here["loss"] <= 1.05 * least)
    start, end = bottom.min("step"), bottom.max("step")
    middle = ((start * end) ** 0.5).where(end < here["last_step"])
    found = spread(slopes(middle, "l2"))
    out.numbers[name] |= {
        "epochs to the least training loss": plain(lowest / setup.epoch),
        "middle of the epochs within 5 % of it": plain(middle / setup.epoch),
    }
    out.claim(
        f"{name}: the minimum comes at a time proportional to 1/λ",
        expected="slope of its log time against log λ −1 ± 0.2; the middle, in logarithms, of the steps within 5 % of the minimum",
        measured=f"{found}",
        holds=found.near(-1, 0.2),
        revised="the minimum is flat, and noise chooses one step of it",
    )


def ticks(ax, values) -> None:
    """On a logarithmic axis of less than two decades: few values marked as they are, and plain numbers upwards."""
    if len(values) <= 7:
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.set_xticks([], minor=True)
    if ax.get_yscale() == "log":
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
