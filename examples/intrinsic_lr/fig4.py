"""Figure 4 of the intrinsic learning rate's paper: η halved again and again, or λ halved instead.

Both networks go through the same values of ηλ, and the smaller it is the longer they take to settle.
"""

import dataclasses
import itertools

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
    evenly,
    log,
    mean_rate,
    run,
    settled,
    slope,
)
from _schedules import Schedule, in_order, predicted_rate, schedule

from ntkdecay import report
from ntkdecay import scale_invariant as si

NAMES = ("η halved", "λ halved")


@dataclasses.dataclass(frozen=True)
class Fig4(Options):
    """Sizes of the experiment."""

    seeds: report.Count = 4
    """Runs of each schedule."""
    learning_rate: report.Positive = 3.2
    """η at the beginning."""
    l2: report.Positive = 0.01
    """λ at the beginning."""
    halvings: report.Ascending[report.Count] = (500, 1000, 1500, 2000, 3000, 5000, 10_000)
    """Steps at which η or λ is halved; epochs 200, 400, 600, 800, 1200, 2000, 4000 in the paper."""
    decay: report.Count = 20_000
    """Step of η/10 and λ = 0; epoch 8000."""
    end: report.Count = 21_000
    """Steps of a run."""
    record: report.Count = 200
    """Measurements of a run, at geometric times."""


DESK_SIZES = Fig4(**DESK, record=100)
PAPER = Fig4(
    **CIFAR,
    l2=0.0005,
    halvings=tuple(EPOCH * n for n in (200, 400, 600, 800, 1200, 2000, 4000)),
    decay=8000 * EPOCH,
    end=8200 * EPOCH,
)


WHY = {
    "it grows like √λ_e, as the noise hardly differs (footnote 2)": "Size: a network of 100,000 weights fits 10,000 images the better "
    "the smaller λ_e, and its noise at unit norm grows with that",
    "a smaller ηλ takes longer to settle, like 1/(ηλ)": "Size: at small λ_e the images go on being learned, and the noise with them, "
    "which takes longer than the norm",
    "and as long as (10) has it with a constant Tr Σ": "Size: the noise is not constant, it grows as the smaller λ_e learns more; (11) "
    "with the noise as measured follows (dotted)",
    "the best test accuracies of both come after η/10 and λ = 0, and are the same": "Size: 10,000 images are overfitted at small λ_e; "
    "the best is at the larger ones on the way",
}


def main(options: Fig4) -> None:
    """Figure 4: halving η or λ is the same, and a smaller ηλ takes longer to settle."""
    in_order(options, "halvings", "decay", "end")
    out = report.Report("intrinsic_lr", "fig4", options, data=options.words)
    schedules = halved(options)
    early = np.geomspace(1, options.end, options.record)
    record = np.union1d(evenly(options.end, 40, schedules), np.round(early).astype(int))
    grid = run(options, schedules, options.end, record, progress="halvings")
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.5), layout="constrained")
    draw(axes, options, grid, schedules)
    same(out, options, grid)
    stationary(axes[1, 1], out, options, grid)
    relaxation(out, options, grid, schedules)
    best(out, options, grid)
    out.explain(WHY)
    out.save(figure)


def halved(options: Fig4) -> list[Schedule]:
    """The two schedules."""
    starts = (0, *options.halvings, options.decay)
    falls = [2.0**-i for i in range(len(starts) - 1)]
    flat = [1.0] * len(falls)
    return [
        schedule(
            starts,
            [options.learning_rate * f for f in (*rate, rate[-1] / 10)],
            [options.l2 * f for f in (*decay, 0)],
        )
        for rate, decay in ((falls, flat), (flat, falls))
    ]


def draw(axes, options: Fig4, grid: xr.Dataset, schedules: list[Schedule]) -> None:
    """Errors, norm and effective learning rate against the step."""
    step = grid["step"] + 1
    for i, name in enumerate(NAMES):
        one = grid.isel(schedule=i)
        axes[0, 0].loglog(step, 1 - one["test_accuracy"].mean("seed"), f"C{i}", lw=1, label=f"test, {name}")  # fmt: skip
        axes[0, 0].loglog(step, 1 - one["accuracy"].mean("seed"), f"C{i}", lw=1, ls="--", label=f"training, {name}")  # fmt: skip
        axes[0, 1].loglog(step, one["norm2"].mean("seed"), f"C{i}", lw=1, label=name)
        axes[1, 0].loglog(step, mean_rate(one), f"C{i}", lw=1)
        path = predicted_rate(
            schedules[i], one["step"].to_numpy(), float(mean_rate(one)[0]), (one["noise"] + one["mean2"]).mean("seed").to_numpy()
        )  # fmt: skip
        axes[1, 0].loglog(step, path, f"C{i}", lw=1, ls=":")
    for ax in axes.flat[:3]:
        for at in (*options.halvings, options.decay):
            ax.axvline(at, color="grey", lw=0.5, ls="--")
        ax.set_xlabel("step + 1")
    axes[0, 0].set(ylabel="error", title=f"dashed: a halving; the last: η/10 and λ = 0 ({options.seeds} runs each)")  # fmt: skip
    axes[0, 1].set(ylabel="‖w‖²")
    axes[1, 0].set(ylabel="effective learning rate γ^(−1/2)", title="dotted: (11) with the measured Tr Σ + ‖∇L‖²")  # fmt: skip
    least = float(1 - grid["accuracy"].mean("seed").max())
    axes[0, 0].set_ylim(bottom=max(5e-4, least / 2))
    axes[0, 0].legend(fontsize="small")
    axes[0, 1].legend(fontsize="small")


