"""Figures 1 and 2 of the output-scale paper, measured: the effective learning rate against α.

‖Δθ‖/‖G‖ in units of η while a network trains, with the original RMSProp (Figure 1) and the modified one
(Figure 2). The original's grows like α up to α*, where √v = ε, and is 1/ε beyond, where nothing adapts. A run whose
gradient has become zero, exactly, has no point.
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from _plane import (
    DESK_SIZES,
    MODIFIED,
    OPTIMIZERS,
    RMSPROP,
    SIZES,
    Options,
    critical_alpha,
    described,
    every,
    explain,
    near,
    powers,
    trained,
)

from ntkdecay import output_scale, report

EPS = 1e-8
ACTIVE = "The paper: G is of order 1/α (9) only while the weights are what they were; at small α they grow, and once all is learned G falls"
BELOW = "Criterion: the original optimizer makes steps ∝ α, so that after some steps larger α are further in training, at another G and v"
LAZY, FAR = 1.0, 100.0
"""From the first α on the trajectories are nearly the same; so many times above or below α* is one side of it."""


ALPHAS = powers(-4, 12)


@dataclasses.dataclass(frozen=True)
class Scales(Options):
    """Sizes of the experiment."""

    steps: report.Count = 100
    """Steps on all samples."""
    record: tuple[report.Whole, ...] = (0, 9)
    """Steps after which the next one is measured; the last is added."""
    learning_rate: report.Positive = 1e-3
    """η of all runs."""
    alphas: report.Ascending[report.Positive] = ALPHAS
    """α, ascending."""


QUICK = Scales()
DESK = Scales(**DESK_SIZES, samples=500)
PAPER = dataclasses.replace(Scales(**SIZES), steps=100, alphas=powers(-4, 12, 0.5))


def main(options: Scales) -> None:
    """Figures 1 and 2: effective learning rate against α, original and modified RMSProp."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("output_scale", "fig1_2", options, data=described(options))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    alpha = np.array(options.alphas)
    steps = (*options.record, options.steps)
    star = {step: critical_alpha(options, step + 1) for step in steps}
    for ax, name in zip(axes, (RMSPROP, MODIFIED), strict=True):
        runs = trained(
            options,
            name,
            (options.learning_rate,),
            options.alphas,
            measured(name),
            options.record,
        ).isel(learning_rate=0)
        runs = runs[["rate", "critical_alpha"]].mean("seed")
        for i, step in enumerate(steps):
            rate = runs["rate"].sel(step=step).to_numpy()
            color = f"C{i}"
            ax.loglog(alpha, rate, marker="o", ms=4, color=color, label=f"step {step + 1}")
            out.numbers[f"{name}: step {step + 1}"] = {"alpha": alpha, "rate / η": rate}
            exponents(out, name, step, alpha, rate, star)
            if name == RMSPROP:
                ax.axvline(star[step], color=color, ls=":", lw=1)
        ax.set(xlabel="output scale α", title=name)
        if name == RMSPROP:
            critical(out, runs["critical_alpha"], star)
            ax.axhline(1 / EPS, color="grey", ls="--", lw=1, label="1/ε")
            ax.plot([], [], color="grey", ls=":", lw=1, label="α*, predicted from G at θ₀")
        ax.legend(framealpha=1)
    axes[0].set_ylabel("effective learning rate ‖Δθ‖ / (η‖G‖)")
    figure.suptitle(f"{described(options)}; η = {options.learning_rate:g}")
    explain(out, {anywhere(step): ACTIVE for step in steps[1:]})
    explain(out, {exponent_of(RMSPROP, step): BELOW for step in steps[1:]})
    out.save(figure)


def measured(name: str) -> dict:
    """The metrics: the effective learning rate of the next step over η, and α* of the v reached."""

    def next_step(snapshot):
        """The update that the optimizer would make now, and its state after it."""
        cell = {"learning_rate": snapshot.cell["learning_rate"]}
        if name == MODIFIED:
            cell["alpha"] = snapshot.cell["alpha"]
        return OPTIMIZERS[name](**cell).update(
            snapshot.gradient, snapshot.optimizer, snapshot.params
        )

    def rate(snapshot):
        updates, _ = next_step(snapshot)
        effective = output_scale.effective_learning_rate(updates, snapshot.gradient)
        return effective / snapshot.cell["learning_rate"]

    def critical_alpha(snapshot):
        v = optax.tree.get(next_step(snapshot)[1], "nu")
        at = 1.0 if name == MODIFIED else snapshot.cell["alpha"]
        return output_scale.critical_alpha(v, at, eps=EPS)

    return {"rate": rate, "critical_alpha": critical_alpha}


def exponents(out: report.Report, name: str, step: int, alpha, rate, star: dict) -> None:
    """Slopes of log(rate) against log α, on either side of α* for the original."""

    def exponent(inside):
        inside = inside & np.isfinite(rate)
        if np.count_nonzero(inside) < 2:
            return np.nan
        return np.polyfit(np.log(alpha[inside]), np.log(rate[inside]), 1)[0]

    lazy = alpha >= LAZY
    if name == RMSPROP:
        found = {
            "below α*": (exponent(lazy & (alpha < min(star.values()) / FAR)), 1.0),
            "above α*": (exponent(alpha > star[step] * FAR), 0.0),
        }
    else:
        found = {f"at α ≥ {LAZY:g}": (exponent(lazy), 0.0)}
    out.claim(
        exponent_of(name, step),
        expected=", ".join(f"{expected:.0f} {side}" for side, (_, expected) in found.items()),
        measured=", ".join(f"{value:.3f} {side}" for side, (value, _) in found.items()),
        holds=every(near(value, expected, 0.05) for value, expected in found.values()),
    )
    if name == MODIFIED:
        active = exponent(alpha <= LAZY)
        out.claim(
            anywhere(step),
            expected="exponent 0 ± 0.05",
            measured=f"{active:.3f}",
            holds=near(active, 0, 0.05),
        )


def exponent_of(name: str, step: int) -> str:
    return f"{name}, step {step + 1}: exponent of the effective learning rate in α"


def anywhere(step: int) -> str:
    return f"Figure 2: the modified optimizer's does not depend on α anywhere; step {step + 1} at α ≤ {LAZY:g}"


def critical(out: report.Report, measured, star: dict) -> None:
    """α* from v of the lazy runs below it, against the gradient at θ_0."""
    first = min(star.values())
    for step, predicted in star.items():
        lazy = (measured["alpha"] >= LAZY) & (measured["alpha"] < first / FAR)
        values = measured.sel(step=step).where(lazy, drop=True).to_numpy()
        out.numbers[f"α* at step {step + 1}"] = {"predicted": predicted, "measured": values}
        out.claim(
            f"step {step + 1}: √v = ε at an α* that the gradient at θ₀ predicts",
            expected=f"from {first:.3g}, were all but the first gradient 0, to {predicted:.3g}, were all equal",
            measured=f"{values.min():.3g} to {values.max():.3g} from v at α from {LAZY:g} to {first / FAR:.3g}"
            if values.size
            else f"no α from {LAZY:g} to {first / FAR:.3g}",
            holds=values.min() > 0.95 * first and values.max() < 1.05 * predicted
            if values.size
            else None,
            ours=True,
        )


if __name__ == "__main__":
    report.cli(main, QUICK, PAPER, desk=DESK)
