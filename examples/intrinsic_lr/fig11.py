"""Figure 11 of the intrinsic learning rate's paper: the time to equilibrium against 1/(ηλ).

Networks wait at the equilibria of several λ_e; then η is divided and λ multiplied by 10, which leaves λ_e
and moves the effective learning rate to a tenth. Measured is how long it takes to come back.
"""

import dataclasses
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import CIFAR, DESK, EPOCH, FINITE, Options, colors, log, mean_rate, run, settled, slope
from _schedules import predicted_rate, recovery_time, schedule, settling_time

from ntkdecay import report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Fig11(Options):
    """Sizes of the experiment."""

    seeds: report.Count = 8
    """Runs at each λ_e."""
    learning_rate: report.Positive = 0.4
    """η before the change."""
    l2: tuple[report.Positive, ...] = (0.0025, 0.005, 0.01, 0.02, 0.04)
    """λ before the change."""
    wait: report.Count = 3000
    """Steps before the change."""
    recovery: report.Positive = 4.0
    """Time after it, in units of 1/λ_e."""
    factor: report.Positive = 10.0
    """η is divided by it and λ multiplied."""
    tolerance: report.Positive = 0.1
    """At this share of the first distance from equilibrium counts as there, in logarithms."""
    record: report.Count = 90
    """Measurements after the change, at geometric times."""


DESK_SIZES = Fig11(**DESK, record=60)
PAPER = dataclasses.replace(
    Fig11(**CIFAR),
    network="vgg_16",
    seeds=2,
    l2=(0.00025, 0.0005, 0.001, 0.002),
    wait=300 * EPOCH,
)


WHY = {
    "and is that of (10) with a constant Tr Σ": "Size: at the smallest λ_e the images go on being learned, and the noise with them; "
    "(11) with the noise as measured follows the way back (dotted)",
    "so it grows like √λ_e, as the noise hardly differs (footnote 2)": "Size: a network of 100,000 weights fits 10,000 images the "
    "better the smaller λ_e, and its noise at unit norm grows with that",
}


def main(options: Fig11) -> None:
    """Figure 11: the time to equilibrium is proportional to 1/(ηλ), in norm and in loss."""
    out = report.Report("intrinsic_lr", "fig11", options, data=options.words)
    eta, k = options.learning_rate, options.factor
    schedules = [schedule((0, options.wait), (eta, eta / k), (l2, l2 * k)) for l2 in options.l2]
    intrinsic_lr = eta * np.array(options.l2)

    def steps(schedule):
        return options.wait + options.recovery / intrinsic_lr[schedule]

    after = np.geomspace(1, options.recovery / intrinsic_lr.min(), options.record)
    before = np.linspace(0, options.wait, 41)
    record = np.unique(np.round([*before, *(options.wait + after)])).astype(int)
    grid = run(options, schedules, steps, record, progress="equilibria")
    grid = grid.assign_coords(t=grid["step"] - options.wait, intrinsic_lr=("schedule", intrinsic_lr))  # fmt: skip

    figure, axes = plt.subplots(2, 2, figsize=(12, 8.5), layout="constrained")
    rates(axes[0, 0], options, grid, schedules)
    losses(axes[0, 1], options, grid)
    norm_times(axes[1, 0], out, options, grid)
    loss_times(axes[1, 1], out, options, grid)
    stationary(out, options, grid)
    out.explain(WHY)
    out.save(figure)


def equilibrium(grid: xr.Dataset, name: str) -> xr.DataArray:
    """Mean logarithm of `name` over the second half of the wait and the last quarter of each recovery."""
    values, t = log(grid[name]), grid["t"]
    late = ((t < 0) & (grid["step"] >= -t)) | (t * grid["intrinsic_lr"] >= 0.75 * end(grid))
    return values.where(late).mean(("step", "seed"))


def end(grid: xr.Dataset) -> float:
    """The end of the runs in units of 1/λ_e."""
    return float((grid["t"] * grid["intrinsic_lr"]).where(grid["rate"].notnull()).max())


