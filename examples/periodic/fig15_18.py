"""Figures 15 to 18 of the periodic paper: what η and λ do to the periods of SGD, together and apart.

Top: three products ηλ, each with three ratios η/λ (15), and their effective learning rates (16).
Middle: rescaled starts, which make runs of equal ηλ the same (Proposition 4). Bottom: η alone (17) and λ alone (18); for
CIFAR-100 the paper has a wider ConvNet and a larger last layer: `--data cifar100 --width 64 --head-norm 20`.
"""

import dataclasses
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr
from _runs import (
    DESK,
    INITIAL,
    PAPER,
    TIMES,
    Setup,
    colors,
    images,
    learned,
    listed,
    median,
    member,
    panels,
    present,
    product_and_ratio,
    run,
    settled,
    summary,
)

from ntkdecay import optimizers, report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Options(Setup):
    """Sizes of the experiment."""

    samples: report.Count = 512
    """Training samples."""
    batch_size: report.Count | None = 64
    """Samples of a step."""
    every: report.Count = 8
    """Steps between measurements: an epoch."""
    products: report.Ascending[report.Positive] = (5e-4, 1e-3, 2e-3)
    """ηλ of Figures 15 and 16, ascending."""
    ratios: report.Ascending[report.Positive] = (100.0, 1000.0, 10000.0)
    """η/λ, ascending."""
    steps: report.Count = 8000
    """Steps of each run."""
    scales: tuple[report.Positive, ...] = (2.0, 3.0)
    """Factors of the rescaled starts, from the smallest ratio."""
    l2: report.Positive = 1e-3
    """λ of Figure 17."""
    learning_rates: report.Ascending[report.Positive] = (0.03, 0.25, 1.0, 4.0, 200.0)
    """η of Figure 17, ascending: too low, periodic, too high."""
    learning_rate: report.Positive = 0.5
    """η of Figure 18."""
    decays: report.Ascending[report.Positive] = (6e-5, 5e-4, 2e-3, 8e-3, 0.4)
    """λ of Figure 18, ascending: too low, periodic, too high."""
    seeds: report.Count = 3
    """Runs of each η and λ of Figures 17 and 18; the first of them is drawn, and its periods are counted."""
    window: report.Odd = 1
    """Measurements of the running median in which periods are sought."""


DESK_SIZES = Options(
    **DESK, steps=6400, products=(1e-3, 2e-3), learning_rates=(0.03, 0.5, 1.0, 2.0, 200.0),
    decays=(6e-5, 1e-3, 2e-3, 4e-3, 0.4),
)  # fmt: skip
SIZES: dict[str, Any] = PAPER | dict(
    seeds=1, products=(1e-5, 3e-5, 1e-4), ratios=(1.0, 10.0, 100.0), steps=391 * 1000, l2=1e-3,
    learning_rates=(1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0), learning_rate=0.03,
    decays=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.1), window=3,
)  # fmt: skip


WHY = {
    "at a fixed product ηλ the frequency of periods does not depend on the ratio η/λ": "Size: 6,400 steps hold a few periods of "
    "each ratio, whose mean lengths are uncertain by as much",
    "from rescaled starts runs of equal ηλ are the same, warm-up and all (Proposition 4)": "Size: where c is no power of 2 the runs "
    "are rounded differently from the first step on, and such training is chaotic",
}


def main(options: Options) -> None:
    """Figures 15 to 18: periods against products and ratios of η and λ."""
    out = report.Report("periodic", "fig15_18", options, data=options.words)
    columns = max(3, len(options.products))
    figure, axes = plt.subplots(5, columns, figsize=(3.6 * columns, 13), layout="constrained")
    products(axes[:2], out, options)
    rescaled_starts(axes[2], out, options)
    apart(axes[3], out, options, "learning_rate")
    apart(axes[4], out, options, "l2")
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    out.explain(WHY)
    out.save(figure)


