"""Figure 3 of the intrinsic learning rate's paper: the distribution of predictions at equilibrium, over many trials.

Three schedules have the same ηλ in their third phase. With them runs the first schedule from a single w_0,
which is Figure 9.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _runs import DESK, Options, apart, evenly, images, network, run, settled
from _schedules import schedule
from _total_variation import Distance, distance

from ntkdecay import report

NAMES = ("Const", "LR-decay", "WD-decay", "Const, one w_0")


@dataclasses.dataclass(frozen=True)
class Fig3(Options):
    """Sizes of the experiment."""

    seeds: report.Count = 64
    """Trials of each schedule; 500 in the paper."""
    learning_rate: report.Positive = 0.1
    """η of the third phase."""
    l2: report.Positive = 0.1
    """λ of the third phase."""
    phase: report.Count = 1000
    """Steps of each of the three phases; 40 epochs in the paper. With 250, 2.5/λ_e, the errors are equal and fine-tuned
    predictions still tell the schedules apart."""
    finetune: report.Count = 250
    """Steps of η/10 without λ after them; 80 epochs in the paper."""
    record: report.Count = 30
    """Measurements of a run."""
    compared: report.Count = 797
    """Test images whose predictions are compared."""


DESK_SIZES = dataclasses.replace(
    Fig3(**DESK), data="mnist", samples=2000, batch_size=32, seeds=64, phase=750, finetune=500, record=12, compared=1000
)  # fmt: skip
"""MNIST, as in the paper, in a fully connected network."""
PAPER = Fig3(
    data="mnist", samples=60_000, test_samples=10_000, network="cnn", batch_size=128, seeds=500,
    members_per_batch=None, eval_batch_size=1000, phase=40 * 468, finetune=80 * 468, record=20, compared=1000,
)  # fmt: skip
"""Width and batches of the paper's network on MNIST are not printed there."""
WHY = {
    "after fine-tuning so have those from a single w_0 (Figure 9)": "Size: 64 trials tell apart what differs by a hundredth of "
    "the sum of errors; p is just below the 0.0033 of three comparisons, and the test errors differ by 0.2 % too"
}


def main(options: Fig3) -> None:
    """Figure 3: three schedules with the same final ηλ come to the same distribution of predictions."""
    out = report.Report("intrinsic_lr", "fig3", options, data=options.words)
    grid = trained(options)
    there = settled(options.learning_rate * options.l2, options.phase)
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    errors(axes[0], out, options, grid, there)
    for ax, at, title in (
        (axes[1, 0], 3 * options.phase, "at equilibrium"),
        (axes[1, 1], 3 * options.phase + options.finetune, "after fine-tuning"),
    ):
        distances(ax, out, options, grid.sel(step=at), title, there)
    mixed_before(out, options, grid)
    out.explain(WHY)
    out.save(figure)


def trained(options: Fig3) -> xr.Dataset:
    """The trials, with the predicted classes of test images (schedule, seed, step, predictions_0)."""
    starts = [options.phase * i for i in range(4)]
    flat, halved, ends = (1, 1, 1), (4, 2, 1), (1 / 10, 0)
    schedules = [
        schedule(starts, [options.learning_rate * f for f in (*rate, ends[0])], [options.l2 * f for f in (*decay, ends[1])])
        for rate, decay in ((flat, flat), (halved, flat), (flat, halved), (flat, flat))
    ]  # fmt: skip
    net, data = network(options), images(options)

    def init(key, schedule):
        fixed = jax.random.key_data(jax.random.key(0))
        data_key = jnp.where(schedule == len(NAMES) - 1, fixed, jax.random.key_data(key))
        return net.init(jax.random.wrap_key_data(data_key), data.x_train)

    def predictions(s):
        return jnp.argmax(s.fx_test[: options.compared], -1).astype(jnp.float16)

    end = starts[-1] + options.finetune
    return run(
        options, schedules, end, evenly(end, options.record, schedules), init=init, metrics={"predictions": predictions}, noise=False,
        progress="trials",
    )  # fmt: skip


