"""Figure S10 of the L2 paper: AutoL2 with a learning-rate schedule, where a constant λ wins in the end.

η falls by 5 at 0.3 T, 0.6 T and 0.9 T, as in Figure 1a; AutoL2 beside constant λ.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
from _auto_l2 import MATCHED, curves, numbers, started
from _sweeps import ahead, best, lead, percent
from _wrn import DESK, FALLS, PAPER, Setting, auto_l2, schedule, train

from ntkdecay import optimizers, report


@dataclasses.dataclass(frozen=True)
class Options(Setting):
    """Sizes of the experiment."""

    l2: tuple[report.Positive, ...] = (5e-4, 1e-3, 2e-3, 5e-3)
    """Constant λ."""
    epochs: report.Positive = 128.0
    """T."""
    start: tuple[report.Positive, ...] = (0.2,)
    """ηλ/(1−β) that AutoL2 starts from; the paper's is 0.2, of λ = 0.1."""


DESK_OPTIONS = Options(**DESK, l2=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3), epochs=400.0)
PAPER_OPTIONS = Options(**PAPER, l2=(5e-5, 1e-4, 5e-4, 1e-3, 5e-3), epochs=200.0)


def main(options: Options) -> None:
    """Figure S10: AutoL2 and constant λ with a learning-rate schedule."""
    out = report.Report("l2", "s10", options, data=options.words)
    rate = schedule(options, options.epochs)

    def sgd(l2):
        return optimizers.sgd(rate, l2=l2, momentum=options.momentum)

    constant = train(options, {"l2": options.l2}, lambda: options.epochs, "constant λ", sgd)
    dynamic = auto_l2(options, options.start, options.epochs, rate)
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    curves(axes, constant, dynamic, options.epoch, f"{options.name} with a schedule")
    for ax in axes:
        for fall in FALLS:
            ax.axvline(fall * options.epochs, color="grey", lw=0.8, ls=":")
    out.numbers |= numbers(constant, dynamic)
    claims(out, options, constant, dynamic)
    out.save(figure)


def claims(out: report.Report, options: Options, constant, dynamic) -> None:
    """Ahead before η falls, behind in the end."""
    first = FALLS[0] * options.epochs * options.epoch
    for start in options.start:
        run = dynamic.sel(start=start)
        early, late = (against_best(run, constant, until) for until in (first, np.inf))
        out.claim(
            f"{started(start)} is better before η falls",
            expected="a higher best test accuracy than every constant λ until 0.3 T, by two standard errors",
            measured=percent(*early),
            holds=ahead(*early),
            revised=MATCHED,
        )
        behind = ahead(*late)
        out.claim(
            f"with a schedule the tuned λ outperforms {started(start)} in the end",
            expected="a lower best test accuracy than the best constant λ, by two standard errors",
            measured=percent(*late),
            holds=None if behind is None else not behind,
            revised=MATCHED,
        )


def against_best(run, constant, until: float) -> tuple[float, float]:
    """AutoL2's lead over the best constant λ until a step, and its standard error."""
    return lead(run, constant.sel(l2=best(constant, until).idxmax("l2")), until)


if __name__ == "__main__":
    report.cli(main, Options(), PAPER_OPTIONS, desk=DESK_OPTIONS)
