"""AutoL2 beside constant λ: the curves and the claims of Figures 1c, S9, S10 and S11 of the L2 paper.

The paper starts AutoL2 at λ = 0.1, and so does the first of the runs here. How far the weights shrink before
the first measurements is e^{−ηλt/(1−β)}, so that runs from smaller λ stand beside it.
"""

from collections.abc import Callable

import numpy as np
import optax
import xarray as xr
from _sweeps import WITHIN, best, colors, plain, time_to_best, time_to_reach

from ntkdecay import optimizers, report

STARTS = ("C3", "C1", "C6")
"""Colours of AutoL2's runs."""

METRICS = {
    "test_accuracy": "test_accuracy",
    "l2": lambda snapshot: optax.tree.get(snapshot.optimizer, "l2"),
}
"""Of a run with AutoL2: λ(t) beside the test accuracy."""


def auto(*after: optax.GradientTransformation) -> Callable[..., optax.GradientTransformation]:
    """AutoL2 before another optimizer, for a grid's `start`; its other constants are those of Algorithm 1."""
    return lambda start: optax.chain(optimizers.auto_l2(start), *after)


def curves(axes, constant: xr.Dataset, dynamic: xr.Dataset, epoch: float, name: str) -> None:
    """Test accuracy in time of each constant λ and of AutoL2, and AutoL2's λ(t).

    Args:
        axes: two of them.
        constant: runs over `l2`.
        dynamic: runs over `start`, with `METRICS`.
        epoch: steps of an epoch.
        name: the title.
    """
    for color, l2 in zip(colors(len(constant["l2"])), constant["l2"].values, strict=True):
        line = constant["test_accuracy"].sel(l2=l2).dropna("step")[1:]
        axes[0].semilogx(line["step"] / epoch, line, color=color, label=f"λ = {l2:g}")
    for color, start in zip(STARTS, dynamic["start"].values, strict=False):
        line = dynamic.sel(start=start).dropna("step").isel(step=slice(1, None))
        epochs, style = line["step"] / epoch, dict(color=color, label=f"AutoL2 from λ = {start:g}")
        axes[0].semilogx(epochs, line["test_accuracy"], lw=2, **style)
        axes[1].loglog(epochs, line["l2"], drawstyle="steps-post", **style)
    axes[0].set(xlabel="epochs", ylabel="test accuracy", title=name)
    axes[1].set(xlabel="epochs", ylabel="λ of AutoL2", title=name)
    axes[0].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes[1].legend(fontsize="small")


def numbers(constant: xr.Dataset, dynamic: xr.Dataset) -> dict:
    """The curves, for a report."""
    return {
        "constant λ": plain(constant["test_accuracy"]),
        "AutoL2": plain(dynamic["test_accuracy"]),
        "λ of AutoL2": plain(dynamic["l2"]),
    }


def claims(
    out: report.Report, constant: xr.Dataset, dynamic: xr.Dataset, epoch: float, name: str
) -> None:
    """That AutoL2 is faster than the best constant λ, and better, for each λ that it starts from."""
    tuned = constant.sel(l2=best(constant).idxmax("l2"))
    goal, slow = float(best(tuned)), float(time_to_best(tuned)) / epoch
    for start in dynamic["start"].values:
        run = dynamic.sel(start=start)
        fast = float(time_to_reach(run, goal - WITHIN, "test_accuracy")) / epoch
        out.claim(
            f"{name}: AutoL2 from λ = {start:g} trains faster than the tuned λ",
            expected=f"{goal:.4f} less 0.5 % before {slow:.3g} epochs, when λ = {float(tuned['l2']):g} has it",
            measured="not reached" if np.isnan(fast) else f"{fast:.3g} epochs",
            holds=fast < slow,
        )
        reached = float(best(run))
        out.claim(
            f"{name}: AutoL2 from λ = {start:g} performs better than the tuned λ",
            expected=f"a higher best test accuracy than {goal:.4f} of λ = {float(tuned['l2']):g}",
            measured=f"{reached:.4f}",
            holds=reached > goal,
        )
