"""Figures 3 to 5 and 10 to 12 of the output-scale paper: accuracy over the plane of η and α.

Gradient descent, RMSProp and modified RMSProp, on test (Figure 3) and training samples (Figure 10);
Fashion-MNIST makes Figures 4 and 11, CIFAR-10 5 and 12. White: diverged; hatched: the step is lost to
rounding.

What to expect. Weights are of order 1 at large α; at small α they must grow until f is of order 1/α, by a factor
α^{−1/2} in two layers. Training holds until a step is as large as the weights are. A step of gradient descent is
η/α times the weights' size, as ∂f/∂θ grows with it: the upper edge of its η is ∝ α on both sides, without a fold. A step
of modified RMSProp is η/α in each weight whatever the gradient: its upper edge is ∝ α^{1/2} at small α and ∝ α at large.
The lower edge, where the steps suffice to learn, is another law: at large α a step moves F by η ∇f·∇f whatever α is, so that it
is constant with both, and the near-best η are the more decades the larger α; at small α it is a fixed factor below the
upper one. The original RMSProp's steps are α times as long up to α*, its edges in η 1/α times the modified one's;
above α* they go with α as gradient descent's do.

2/λ_max of the Hessian at θ_0 is ∝ α too, some factor below that edge, but only up to where ℓ'' counts: docs/errata.md.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _plane import (
    DESK_PLANE,
    GD,
    MARKS,
    MODIFIED,
    OPTIMIZERS,
    PAPER_PLANE,
    RMSPROP,
    TINY,
    PlaneOptions,
    best_accuracy,
    critical_alpha,
    decades,
    described,
    draw,
    edge,
    every,
    explain,
    highest,
    lowest,
    middle,
    near,
    plain,
    planes,
    slope,
    stable,
)

from ntkdecay import report

FOLD, LAZY, FAR = 1e-2, 1.0, 30.0
"""The paper sees a fold at α = 10⁻²; α is large from 1 on; a factor 30 away from α* is far from it."""
CLOSE = 0.3
"""A slope this near to another is the same: the grid has half a decade of η and two of α."""
FIGURE = {"digits": "fig3", "mnist": "fig3", "fashion_mnist": "fig4", "cifar10": "fig5"}

LARGER = "Section 4.2.2: at small α the proper η is larger with modified RMSProp than with gradient descent"
BENT = "Section 4.1: below α* its slope is bent against the modified one's, by the effective learning rate ∝ α"
WHY = {
    LARGER: "The paper: slopes 1/2 and 1 make the ratio grow as α^(−1/2) when α falls, and the units of the two η put where it passes 1, here below "
    "α = 1e-4; it is larger the wider the network",
    "Section 4.2.2: modified RMSProp's slope is folded near α = 10⁻², gradient descent's is not": "Size: three α below the fold and "
    "half decades of η leave 0.75 where the slope is 1/2",
    BENT: "Criterion: α* is predicted from the gradient at θ₀, and falls as gradients do: at the end the largest α below it are not",
}
REVISED = (
    "the paper argues from the limit of stability, so the largest η that learns the training samples is asked for: it was the smallest "
    "near-best η, then the largest, which on test samples marks where training is no longer lazy if that is a few percent better"
)


def main(options: PlaneOptions) -> None:
    """Figures 3 to 5 (test) and 10 to 12 (training): accuracy over the (η, α) plane."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("output_scale", FIGURE[options.data], options, data=described(options))
    found = planes(options)
    star = critical_alpha(options, options.steps)
    figure, axes = plt.subplots(
        2, 3, figsize=(11, 7.5), sharex=True, sharey=True, layout="constrained"
    )
    for column, (name, plane) in zip(axes.T, found.items(), strict=True):
        for ax, which in zip(column, ("test_accuracy", "accuracy"), strict=True):
            title = f"{name}, {'test' if which == 'test_accuracy' else 'training'} samples"
            draw(ax, plane, plane[which], title, vmin=0, vmax=1)
            if name == RMSPROP:
                ax.axvline(np.log10(star), color="black", ls=":", label="α*, predicted")
            alpha = np.log10(plane["alpha"])
            for ends, label in ((lowest, "near-best η: its ends"), (highest, None)):
                ax.plot(alpha, np.log10(ends(plane)), "r.-", lw=1, label=label)
            ax.plot(
                alpha, np.log10(stable(plane)), ".--", color="C1", lw=1, label="largest stable η"
            )
            if name == GD:
                ax.plot(alpha, np.log10(edge(plane)), "k--", lw=1, label="edge of divergence")
        out.numbers[name] = plain(
            plane, ("test_accuracy", "accuracy", "loss", "unmoved", "trained", "diverged", "lost")
        )
        column[0].legend(loc="upper left", fontsize="small")
    for ax in axes.flat:
        ax.label_outer()
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label="accuracy", shrink=0.8)
    figure.suptitle(f"{described(options)}; {MARKS}")
    compare(out, found, star)
    explain(out, WHY)
    out.save(figure)


