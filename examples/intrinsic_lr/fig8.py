"""Figure 8 of the intrinsic learning rate's paper: an early large ηλ against four initializations.

Two values of λ and two schedules of η by SGD with momentum: divided by 10 twice, late (K = 10) or the first
time at once (K = 1). The larger Kλ, the sooner the norm forgets where it began.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import CIFAR, DESK, EPOCH, Options, evenly, log, network, run
from _runs import images as loaded
from _schedules import Schedule, in_order, schedule

from ntkdecay import report
from ntkdecay import scale_invariant as si

STARTS = ("Kaiming", "NTK", "1000 Kaiming", "0.001 Kaiming")
SCALES = (1.0, 1.0, 1e3, 1e-3)
NTK = 1


@dataclasses.dataclass(frozen=True)
class Fig8(Options):
    """Sizes of the experiment."""

    seeds: report.Count = 2
    """Runs of each setting."""
    learning_rate: report.Positive = 0.1
    """η of the beginning, with K = 10."""
    l2: tuple[report.Positive, report.Positive] = (0.001, 0.005)
    """The two λ."""
    momentum: report.Share = 0.9
    """β."""
    drops: tuple[report.Count, report.Count] = (3200, 4800)
    """Steps at which η is divided by 10; epochs 80 and 120 in the paper."""
    end: report.Count = 6400
    """Steps of a run; 160 epochs."""
    record: report.Count = 80
    """Measurements of a run."""


DESK_SIZES = Fig8(**DESK, drops=(2400, 3600), end=4800, record=30)
PAPER = Fig8(**CIFAR, l2=(0.0001, 0.0005), drops=(80 * EPOCH, 120 * EPOCH), end=160 * EPOCH)


def main(options: Fig8) -> None:
    """Figure 8: an early large intrinsic learning rate makes training robust to the initialization."""
    in_order(options, "drops", "end")
    out = report.Report("intrinsic_lr", "fig8", options, data=options.words)
    settings = {f"K = {k}, λ = {l2:g}": one(options, k, l2) for k in (1, 10) for l2 in options.l2}
    grid = trained(options, list(settings.values()))
    figure, axes = plt.subplots(3, 4, figsize=(17, 11), sharex=True, layout="constrained")
    draw(axes, out, options, grid, settings)
    decay(out, options, grid, list(settings.values()))
    arrival(out, options, grid, settings)
    accuracy(out, grid, list(settings))
    out.save(figure)


def one(options: Fig8, k: int, l2: float) -> Schedule:
    """η divided by 10 at both drops (K = 10), or at the beginning and at the second (K = 1)."""
    first, second = options.drops
    starts = (0, first, second) if k == 10 else (0, second)
    return schedule(starts, [options.learning_rate * k / 10 / 10**i for i in range(len(starts))], [l2] * len(starts))  # fmt: skip


def trained(options: Fig8, settings: list[Schedule]) -> xr.Dataset:
    """Every setting from every initialization, over (start, setting, seed, step)."""
    schedules = settings * len(STARTS)
    net, data = network(options), loaded(options)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), data.x_train))
    fan_in = jax.tree.map(lambda w: float(np.prod(w.shape[:-1])), shapes)

    def init(key, schedule):
        start = schedule // len(settings)
        params = net.init(key, data.x_train)
        factor = jnp.asarray(SCALES, jnp.float32)[start]
        return jax.tree.map(
            lambda w, n: w * jnp.where(start == NTK, jnp.sqrt(n), factor).astype(w.dtype), params, fan_in
        )  # fmt: skip

    def apply_fn(params, x, schedule):
        """The multiplier 1/√N of each layer is the network's with this parametrization."""
        ntk = schedule // len(settings) == NTK
        scaled = jax.tree.map(
            lambda w, n: w * jnp.where(ntk, 1 / np.sqrt(n), 1.0).astype(w.dtype), params, fan_in
        )
        return net.apply(scaled, x)

    grid = run(
        options, schedules, options.end, evenly(options.end, options.record, settings), noise=False,
        momentum=[options.momentum] * len(schedules), init=init, apply_fn=apply_fn, progress="initializations",
    )  # fmt: skip
    by_start = grid.rename(schedule="all").coarsen(all=len(settings))
    return by_start.construct(all=("start", "setting"))