def rates(ax, options: Fig11, grid: xr.Dataset, schedules) -> None:
    """The effective learning rate after the change, and (11) from the Tr Σ measured at the time."""
    for i, color in enumerate(colors(grid.sizes["schedule"])):
        one = grid.isel(schedule=i).dropna("step", subset=["rate"])
        path = predicted_rate(
            schedules[i], one["step"].to_numpy(), float(mean_rate(one)[0]), (one["noise"] + one["mean2"]).mean("seed").to_numpy()
        )  # fmt: skip
        shown = one["t"].to_numpy() > 0
        t = one["t"].to_numpy()[shown]
        ax.loglog(t, mean_rate(one)[shown], color=color, label=f"{float(one['intrinsic_lr']):.2g}")
        ax.loglog(t, path[shown], color=color, ls=":")
    ax.set(
        xlabel="steps after the change", ylabel="effective learning rate γ^(−1/2)",
        title=f"η/{options.factor:g}, {options.factor:g}λ; dotted: (11) with the measured Tr Σ + ‖∇L‖²",
    )  # fmt: skip
    ax.legend(title="λ_e", fontsize="small")


def losses(ax, options: Fig11, grid: xr.Dataset) -> None:
    """The training loss after the change, relative to equilibrium, against λ_e t."""
    level = equilibrium(grid, "loss")
    for i, color in enumerate(colors(grid.sizes["schedule"])):
        one = grid.isel(schedule=i)
        shown = (one["t"] > 0).to_numpy()
        ratio = np.exp(log(one["loss"]).mean("seed") - level[i])
        ax.loglog((one["t"] * one["intrinsic_lr"])[shown], ratio[shown], color=color)
    ax.axhline(1, color="grey", lw=0.8)
    ax.set(xlabel="λ_e × steps after the change", ylabel="training loss / that at equilibrium", title="function space")  # fmt: skip