def errors(axes, out: report.Report, options: Fig3, grid: xr.Dataset, there: bool) -> None:
    """Training and test error, averaged over trials; `there`: the third phase is as long as equilibrium takes."""
    for ax, name, words in zip(
        axes, ("accuracy", "test_accuracy"), ("training", "test"), strict=True
    ):
        for i, label in enumerate(NAMES):
            ax.plot(grid["step"], 1 - grid[name][i].mean("seed"), ls=("-", "--", "-.", ":")[i], label=label)  # fmt: skip
        for i in range(1, 4):
            ax.axvline(i * options.phase, color="grey", lw=0.8, ls="--")
        ax.set(xlabel="step", ylabel=f"{words} error", yscale="log")
        for step, when in (
            (3 * options.phase, "at equilibrium"),
            (3 * options.phase + options.finetune, "after fine-tuning"),
        ):
            found = apart(1 - grid[name][:3].sel(step=step))
            out.numbers[f"{words} error {when}"] = dict(zip(NAMES[:3], found.means, strict=True))
            out.claim(
                f"{when} the three schedules have the same {words} error",
                expected="means within a tenth of their size, or no more apart than chance: p > 0.01",
                measured=", ".join(f"{100 * m:.2f} %" for m in found.means) + f" ({found.chance})",
                holds=(found.range < 0.1 * found.means.mean() or found.p > 0.01) if there else None,
            )
    axes[0].set_title("errors; the third phase has the same ηλ, the fourth fine-tunes")
    axes[0].legend(fontsize="small")


def compare(grid: xr.Dataset, one: int, other: int, trials: int) -> Distance:
    """Two schedules by their first trials, at one step."""
    classes = grid["predictions"].to_numpy()
    return distance(classes[one, :trials], classes[other, :trials])


def distances(
    ax, out: report.Report, options: Fig3, grid: xr.Dataset, title: str, there: bool
) -> None:
    """Total variation of each pair against the number of trials, with chance and the sum of the errors."""
    trials = np.unique(np.geomspace(4, options.seeds, 6).astype(int))
    table, last = {}, {}
    for color, (one, other) in enumerate(itertools.combinations(range(len(NAMES)), 2)):
        pair, found = f"{NAMES[one]} and {NAMES[other]}", [compare(grid, one, other, n) for n in trials]  # fmt: skip
        ax.loglog(trials, [d.observed for d in found], f"C{color}", marker="o", ms=3, lw=1, label=pair)  # fmt: skip
        ax.loglog(trials, [d.chance for d in found], f"C{color}", ls=":", lw=1)
        error = float((1 - grid["test_accuracy"][[one, other]]).mean("seed").sum())
        ax.axhline(error, color=f"C{color}", ls="--", lw=0.6)
        table[pair], last[pair] = {"total variation": [d.observed for d in found], "chance": [d.chance for d in found], "sum of errors": error}, found[-1]  # fmt: skip
    ax.set(xlabel="trials", ylabel="total variation, mean over test images", title=f"{title}; dotted: chance, dashed: sum of errors")  # fmt: skip
    ax.set_xticks(trials, [str(n) for n in trials])
    ax.minorticks_off()
    ax.legend(fontsize="x-small")
    out.numbers[title] = {"trials": trials, **table}
    for claim, chosen in (
        (f"{title} the predictions of the three schedules have one distribution", [p for p in last if NAMES[3] not in p]),
        (f"{title} so have those from a single w_0 (Figure 9)", [p for p in last if NAMES[3] in p]),
    ):  # fmt: skip
        least = min(last[pair].p for pair in chosen)
        out.claim(
            claim,
            expected="total variation that chance explains: p > 0.01 in each of three pairs",
            measured="; ".join(
                f"{last[p].observed:.4f}, chance {last[p].chance:.4f}, sum of errors {table[p]['sum of errors']:.3f}"
                for p in chosen
            )
            + f"; least p {least:.2g}",
            holds=least > 0.01 / 3 if there else None,
        )
    falls = {
        name: [t[name][0] / t[name][-1] for t in table.values()] for name in ("total variation", "chance")
    }  # fmt: skip
    ratio = np.mean(falls["total variation"]) / np.mean(falls["chance"])
    out.claim(
        f"{title} the total variation falls with the number of trials, as it does between equal distributions",
        expected=f"from {trials[0]} to {trials[-1]} trials by the factor of chance, within 20 % in the mean over pairs",
        measured=f"by {np.mean(falls['total variation']):.2f}, {np.mean(falls['chance']):.2f} by chance",
        holds=abs(ratio - 1) < 0.2 if there and len(trials) > 1 else None,
    )


def mixed_before(out: report.Report, options: Fig3, grid: xr.Dataset) -> None:
    """At the end of the first phase, where ηλ differ: what the comparison can see."""
    first = compare(grid.sel(step=options.phase), 0, 1, options.seeds)
    out.numbers["Const and LR-decay at the end of the first phase"] = first._asdict()
    out.claim(
        "where ηλ differs by 4, at the end of the first phase, the distributions differ",
        expected="p < 0.01",
        measured=f"{first.observed:.4f}, chance {first.chance:.4f}, p = {first.p:.2g}",
        holds=first.p < 0.01,
        ours=True,
    )


if __name__ == "__main__":
    report.cli(main, Fig3(), PAPER, desk=DESK_SIZES)
