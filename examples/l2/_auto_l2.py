"""AutoL2 beside constant λ: the curves and the claims of Figures 1c, S9, S10 and S11 of the L2 paper."""

import numpy as np
import optax
import xarray as xr
from _sweeps import WITHIN, best, colors, plain, time_to_best, time_to_reach

from ntkdecay import report

METRICS = {
    "test_accuracy": "test_accuracy",
    "l2": lambda snapshot: optax.tree.get(snapshot.optimizer, "l2"),
}
"""Of a run with AutoL2: λ(t) beside the test accuracy."""


def curves(axes, constant: xr.Dataset, dynamic: xr.Dataset, epoch: float, name: str) -> None:
    """Test accuracy in time of each constant λ and of AutoL2, and AutoL2's λ(t).

    Args:
        axes: two of them.
        constant: runs over `l2`.
        dynamic: one run, with `METRICS`.
        epoch: steps of an epoch.
        name: the title.
    """
    for color, l2 in zip(colors(len(constant["l2"])), constant["l2"].values, strict=True):
        line = constant["test_accuracy"].sel(l2=l2).dropna("step")[1:]
        axes[0].semilogx(line["step"] / epoch, line, color=color, label=f"λ = {l2:g}")
    line = dynamic.dropna("step").isel(step=slice(1, None))
    axes[0].semilogx(line["step"] / epoch, line["test_accuracy"], color="C3", lw=2, label="AutoL2")
    axes[1].loglog(line["step"] / epoch, line["l2"], color="C3", drawstyle="steps-post")
    axes[0].set(xlabel="epochs", ylabel="test accuracy", title=name)
    axes[1].set(xlabel="epochs", ylabel="λ of AutoL2", title=name)
    axes[0].legend(fontsize="small")


def numbers(constant: xr.Dataset, dynamic: xr.Dataset) -> dict:
    """The curves, for a report."""
    return {
        "constant λ": plain(constant["test_accuracy"]),
        "AutoL2": plain(dynamic["test_accuracy"]),
        "λ of AutoL2": plain(dynamic["l2"]),
    }


def faster(
    out: report.Report, constant: xr.Dataset, dynamic: xr.Dataset, epoch: float, name: str
) -> None:
    """The claim that AutoL2 reaches the best λ's accuracy (within 0.5 %) in fewer steps."""
    tuned = constant.sel(l2=best(constant).idxmax("l2"))
    goal = float(best(tuned))
    slow, fast = (
        float(t) / epoch
        for t in (time_to_best(tuned), time_to_reach(dynamic, goal - WITHIN, "test_accuracy"))
    )
    out.claim(
        f"{name}: AutoL2 trains faster than the tuned λ",
        expected=f"{goal:.4f} less 0.5 % before {slow:.3g} epochs, when λ = {float(tuned['l2']):g} has it",
        measured="not reached" if np.isnan(fast) else f"{fast:.3g} epochs",
        holds=fast < slow,
    )


def better(out: report.Report, constant: xr.Dataset, dynamic: xr.Dataset, name: str) -> None:
    """The claim that AutoL2 gets to a higher test accuracy than any constant λ."""
    top = best(constant)
    reached, goal = float(best(dynamic)), float(top.max())
    out.claim(
        f"{name}: AutoL2 performs better than the tuned λ",
        expected=f"a higher best test accuracy than {goal:.4f} of λ = {float(top.idxmax('l2')):g}",
        measured=f"{reached:.4f}",
        holds=reached > goal,
    )
