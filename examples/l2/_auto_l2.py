"""AutoL2 beside constant λ: the curves and the claims of Figures 1c, S9, S10 and S11 of the L2 paper.

A run's λ at the start is given as ηλ/(1−β), how fast it makes weights shrink: 0.2 in Figures 1c, S9 and S10, 0.015
and 0.001 for the networks of S11. λ alone means another thing at another width or η: in the standard
parameterization the kernel grows with the width, and what is a small η with it.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from _sweeps import (
    WITHIN,
    ahead,
    best,
    colors,
    final,
    lead,
    percent,
    plain,
    time_to_reach,
)

from ntkdecay import optimizers, report

STARTS = ("C3", "C1", "C6")
"""Colours of AutoL2's runs."""

DECADES = "log10 λ"
METRICS = {
    "test_accuracy": "test_accuracy",
    DECADES: lambda snapshot: jnp.log10(optax.tree.get(snapshot.optimizer, "l2")),
}
"""Of a run with AutoL2: λ(t), in decades, beside the test accuracy."""

MATCHED = "AutoL2 starts at the paper's ηλ/(1−β), where it started at the paper's λ and at others"


def auto(
    *after: optax.GradientTransformation, unit: float, every: int = 10
) -> Callable[..., optax.GradientTransformation]:
    """AutoL2 before another optimizer, for a grid's `start`, which is ηλ/(1−β) in units of η/(1−β).

    Its other constants are those of Algorithm 1; `every` is 10 in SM A (Figures 1c, S9) and 5 in SM E.
    """
    return lambda start: optax.chain(optimizers.auto_l2(start / unit, every=every), *after)


def started(start: float) -> str:
    return f"AutoL2 from ηλ/(1−β) = {start:g}"


def curves(axes, constant: xr.Dataset, dynamic: xr.Dataset, epoch: float, name: str) -> None:
    """Test error in time of each constant λ and of AutoL2, and AutoL2's λ(t).

    Args:
        axes: two of them.
        constant: runs over `l2`.
        dynamic: runs over `start`, with `METRICS`.
        epoch: steps of an epoch.
        name: the title.
    """
    for color, l2 in zip(colors(len(constant["l2"])), constant["l2"].values, strict=True):
        line = constant["test_accuracy"].sel(l2=l2).dropna("step")[1:]
        axes[0].loglog(line["step"] / epoch, 1 - line, color=color, label=f"λ = {l2:g}")
    for color, start in zip(STARTS, dynamic["start"].values, strict=False):
        line = dynamic.sel(start=start).dropna("step").isel(step=slice(1, None))
        epochs, style = line["step"] / epoch, dict(color=color, label=started(start))
        axes[0].loglog(epochs, 1 - line["test_accuracy"], lw=2, **style)
        axes[1].loglog(epochs, 10 ** line[DECADES], drawstyle="steps-post", **style)
    axes[0].set(xlabel="epochs", ylabel="test error, 1 − accuracy", title=name)
    axes[1].set(xlabel="epochs", ylabel="λ of AutoL2", title=name)
    axes[0].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes[1].legend(fontsize="small")


def numbers(constant: xr.Dataset, dynamic: xr.Dataset) -> dict:
    """The curves, for a report."""
    return {
        "constant λ": plain(constant["test_accuracy"]),
        "AutoL2": plain(dynamic["test_accuracy"]),
        "λ of AutoL2": plain(10 ** dynamic[DECADES]),
    }


def claims(
    out: report.Report, constant: xr.Dataset, dynamic: xr.Dataset, epoch: float, name: str
) -> None:
    """That AutoL2 is faster than the best constant λ, and better, for each λ that it starts from."""
    tuned = constant.sel(l2=best(constant).idxmax("l2"))
    goal, l2 = float(best(tuned)), float(tuned["l2"])
    reached = time_to_reach(constant, goal - WITHIN, "test_accuracy") / epoch
    slow, at = float(reached.min()), float(reached.idxmin("l2"))
    for start in dynamic["start"].values:
        run = dynamic.sel(start=start)
        fast = float(time_to_reach(run, goal - WITHIN, "test_accuracy")) / epoch
        out.claim(
            f"{name}: {started(start)} trains faster than the tuned λ",
            expected=f"{goal:.4f} less 0.5 % before {slow:.3g} epochs, when λ = {at:g} has it, the first near-optimal one",
            measured="not reached" if np.isnan(fast) else f"{fast:.3g} epochs",
            holds=fast < slow,
            revised=MATCHED,
        )
        (gain, spread), last = lead(run, tuned), 10 ** float(final(run, DECADES))
        verdict = ahead(gain, spread)
        early = not verdict and last > np.sqrt(10) * l2  # not the nearest that AutoL2 has
        tie = verdict is None and not early
        out.claim(
            f"{name}: {started(start)} performs better than the tuned λ",
            expected=f"a higher best test accuracy than {goal:.4f} of λ = {l2:g}, by two standard errors",
            measured=percent(gain, spread)
            + (", a tie" if tie else "")
            + f"; at λ = {last:.2g} in the end"
            + (", far above the tuned one" if early else ""),
            holds=None if early else verdict,
            revised=MATCHED
            + "; a run that ends at a λ more than √10 times the tuned one has not come to it",
        )