def products(axes, out: report.Report, options: Options) -> None:
    """Figures 15 and 16: runs of equal ηλ have alike periods, whatever η/λ."""
    grid = run(
        options,
        {"product": options.products, "ratio": options.ratios},
        options.steps,
        optimizer=product_and_ratio,
        metrics=si.metrics(batch_size=options.batch_size),
        progress="products",
    )
    found: dict[float, list[si.Periods]] = {}
    inside: list[float] = []
    for column, product in enumerate(options.products):
        found[product] = []
        for color, ratio in zip(colors(len(options.ratios)), options.ratios, strict=True):
            rate = (product * ratio) ** 0.5
            record = member(grid, rate, product=product, ratio=ratio)
            found[product].append(si.periods(record, window=options.window))
            panels([axes[0, column]], record, ["loss"], color=color, label=f"η/λ = {ratio:g}")
            panels([axes[1, column]], record, ["effective_learning_rate"], color=color)
            inside.append(equilibrium(record, rate, product))
        axes[0, column].set_title(f"ηλ = {product:g}")
        axes[0, column].legend(fontsize="small")
    out.numbers["products"] = {
        product: {
            f"η/λ = {ratio:g}": summary(one, product)
            for ratio, one in zip(options.ratios, each, strict=True)
        }
        for product, each in found.items()
    }
    # Each run's mean period in units of 1/(ηλ); NaN of one period or none.
    length = np.array([[product * length_of(one) for one in each] for product, each in found.items()])  # fmt: skip
    out.numbers["length × ηλ"] = length
    spread = np.max(length, 1) / np.min(length, 1)
    enough = options.steps * options.products[0] >= TIMES
    counted = bool(np.isfinite(length).all())
    out.claim(
        "at a fixed product ηλ the frequency of periods does not depend on the ratio η/λ",
        expected="mean lengths within a factor of 1.5 of each other at every product",
        measured=", ".join(f"a factor of {factor:.2f} at ηλ = {product:g}" for product, factor in zip(options.products, spread, strict=True)),
        holds=bool(np.all(spread < 1.5)) if counted or enough else None,
    )  # fmt: skip
    mean = np.mean(length, 1)
    out.claim(
        "periods are as frequent as the product is large",
        expected="length × ηλ within a factor of 1.5 over all products",
        measured=", ".join(f"{value:.2f} at ηλ = {product:g}" for product, value in zip(options.products, mean, strict=True)),
        holds=bool(mean.max() < 1.5 * mean.min()) if counted or enough else None,
    )  # fmt: skip
    levels = {product: [median(one.learning_rate[settled(one), 1]) for one in each] for product, each in found.items()}  # fmt: skip
    losses = {product: [median(one.loss[settled(one), 1]) for one in each] for product, each in found.items()}  # fmt: skip
    for name, table in (("effective learning rate at destabilization", levels), ("least training loss of a period", losses)):  # fmt: skip
        factors = [np.max(row) / np.min(row) for row in table.values()]
        out.claim(
            f"the {name} is similar across ratios",
            expected="medians within a factor of 1.5 at every product",
            measured="; ".join(f"{listed(row)} at ηλ = {product:g}" for product, row in table.items()),
            holds=bool(np.all(np.array(factors) < 1.5)) if counted or enough else None,
        )  # fmt: skip
    out.claim(
        "after the warm-up η/ρ² stays where bounds on the effective gradient have it (Remark 3, A.7)",
        expected="every measurement of the second half of each run, ℓ and L the extremes of all its epochs",
        measured=f"{100 * min(inside):.1f} % to {100 * max(inside):.1f} % of them",
        holds=min(inside) == 1 if enough else None,
    )


def length_of(found: si.Periods) -> float:
    """The mean length of the periods that are settled: from the first end to the last."""
    return float(found.lengths[settled(found)].mean()) if found.number > 1 else np.nan


