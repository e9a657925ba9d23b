"""Figure S5 of the L2 paper: mean squared error and the catapult.

At training accuracy 1 the test accuracy depends on η, the more so where gradient descent is catapulted; trained on with
L2, for a time 1/(ηλ), it no longer does (SM C.4). The training loss has a minimum on the way.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import xarray as xr
from _panels import PEAKED, ticks
from _sweeps import (
    Setup,
    best,
    colors,
    every,
    final,
    peaked,
    plain,
    run,
    time_to_least,
    time_to_reach,
)

from ntkdecay import networks, report

FC = Setup(
    data="digits",
    samples=128,
    test_samples=1669,
    learning_rates=(0.05, 0.1, 0.2, 0.3),
    l2=(0.0, 2.5e-3, 5e-3, 1e-2, 2e-2, 5e-2),
    budget=1.0,
    most_epochs=8000,
    zero_epochs=100,
    members_per_batch=1,
)


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    fc: Setup = FC
    """The grid."""
    widths: tuple[report.Count, ...] = (256, 256, 256)
    """Hidden layers of the fully connected network."""
    rate: report.Positive = 0.2
    """η of (c)."""


DESK = Options(
    fc=Setup(
        data="mnist",
        samples=512,
        test_samples=10_000,
        learning_rates=(0.05, 0.1, 0.2, 0.3),
        l2=(0.0, 5e-4, 1e-3, 3e-3, 1e-2),
        budget=2.0,
        most_epochs=80_000,
        zero_epochs=20_000,
        zero_over_rate=False,
        seeds=3,
        members_per_batch=1,
    ),
    widths=(128, 128, 128),
)
PAPER = Options(
    fc=Setup(
        data="mnist",
        samples=512,
        test_samples=10_000,
        learning_rates=(0.001, 0.005, 0.01, 0.02, 0.035, 0.05, 0.15, 0.3),
        l2=(0, 1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1, 5, 50, 100),
        budget=1.0,
        zero_epochs=1e5,
        record=200,
    ),
    widths=(2048, 2048, 2048),
    rate=0.01,
)


def squared_error(fx: jax.Array, y: jax.Array) -> jax.Array:
    """½ of the mean over samples and classes: Σ(f − y)²/(2k|B|), as the softmax loss is normalized."""
    return 0.5 * jnp.mean((fx - y) ** 2)


def main(options: Options) -> None:
    """Figure S5: test accuracy against η, at training accuracy 1 and after training with L2."""
    setup = options.fc
    setup.check_rate("--rate", options.rate)
    words = f"{setup.words}, FC {' × '.join(map(str, options.widths))}"
    out = report.Report("l2", "s5", options, data=words)
    network = networks.fully_connected(options.widths)
    grid = run(setup, network, options, "FC", squared_error)
    trained = grid["step"] == time_to_reach(grid, 1.0)
    at_one, evolved = grid["test_accuracy"].where(trained).max("step"), best(grid)
    evolved = evolved.where((grid["status"] == "done") & peaked(grid).notnull())
    out.numbers |= {
        "test accuracy at training accuracy 1": plain(at_one),
        "best test accuracy": plain(evolved),
        "status": plain(grid["status"]),
    }
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    axes[0].sharey(axes[1])
    against_rate(axes[0], at_one, "(a) at training accuracy 1")
    against_rate(axes[1], evolved, f"(b) best of {setup.budget:g}/(ηλ) epochs")
    flattening(out, at_one, evolved)
    loss_minimum(axes[2], out, grid, options)
    out.save(figure)


def against_rate(ax, accuracy: xr.DataArray, title: str) -> None:
    """Test accuracy against η, a line for each λ."""
    for color, l2 in zip(colors(accuracy.sizes["l2"]), accuracy["l2"].values, strict=True):
        line = accuracy.sel(l2=l2)
        if line.notnull().any():
            ax.semilogx(
                accuracy["learning_rate"], line, color=color, marker=".", label=f"λ = {l2:g}"
            )
    ax.set(xlabel="η", ylabel="test accuracy", title=title)
    ticks(ax, accuracy["learning_rate"].values)
    if ax.lines:
        ax.legend(fontsize="small")


def flattening(out: report.Report, at_one: xr.DataArray, evolved: xr.DataArray) -> None:
    """Ranges over η, where the network reaches training accuracy 1."""
    both = at_one.notnull() & evolved.notnull() & (at_one["l2"] > 0)
    # the smallest λ that was run at every η that trains
    ran = both.sum("learning_rate")
    l2 = float(ran["l2"][ran == ran.max()][0])
    early, late = (a.where(both).sel(l2=l2) for a in (at_one, evolved))
    first, last = (100 * float(a.max() - a.min()) for a in (early, late))
    out.claim(
        "stopped at training accuracy 1, performance depends on the learning rate",
        expected=f"more than 1 % between the best and the worst η (λ = {l2:g})",
        measured=f"{first:.1f} %, over {int(ran.max())} values of η",
        holds=first > 1 if ran.max() > 1 else None,
    )
    out.claim(
        "trained on with L2, it no longer does",
        expected="less than half of that range between the best test accuracies",
        measured=f"{last:.1f} %",
        holds=last < first / 2 if ran.max() > 1 else None,
        revised=PEAKED,
    )


def loss_minimum(ax, out: report.Report, grid: xr.Dataset, options: Options) -> None:
    """(c): the training loss in time, for each λ at one η."""
    here = grid["loss"].sel(learning_rate=options.rate).isel(step=slice(1, None))
    for color, l2 in zip(colors(here.sizes["l2"]), here["l2"].values, strict=True):
        loss = here.sel(l2=l2).dropna("step")
        ax.loglog(loss["step"], loss, color=color, label=f"λ = {l2:g}")
    ax.set(
        xlabel="epochs",
        ylabel="training loss without L2, Σ(f − y)²/(2k|B|)",
        title=f"(c) η = {options.rate:g}",
    )
    ax.legend(fontsize="small")
    run = grid.sel(learning_rate=options.rate)
    rise = (final(run, "loss") / here.min("step"))[1:].dropna("l2")
    early = (2 * time_to_least(here) <= run["last_step"]).sel(l2=rise["l2"])
    out.numbers["loss at the end / at its minimum"] = plain(rise)
    shown = [(float(l2), float(r), bool(e)) for l2, r, e in zip(rise["l2"], rise, early, strict=True)]  # fmt: skip
    out.claim(
        "the training loss has a minimum, after which it increases",
        expected="at the end 10 % and more above its minimum, at every λ whose minimum is in the first half of its run",
        measured=", ".join(
            f"{r:.2f} at λ = {l2:g}" + ("" if e else " (late)") for l2, r, e in shown
        ),
        holds=every(r > 1.1 for _, r, e in shown if e),
        revised="a minimum in the second half of the run may be followed by a rise that it does not see",
    )


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