def recoveries(grid: xr.Dataset, name: str) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Of each λ_e: the times after the change, the mean logarithm of `name`, and that at equilibrium."""
    for i, level in enumerate(equilibrium(grid, name).to_numpy()):
        one = grid.isel(schedule=i).dropna("step", subset=[name])
        one = one.isel(step=(one["t"] >= 0).to_numpy())
        yield one["t"].to_numpy() * 1.0, log(one[name]).mean("seed").to_numpy(), float(level)


def norm_times(ax, out: report.Report, options: Fig11, grid: xr.Dataset) -> None:
    """The time of the effective learning rate, and what (10) with a constant Tr Σ says."""
    intrinsic_lr = grid["intrinsic_lr"].to_numpy()
    found = np.array([
        settling_time(*series, options.tolerance) for series in recoveries(grid, "rate")
    ])  # fmt: skip
    # γ begins at k² γ_∞; log γ^(−1/2) is at the share τ of its first distance where γ/γ_∞ = k^(2τ).
    theory = np.array([
        float(si.norm_convergence_time(options.factor**2 / (2 * rate), rate, sigma2=1.0, tolerance=options.factor ** (2 * options.tolerance) - 1))
        for rate in intrinsic_lr
    ])  # fmt: skip
    power = slope(1 / intrinsic_lr, found)
    ax.loglog(1 / intrinsic_lr, found, "o", label=f"measured, slope {power:.2f}")
    ax.loglog(1 / intrinsic_lr, theory, color="black", lw=1, label="(10), constant Tr Σ")
    ax.set(xlabel="1/λ_e", ylabel="steps to equilibrium", title="effective learning rate")
    ax.legend()
    out.numbers["effective learning rate"] = {"λ_e": intrinsic_lr, "steps": found, "theory": theory, "slope": power}  # fmt: skip
    out.claim(
        "the time until the norm is at equilibrium again is proportional to 1/(ηλ)",
        expected="slope of log time against log 1/λ_e 1 ± 0.15",
        measured=f"{power:.2f}, {intrinsic_lr.max() / intrinsic_lr.min():.0f}-fold range of λ_e",
        holds=abs(power - 1) < 0.15 if np.isfinite(power) else None,
    )
    ratio = found / theory
    out.claim(
        "and is that of (10) with a constant Tr Σ",
        expected="measured/theory between 2/3 and 3/2 at each λ_e",
        measured=", ".join(f"{r:.2f}" for r in ratio),
        holds=np.all((ratio > 2 / 3) & (ratio < 3 / 2)) if np.isfinite(ratio).all() else None,
    )


def loss_times(ax, out: report.Report, options: Fig11, grid: xr.Dataset) -> None:
    """The training loss falls at once, as steps have become short, and comes back with the effective learning rate."""
    intrinsic_lr = grid["intrinsic_lr"].to_numpy()
    found = np.array([recovery_time(*series) for series in recoveries(grid, "loss")])
    power = slope(1 / intrinsic_lr, found)
    ax.loglog(1 / intrinsic_lr, found, "o", label=f"measured, slope {power:.2f}")
    scaled = (found * intrinsic_lr)[np.isfinite(found)]
    if scaled.size:
        guide = np.median(scaled) / intrinsic_lr
        ax.loglog(1 / intrinsic_lr, guide, color="grey", lw=1, ls=":", label="slope 1")
    ax.set(xlabel="1/λ_e", ylabel="steps", title="training loss, half way back")
    ax.legend()
    out.numbers["training loss"] = {"λ_e": intrinsic_lr, "steps": found, "slope": power}
    out.claim(
        "so is the time of the function, here until the training loss is half way back (Conjecture 5.3)",
        expected="slope of log time against log 1/λ_e 1 ± 0.15",
        measured=f"{power:.2f}; λ_e × steps from {scaled.min():.2f} to {scaled.max():.2f}"
        if scaled.size
        else "no run comes back before its end",
        holds=abs(power - 1) < 0.15 if np.isfinite(power) else None,
    )


def stationary(out: report.Report, options: Fig11, grid: xr.Dataset) -> None:
    """The equilibrium's effective learning rate against λ_e."""
    intrinsic_lr = grid["intrinsic_lr"].to_numpy()
    rate = np.exp(equilibrium(grid, "rate").to_numpy())
    late = grid.where((grid["t"] < 0) & (grid["step"] >= -grid["t"]))
    trace, mean2 = (late[name].mean(("step", "seed")).to_numpy() for name in ("noise", "mean2"))
    theory, limit = (
        np.asarray(si.stationary_learning_rate(noise2, intrinsic_lr)) for noise2 in (trace + mean2, trace)
    )  # fmt: skip
    there = settled(float(intrinsic_lr.min()), options.wait / 2)
    power, noise = slope(intrinsic_lr, rate), slope(intrinsic_lr, trace)
    out.numbers["equilibrium"] = {"λ_e": intrinsic_lr, "effective learning rate": rate, "√(2λ_e)/σ": limit, "with ‖∇L‖²": theory, "Tr Σ": trace, "|∇L|²": mean2}  # fmt: skip
    out.claim(
        "at equilibrium γ^(−1/2) is √(2λ_e)/σ (Lemma 5.2)",
        expected="within 25 % at each λ_e, with the measured σ² = Tr Σ + ‖∇L‖²",
        measured=", ".join(f"{r:.2f}" for r in rate / theory) + " of it; "
        + ", ".join(f"{r:.2f}" for r in rate / limit) + " with Tr Σ alone",
        holds=np.all(np.abs(rate / theory - 1) < 0.25) if there else None,
        revised=FINITE,
    )  # fmt: skip
    out.claim(
        "so it grows like √λ_e, as the noise hardly differs (footnote 2)",
        expected="slope of log γ^(−1/2) against log λ_e 0.5 ± 0.1",
        measured=f"{power:.2f}; Tr Σ grows like λ_e to the {noise:.2f}",
        holds=abs(power - 0.5) < 0.1 if there and len(rate) > 2 else None,
    )


if __name__ == "__main__":
    report.cli(main, Fig11(), PAPER, desk=DESK_SIZES)
