"""Figure 1 of the intrinsic learning rate's paper: five schedules of η and λ (Table 1) that end with the same ηλ.

Figures 12 and 13 are the same with another network (`--network vgg_16`) or other data (`--data cifar100`).
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import (
    CIFAR,
    DESK,
    EPOCH,
    FINITE,
    SHORT,
    Options,
    alike,
    apart,
    colors,
    evenly,
    log,
    mean_rate,
    run,
    settled,
)
from _schedules import Schedule, predicted_rate, table_1

from ntkdecay import report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Fig1(Options):
    """Sizes of the experiment."""

    seeds: report.Count = 6
    """Runs of each schedule."""
    learning_rate: report.Positive = 0.4
    """η at the beginning and in the end."""
    l2: report.Positive = 0.005
    """λ, likewise."""
    phase: report.Count = 800
    """Steps of each of the first five phases; 100 epochs in the paper."""
    record: report.Count = 220
    """Measurements of a run."""


DESK_SIZES = Fig1(**DESK, record=100)
PAPER = Fig1(**CIFAR, l2=0.0005, phase=100 * EPOCH)


def main(options: Fig1) -> None:
    """Figure 1: five schedules reach the same equilibrium when their η and λ become the same."""
    out = report.Report("intrinsic_lr", "fig1", options, data=options.words)
    schedules = table_1(options.learning_rate, options.l2, options.phase)
    phases, end = list(schedules.values()), 11 * options.phase
    grid = run(options, phases, end, evenly(end, options.record, phases), progress="five schedules")
    predictions = predicted(grid, phases, grid["noise"] + grid["mean2"])
    draw(out, options, grid, list(schedules), predictions)
    equilibrium(out, options, grid, phases, predictions)
    finetuned(out, options, grid)
    out.save(plt.gcf())


def predicted(grid: xr.Dataset, phases: list[Schedule], trace: xr.DataArray) -> np.ndarray:
    """(11) for each schedule, (schedules, steps)."""
    rates, traces = mean_rate(grid).to_numpy(), trace.mean("seed").to_numpy()
    step = grid["step"].to_numpy()
    return np.array([
        predicted_rate(one, step, float(rate[0]), noise)
        for one, rate, noise in zip(phases, rates, traces, strict=True)
    ])  # fmt: skip


def draw(out, options: Fig1, grid: xr.Dataset, names: list[str], predictions) -> None:
    """Accuracies, norm and effective learning rate against the step."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 8), sharex=True, layout="constrained")
    step = grid["step"]
    for i, color in enumerate(colors(len(names))):
        one = grid.isel(schedule=i)
        for ax, name in zip(axes.flat[:3], ("accuracy", "test_accuracy", "norm2"), strict=True):
            ax.plot(step, one[name].mean("seed"), color=color, lw=1, label=names[i])
        axes[1, 1].plot(step, mean_rate(one), color=color, lw=1)
        axes[1, 1].plot(step, predictions[i], color=color, lw=1, ls=":")
    for ax in axes.flat:
        for change in (5, 10):
            ax.axvline(change * options.phase, color="grey", lw=0.8, ls="--")
    late = grid[["accuracy", "test_accuracy"]].sel(step=slice(options.phase // 4, None))
    for ax, name in zip(axes[0], late, strict=True):
        mean = late[name].mean("seed")
        ax.set_ylim(mean.min() - 0.02, min(float(mean.max()) + 0.02, 1.002))
    axes[0, 0].set(ylabel="training accuracy", title="dashed: ηλ becomes the same; η/10 and λ = 0")
    axes[0, 1].set(ylabel="test accuracy")
    axes[1, 0].set(xlabel="step", ylabel="‖w‖²", yscale="log")
    axes[1, 1].set(
        xlabel="step", ylabel="effective learning rate γ^(−1/2)", yscale="log",
        title="dotted: (11) with the measured Tr Σ + ‖∇L‖²",
    )  # fmt: skip
    axes[0, 0].legend(fontsize="small")
    figure.suptitle(f"{options.seeds} runs of each schedule, λ_e = {options.learning_rate * options.l2:g} at the end")  # fmt: skip
    out.numbers |= {
        "step": step.to_numpy(),
        "effective learning rate": mean_rate(grid).to_numpy(),
        "predicted by (11)": predictions,
        "test accuracy": grid["test_accuracy"].mean("seed").to_numpy(),
    }


def equilibrium(
    out, options: Fig1, grid: xr.Dataset, phases: list[Schedule], predictions: np.ndarray
) -> None:
    """The second half of the phase with the same η and λ."""
    intrinsic_lr = float(si.intrinsic_learning_rate(options.learning_rate, options.l2))
    last = [one[5].learning_rate * one[5].l2 for one in phases]
    late = grid.sel(step=slice(int(7.5 * options.phase), 10 * options.phase - 1))
    before = apart(log(grid["rate"]).sel(step=slice(None, 5 * options.phase - 1)).isel(step=-1))
    found = apart(log(late["rate"]).mean("step"))
    there = settled(intrinsic_lr, 2.5 * options.phase)
    out.claim(
        "at equal ηλ the schedules come to the same effective learning rate",
        expected="the five means of γ^(−1/2) within 10 %",
        measured=f"within {100 * np.expm1(found.range):.1f} % ({found.chance}); at the end of the fifth phase a factor "
        f"{np.exp(before.range):.1f} apart; λ_e {min(last):g} to {max(last):g}",
        holds=alike([found], np.log(1.1)) if there else None,
        revised=SHORT,
    )
    trace, mean2 = (float(late[name].mean()) for name in ("noise", "mean2"))
    theory = float(si.stationary_learning_rate(trace, intrinsic_lr))
    full = float(si.stationary_learning_rate(trace + mean2, intrinsic_lr))
    rate = float(np.exp(found.means.mean()))
    out.claim(
        "it is √(2λ_e)/σ (Lemma 5.2)",
        expected=f"within 15 % of {full:.3g}, from the measured σ² = Tr Σ + ‖∇L‖² = {trace:.3g} + {mean2:.3g}",
        measured=f"{rate:.3g}, a factor {rate / full:.2f}; {rate / theory:.2f} with Tr Σ alone",
        holds=abs(rate / full - 1) < 0.15 if there else None,
        revised=FINITE,
    )
    alone = predicted(grid, phases, grid["noise"])
    away, nearer = (
        float(np.median(np.abs(np.log(mean_rate(grid).to_numpy() / path))))
        for path in (alone, predictions)
    )
    out.claim(
        "(11) with the measured noise predicts the whole path of the effective learning rate",
        expected="median distance below 15 %, with Tr Σ + ‖∇L‖²",
        measured=f"median {100 * np.expm1(nearer):.1f} %; {100 * np.expm1(away):.1f} % with Tr Σ alone",
        holds=np.expm1(nearer) < 0.15,
        revised=FINITE,
    )
    for name in ("accuracy", "test_accuracy"):
        found = apart(late[name].mean("step"))
        out.claim(
            f"and to the same {'training' if name == 'accuracy' else 'test'} accuracy",
            expected="the five means within 1 %",
            measured=f"within {100 * found.range:.2f} % of {100 * found.means.mean():.1f} % ({found.chance})",
            holds=alike([found], 0.01) if there else None,
            revised=SHORT,
        )
    out.numbers["equilibrium"] = {
        "√(2λ_e)/σ": theory, "with ‖∇L‖²": full, "measured": np.exp(apart(log(late["rate"]).mean("step")).means),
        "Tr Σ": late["noise"].mean(("seed", "step")).to_numpy(), "|∇L|²": late["mean2"].mean(("seed", "step")).to_numpy(),
    }  # fmt: skip


def finetuned(out, options: Fig1, grid: xr.Dataset) -> None:
    """The last phase: η/10 without λ."""
    tail = grid["test_accuracy"].sel(step=slice(10 * options.phase, None))
    found = apart(tail.max("step"))
    before = float(tail.isel(step=0).mean())
    out.numbers["best test accuracy after the decay"] = found.means
    out.claim(
        "after η/10 and λ = 0 they have the same best test accuracy (Conjecture 5.4)",
        expected="the five means within 1 %",
        measured=f"within {100 * found.range:.2f} % of {100 * found.means.mean():.1f} % ({found.chance}), "
        f"{100 * (found.means.mean() - before):.1f} % more than at the decay",
        holds=alike([found], 0.01),
        revised=SHORT,
    )


if __name__ == "__main__":
    report.cli(main, Fig1(), PAPER, desk=DESK_SIZES)
