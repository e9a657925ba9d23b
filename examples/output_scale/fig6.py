"""Figure 6 of the output-scale paper: test accuracy against α at η = 1, before and after the modification.

Read from this figure alone, small α is better with the original RMSProp and large α with the modified one:
the same experiment, opposite conclusions. fig3.py shows why: both are one horizontal cut through a plane.
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
from _plane import (
    DESK_SIZES,
    MODIFIED,
    RMSPROP,
    SIZES,
    Options,
    above,
    described,
    every,
    mean_and_error,
    powers,
    trained,
)

from ntkdecay import report

ALPHAS = powers(-4, 4, 0.5)


@dataclasses.dataclass(frozen=True)
class Cut(Options):
    """Sizes of the experiment."""

    learning_rate: report.Positive = 1.0
    """η of all runs."""
    alphas: report.Ascending[report.Positive] = ALPHAS
    """α, ascending."""
    seeds: tuple[report.Seed, ...] = (0, 1, 2)
    """Seeds of θ_0: lines are means, bands from lowest to highest."""


QUICK = Cut()
DESK = Cut(**DESK_SIZES, steps=500)
PAPER = Cut(**SIZES)


def main(options: Cut) -> None:
    """Figure 6: accuracy against α at one learning rate, RMSProp and modified RMSProp."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("output_scale", "fig6", options, data=described(options))
    figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
    alpha = np.array(options.alphas)
    slopes, ends = {}, {}
    for name in (RMSPROP, MODIFIED):
        runs = trained(
            options,
            name,
            (options.learning_rate,),
            options.alphas,
            {"test_accuracy": "test_accuracy"},
        )
        accuracy = runs["test_accuracy"].isel(step=-1, learning_rate=0).to_numpy()  # (α, seed)
        (line,) = ax.semilogx(alpha, accuracy.mean(1), marker="o", ms=4, label=name)
        ax.fill_between(alpha, accuracy.min(1), accuracy.max(1), alpha=0.2, color=line.get_color())
        ends[name] = [accuracy[side].mean(0) for side in (alpha < 0.1, alpha > 10)]
        slopes[name] = np.polyfit(np.log10(alpha), accuracy, 1)[0]
        out.numbers[name] = {"alpha": alpha, "seeds": options.seeds, "test_accuracy": accuracy}
    ax.set(
        xlabel="output scale α",
        ylabel="test accuracy",
        ylim=(0, 1.02),
        title=f"η = {options.learning_rate:g}; {described(options)}",
    )
    ax.legend()
    for name, better in ((RMSPROP, "small"), (MODIFIED, "large")):
        small, large = ends[name]
        gains = small - large if better == "small" else large - small
        out.claim(
            f"{name}: {better} α is better",
            expected=f"mean accuracy at α {'<' if better == 'small' else '>'} {0.1 if better == 'small' else 10:g} higher than on the other side, by two standard errors",
            measured=f"{small.mean():.3f} at α < 0.1, {large.mean():.3f} at α > 10; apart by {in_words(gains)}",
            holds=above(gains),
        )
    out.claim(
        "the conclusion is reversed by the modification",
        expected="slopes of accuracy against log α of opposite sign, each by two standard errors",
        measured=" and ".join(in_words(slopes[n]) for n in (RMSPROP, MODIFIED)) + " per decade",
        holds=every((above(-slopes[RMSPROP]), above(slopes[MODIFIED]))),
    )
    out.save(figure)


def in_words(values: np.ndarray) -> str:
    """A mean over seeds with its standard error."""
    mean, error = mean_and_error(values)
    return f"{mean:+.3f}" + (f" ± {error:.3f}" if error > 0 else "")


if __name__ == "__main__":
    report.cli(main, QUICK, PAPER, desk=DESK)