def compare(out: report.Report, found: dict, star: float) -> None:
    """How the near-best η move with α, and how many there are."""
    sides = {
        "small": (0.0, FOLD),
        "large": (LAZY, star / FAR),
        "above": (star * FAR, np.inf),
    }
    low, high = (
        {
            side: {n: slope(ends(found[n]), *span) for n in OPTIMIZERS}
            for side, span in sides.items()
        }
        for ends in (lowest, stable)
    )
    for name, plane in found.items():
        out.numbers[f"{name}: columns"] = {
            "alpha": plane["alpha"].to_numpy(),
            "best test accuracy": best_accuracy(plane).to_numpy(),
            "smallest near-best η": lowest(plane).to_numpy(),
            "largest near-best η": highest(plane).to_numpy(),
            "largest stable η": stable(plane).to_numpy(),
            "decades of near-best η": decades(plane).to_numpy(),
            "η from which on all diverge": edge(plane).to_numpy(),
        }
    out.numbers |= {
        "predicted α*": star,
        "slopes of the smallest near-best η": low,
        "slopes of the largest stable η": high,
    }
    stability(out, found[GD], high)
    adaptive(out, high)
    small = {n: plane.sel(alpha=slice(None, FOLD * TINY)) for n, plane in found.items()}
    at_small_alpha(out, small)
    lower_edge(out, low)


def listed(values: dict[str, float]) -> str:
    """Numbers by the optimizers' names."""
    return ", ".join(f"{n} {v:.2f}" for n, v in values.items()).replace("-", "−")


def stability(out: report.Report, plane: xr.Dataset, high: dict) -> None:
    """Gradient descent: where it diverges, and the largest η that learns."""
    ends = edge(plane)
    span = float(np.log10(ends["alpha"].max() / ends["alpha"].min()))
    over_all = slope(ends)
    ratio = ends / ends["alpha"]
    out.claim(
        "Section 4.1: the largest learning rate at which gradient descent is stable is proportional to α",
        expected=f"slope 1 ± 0.1 of the η from which on all diverge, over {span:.0f} decades of α",
        measured=f"{over_all:.3f}; η/α from {float(ratio.min()):.3g} to {float(ratio.max()):.3g}",
        holds=near(over_all, 1, 0.1),
        revised=REVISED,
    )
    slopes = {side: high[side][GD] for side in high}
    out.claim(
        "Section 4.1: and with it the proper η of gradient descent, at small and at large α",
        expected=f"slope 1 ± {CLOSE:g} of the largest stable η, on each side",
        measured=f"{slopes['small']:.2f} for α ≤ {FOLD:g}, {slopes['large']:.2f} from α = {LAZY:g} on, {slopes['above']:.2f} above α*",
        holds=every(near(value, 1, CLOSE) for value in slopes.values()),
        revised=REVISED,
    )


