"""Figure S11 of the L2 paper: AutoL2 on the fully connected network and the CNNs, against constant λ.

Plain SGD with a constant η, as in Figures 2 and 3.
"""

import dataclasses
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import optax
from _auto_l2 import METRICS, auto, claims, curves, numbers
from _sweeps import averaged, images, softmax_loss

from ntkdecay import datasets, networks, report, training


@dataclasses.dataclass(frozen=True)
class Case:
    """One network and its training."""

    network: Literal["FC", "CNN", "CNN with BN"]
    """Which one."""
    data: datasets.Name
    """Which images."""
    samples: report.Count
    """Training samples."""
    test_samples: report.Count
    """Test samples."""
    learning_rate: report.Positive
    """η."""
    l2: report.Ascending[report.Positive]
    """Constant λ, ascending."""
    epochs: report.Positive
    """How long each run is."""
    batch_size: report.Count | None = None
    """Samples of a step; none: all."""
    start: tuple[report.Positive, ...] = (0.015,)
    """ηλ that AutoL2 starts from: the paper's is 0.015 for FC and 0.001 for the CNNs, of λ = 0.1."""
    seeds: report.Count = 1
    """Initializations: curves are their means."""

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self.samples // self.batch_size if self.batch_size else 1


FC_L2 = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
CNN_L2 = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
CNN_START = (0.001,)


ABOVE = "Size: in these 3,200 steps the tuned ηλ, 0.001 to 0.002, is not below the paper's start"
WHY = {
    "FC: AutoL2 from ηλ/(1−β) = 0.015 performs better than the tuned λ": "Size: ahead of every constant λ from "
    "epoch 64 to 362, it has its best by then, and smaller constants pass it in the 8,000 after",
    "CNN: AutoL2 from ηλ/(1−β) = 0.001 trains faster than the tuned λ": ABOVE,
    "CNN with BN: AutoL2 from ηλ/(1−β) = 0.001 trains faster than the tuned λ": ABOVE,
    "CNN with BN: AutoL2 from ηλ/(1−β) = 0.001 performs better than the tuned λ": ABOVE,
}


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    cases: tuple[Case, ...] = (
        Case("FC", "digits", 128, 1669, 8.0, FC_L2, 2000),
        Case("CNN", "digits", 128, 640, 1.0, CNN_L2, 200, 32, CNN_START),
        Case("CNN with BN", "digits", 128, 640, 1.0, CNN_L2, 200, 32, CNN_START),
    )
    """The networks."""
    widths: tuple[report.Count, ...] = (256, 256, 256)
    """Hidden layers of the fully connected network."""
    filters: report.Count = 16
    """Channels of each convolution."""
    dense: report.Count = 64
    """Width of the CNN's first dense layer."""
    pool: report.Count = 2
    """Side of the pooling windows."""
    record: report.Count = 30
    """Measurements of a run."""
    eval_batch_size: report.Count = 128
    """Samples that are measured at a time."""


DESK = Options(
    cases=(
        Case("FC", "mnist", 512, 10_000, 4.0, (1e-5, *FC_L2), 10_000, seeds=3),
        Case("CNN", "digits", 512, 1285, 1.0, CNN_L2, 400, 64, CNN_START, 3),
        Case("CNN with BN", "digits", 512, 1285, 1.0, CNN_L2, 400, 64, CNN_START, 3),
    ),
    widths=(128, 128, 128),
    eval_batch_size=10_000,
)
"""At width 128 η = 4 is what η = 0.25 is at the paper's 2048; the CNNs stay with digits, which are 12 times cheaper."""
PAPER = Options(
    cases=(
        Case("FC", "mnist", 512, 10_000, 0.15, (1e-4, 1e-3, 1e-2, 0.1), 100_000),
        Case("CNN", "cifar10", 50_000, 10_000, 0.01, (1e-3, 1e-2, 0.1), 1000, 128, CNN_START),
        Case(
            "CNN with BN", "cifar10", 50_000, 10_000, 0.01, (1e-3, 1e-2, 0.1), 1000, 128, CNN_START
        ),
    ),
    widths=(2048, 2048, 2048),
    filters=300,
    dense=500,
    pool=6,
    record=200,
    eval_batch_size=1000,
)
"""Networks and η of SM A; the paper does not say which λ it compares with, nor for how long."""


def main(options: Options) -> None:
    """Figure S11: AutoL2 and constant λ on the other networks."""
    words = "; ".join(
        f"{case.network}: {case.data}, {case.samples} samples, {case.seeds} seeds"
        for case in options.cases
    )
    out = report.Report("l2", "s11", options, data=words)
    count = len(options.cases)
    figure, axes = plt.subplots(2, count, figsize=(6.5 * count, 8), layout="constrained", squeeze=False)  # fmt: skip
    for column, case in zip(axes.T, options.cases, strict=True):
        constant, dynamic = (train(case, options, dynamic) for dynamic in (False, True))
        curves(column, constant, dynamic, case.epoch, case.network)
        claims(out, constant, dynamic, case.epoch, case.network)
        out.numbers[case.network] = numbers(constant, dynamic)
    out.explain(WHY)
    out.save(figure)


def train(case: Case, options: Options, dynamic: bool):
    """A case with each constant λ, or with AutoL2."""
    data = images(options, case.data, case.samples, case.test_samples)
    network = {
        "FC": lambda: networks.fully_connected(options.widths),
        "CNN": lambda: networks.cnn(batch_norm=False, filters=options.filters, dense=options.dense, pool=options.pool),
        "CNN with BN": lambda: networks.cnn(batch_norm=True, filters=options.filters, dense=options.dense, pool=options.pool),
    }[case.network]()  # fmt: skip
    sgd = optax.sgd(case.learning_rate)
    run = training.sweep(
        lambda key: network.init(key, data.x_train),
        network.apply,
        softmax_loss,
        auto(sgd, unit=case.learning_rate, every=5) if dynamic else lambda: sgd,
        {"seed": np.arange(case.seeds)} | ({"start": case.start} if dynamic else {"l2": case.l2}),
        data.x_train,
        data.y_train,
        steps=round(case.epochs * case.epoch),
        record=options.record,
        x_test=data.x_test,
        y_test=data.y_test,
        batch_size=case.batch_size,
        metrics=METRICS if dynamic else ["test_accuracy"],
        eval_batch_size=options.eval_batch_size,
        members_per_batch=1,
        store=options.store,
        progress=f"{case.network}, {'AutoL2' if dynamic else 'constant λ'}",
    )
    return averaged(run)


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