def equilibrium(record: xr.Dataset, rate: float, product: float) -> float:
    """The share of the second half in the interval of Remark 3."""
    slope = record["effective_gradient_norm"].to_numpy()
    low, high = si.equilibrium_learning_rate(slope.min(), slope.max(), rate, product / rate)
    late = record["effective_learning_rate"].to_numpy()[slope.size // 2 :]
    return float(np.mean((float(low) <= late) & (late <= float(high))))


def rescaled_starts(axes, out: report.Report, options: Options) -> None:
    """Proposition 4: the smallest ratio's run, and runs from c times its start with c²η and λ/c²."""
    product, ratio = options.products[-1], options.ratios[0]
    rate, l2 = (product * ratio) ** 0.5, (product / ratio) ** 0.5
    net, x, scales = options.net(), images(options).x_train, (1.0, *options.scales)

    def optimizer(scale: jax.Array) -> optax.GradientTransformation:
        one = jax.numpy.ones(())  # of the three only the rates are asked for here
        _, learning_rate, decay = si.rescaled(one, rate, l2, scale)
        return optimizers.sgd(learning_rate, l2=decay)

    grid = run(
        options,
        {"scale": scales},
        options.steps,
        init=lambda key, scale: si.rescaled(net.init(key, x, INITIAL), rate, l2, scale).params,
        optimizer=optimizer,
        metrics=si.metrics(batch_size=options.batch_size),
        progress="rescaled",
    )
    runs = [member(grid, rate * scale**2, scale=scale) for scale in scales]
    for number, (color, scale, record) in enumerate(zip(colors(len(scales)), scales, runs, strict=True)):  # fmt: skip
        style = dict(color=color, label=f"c = {scale:g}", ls=("-", "--", ":")[number % 3])
        panels(axes[:2], record, ["norm2", "effective_learning_rate"], **style)
    axes[0].set_title(f"start c w_0, c²η, λ/c²; ηλ = {product:g}")
    axes[0].legend(fontsize="small")
    same = {}
    for color, scale, record in list(zip(colors(len(scales)), scales, runs, strict=True))[1:]:
        apart = np.abs(np.log(record["loss"].to_numpy() / runs[0]["loss"].to_numpy()))
        axes[2].semilogy(record["step"], np.maximum(apart, 1e-9), color=color, lw=0.8, label=f"c = {scale:g}")  # fmt: skip
        gone = np.append(np.flatnonzero(apart > 0.1), apart.size)[0]
        same[scale] = float(record["step"][min(gone, apart.size - 1)]), gone == apart.size
    axes[2].set(xlabel="step", ylabel="|Δ ln loss| from c = 1")
    axes[2].legend(fontsize="small")
    periods = [si.periods(record, window=options.window) for record in runs]
    out.numbers["rescaled"] = {
        "the same loss within 10 % until step": {c: step for c, (step, _) in same.items()},
        "periods": {c: one.number for c, one in zip(scales, periods, strict=True)},
    }
    first = min(step for step, _ in same.values()) * product
    out.claim(
        "from rescaled starts runs of equal ηλ are the same, warm-up and all (Proposition 4)",
        expected="the same loss within 10 % for a time 1/(ηλ) at least, in single precision; until the end where c is a power of 2",
        measured=", ".join(
            f"c = {c:g} " + ("until the end" if always else f"until {step * product:.2f}/(ηλ)")
            for c, (step, always) in same.items()
        ),
        holds=None
        if options.steps * product < 1
        else first >= 1 and all(always for c, (_, always) in same.items() if np.log2(c) % 1 == 0),
    )


def apart(axes, out: report.Report, options: Options, name: str) -> None:
    """Figures 17 and 18: one of η and λ fixed."""
    varied = name == "learning_rate"
    values = options.learning_rates if varied else options.decays
    fixed = {"l2": [options.l2]} if varied else {"learning_rate": [options.learning_rate]}
    seeds = range(options.seeds)
    grid = run(options, {name: values} | fixed | {"seed": seeds}, options.steps, progress=name)
    symbol, figure = ("η", "17") if varied else ("λ", "18")
    numbers, errors, products = [], [], []
    for color, value in zip(colors(len(values)), values, strict=True):
        rate = value if varied else options.learning_rate
        products.append(rate * (options.l2 if varied else value))
        records = [member(grid, rate, **{name: value}, seed=seed) for seed in seeds]
        panels(axes, records[0], ["loss", "test_accuracy", "effective_learning_rate"], color=color, label=f"{symbol} = {value:g}")  # fmt: skip
        found = si.periods(records[0], window=options.window)
        numbers.append(learned(records[0], found))
        errors.append([float(1 - one["test_accuracy"].max()) for one in records])
        out.numbers.setdefault(figure, {})[value] = summary(found, products[-1])
    axes[0].legend(fontsize="small", title=f"λ = {options.l2:g}" if varied else f"η = {options.learning_rate:g}")  # fmt: skip
    times = options.steps * np.array(products)
    often = np.array(numbers) / times
    out.numbers[figure] |= {"periods from low loss": numbers, "in a time 1/(ηλ)": often, "least test error": errors}  # fmt: skip
    told = ", ".join(f"{n} at {symbol} = {value:g}" for n, value in zip(numbers, values, strict=True))  # fmt: skip
    between = report.every([present(max(numbers[1:-1], default=0), times[1:-1].max(initial=0))])
    out.claim(
        f"at too low {symbol} there are no periods in the steps that have them at larger ones (Figure {figure})",
        expected="none at the first, three or more somewhere between",
        measured=f"{told}; the first run is as long as {times[0]:.2g}/(ηλ)",
        holds=report.every([between, numbers[0] == 0]),
        revised=RATES,
    )
    out.claim(
        f"periods are absent at too high {symbol} (Figure {figure})",
        expected="at the last fewer than a twentieth of the most in a time 1/(ηλ)",
        measured=f"in a time 1/(ηλ) {listed(often, '.2g')}",
        holds=report.every([between, bool(often[-1] < often.max() / 20)]),
        revised=RATES,
    )
    some = np.array(numbers[:-1])[np.array(numbers[:-1]) > 0]
    out.claim(
        f"a larger {symbol} makes periods more frequent (Figure {figure})",
        expected="their number in equal steps rises with it where there are any, but for the last",
        measured=listed(numbers[:-1]),
        holds=report.every([between, bool(np.all(np.diff(some) > 0))]) if some.size > 1 else None,
        revised=RATES,
    )
    accuracy(out, np.array(errors), np.array(numbers), figure)


def accuracy(out: report.Report, errors: np.ndarray, numbers: np.ndarray, figure: str) -> None:
    """The least test errors (values, seeds) of the runs with periods, and of the first and the last."""
    means, count = errors.mean(1), errors.shape[1]
    spread = errors.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(means), np.nan)
    periodic = np.flatnonzero(numbers[1:-1]) + 1
    best = int(periodic[np.argmin(means[periodic])]) if periodic.size else 0
    gains = [(means[end] - means[best], np.hypot(spread[end], spread[best])) for end in (0, -1)]
    out.claim(
        f"where there are periods the test error is lower (Figure {figure})",
        expected="the least test error of a periodic run below that of the first and of the last, by two standard errors",
        measured=", ".join(f"{100 * m:.2f}" + (f" ± {100 * e:.2f}" if count > 1 else "") for m, e in zip(means, spread, strict=True))
        + f" % in order, {count} {'seeds' if count > 1 else 'seed'} each",
        holds=report.every([bool(gain > 0) if abs(gain) > 2 * error else None for gain, error in gains]) if best else None,
        revised=SEEDS,
    )  # fmt: skip


RATES = "a count of periods in a time that has room for none, or for thousands, is none of their frequency"
SEEDS = "a difference within two standard errors over seeds decides nothing, nor does a single seed; both ends are compared"


if __name__ == "__main__":
    report.cli(main, Options(), Options(**SIZES), desk=DESK_SIZES)
