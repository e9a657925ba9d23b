"""Figures 3 to 5 and 10 to 12 of the output-scale paper: accuracy over the plane of η and α.

Gradient descent, RMSProp and modified RMSProp, on test (Figure 3) and training samples (Figure 10);
Fashion-MNIST makes Figures 4 and 11, CIFAR-10 5 and 12. White: diverged; hatched: the step is lost to
rounding.

What to expect. At large α a step moves F by η ∇f·∇f whatever α is: the best η of gradient descent is a
constant, and that of modified RMSProp too. At small α the weights must grow until f is of order 1/α, by a factor
α^{−1/2} in two layers, and ∇f·∇f with them by 1/α: η ∝ α for gradient descent, while RMSProp's steps, of
size η/α when modified, have to cover α^{−1/2}: η ∝ α^{1/2}. The original's differ from these by 1/α up to α*.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
from _plane import (
    GD,
    MODIFIED,
    OPTIMIZERS,
    PAPER_PLANE,
    RMSPROP,
    PlaneOptions,
    best_accuracy,
    best_rate,
    critical_alpha,
    decades,
    described,
    draw,
    plain,
    planes,
    slope,
)

from ntkdecay import report

FOLD, LAZY, FAR = 1e-2, 1.0, 30.0
"""The paper sees a fold at α = 10⁻²; α is large from 1 on; a factor 30 away from α* is far from it."""
FIGURE = {"digits": "fig3", "mnist": "fig3", "fashion_mnist": "fig4", "cifar10": "fig5"}


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
                ax.axvline(np.log10(star), color="white", ls=":", label="α*, predicted")
                ax.legend(loc="lower left", fontsize="small")
            ax.plot(
                np.log10(plane["alpha"]),
                np.log10(best_rate(plane)),
                color="red",
                marker=".",
                lw=1,
                label="smallest near-best η",
            )
        out.numbers[name] = plain(
            plane, ("test_accuracy", "accuracy", "loss", "unmoved", "diverged", "lost")
        )
    axes[0, 0].legend(loc="lower left", fontsize="small")
    for ax in axes.flat:
        ax.label_outer()
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label="accuracy", shrink=0.8)
    figure.suptitle(f"{described(options)}; white: diverged, hatched: step lost to rounding")
    compare(out, found, star)
    out.save(figure)


def compare(out: report.Report, found: dict, star: float) -> None:
    """How the best η moves with α, and how wide the range around it is."""
    slopes = {}
    for name, plane in found.items():
        rate = best_rate(plane)
        slopes[name] = {
            "small α": slope(rate, last=FOLD),
            "large α, below α*": slope(rate, LAZY, star / FAR),
            "above α*": slope(rate, star * FAR),
        }
        out.numbers[f"{name}: columns"] = {
            "alpha": plane["alpha"].to_numpy(),
            "best test accuracy": best_accuracy(plane).to_numpy(),
            "smallest near-best η": rate.to_numpy(),
            "decades of near-best η": decades(plane).to_numpy(),
            "slopes of log η against log α": slopes[name],
        }
    out.numbers["predicted α*"] = star
    small, large, above = ({n: slopes[n][side] for n in OPTIMIZERS} for side in slopes[GD])

    def listed(values):
        return ", ".join(f"{n} {v:.2f}" for n, v in values.items()).replace("-", "−")

    out.claim(
        "Section 4.1: for gradient descent the proper η is proportional to α (through the Hessian)",
        expected="slope 1 of the best log η against log α, at all α",
        measured=f"{small[GD]:.2f} for α ≤ {FOLD:g}, {large[GD]:.2f} from α = {LAZY:g} on",
        holds=abs(small[GD] - 1) < 0.3 and abs(large[GD] - 1) < 0.3,
    )
    expected = {GD: 0.0, RMSPROP: -1.0, MODIFIED: 0.0}
    out.claim(
        "at large α below α*: a step moves F by a constant times η, but the original RMSProp's by α",
        expected="slopes " + listed(expected),
        measured=listed(large),
        holds=all(abs(large[n] - expected[n]) < 0.3 for n in expected),
    )
    expected = {GD: 1.0, RMSPROP: -0.5, MODIFIED: 0.5}
    out.claim(
        "at small α weights must grow like α^(−1/2), and f's kernel like 1/α",
        expected="slopes " + listed(expected),
        measured=listed(small),
        holds=all(abs(small[n] - expected[n]) < 0.3 for n in expected),
    )
    expected = dict.fromkeys(OPTIMIZERS, 0.0)
    out.claim(
        "above α* the original RMSProp has lost its adaptivity and goes with α as gradient descent does",
        expected="slopes " + listed(expected),
        measured=listed(above),
        holds=all(abs(above[n]) < 0.3 for n in expected),
    )
    bends = {n: large[n] - small[n] for n in OPTIMIZERS}
    out.claim(
        "Section 4.2.2: modified RMSProp's slope is folded near α = 10⁻², gradient descent's is not",
        expected="slopes on the two sides of 10⁻² differ for modified RMSProp alone",
        measured="by " + listed({n: bends[n] for n in (GD, MODIFIED)}),
        holds=abs(bends[MODIFIED]) > 0.3 > abs(bends[GD]),
    )
    columns = {
        n: decades(plane).where(plane["alpha"] <= FOLD, drop=True) for n, plane in found.items()
    }
    widths = {n: float(column.mean()) for n, column in columns.items()}
    out.claim(
        "Section 4.2.1: at small α the range of η of near-best accuracy is wider with an adaptive optimizer",
        expected="more decades of η than with gradient descent",
        measured=f"decades, mean over α ≤ {FOLD:g}: {listed(widths)}",
        holds=min(widths[MODIFIED], widths[RMSPROP]) > widths[GD],
    )
    rates = {n: best_rate(p).where(p["alpha"] <= FOLD, drop=True) for n, p in found.items()}
    ratio = rates[MODIFIED] / rates[GD]
    out.claim(
        "Section 4.2.2: at small α the proper η is larger with modified RMSProp than with gradient descent",
        expected="ratio above 1, growing as α falls",
        measured=", ".join(
            f"{value:.2g} at α = {alpha:g}"
            for alpha, value in zip(ratio["alpha"].to_numpy(), ratio.to_numpy(), strict=True)
        ),
        holds=bool((ratio > 1).all()) and slope(ratio) < 0,
    )


if __name__ == "__main__":
    report.cli(main, PlaneOptions(), PAPER_PLANE)
