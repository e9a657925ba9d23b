"""A stand-in for Figure S8 of the L2 paper: a narrow ResNet with a learning-rate schedule.

The paper trains ResNet-50 on ImageNet: (a) performance is similar where ηλ is the same, (b) training longer
does not make up for a small λ (SM D). Here WRN with the channels of an ordinary ResNet, momentum 0.9, and η
divided by 10 after 1/3, 2/3 and 8/9 of the epochs, as ResNet-50's at 30, 60 and 80 of 90.
"""

import dataclasses

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import xarray as xr
from _sweeps import averaged, best, colors, images, plain, softmax_loss

from ntkdecay import datasets, networks, report, training

DECAYS = (1 / 3, 2 / 3, 8 / 9)
WHY = {
    "at a small λ, longer training does not reach the accuracy of a larger λ": "Size: 384 steps are a third of "
    "1/(ηλ) = 1,250, so that the smallest λ and the longest training are best",
    "performance at small λ does not improve with longer training": "Size: 384 steps are a third of 1/(ηλ) = 1,250: "
    "this is not yet long training",
}


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    data: datasets.Name = "digits"
    """Which images."""
    samples: report.Count = 128
    """Training samples."""
    test_samples: report.Count = 256
    """Test samples."""
    depth: report.Count = 10
    """Layers of the residual network, whose channels are 16, 32 and 64."""
    batch_size: report.Count = 32
    """Samples of a step."""
    learning_rates: tuple[report.Positive, ...] = (0.2, 0.8, 3.2)
    """η of (a), in equal ratios."""
    l2: tuple[report.Positive, ...] = (1e-3, 4e-3, 1.6e-2, 6.4e-2)
    """λ, in the same ratios."""
    epochs: report.Ascending[report.Count] = (8, 16, 32)
    """T of (b), ascending."""
    epochs_a: report.Count = 16
    """T of (a)."""
    learning_rate: report.Positive = 0.8
    """η of (b)."""
    seeds: report.Count = 1
    """Initializations: accuracies are of their mean curves."""
    record: report.Count = 8
    """Measurements of a run, spaced geometrically."""
    members_per_batch: report.Count | None = 1
    """Runs side by side; none: measured."""
    eval_batch_size: report.Count | None = None
    """Samples that are measured at a time; none: all."""


DESK = Options(
    data="cifar10", samples=800, test_samples=10_000, batch_size=64, seeds=3, record=2, eval_batch_size=1000
)  # fmt: skip
"""The largest that a desk's 90 minutes take, at 300 images a second: a 28-layer network sees 50,000 images 360 times in the paper preset."""
PAPER = Options(
    data="cifar10",
    samples=50_000,
    test_samples=10_000,
    depth=28,
    batch_size=512,
    learning_rates=(0.025, 0.1, 0.4, 1.6),
    l2=(1e-5, 4e-5, 1.6e-4, 6.4e-4, 2.56e-3, 1.024e-2),
    epochs=(45, 90, 180, 360),
    epochs_a=90,
    learning_rate=0.1,
    record=60,
    members_per_batch=None,
    eval_batch_size=1000,
)


def main(options: Options) -> None:
    """A stand-in for Figure S8: accuracy over (η, λ), and over λ and the length of training."""
    name = f"stand-in: WRN {options.depth}-1 for ResNet-50"
    out = report.Report(
        "l2",
        "s8",
        options,
        data=f"{options.data}, {options.samples} samples, {options.seeds} seeds; {name}, not ImageNet",
    )
    grid = trained(options, options.learning_rates, (options.epochs_a,), "(a)")
    plane = best(grid).isel(epochs=0)
    lengths = trained(options, (options.learning_rate,), options.epochs, "(b)")
    lengths = best(lengths).isel(learning_rate=0)
    out.numbers |= {"a": plain(plane), "b": plain(lengths)}
    claims(out, plane, lengths)
    out.explain(WHY)
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    heat_map(figure, axes[0], plane, f"(a) best test accuracy, {options.epochs_a} epochs")
    for color, epochs in zip(colors(len(options.epochs)), options.epochs, strict=True):
        axes[1].semilogx(
            lengths["l2"],
            lengths.sel(epochs=epochs),
            color=color,
            marker=".",
            label=f"T = {epochs} epochs",
        )
    axes[1].set(
        xlabel="λ",
        ylabel="best test accuracy",
        title=f"(b) η = {options.learning_rate:g}, schedule rescaled to T",
    )
    axes[1].legend()
    figure.suptitle(name)
    out.save(figure)