def phases(options: Fig4, grid: xr.Dataset, start: float = 0.5) -> list[xr.Dataset]:
    """The grid in the later part of each phase."""
    edges = (0, *options.halvings, options.decay)
    return [
        grid.sel(step=slice(int(a + start * (b - a)), b - 1)) for a, b in itertools.pairwise(edges)
    ]


def long_enough(options: Fig4, share: float) -> np.ndarray:
    """Which phases have come to their equilibrium after this share of their steps, (phases,)."""
    edges = np.array([0, *options.halvings, options.decay])
    rates = options.learning_rate * options.l2 * 2.0 ** -np.arange(edges.size - 1)
    return np.array([settled(*pair) for pair in zip(rates, share * np.diff(edges), strict=True)])


def same(out: report.Report, options: Fig4, grid: xr.Dataset) -> None:
    """The two schedules in the second half of each phase."""
    late = phases(options, grid)
    found = [apart(log(one["rate"]).mean("step")) for one in late]
    rates = [one.range for one in found]
    accuracies = [apart(one["test_accuracy"].mean("step")) for one in late]
    errors, there = [one.range for one in accuracies], bool(long_enough(options, 0.5).all())
    out.numbers["apart in each phase"] = {"log effective learning rate": rates, "test accuracy": errors}  # fmt: skip
    out.claim(
        "the two share almost the same effective learning rate",
        expected="means of γ^(−1/2) in the second half of each phase within 15 %",
        measured=f"within {100 * np.expm1(max(rates)):.0f} %, median {100 * np.expm1(np.median(rates)):.0f} %",
        holds=alike(found, np.log(1.15)) if there else None,
        revised=SHORT,
    )
    out.claim(
        "and the same accuracy",
        expected=f"mean test accuracies there within 1 %; undecided where p > 0.01/{len(errors)}, the number of phases",
        measured=f"within {100 * max(errors):.1f} %, median {100 * np.median(errors):.1f} %; least p {min(one.p for one in accuracies):.2g}",
        holds=alike(accuracies, 0.01) if there else None,
        revised="p is corrected for the number of phases, and a difference within chance is not taken for none",
    )


def stationary(ax, out: report.Report, options: Fig4, grid: xr.Dataset) -> None:
    """The effective learning rate at the end of each phase against λ_e, and √(2λ_e)/σ."""
    late = phases(options, grid, 0.75)
    intrinsic_lr = options.learning_rate * options.l2 * 2.0 ** -np.arange(len(late))
    rate = np.array([np.exp(log(one["rate"]).mean(("seed", "step")).to_numpy()) for one in late])
    trace = np.array([one["noise"].mean(("seed", "step")).to_numpy() for one in late])
    mean2 = np.array([one["mean2"].mean(("seed", "step")).to_numpy() for one in late])
    theory, limit = (
        np.asarray(si.stationary_learning_rate(noise2, intrinsic_lr[:, None]))
        for noise2 in (trace + mean2, trace)
    )
    there = bool(long_enough(options, 0.75).all())
    for i, name in enumerate(NAMES):
        ax.loglog(intrinsic_lr, rate[:, i], f"C{i}o", ms=4 + 3 * (1 - i), mfc="none", label=name)
        ax.loglog(intrinsic_lr, theory[:, i], f"C{i}", ls=":", lw=1, label="√(2λ_e/(Tr Σ + ‖∇L‖²))")
    power = np.polyfit(np.log(intrinsic_lr), np.log(rate.mean(1)), 1)[0]
    noise = np.polyfit(np.log(intrinsic_lr), np.log(trace.mean(1)), 1)[0]
    ax.set(xlabel="λ_e = ηλ", ylabel="γ^(−1/2) at the end of a phase", title=f"slope {power:.2f}")
    ax.legend(fontsize="small")
    out.numbers["end of each phase"] = {"λ_e": intrinsic_lr, "effective learning rate": rate, "√(2λ_e)/σ": limit, "with ‖∇L‖²": theory, "Tr Σ": trace, "|∇L|²": mean2}  # fmt: skip
    out.claim(
        "at the end of each phase γ^(−1/2) is √(2λ_e)/σ (Lemma 5.2)",
        expected="within 25 %, with the measured σ² = Tr Σ + ‖∇L‖²",
        measured=f"{(rate / theory).min():.2f} to {(rate / theory).max():.2f} of it; "
        f"{(rate / limit).min():.2f} to {(rate / limit).max():.2f} with Tr Σ alone",
        holds=np.all(np.abs(rate / theory - 1) < 0.25) if there else None,
        revised=FINITE,
    )
    out.claim(
        "it grows like √λ_e, as the noise hardly differs (footnote 2)",
        expected="slope of log γ^(−1/2) against log λ_e 0.5 ± 0.1",
        measured=f"{power:.2f} over a factor {intrinsic_lr[0] / intrinsic_lr[-1]:.0f}; Tr Σ grows like λ_e to the {noise:.2f}",
        holds=abs(power - 0.5) < 0.1 if there and len(rate) > 2 else None,
    )


