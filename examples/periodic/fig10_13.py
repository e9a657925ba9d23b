"""Figures 10 to 13 of the periodic paper: full-batch gradient descent on a scale-invariant network.

Rows from the top: periods at several learning rates; one period step by step, its phases shaded; the same
network with its norm fixed; what bounds on the effective gradient say of the steps of phase B, of gradient
descent and of SGD.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr
from _runs import (
    DESK,
    INITIAL,
    PAPER,
    SERIES,
    Setup,
    bursts,
    colors,
    free_decay,
    images,
    listed,
    median,
    member,
    on_sphere,
    panels,
    present,
    run,
    settled,
    shade,
    summary,
)

from ntkdecay import report, training
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Options(Setup):
    """Sizes of the experiment."""

    l2: report.Positive = 1e-3
    """λ of Figure 10."""
    learning_rates: report.Ascending[report.Positive] = (0.1, 0.5, 1.0, 2.0, 4.0)
    """η of Figure 10, ascending."""
    steps: report.Count = 8000
    """Steps of each run of Figure 10."""
    close: tuple[report.Positive, report.Positive] = (0.5, 1e-3)
    """η, λ of Figure 11."""
    jumps: tuple[report.Positive, report.Positive] = (0.5, 1e-3)
    """η, λ of Figure 13."""
    close_time: report.Positive = 3.5
    """Steps × ηλ of the runs measured at every step."""
    stochastic: tuple[report.Positive, report.Positive] = (1.0, 1e-3)
    """η, λ of the half of Figure 13 that is SGD."""
    stochastic_samples: report.Count = 512
    """Its training samples."""
    stochastic_batch: report.Count = 64
    """Its samples of a step."""
    smooth: report.Odd = 9
    """Steps of the running median in which the periods of SGD are sought: an epoch."""
    valid: report.Share = 0.25
    """t_valid of Figure 13, in parts of phase B: from there on ℓ(t) and L(t) are bounds."""
    fixed: tuple[report.Positive, report.Positive] = (2.0, 1e-3)
    """η, λ of Figure 12."""
    fixed_steps: report.Count = 4000
    """Steps of each of its runs."""
    scales: tuple[report.Positive, ...] = (3.0, 1.0, 0.5)
    """Initial norms of Figure 12, over that of initialization."""
    stops: tuple[report.Share, ...] = (0.3, 0.6, 0.9)
    """When regular training stops and the norm is fixed, in parts of the second phase B."""


SMALL: dict[str, Any] = DESK | dict(samples=128, batch_size=None)
DESK_SIZES = Options(**SMALL, learning_rates=(0.1, 0.5, 1.0, 2.0, 3.0))
GRADIENT_DESCENT: dict[str, Any] = PAPER | dict(
    samples=4500, test_samples=5000, batch_size=None, every=10, eval_batch_size=None
)
PAPER_SIZES = Options(
    **GRADIENT_DESCENT, l2=1e-4, learning_rates=(0.1, 0.3, 0.5, 1.0, 3.0), steps=60_000,
    jumps=(0.5, 1e-4), fixed=(1.0, 1e-4), fixed_steps=60_000, stochastic=(0.01, 1e-3), stochastic_samples=50_000,
    stochastic_batch=128, smooth=391,
)  # fmt: skip


GROWTH = (
    "Size: so few images have short periods; bounds from ℓ ∝ t⁻ᵖ and L ∝ 1/t grow only from t = p/(2ηλ) and 1/(2ηλ) on, "
    "of which the second half of this phase B is mostly short"
)
WHY = {
    "a period has three phases: the loss falls, the norm falls at low loss, both jump up": "Size: a layer separates 128 images, so that "
    "the loss has fallen before the norm stops growing, and A takes no step of its own",
    "GD: both bounds and the turns grow in the second half of phase B": GROWTH,
    "SGD: both bounds and the turns grow in the second half of phase B": GROWTH,
}


def main(options: Options) -> None:
    """Figures 10 to 13: periods of full-batch gradient descent, and what bounds a step."""
    out = report.Report("periodic", "fig10_13", options, data=options.words)
    figure, axes = plt.subplots(5, 4, figsize=(14, 14), layout="constrained")
    learning_rates(axes[0], out, options)
    close = {pair: step_by_step(options, *pair) for pair in {options.close, options.jumps}}
    one_period(axes[1], out, close[options.close], *options.close)
    fixed_norm(axes[2], out, options)
    descent = jumps(axes[3], out, "GD", close[options.jumps], options.jumps, options)
    few = dataclasses.replace(
        options, samples=options.stochastic_samples, batch_size=options.stochastic_batch
    )
    record = step_by_step(few, *options.stochastic)
    stochastic = jumps(axes[4], out, "SGD", record, options.stochastic, options)
    prominence(out, descent, stochastic)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    out.explain(WHY)
    out.save(figure)


def learning_rates(axes, out: report.Report, options: Options) -> None:
    """Figure 10: the number and the length of periods against η."""
    rates, l2 = options.learning_rates, options.l2
    grid = run(
        options, {"learning_rate": rates, "l2": [l2]}, options.steps, progress="learning rates"
    )
    found = {}
    for color, rate in zip(colors(len(rates)), rates, strict=True):
        record = member(grid, rate, learning_rate=rate)
        found[rate] = si.periods(record)
        panels(axes, record, SERIES, color=color, label=f"η = {rate:g}")
    axes[0].legend(fontsize="small", title=f"λ = {l2:g}")
    out.numbers["learning rates"] = {
        rate: summary(periods, rate * l2) for rate, periods in found.items()
    }
    numbers = [periods.number for periods in found.values()]
    times = options.steps * l2 * np.array(rates)
    often = listed(np.array(numbers) / times, ".2g")
    out.claim(
        "full-batch training is periodic, with more periods at a larger η",
        expected="three periods or more at some η, and their number never falls with η",
        measured=", ".join(f"{n} at η = {rate:g}" for rate, n in zip(rates, numbers, strict=True))
        + f"; in a time 1/(ηλ) {often}",
        holds=report.every([present(max(numbers), times[-1]), bool(np.all(np.diff(numbers) >= 0))]),
    )
    lengths = {
        rate: rate * l2 * median(periods.lengths[settled(periods)])
        for rate, periods in found.items()
        if periods.number > 1
    }
    out.claim(
        "the length of a period is proportional to 1/(ηλ)",
        expected="the median length × ηλ the same within a factor of 2",
        measured=", ".join(f"{value:.2f} at η = {rate:g}" for rate, value in lengths.items())
        or "no run of two periods",
        holds=max(lengths.values()) < 2 * min(lengths.values()) if len(lengths) > 1 else None,
    )
    ratios = np.concatenate(
        [
            (one.destabilization - one.start) / free_decay(one.learning_rate, rate * l2)
            for rate, one in found.items()
            if one.number
        ]
        or [np.array([])]
    )
    out.claim(
        "between destabilizations decay alone sets the norm, and it cannot be faster (3)",
        expected="steps from the least to the largest η/ρ² over those of decay alone: none below 1, median below 1.5",
        measured=f"{ratios.min():.3f} to {ratios.max():.2f}, median {median(ratios):.3f}, {ratios.size} periods"
        if ratios.size
        else "no period",
        holds=ratios.min() >= 1 - 1e-3 and median(ratios) < 1.5 if ratios.size else None,
    )
    levels = [median(one.learning_rate[:, 1]) for one in found.values() if one.number]
    out.claim(
        "training destabilizes at an effective learning rate that depends little on η",
        expected="the median η/ρ² at destabilization the same within a factor of 2",
        measured=listed(levels, ".3f") or "no period",
        holds=max(levels) < 2 * min(levels) if len(levels) > 1 else None,
    )


def step_by_step(options: Options, rate: float, l2: float) -> xr.Dataset:
    """A run recorded at every step, with the turn that each step makes."""
    steps = round(options.close_time / (rate * l2))
    grid = run(
        options,
        {"learning_rate": [rate], "l2": [l2]},
        steps,
        optimizer=lambda learning_rate: si.measured(optax.sgd(learning_rate)),
        metrics=si.step_metrics(),
        record=range(1, steps + 1),
        progress="step by step",
    )
    record = member(grid, rate)
    return record.assign_coords(step=record["step"] - 1)  # the step from w_t to w_{t+1} is t


def one_period(axes, out: report.Report, record: xr.Dataset, rate: float, l2: float) -> None:
    """Figure 11: the phases of one period."""
    found = si.periods(record)
    path = np.asarray(
        si.norm2_path(
            record["norm2"].to_numpy()[0],
            record["effective_gradient_norm"].to_numpy().astype(float)[:-1],
            rate,
            l2,
        )
    )
    error = float(np.max(np.abs(path / record["norm2"].to_numpy() - 1)))
    out.numbers["one period"] = summary(found, rate * l2) | {"relative error of (3)": error}
    out.claim(
        "the squared norm follows (3) from the effective gradients alone",
        expected="the recorded ρ² within 1 % of the recursion over all steps",
        measured=f"largest relative distance {error:.1e} in {path.size} steps",
        holds=error < 0.01,
    )
    if not found.number:
        none(
            out,
            "a period has three phases: the loss falls, the norm falls at low loss, both jump up",
        )
        return
    number = min(1, found.number - 1)
    begin, end = found.start[number], found.end[number]
    margin = (end - begin) // 20
    shown = record.sel(step=slice(begin - margin, end + margin))
    names = ("loss", "effective_learning_rate", "effective_gradient_norm")
    panels(axes[:3], shown, names, color="black")
    shade(axes[:3], found, number)
    burst = int(found.destabilization[number])
    near = record.sel(step=slice(burst - 30, burst + 60))
    panels(axes[3:], near, ["loss"], color="black", marker=".", ms=3)
    shade(axes[3:], found, number)
    axes[3].set(xlim=(burst - 30, burst + 60), title="destabilization")
    axes[0].set_title(f"η = {rate:g}, λ = {l2:g}; phases A blue, B green, C red", fontsize="medium")
    phases = {name: float(values[number]) for name, values in found.phases.items()}
    in_b = record.sel(step=slice(found.low[number], found.destabilization[number]))
    falls = float((in_b["norm2"].diff("step") < 0).mean())
    out.claim(
        "a period has three phases: the loss falls, the norm falls at low loss, both jump up",
        expected="A, B and C in it, B the longest, ρ² falling in at least 95 % of its steps, the loss rising ten times in C",
        measured=", ".join(f"{name} {steps:.0f}" for name, steps in phases.items())
        + f" steps; ρ² falls in {100 * falls:.1f} % of B; the loss rises "
        f"{jump(record, found, number):.0f} times in C",
        holds=min(phases.values()) > 0
        and max(phases, key=lambda name: phases[name]) == "B"
        and falls >= 0.95
        and jump(record, found, number) >= 10,
    )


def jump(record: xr.Dataset, found: si.Periods, number: int) -> float:
    """The highest loss of phase C over the loss where it begins."""
    values = record["loss"].sel(step=slice(found.destabilization[number], found.end[number]))
    return float(values.max() / values[0])


def fixed_norm(axes, out: report.Report, options: Options) -> None:
    """Figure 12: the norm fixed at initialization, and at steps of regular training before destabilization."""
    rate, l2 = options.fixed
    regular = {"learning_rate": [rate], "l2": [l2]}
    record = member(run(options, regular, options.fixed_steps, progress="free norm"), rate)
    found = si.periods(record)
    number = min(1, found.number - 1)
    if found.number:
        low, burst = found.low[number], found.destabilization[number]
        stops = [int(low + part * (burst - low)) for part in options.stops]
    else:
        stops = [int(part * options.fixed_steps) for part in options.stops]
    x = images(options).x_train
    start = options.net().init(training.init_key(0), x, INITIAL)
    starts = [jax.tree.map(lambda w, c=scale: c * w, start) for scale in options.scales]
    _, stopped = run(
        options, regular | {"stop": stops}, lambda stop: stop, record=[max(stops)], return_params=True
    )  # fmt: skip
    starts += [jax.tree.map(lambda w, i=i: jnp.asarray(w[0, 0, i]), stopped) for i in range(len(stops))]  # fmt: skip
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    grid = run(
        options,
        regular | {"number": range(len(starts))},
        options.fixed_steps,
        init=lambda key, number: jax.tree.map(lambda w: w[number], stacked),
        optimizer=lambda learning_rate: on_sphere(optax.sgd(learning_rate)),
        progress="fixed norm",
    )
    kept = [member(grid, rate, number=i) for i in range(len(starts))]
    split, names = len(options.scales), [f"{scale:g} × ρ_0" for scale in options.scales]
    names += [f"ρ of step {stop}" for stop in stops]
    panels([axes[0]], record, ["loss"], color="black", label="free")
    for ax, rows in ((axes[1], range(split)), (axes[2], range(split, len(starts)))):
        for color, i in zip(colors(len(rows)), rows, strict=True):
            level = float(kept[i]["effective_learning_rate"][-1])
            panels([ax], kept[i], ["loss"], color=color, label=f"{names[i]}, η/ρ² = {level:.2g}")
    panels([axes[3]], record, ["effective_learning_rate"], color="black", label="free")
    for color, stop, run_kept in zip(colors(len(stops)), stops, kept[split:], strict=True):
        panels([axes[3]], run_kept.assign_coords(step=run_kept["step"] + stop), ["effective_learning_rate"], color=color)  # fmt: skip
    for ax in axes[:3]:
        ax.legend(fontsize="small")
    axes[0].set_title(f"free norm, η = {rate:g}, λ = {l2:g}", fontsize="medium")
    axes[1].set_title("norm fixed at initialization", fontsize="medium")
    axes[2].set_title("norm fixed in phase B", fontsize="medium")
    counts = [bursts(one) for one in kept]
    left = [float(one["loss"][-1] / one["loss"].min()) > 10 for one in kept]
    drift = max(float(abs(one["norm2"] / one["norm2"][0] - 1).max()) for one in kept)
    out.numbers["fixed norm"] = {
        "bursts with the norm free": bursts(record),
        "bursts with it fixed": dict(zip(names, counts, strict=True)),
        "effective learning rates": [float(one["effective_learning_rate"][0]) for one in kept],
        "last loss": [float(one["loss"][-1]) for one in kept],
        "largest relative drift of the norm": drift,
    }
    out.claim(
        "with a fixed norm there are no periods",
        expected="the loss rises ten times and falls again with the norm free, and never with it fixed",
        measured=f"free {bursts(record)} times; fixed "
        + ", ".join(f"{count} ({name})" for name, count in zip(names, counts, strict=True))
        + f"; {sum(left)} of {len(left)} leave the low loss for good",
        holds=False if any(counts) else present(bursts(record), options.fixed_steps * rate * l2),
    )


POWERS = {"GD": (2.0, 1.0), "SGD": (1.0, 1.0)}
"""ℓ and L fall like these powers of the time since the start of the period."""


def none(out: report.Report, claim: str) -> None:
    """A claim about a period, where the record has none."""
    out.claim(claim, expected="a period", measured="no period in the record", holds=None)


def jumps(
    axes, out: report.Report, name: str, record: xr.Dataset, pair: tuple[float, float], options: Options
) -> dict[str, float]:  # fmt: skip
    """Figure 13: ℓ = c/(t − t_0)^p, L = C/(t − t_0) on the gradients of a phase B, and what follows for its steps.

    Returns how the logarithms of the turns and of both bounds grow over the second half of B; nothing where there is no period.
    """
    (rate, l2), stochastic = pair, name == "SGD"
    found = si.periods(record, window=options.smooth if stochastic else 1)
    bounded = f"{name}: the turn of a step lies within the δ-jump bounds (Proposition 1)"
    if not found.number:
        none(out, bounded)
        return {}
    number = min(1, found.number - 1)
    begin, low, burst = (
        border[number] for border in (found.start, found.low, found.destabilization)
    )
    period = record.sel(step=slice(begin, burst))
    valid = max(1, int(low - begin + options.valid * (burst - low)))
    slopes = period["effective_gradient_norm"].to_numpy()
    powers = POWERS[name]
    least, most = si.power_envelope(slopes, powers, valid)
    phase = period.isel(step=slice(valid, None))
    least, most = least[valid:], most[valid:]
    limits = si.bounds(phase, rate, l2, least=least, most=most)
    near = si.bounds(phase, rate, l2)
    t, turns = phase["step"], phase["cosine_distance"]
    axes[0].semilogy(t, phase["effective_gradient_norm"], color="black", lw=0.7, label="measured")
    axes[0].semilogy(t, least, color="tab:blue", label="ℓ = c/(t − t_0)" + "²" * (powers[0] == 2))
    axes[0].semilogy(t, most, color="tab:red", label="L = C/(t − t_0)")
    axes[0].set(
        xlabel="step t",
        ylabel="effective gradient norm ρ‖∇L‖",
        title=f"{name}, η = {rate:g}, λ = {l2:g}: phase B from t_valid",
    )
    for ax, bounds, title in ((axes[1], limits, "by ℓ, L"), (axes[2], near, "by 101 neighbours")):
        ax.semilogy(t, turns, color="black", lw=0.7, label="measured")
        ax.semilogy(t, bounds["lower"], color="tab:blue", lw=1, label="lower bound")
        ax.semilogy(t, bounds["upper"], color="tab:red", lw=1, label="upper bound")
        ax.set(xlabel="step t", ylabel="1 − cos of a step", title=f"δ-jump bounds {title}")
    shares = [float(bounds.attrs["share_inside"]) for bounds in (limits, near)]
    half = slice(t.size // 2, None)
    growth = {
        name: float(np.polyfit(np.arange(t.size)[half], np.log(values)[half], 1)[0]) * t.size
        for name, values in (
            ("turns", turns.to_numpy()),
            ("lower", limits["lower"].to_numpy()),
            ("upper", limits["upper"].to_numpy()),
        )
    }
    out.numbers[f"δ-jumps, {name}"] = {"share inside": shares, "growth of the logarithm": growth}
    out.claim(
        bounded,
        expected="at least 99 % of the steps of phase B from t_valid on, for ℓ(t), L(t) and for the extremes of 101 neighbours",
        measured=f"{100 * shares[0]:.1f} % and {100 * shares[1]:.1f} % of {t.size} steps; upper over lower bound, "
        f"medians, {median(limits['upper'] / limits['lower']):.0f} and {median(near['upper'] / near['lower']):.1f}",
        holds=min(shares) >= 0.99,
    )
    out.claim(
        f"{name}: both bounds and the turns grow in the second half of phase B",
        expected="positive slopes of the logarithms over it",
        measured=", ".join(f"{name} {value:+.2f} per length of B" for name, value in growth.items())
        + f"; B is as long as {(burst - low) * rate * l2:.2f}/(ηλ)",
        holds=min(growth.values()) > 0,
    )
    jump_times(axes[3], out, name, phase, rate, l2)
    for ax in axes:
        ax.legend(fontsize="small")
    return growth


def prominence(out: report.Report, descent: dict[str, float], stochastic: dict[str, float]) -> None:
    """What Section D says of the two halves of Figure 13."""
    claim = "the growth of the turns is more prominent for GD than for SGD"
    if not descent or not stochastic:
        none(out, claim)
        return
    out.claim(
        claim,
        expected="a larger slope of their logarithm over the second half of phase B",
        measured=f"{descent['turns']:+.2f} and {stochastic['turns']:+.2f} per length of B",
        holds=descent["turns"] > stochastic["turns"],
    )


def jump_times(
    ax, out: report.Report, name: str, phase: xr.Dataset, rate: float, l2: float
) -> None:
    """Proposition 2: when the first δ-jump comes, with the extremes of the whole phase as ℓ and L."""
    slope = phase["effective_gradient_norm"].to_numpy()
    turns = phase["cosine_distance"].to_numpy()
    deltas = np.geomspace(turns.min(), turns.max(), 41)[1:-1]
    norm2 = float(phase["norm2"][0])
    earliest, latest = (
        np.asarray(times)
        for times in si.jump_times(norm2, slope.min(), slope.max(), deltas, rate, l2, exact=True)
    )
    first = np.argmax(turns[:, None] > deltas, axis=0)
    ax.plot(deltas, first, "o", ms=3, color="black", label="measured")
    ax.plot(deltas, earliest, color="tab:blue", label="t_min")
    ax.plot(deltas, np.where(np.isfinite(latest), latest, np.nan), color="tab:red", label="t_max")
    ax.set(xscale="log", xlabel="δ", ylabel="steps to the first δ-jump", title="times (5), (6)")
    inside = (first >= earliest) & (first <= np.ceil(latest))
    out.numbers[f"jump times, {name}"] = {
        "δ": deltas,
        "measured": first,
        "t_min": earliest,
        "t_max": latest,
    }
    out.claim(
        f"{name}: the first δ-jump comes between t_min and t_max (Proposition 2)",
        expected="for every δ",
        measured=f"{inside.sum()} of {deltas.size} δ; t_min > 0 for {np.sum(earliest > 0)}, "
        f"t_max < ∞ for {np.sum(np.isfinite(latest))}",
        holds=bool(inside.all()) if np.any(earliest > 0) or np.any(np.isfinite(latest)) else None,
        revised="bounds that say from 0 to ∞ of every δ bound nothing",
    )


if __name__ == "__main__":
    report.cli(main, Options(), PAPER_SIZES, desk=DESK_SIZES)