def trained(
    options: Options, learning_rates: tuple[float, ...], epochs: tuple[int, ...], progress: str
) -> xr.Dataset:
    """A grid over η, λ and T."""
    x, y, x_test, y_test = images(options, options.data, options.samples, options.test_samples)
    network = networks.wide_resnet(options.depth, 1)
    epoch = options.samples // options.batch_size

    def optimizer(learning_rate, epochs) -> optax.GradientTransformation:
        def schedule(step):
            falls = jnp.sum(step >= jnp.array(DECAYS) * epochs * epoch)
            return learning_rate * 0.1**falls

        return optax.sgd(schedule, momentum=0.9)

    found = training.sweep(
        lambda key: network.init(key, x),
        network.apply,
        softmax_loss,
        optimizer,
        {
            "learning_rate": learning_rates,
            "l2": options.l2,
            "epochs": epochs,
            "seed": np.arange(options.seeds),
        },
        x,
        y,
        steps=lambda epochs: epochs * epoch,
        record=options.record,
        x_test=x_test,
        y_test=y_test,
        batch_size=options.batch_size,
        metrics=["accuracy", "test_accuracy"],
        eval_batch_size=options.eval_batch_size,
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress=progress,
    )
    return averaged(found)


def claims(out: report.Report, plane: xr.DataArray, lengths: xr.DataArray) -> None:
    """Ranges along the diagonals ηλ = const., and what a longer training gives at the smallest λ."""
    eta, l2 = (plane[name].to_numpy() for name in ("learning_rate", "l2"))
    values = plane.to_numpy()
    diagonal = np.abs(values[1:, :-1] - values[:-1, 1:])
    in_eta, in_l2 = np.abs(np.diff(values, axis=0)), np.abs(np.diff(values, axis=1))
    along, across = np.nanmedian(diagonal), min(np.nanmedian(in_eta), np.nanmedian(in_l2))
    out.claim(
        "performance is similar where ηλ is the same",
        expected="median change between neighbours on a diagonal less than half of that in η or in λ alone",
        measured=f"{100 * along:.2f} % on diagonals; {100 * np.nanmedian(in_eta):.2f} % in η, {100 * np.nanmedian(in_l2):.2f} % in λ; "
        f"η by factors of {eta[1] / eta[0]:g}, λ of {l2[1] / l2[0]:g}",
        holds=along < across / 2,
    )
    top, small = float(lengths.max()), lengths[0]
    at = float(lengths["l2"][lengths.max("epochs").argmax("l2")])
    out.claim(
        "at a small λ, longer training does not reach the accuracy of a larger λ",
        expected=f"at λ = {float(small['l2']):g} and any T more than 0.5 % below the best",
        measured=f"{100 * (top - float(small.max())):.2f} % below {top:.4f} at λ = {at:g}",
        holds=top - float(small.max()) > 0.005,
    )
    gain = 100 * float(small[-1] - small[-2])
    out.claim(
        "performance at small λ does not improve with longer training",
        expected=f"less than 0.5 % gained from T = {int(small['epochs'][-2])} to {int(small['epochs'][-1])} epochs at the smallest λ",
        measured=f"{gain:+.2f} %",
        holds=gain < 0.5,
    )


def heat_map(figure, ax, plane: xr.DataArray, title: str) -> None:
    """Accuracies as numbers on colours; a diagonal from upper left to lower right has the same ηλ."""
    values = plane.to_numpy()
    image = ax.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    for i, j in np.ndindex(values.shape):
        dark = values[i, j] < (np.nanmin(values) + np.nanmax(values)) / 2
        ax.text(
            j,
            i,
            f"{values[i, j]:.3f}",
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    ax.set_xticks(range(values.shape[1]), [f"{l2:g}" for l2 in plane["l2"].values])
    ax.set_yticks(range(values.shape[0]), [f"{eta:g}" for eta in plane["learning_rate"].values])
    ax.set(xlabel="λ", ylabel="η", title=title)
    figure.colorbar(image, ax=ax, label="test accuracy")


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
