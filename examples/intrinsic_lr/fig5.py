"""Figure 5 of the intrinsic learning rate's paper: with weight decay, gradient descent on all samples never settles.

(a) two nearby starts on x²/(x² + y²); (b, c) a network on a small training set, whose weight decay ends before the run does.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import CIFAR, DESK, Options, run
from _schedules import in_order, schedule

from ntkdecay import report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Fig5(Options):
    """Sizes of the experiment."""

    samples: report.Count = 200
    """Training samples; 1000 in the paper."""
    batch_size: report.Count = 200
    """All of them."""
    seeds: report.Count = 2
    """Runs with and without weight decay."""
    learning_rate: report.Positive = 1.6
    """η of the network."""
    l2: report.Positive = 0.0025
    """λ of the network."""
    off: report.Count = 6000
    """Step at which λ becomes 0; epoch 30,000 in the paper."""
    end: report.Count = 8000
    """Steps of a run."""
    toy_steps: report.Count = 600
    """Steps on the toy loss."""
    apart: report.Positive = 1e-10
    """Relative distance of its two starts in x."""


DESK_SIZES = dataclasses.replace(
    Fig5(**DESK), samples=250, batch_size=250, test_samples=1000, seeds=2
)
"""Accuracies on the test set are shown, not compared: they are measured at every step, so that 1000 images do."""
PAPER = dataclasses.replace(
    Fig5(**CIFAR),
    samples=1000,
    batch_size=1000,
    augment=False,
    l2=0.0005,
    off=30_000,
    end=40_000,
)


PERIODS = 3.0
"""A run of so many 1/(ηλ) has destabilizations if there are any."""


def main(options: Fig5) -> None:
    """Figure 5: chaos of the toy loss, and a network that learns all samples again and again."""
    in_order(options, "off", "end")
    out = report.Report("intrinsic_lr", "fig5", options, data=options.words)
    eta = options.learning_rate
    schedules = [schedule((0, options.off), (eta, eta), l2) for l2 in ((options.l2, 0), (0, 0))]
    figure, axes = plt.subplots(2, 2, figsize=(13, 8.5), layout="constrained")
    toy(axes[0, 0], out, options)
    grid = run(
        options, schedules, options.end, np.arange(options.end + 1), full_batch=True, noise=False,
        metrics={"gradient_norm": "gradient_norm"}, progress="full batch",
    )  # fmt: skip
    draw(axes.flat[1:], options, grid)
    unstable(out, options, grid)
    out.save(figure)


def toy(ax, out: report.Report, options: Fig5) -> None:
    """(a): η = 0.1, λ = 0.5, in float64, which ten digits between the starts need; gradient flow falls all the time."""
    with jax.enable_x64(True):
        starts = jnp.array([[0.01, 1.0], [0.01 * (1 + options.apart), 1.0]])
        runs = jax.vmap(lambda z: si.descend(z, 0.1, 0.5, options.toy_steps).z)(starts)
        exponent = float(si.lyapunov_exponent(starts[0], 0.1, 0.5, 100 * options.toy_steps))
        flow = np.abs(np.asarray(si.flow_ratio(jnp.arange(60.0), starts[0], 0.1, 0.5)))
        x, y = np.moveaxis(np.asarray(runs), -1, 0)
    ratio = np.abs(x / y)
    apart = np.abs(np.diff(np.log(ratio), axis=0))[0]
    for series, style in zip(ratio, ("C0-", "C3--"), strict=True):
        ax.semilogy(series, style, lw=0.8)
    ax.semilogy(flow, "k:", lw=1, label="gradient flow")
    ax.legend(loc="lower right")
    ax.set_ylim(ratio.min() / 10, 3 * ratio.max())
    ax.set(xlabel="step", ylabel="|x/y|", title="(a) x²/(x² + y²), η = 0.1, λ = 0.5, two nearby starts")  # fmt: skip
    parted = int(np.argmax(apart > 0.1)) if np.any(apart > 0.1) else -1
    out.numbers["toy"] = {"Lyapunov exponent": exponent, "parted at step": parted}
    out.claim(
        "on the toy loss two nearby starts part, where gradient flow falls for ever",
        expected="a positive Lyapunov exponent; runs that part; |x/y| rises again and again",
        measured=f"exponent {exponent:.3f} per step, apart by a tenth at step {parted}; |x/y| rises in {100 * np.mean(np.diff(ratio[0]) > 0):.0f} % of the steps",
        holds=exponent > 0.01
        and parted > 0
        and np.any(np.diff(ratio[0]) > 0)
        and np.all(np.diff(flow) <= 0),
    )


def draw(axes, options: Fig5, grid: xr.Dataset) -> None:
    """(b, c) of the first seed."""
    for i, label in enumerate((f"λ = {options.l2:g}, then 0", "λ = 0")):
        one = grid.isel(schedule=i, seed=0)
        axes[0].semilogy(one["step"], one["loss"], f"C{i}", lw=0.7, label=label)
        axes[1].plot(one["step"], one["accuracy"], f"C{i}", lw=0.7, label=f"training, {label}")
        axes[1].plot(one["step"], one["test_accuracy"], f"C{i}", lw=0.7, ls=":", label=f"test, {label}")  # fmt: skip
        axes[2].semilogy(one["step"], one["rate"], f"C{i}", lw=0.7, label=label)
    for ax, words, title in zip(
        axes,
        ("training loss", "accuracy", "effective learning rate η/‖w‖²"),
        (f"(b) all of {options.samples} samples, η = {options.learning_rate:g}", "(c)", "dashed: λ becomes 0"),
        strict=True,
    ):  # fmt: skip
        ax.axvline(options.off, color="grey", lw=0.8, ls="--")
        ax.set(xlabel="step", ylabel=words, title=title)
        ax.legend(fontsize="small")


def found(one: xr.Dataset) -> si.Periods:
    """The periods of a run."""
    return si.periods(one[["loss", "norm2", "gradient_norm"]])


def unstable(out: report.Report, options: Fig5, grid: xr.Dataset) -> None:
    """The network with weight decay, after it, and without."""
    seeds = range(options.seeds)
    on = grid.isel(schedule=0).sel(step=slice(None, options.off - 1))
    off = grid.isel(schedule=0).sel(step=slice(options.off, None))
    first = [int(np.argmax(on["accuracy"][i].to_numpy() == 1)) for i in seeds]
    learned = [bool(np.any(on["accuracy"][i] == 1)) for i in seeds]
    after = [float((on["accuracy"][i, first[i] :] == 1).mean()) for i in seeds]
    lowest = [float(on["accuracy"][i, first[i] :].min()) for i in seeds]
    bursts = [found(on.isel(seed=i)).number for i in seeds]
    out.numbers["with weight decay"] = {
        "all learned at step": first, "share of the steps since": after, "lowest accuracy since": lowest, "destabilizations": bursts,
    }  # fmt: skip
    seen = all(learned) and min(bursts) > 0 and max(lowest) < 1
    out.claim(
        "with weight decay the network learns all samples, and is unable to stay there",
        expected="training accuracy 1, and destabilizations after it, in every run",
        measured=f"accuracy 1 {f'at step {min(first)} to {max(first)}' if all(learned) else 'not in every run'}, then in {100 * min(after):.0f} to {100 * max(after):.0f} % of the steps; "
        f"{min(bursts)} to {max(bursts)} destabilizations, down to {100 * min(lowest):.0f} %",
        holds=seen
        or (False if options.off * options.learning_rate * options.l2 >= PERIODS else None),
    )
    tail = [float(off["accuracy"][i, (options.end - options.off) // 2 :].min()) for i in seeds]
    quiet = [found(off.isel(seed=i)).number for i in seeds]
    plain = [found(grid.isel(schedule=1, seed=i)).number for i in seeds]
    long = (options.end - options.off) * options.learning_rate * options.l2 >= PERIODS
    out.claim(
        "without it training converges",
        expected="no destabilization once λ is 0, and none in the run with λ = 0 from the beginning",
        measured=f"{max(quiet)} and {max(plain)}; accuracy {100 * min(tail):.0f} % or more in the last half after",
        holds=max(quiet) == max(plain) == 0 and min(tail) == 1
        if long or max(quiet + plain)
        else None,
    )
    norm2 = on["norm2"].transpose("step", "seed").to_numpy().astype(float)
    slopes = np.sqrt(norm2) * on["gradient_norm"].transpose("step", "seed").to_numpy()
    path = si.norm2_path(norm2[0], slopes[:-1], options.learning_rate, options.l2)
    off_by = float(np.max(np.abs(np.asarray(path) / norm2 - 1)))
    out.claim(
        "the norm follows ρ² ← (1 − ηλ)² ρ² + η² g̃²/ρ² ((3) of the periodic paper; (7) for a finite step)",
        expected="within 1 % at every step with weight decay, from the recorded gradients",
        measured=f"{100 * off_by:.2g} %",
        holds=off_by < 0.01,
    )


if __name__ == "__main__":
    report.cli(main, Fig5(), PAPER, desk=DESK_SIZES)
