"""Figures 21 to 23 of the periodic paper: periods beyond fully scale-invariant networks, batch normalization and SGD.

Top: trainable last layer, scales and offsets; these with momentum; these with momentum and augmentation (21). Middle:
other normalizations (22). Bottom: Adam (23), whose steps turn the weights by about η/ρ, whatever the gradient.
Figure 21 has ResNet-18 and CIFAR-100 too: `--network resnet_18`, `--data cifar100 --head-norm 20`.
"""

import dataclasses
from typing import Any, Literal

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr
from _practical import Practical, invariant
from _runs import (
    DESK,
    PAPER,
    SERIES,
    Setup,
    colors,
    images,
    learned,
    member,
    panels,
    present,
    run,
    summary,
)

from ntkdecay import datasets, report
from ntkdecay import scale_invariant as si

Norm = Literal["layer", "group", "instance"]


@dataclasses.dataclass(frozen=True)
class Options(Setup):
    """Sizes of the experiment."""

    samples: report.Count = 512
    """Training samples."""
    batch_size: report.Count | None = 64
    """Samples of a step."""
    every: report.Count = 8
    """Steps between measurements: an epoch."""
    learning_rate: report.Positive = 2.0
    """η of SGD; with momentum β the steps have (1 − β)η."""
    l2: report.Positive = 1e-3
    """λ."""
    momentum: report.Share = 0.9
    """β."""
    padding: report.Whole = 1
    """Pixels by which augmentation shifts images, at most."""
    flip: bool = False
    """Whether it flips them too."""
    steps: report.Count = 8000
    """Steps of each run."""
    norms: tuple[Norm, ...] = ("layer", "group")
    """Normalizations of Figure 22; "instance" needs convolutions."""
    adam_rates: tuple[report.Positive, ...] = (3e-3, 1e-2)
    """η of Adam."""
    adam_l2: report.Positive = 1e-2
    """λ of Adam, coupled: λw is part of the gradient."""
    window: report.Odd = 1
    """Measurements of the running median in which periods are sought."""


DESK_SIZES = Options(**DESK, padding=4, flip=True)
SIZES: dict[str, Any] = PAPER | dict(
    width=64, learning_rate=0.1, padding=4, flip=True, steps=391 * 1000, norms=("layer", "instance"),
    adam_rates=(1e-4, 3e-4), adam_l2=1e-4, window=3,
)  # fmt: skip


WHY = {
    "there are periods: and augmentation (Figure 21)": "Size: with crops and flips a network of 100,000 weights does not come to a "
    "low loss, from which a period begins",
    "there are periods: Adam, η = 0.003 (Figure 23)": "Size: with Adam the loss of this network jumps again before it is "
    "low",
    "there are periods: Adam, η = 0.01 (Figure 23)": "Size: with Adam the loss of this network jumps again before it "
    "is low",
}


def main(options: Options) -> None:
    """Figures 21 to 23: periods in practice, with other normalizations and with Adam."""
    out = report.Report("periodic", "fig21_23", options, data=options.words)
    figure, axes = plt.subplots(3, 4, figsize=(15, 9), layout="constrained")
    practice(axes[0], out, options)
    normalizations(axes[1], out, options)
    adam(axes[2], out, options)
    out.explain(WHY)
    out.save(figure)