FAR = np.log(1.2)
"""A phase whose γ^(−1/2) begins nearer than this to where it ends has nothing to settle."""


def relaxation(
    out: report.Report, options: Fig4, grid: xr.Dataset, schedules: list[Schedule]
) -> None:
    """Where η is halved γ jumps by 4, where λ is halved its equilibrium does; the rest goes like exp(−4λ_e t)."""
    edges = (*options.halvings, options.decay)
    lines: dict[str, dict] = {name: {"λ_e": [], "measured": [], "theory": []} for name in NAMES}
    for (i, (start, end)), (number, name) in itertools.product(
        enumerate(itertools.pairwise(edges), 1), enumerate(NAMES)
    ):
        intrinsic_lr = schedules[number][i].learning_rate * schedules[number][i].l2
        rate = log(grid["rate"]).isel(schedule=number).mean("seed")
        level = float(rate.sel(step=slice((start + end) // 2, end - 1)).mean())
        here = rate.sel(step=slice(start, end - 1))
        behind = level - here.to_numpy()
        if abs(behind[0]) < FAR:
            continue
        half = np.flatnonzero(behind / behind[0] < 0.5)
        excess = np.expm1(2 * behind[0] * np.array([1, 0.5]))
        time = float(si.relaxation_time(intrinsic_lr) * np.log(excess[0] / excess[1]))
        lines[name]["λ_e"].append(intrinsic_lr)
        lines[name]["measured"].append(float(here["step"][half[0]] - start) if half.size else np.nan)  # fmt: skip
        lines[name]["theory"].append(time)
    out.numbers["steps until log γ is half way back"] = lines
    every = {key: np.concatenate([one[key] for one in lines.values()]) for key in lines[NAMES[0]]}
    known = bool(long_enough(options, 1)[1:].all()) and np.isfinite(every["measured"]).sum() > 2
    power = slope(1 / every["λ_e"], every["measured"])
    out.claim(
        "a smaller ηλ takes longer to settle, like 1/(ηλ)",
        expected="slope of log steps against log 1/λ_e 1 ± 0.15, until log γ is half way to its equilibrium, over the phases that "
        "begin 20 % and more from there",
        measured=f"{power:.2f}, {every['λ_e'].size} phases",
        holds=abs(power - 1) < 0.15 if known else None,
        revised="a phase that begins where it ends has no half of the way, λ halved leaves all of it; 1/(ηλ) is a slope, its factor the "
        "next claim's",
    )
    ratio = every["measured"] / every["theory"]
    out.claim(
        "and as long as (10) has it with a constant Tr Σ",
        expected="within a factor 2 in each of these phases",
        measured="; ".join(
            f"{name} " + ", ".join(f"{a:.0f} ({b:.0f})" for a, b in zip(one["measured"], one["theory"], strict=True))
            for name, one in lines.items()
            if one["theory"]
        )
        or "no such phase",
        holds=np.all((ratio > 0.5) & (ratio < 2)) if known else None,
        revised="a phase that begins where it ends has no half of the way, λ halved leaves all of it",
    )  # fmt: skip


def best(out: report.Report, options: Fig4, grid: xr.Dataset) -> None:
    """The last phase."""
    before = grid["test_accuracy"].sel(step=slice(None, options.decay - 1)).max("step")
    after = grid["test_accuracy"].sel(step=slice(options.decay, None)).max("step")
    means, single = apart(after), before.mean("seed").to_numpy()
    gains = [
        (float(one.mean()), float(one.std(ddof=1)) / np.sqrt(one.size) if one.size > 1 else np.nan)
        for one in (after - before).transpose("schedule", "seed").to_numpy()
    ]
    out.numbers["best test accuracy"] = {"before": single, "after": means.means}
    out.claim(
        "the best test accuracies of both come after η/10 and λ = 0, and are the same",
        expected="above the best before, by two standard errors over runs; within 1 % of each other",
        measured=", ".join(f"{100 * a:.2f} % after {100 * b:.2f} % ({100 * gain:+.2f} ± {100 * error:.2f})" for a, b, (gain, error) in zip(means.means, single, gains, strict=True))
        + f" ({means.chance})",
        holds=report.every([*(gain > 0 if abs(gain) > 2 * error else None for gain, error in gains), alike([means], 0.01)]),
        revised=SHORT,
    )  # fmt: skip


if __name__ == "__main__":
    report.cli(main, Fig4(), PAPER, desk=DESK_SIZES)
