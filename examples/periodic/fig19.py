"""Figure 19 of the periodic paper: the norm of the frozen last layer, which sets how confident the network can be.

Runs of SGD that differ in that norm alone; the smallest are near that of random initialization.
"""

import dataclasses
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from _runs import (
    DESK,
    PAPER,
    SERIES,
    TIMES,
    Setup,
    colors,
    learned,
    listed,
    member,
    panels,
    run,
    summary,
)

from ntkdecay import report
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
    head_norms: report.Ascending[report.Positive] = (0.3, 1.0, 2.0, 5.0, 10.0, 20.0)
    """Frobenius norms of the last layer, ascending."""
    learning_rate: report.Positive = 2.0
    """η."""
    l2: report.Positive = 1e-3
    """λ."""
    steps: report.Count = 8000
    """Steps of each run."""
    window: report.Odd = 1
    """Measurements of the running median in which periods are sought."""


DESK_SIZES = Options(**DESK)
SIZES: dict[str, Any] = PAPER | dict(
    head_norms=(0.5, 1.0, 2.0, 5.0, 10.0, 20.0), learning_rate=0.03, steps=391 * 1000, window=3
)


def main(options: Options) -> None:
    """Figure 19: periods against the norm of the last layer."""
    out = report.Report("periodic", "fig19", options, data=options.words)
    network, product = options.net(head_norm=1.0), options.learning_rate * options.l2
    grid = run(
        options,
        {"head_norm": options.head_norms, "learning_rate": [options.learning_rate], "l2": [options.l2]},
        options.steps,
        network=network,
        apply_fn=lambda params, x, head_norm: head_norm.astype(x.dtype) * network.apply(params, x),
        progress="last layer",
    )  # fmt: skip
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
    numbers, least = [], []
    for color, norm in zip(colors(len(options.head_norms)), options.head_norms, strict=True):
        record = member(grid, options.learning_rate, head_norm=norm)
        found = si.periods(record, window=options.window)
        panels(axes, record, SERIES, color=color, label=f"{norm:g}")
        numbers.append(learned(record, found))
        least.append(float(record["loss"].min()))
        out.numbers[f"norm {norm:g}"] = summary(found, product) | {
            "periods from low loss": numbers[-1],
            "least loss": least[-1],
            "least test error": float(1 - record["test_accuracy"].max()),
        }
    axes[1].legend(fontsize="small", title="norm of the last layer", ncols=2)
    axes[0].set_title(f"η = {options.learning_rate:g}, λ = {options.l2:g}", fontsize="medium")

    out.claim(
        "a low norm keeps the training loss from becoming low",
        expected="the least loss falls with the norm, by ten times or more from the first to norm 10",
        measured=f"{listed(least)} at norm {listed(options.head_norms)}",
        holds=bool(np.all(np.diff(least) < 0))
        and least[0] > 10 * min(v for v, n in zip(least, options.head_norms, strict=True) if n <= 10),
    )  # fmt: skip
    large = [n for n, norm in zip(numbers, options.head_norms, strict=True) if norm >= 10]
    known = options.steps * product >= TIMES and large
    out.claim(
        "a low norm may take the periods away, a larger one has them",
        expected=f"none at the lowest norm, three or more at norm 10 and above, in {options.steps * product:g}/(ηλ)",
        measured=f"{listed(numbers)} periods at norm {listed(options.head_norms)}",
        holds=numbers[0] == 0 and min(large) >= 3 if known else None,
    )
    out.save(figure)


if __name__ == "__main__":
    report.cli(main, Options(), Options(**SIZES), desk=DESK_SIZES)