def draw(
    axes, out: report.Report, options: Fig8, grid: xr.Dataset, settings: dict[str, Schedule]
) -> None:
    """A column for each initialization: test accuracy, norm, effective learning rate."""
    for i, column in enumerate(axes.T):
        for j, (name, phases) in enumerate(settings.items()):
            here = grid.isel(start=i, setting=j)
            color, style = ("C1", "C3", "C0", "C2")[j], "--" if j < 2 else "-"
            column[0].plot(here["step"], here["test_accuracy"].mean("seed"), color=color, ls=style, lw=1, label=name)  # fmt: skip
            for ax, values in zip(column[1:], (here["norm2"], here["rate"]), strict=True):
                ax.plot(here["step"], np.exp(log(values).mean("seed")), color=color, ls=style, lw=1)
            if STARTS[i] == "1000 Kaiming":
                intrinsic_lr = float(
                    si.intrinsic_learning_rate(
                        phases[0].learning_rate, phases[0].l2, options.momentum
                    )
                )
                norm2, t = (
                    float(here["norm2"].isel(step=0).mean()),
                    np.linspace(0, phases[1].start, 50),
                )
                column[1].plot(
                    t,
                    norm2 * np.exp(-2 * intrinsic_lr * t),
                    "k:",
                    lw=0.8,
                    label="exp(−2λ_e t)" if j == 0 else None,
                )
                column[1].set_ylim(here["norm2"].min() / 3, 3 * norm2)
                column[1].legend(fontsize="small")
        column[0].set(title=STARTS[i], ylim=(0, 1.01))
        column[1].set(yscale="log")
        column[2].set(yscale="log", xlabel="step")
    for ax, words in zip(axes[:, 0], ("test accuracy", "‖w‖²", "effective learning rate η/‖w‖²"), strict=True):  # fmt: skip
        ax.set_ylabel(words)
    axes[0, 0].legend(fontsize="small")
    out.numbers |= {
        "initializations": STARTS,
        "settings": list(settings),
        "test accuracy at the end": grid["test_accuracy"].isel(step=-1).mean("seed").to_numpy(),
        "best test accuracy": grid["test_accuracy"].max("step").mean("seed").to_numpy(),
        "‖w‖² at the start": grid["norm2"].isel(step=0, setting=0, seed=0).to_numpy(),
    }


def decay(out: report.Report, options: Fig8, grid: xr.Dataset, settings: list[Schedule]) -> None:
    """The slope of log ‖w‖² from 1000 times Kaiming, while the norm is far too large: −2λ_e."""
    found, theory = [], []
    for j, phases in enumerate(settings):
        here = grid.isel(start=2, setting=j)
        rate = phases[0].learning_rate
        intrinsic_lr = float(si.intrinsic_learning_rate(rate, phases[0].l2, options.momentum))
        norm2 = here["norm2"].mean("seed").to_numpy()
        step = here["step"].to_numpy()
        free = (step > 5 / (1 - options.momentum)) & (step < phases[1].start) & (norm2 > 1e-3 * norm2[0])  # fmt: skip
        found.append(np.polyfit(step[free], np.log(norm2[free]), 1)[0] if free.sum() > 2 else np.nan)  # fmt: skip
        theory.append(-2 * intrinsic_lr)
    ratio = np.array(found) / found[0]
    out.numbers["slope of log ‖w‖² from 1000 Kaiming"] = {"measured": found, "−2 λ_e": theory}
    out.claim(
        "far from equilibrium the norm falls at the rate 2λ_e, λ_e = ηλ/(1 − β): 1 : 5 : 10 : 50 in the four settings",
        expected="slopes of log ‖w‖² from 1000 times Kaiming within 10 % of −2λ_e",
        measured=" : ".join(f"{r:.2f}" for r in ratio)
        + "; "
        + ", ".join(f"{a / b:.3f}" for a, b in zip(found, theory, strict=True))
        + " of theory",
        holds=np.all(np.abs(np.array(found) / theory - 1) < 0.1)
        if np.isfinite(found).all()
        else None,
    )