def practice(axes, out: report.Report, options: Options) -> None:
    """Figure 21: everything is trained; g̃ and ρ are of the weights before a normalization."""
    x, product = images(options).x_train, options.learning_rate * options.l2
    module = Practical(options.network, options.width, datasets.classes(options.data))

    def augment(key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        crop, flip = jax.random.split(key)
        x = datasets.random_crop(crop, x, options.padding)
        return (datasets.random_flip(flip, x) if options.flip else x), y

    def apply_fn(params: Any, x: jax.Array) -> Any:
        return module.apply({"params": params}, x)

    beta = options.momentum
    variants = {
        "everything trained": (options.learning_rate, None, None),
        f"and momentum {beta:g}": (options.learning_rate * (1 - beta), beta, None),
        "and augmentation": (options.learning_rate * (1 - beta), beta, augment),
    }
    runs = {
        name: member(
            run(
                options,
                {"learning_rate": [rate], "l2": [options.l2]},
                options.steps,
                init=lambda key: module.init(key, x)["params"],
                apply_fn=apply_fn,
                optimizer=lambda learning_rate, momentum=momentum: optax.sgd(learning_rate, momentum),
                metrics=si.metrics(invariant, batch_size=options.batch_size) | {"test_accuracy": "test_accuracy"},
                augment=changed,
                progress=name,
            ),
            rate / (1 - (momentum or 0.0)),
        )
        for name, (rate, momentum, changed) in variants.items()
    }  # fmt: skip
    shown(axes, out, options, "21", runs, dict.fromkeys(runs, product))
    axes[0].set_title(f"η/(1 − β) = {options.learning_rate:g}, λ = {options.l2:g}", fontsize="medium")  # fmt: skip


def normalizations(axes, out: report.Report, options: Options) -> None:
    """Figure 22: scale-invariant networks by other means."""
    cell = {"learning_rate": [options.learning_rate], "l2": [options.l2]}
    runs = {
        f"{norm} normalization": member(
            run(options, cell, options.steps, network=options.net(norm=norm), progress=norm),
            options.learning_rate,
        )
        for norm in options.norms
    }
    shown(axes, out, options, "22", runs, dict.fromkeys(runs, options.learning_rate * options.l2))
    axes[0].set_title(f"η = {options.learning_rate:g}, λ = {options.l2:g}", fontsize="medium")


def adam(axes, out: report.Report, options: Options) -> None:
    """Figure 23: Adam with coupled L2; its effective learning rate is η/ρ."""
    rates = options.adam_rates
    grid = run(
        options,
        {"learning_rate": rates, "l2": [options.adam_l2]},
        options.steps,
        optimizer=optax.adam,
        progress="Adam",
    )
    runs = {}
    for rate in rates:
        record = member(grid, rate, learning_rate=rate)
        record["effective_learning_rate"] = rate / record["norm2"] ** 0.5
        runs[f"Adam, η = {rate:g}"] = record
    shown(axes, out, options, "23", runs, {})
    axes[0].set_title(f"λ = {options.adam_l2:g}", fontsize="medium")
    axes[2].set_ylabel("effective learning rate η/ρ")


def shown(
    axes,
    out: report.Report,
    options: Options,
    figure: str,
    runs: dict[str, xr.Dataset],
    products: dict[str, float],
) -> None:
    """A row of panels, and the claim that there are periods in each of the runs."""
    numbers, times, out.numbers[figure] = {}, {}, {}
    for color, (name, record) in zip(colors(len(runs)), runs.items(), strict=True):
        panels(axes, record, SERIES, color=color, label=name)
        found = si.periods(record, window=options.window)
        numbers[name] = learned(record, found)
        out.numbers[figure][name] = {
            "periods from low loss": numbers[name],
            "lengths": found.lengths,
            "loss": found.loss,
            "effective learning rate": found.learning_rate,
            "least loss": float(record["loss"].min()),
            "least test error": float(1 - record["test_accuracy"].max()),
        }
        if name in products:
            out.numbers[figure][name] |= summary(found, products[name])
        times[name] = float(record["step"][-1]) * products.get(name, np.inf)
    axes[1].legend(fontsize="small")
    for name, number in numbers.items():
        out.claim(
            f"there are periods: {name} (Figure {figure})",
            expected="three or more from low loss",
            measured=f"{number}"
            + (f", {number / times[name]:.2g} in a time 1/(ηλ)" if np.isfinite(times[name]) else "")
            + f"; least loss {float(runs[name]['loss'].min()):.2g}"
            + (f"; diverged after step {float(runs[name]['step'][-1]):.0f}" if runs[name].attrs["diverged"] else ""),
            holds=present(number, times[name]),
        )  # fmt: skip


if __name__ == "__main__":
    report.cli(main, Options(), Options(**SIZES), desk=DESK_SIZES)
