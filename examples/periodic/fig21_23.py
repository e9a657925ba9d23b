"""Figures 21 to 23 of the periodic paper: periods beyond fully scale-invariant networks, batch normalization and SGD.

Top: trainable last layer, scales and offsets; these with momentum; these with momentum and augmentation (21). Middle:
other normalizations (22). Bottom: Adam (23), whose steps turn the weights by about η/ρ, whatever the gradient.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import optax
import xarray as xr
from _runs import (
    PAPER,
    SERIES,
    Setup,
    colors,
    images,
    learned,
    member,
    panels,
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


SIZES: dict[str, Any] = PAPER | dict(
    width=64, learning_rate=0.1, padding=4, flip=True, steps=391 * 1000, norms=("layer", "instance"),
    adam_rates=(1e-4, 3e-4), adam_l2=1e-4, window=3,
)  # fmt: skip


class Practical(nn.Module):
    """The network of the setup as practice has it: scales and offsets after each normalization, and a dense last layer, are trained."""

    widths: tuple[int, ...]
    convolutional: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.convolutional:
            x = x.reshape(len(x), -1)
        for number, width in enumerate(self.widths):
            name = f"invariant_{number}"
            layer = (
                nn.Conv(width, (3, 3), use_bias=False, name=name)
                if self.convolutional
                else nn.Dense(width, use_bias=False, name=name)
            )
            x = jax.nn.standardize(layer(x), tuple(range(x.ndim - 1)), epsilon=1e-10)
            scale = self.param(f"scale_{number}", nn.initializers.ones, (width,))
            offset = self.param(f"offset_{number}", nn.initializers.zeros, (width,))
            shape = (1,) * (x.ndim - 1) + (width,)
            x = nn.relu(x * scale.reshape(shape) + offset.reshape(shape))
            if self.convolutional:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(10, name="last")(x.mean((1, 2)) if self.convolutional else x)


def invariant(params: Any) -> Any:
    """The weights before a normalization; of a network without others, all."""
    return {name: leaf for name, leaf in params.items() if not name.startswith(("scale", "offset", "last"))}  # fmt: skip


def main(options: Options) -> None:
    """Figures 21 to 23: periods in practice, with other normalizations and with Adam."""
    out = report.Report("periodic", "fig21_23", options, data=options.words)
    figure, axes = plt.subplots(3, 4, figsize=(18, 11), layout="constrained")
    practice(axes[0], out, options)
    normalizations(axes[1], out, options)
    adam(axes[2], out, options)
    out.save(figure)


def practice(axes, out: report.Report, options: Options) -> None:
    """Figure 21: everything is trained; g̃ and ρ are of the weights before a normalization."""
    x, product = images(options).x_train, options.learning_rate * options.l2
    convolutional = options.network != "fc"
    widths = (1, 2, 4) if convolutional else (1, 1)
    module = Practical(tuple(factor * options.width for factor in widths), convolutional)

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
    numbers, out.numbers[figure] = {}, {}
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
    axes[1].legend(fontsize="small")
    for name, number in numbers.items():
        out.claim(
            f"there are periods: {name} (Figure {figure})",
            expected="three or more from low loss",
            measured=f"{number}; least loss {float(runs[name]['loss'].min()):.2g}",
            holds=number >= 3,
        )


if __name__ == "__main__":
    report.cli(main, Options(), Options(**SIZES))