def arrival(out: report.Report, options: Fig8, grid: xr.Dataset, settings: dict[str, Schedule]) -> None:  # fmt: skip
    """From 1000 times Kaiming: steps until γ is within a half of that from Kaiming, and (10)'s."""
    lines = {}
    for j, (name, phases) in enumerate(settings.items()):
        here = log(grid["rate"].isel(setting=j)).mean("seed")
        behind = (here.isel(start=2) - here.isel(start=0)).to_numpy()
        near = np.flatnonzero(behind > -np.log(1.5) / 2)
        found = float(grid["step"][near[0]]) if near.size else np.nan
        rate = phases[0].learning_rate
        intrinsic_lr = float(si.intrinsic_learning_rate(rate, phases[0].l2, options.momentum))
        before = here.sel(step=slice(int(phases[1].start * 0.75), int(phases[1].start) - 1))
        gamma = np.exp(-2 * float(before.isel(start=0).mean()))
        start = np.exp(-2 * float(here.isel(start=2, step=0)))
        theory = float(
            si.norm_convergence_time(
                start, intrinsic_lr, sigma2=2 * intrinsic_lr * gamma, tolerance=0.5
            )
        )
        lines[name] = {"measured": found, "theory": theory, "first phase": phases[1].start}
    out.numbers["steps until 1000 Kaiming is near Kaiming"] = lines
    known = {name: line for name, line in lines.items() if line["theory"] < line["first phase"]}
    steps = {
        name: "never" if np.isnan(line["measured"]) else f"after {line['measured']:.0f} steps"
        for name, line in lines.items()
    }
    out.claim(
        "from 1000 times Kaiming the effective learning rate is at equilibrium after ln(γ_0/γ_∞)/(4λ_e) (Appendix E)",
        expected="γ at most half above Kaiming's after the time of (10), within 20 % where the first phase is as long",
        measured="; ".join(
            f"{name}: {steps[name]}, theory {line['theory']:.0f}" for name, line in lines.items()
        ),
        holds=all(abs(line["measured"] / line["theory"] - 1) < 0.2 for line in known.values())
        if known
        else None,
    )


def accuracy(out: report.Report, grid: xr.Dataset, names: list[str]) -> None:
    """Test accuracy at the end of the run."""
    last = grid["test_accuracy"].isel(step=-1).mean("seed").to_numpy()  # (start, setting)
    spread = np.ptp(last, axis=0)
    out.claim(
        "with a large initial η and the large λ the accuracy does not depend on the initialization",
        expected="four test accuracies within 1 %",
        measured=f"within {100 * spread[3]:.1f} %; " + ", ".join(f"{100 * s:.1f} % with {n}" for s, n in zip(spread[:3], names, strict=False)),
        holds=spread[3] < 0.01,
    )  # fmt: skip
    out.claim(
        "with a small initial η it is much worse from the extreme initializations",
        expected="with K = 1 and the small λ, 1000 and 0.001 times Kaiming at least 2 % below Kaiming",
        measured=f"{100 * (last[2, 0] - last[0, 0]):+.1f} % and {100 * (last[3, 0] - last[0, 0]):+.1f} %",
        holds=max(last[2, 0], last[3, 0]) < last[0, 0] - 0.02,
    )
    end = grid["test_accuracy"].isel(step=-1).transpose("start", "setting", "seed").to_numpy()
    worst, at = last.min(0), np.arange(last.shape[1])
    runs = end[last.argmin(0), at]  # (setting, seed)
    count = runs.shape[1]
    error = runs.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(worst), np.nan)
    second = int(np.argmax(worst[:3]))
    gain, spread = worst[3] - worst[second], np.hypot(error[3], error[second])
    out.claim(
        "the worst initialization fares best with the large η and λ",
        expected="the highest of the four worst test accuracies, by two standard errors",
        measured=", ".join(f"{100 * w:.1f} % with {n}" for w, n in zip(worst, names, strict=True))
        + f"; {100 * gain:+.1f} ± {100 * spread:.1f} % to the next",
        holds=bool(gain > 0) if abs(gain) > 2 * spread else None,
        revised="a lead within the spread over seeds decides nothing",
    )


if __name__ == "__main__":
    report.cli(main, Fig8(), PAPER, desk=DESK_SIZES)
