"""Figure 3 of the L2 paper: CNNs with and without batch normalization over a grid of λ, at one η.

As in Figure 2: when test accuracy is best, how good it gets, and within a budget. Saves the training curves as s6_cnn.
"""

import dataclasses

import matplotlib.pyplot as plt
from _panels import dynamics, row
from _sweeps import Setup, run

from ntkdecay import networks, report

PLAIN = Setup(
    data="digits",
    samples=128,
    test_samples=800,
    learning_rates=(0.5,),
    l2=(0.0, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
    budget=0.5,
    zero_epochs=200,
    batch_size=32,
    record=25,
    members_per_batch=1,
)
NORMALIZED = dataclasses.replace(
    PLAIN,
    learning_rates=(1.0,),
    l2=(0.0, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2),
    budget=1.0,
    zero_epochs=400,
)


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    plain: Setup = PLAIN
    """The grid of (a), (b), (c), without batch normalization: few λ, where the paper has four decades."""
    normalized: Setup = NORMALIZED
    """The grid of (d), (e), (f), with it."""
    epochs: tuple[report.Positive, ...] = (10, 30, 100)
    """Budgets of (c) and (f)."""
    filters: report.Count = 16
    """Channels of each convolution."""
    dense: report.Count = 64
    """Width of the first dense layer."""
    pool: report.Count = 2
    """Side of the pooling windows."""


DESK_PLAIN = Setup(
    data="digits",
    samples=512,
    test_samples=1285,
    learning_rates=(0.5,),
    l2=(0.0, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
    budget=0.25,
    zero_epochs=2500,
    zero_over_rate=False,
    batch_size=64,
    seeds=3,
    record=40,
    members_per_batch=1,
)
DESK = Options(
    plain=DESK_PLAIN,
    normalized=dataclasses.replace(
        DESK_PLAIN,
        learning_rates=(1.0,),
        l2=(0.0, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2),
        budget=0.5,
        zero_epochs=1000,
    ),
    epochs=(30, 100, 300),
)
"""Digits still, which are 12 times cheaper than MNIST: with those, three seeds of two decades of λ take more than 90 minutes."""
PAPER_PLAIN = Setup(
    data="cifar10",
    samples=50_000,
    test_samples=10_000,
    learning_rates=(0.01,),
    l2=(0, 5e-5, 1e-4, 5e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2),
    budget=0.01,
    zero_epochs=21_000 * 0.01,
    batch_size=128,
    record=200,
    eval_batch_size=1000,
)
PAPER = Options(
    plain=PAPER_PLAIN,
    normalized=dataclasses.replace(PAPER_PLAIN, zero_epochs=9500 * 0.01),
    epochs=(100, 1000, 10_000),
    filters=300,
    dense=500,
    pool=6,
)


WHY = {
    "CNN: at a fixed budget there is an optimal λ, below which performance falls": "Size: 30 epochs are too few for these images to "
    "tell λ apart; panel (c) has the optimum at 100 and 300",
    "CNN: the training loss has a minimum and increases after it": "Size: it is there, but 4 to 6 % deep only with 16 filters",
    "CNN: the minimum comes at a time proportional to 1/λ": "Size: a minimum of 5 % is too shallow to date",
    "CNN with BN: the training loss has a minimum and increases after it": "Size: at small λ the loss goes on falling, in bursts "
    "of instability",
    "CNN with BN: the minimum comes at a time proportional to 1/λ": "Size: only the largest λ have a minimum",
}


def main(options: Options) -> None:
    """Figure 3 and S6 for CNNs: t_* and the best test accuracy over λ."""
    words = f"{options.plain.words}, {options.filters} filters"
    out = report.Report("l2", "fig3", options, data=words)
    curves = report.Report("l2", "s6_cnn", options, data=words)
    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    s6, s6_axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    setups = {"CNN": options.plain, "CNN with BN": options.normalized}
    for i, (name, setup) in enumerate(setups.items()):
        network = networks.cnn(
            batch_norm=i == 1, filters=options.filters, dense=options.dense, pool=options.pool
        )
        grid = run(setup, network, options, name)
        rate = setup.learning_rates[0]
        row(axes[i], out, grid, setup, name, ("abc", "def")[i], rate, options.epochs)
        dynamics(s6_axes[i], curves, grid, setup, name, rate)
    for one in (out, curves):
        one.explain(WHY)
    out.save(figure)
    curves.save(s6)


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