def adaptive(out: report.Report, high: dict) -> None:
    """The trends of the two RMSProps, and the fold."""
    out.claim(
        "Section 4.1: above α* the original RMSProp shows the positive trend of gradient descent and of the modified one",
        expected=f"slopes 1 ± {CLOSE:g} of the largest stable η",
        measured=listed(high["above"]),
        holds=every(near(value, 1, CLOSE) for value in high["above"].values()),
        revised=REVISED,
    )
    bent = {side: high[side][RMSPROP] - high[side][MODIFIED] for side in ("small", "large")}
    out.claim(
        BENT,
        expected=f"slope less that of the modified one −1 ± {CLOSE:g}, on both sides of 10⁻²",
        measured=f"{bent['small']:.2f} for α ≤ {FOLD:g}, {bent['large']:.2f} from α = {LAZY:g} on",
        holds=every(near(value, -1, CLOSE) for value in bent.values()),
        revised=REVISED,
    )
    bends = {n: high["large"][n] - high["small"][n] for n in (GD, MODIFIED)}
    out.claim(
        "Section 4.2.2: modified RMSProp's slope is folded near α = 10⁻², gradient descent's is not",
        expected=f"slopes of the largest stable η on the two sides of 10⁻² differ by more than {CLOSE:g} for modified RMSProp alone",
        measured="by " + listed(bends),
        holds=None if np.isnan(list(bends.values())).any() else abs(bends[MODIFIED]) > CLOSE > abs(bends[GD]),
        revised=REVISED,
    )  # fmt: skip
    slopes = {f"α ≤ {FOLD:g}": high["small"][MODIFIED], f"α ≥ {LAZY:g}": high["large"][MODIFIED]}
    out.claim(
        "a step of modified RMSProp is η/α in each weight, and may be as large as a weight: α^(−1/2) at small α, 1 at large",
        expected=f"slopes of its largest stable η 1/2 and 1, ± {CLOSE:g}",
        measured=listed(slopes),
        holds=every(near(v, e, CLOSE) for v, e in zip(slopes.values(), (0.5, 1.0), strict=True)),
        ours=True,
    )


def at_small_alpha(out: report.Report, small: dict) -> None:
    """Adaptive optimizers and gradient descent for α up to `FOLD`."""
    known = {n: bool(middle(plane).notnull().all()) and plane.sizes["alpha"] > 0 for n, plane in small.items()}  # fmt: skip
    widths = {n: float(decades(plane).mean()) for n, plane in small.items()}
    out.claim(
        "Section 4.2.1: at small α the range of η of near-best accuracy is wider with an adaptive optimizer",
        expected="more decades of η than with gradient descent",
        measured=f"decades, mean over α ≤ {FOLD:g}: {listed(widths)}",
        holds=min(widths[MODIFIED], widths[RMSPROP]) > widths[GD] if all(known.values()) else None,
    )
    ratio = middle(small[MODIFIED]) / middle(small[GD])
    out.claim(
        LARGER,
        expected=f"the middle of its near-best η above that of gradient descent's, at every α ≤ {FOLD:g}",
        measured=", ".join(
            f"{value:.2g} times at α = {alpha:g}"
            for alpha, value in zip(ratio["alpha"].to_numpy(), ratio.to_numpy(), strict=True)
        ),
        holds=bool((ratio > 1).all()) if known[MODIFIED] and known[GD] else None,
        revised="the near-best η are an interval, of which the smallest was compared; that the ratio grows as α falls is not in the paper",
    )


def lower_edge(out: report.Report, low: dict) -> None:
    """What the smallest near-best η do."""
    for side, claim, expected in (
        (
            "large",
            "at large α below α*: a step moves F by a constant times η, but the original RMSProp's by α",
            {GD: 0.0, RMSPROP: -1.0, MODIFIED: 0.0},
        ),
        (
            "small",
            "at small α weights must grow like α^(−1/2), and f's kernel like 1/α",
            {GD: 1.0, RMSPROP: -0.5, MODIFIED: 0.5},
        ),
        (
            "above",
            "above α* a step of every optimizer moves F by a constant times η",
            dict.fromkeys(OPTIMIZERS, 0.0),
        ),
    ):
        out.claim(
            claim,
            expected="slopes of the smallest near-best η " + listed(expected),
            measured=listed(low[side]),
            holds=every(near(low[side][n], expected[n], CLOSE) for n in expected),
            ours=True,
        )


if __name__ == "__main__":
    report.cli(main, PlaneOptions(), PAPER_PLANE, desk=DESK_PLANE)
