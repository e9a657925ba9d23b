"""Test error of an infinitely wide network under L2, predicted from the spectrum of its kernel, beside the measured one.

Parity of images; training sets are drawn with replacement from a pool that is the population too. (a) early and (b) late:
the error against the number of samples, predicted and measured, for k = 1, 2, 3; (c) when to stop without L2 and (d) the best
ridge, against the number of samples, for labels with noise.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from ntkdecay import datasets, kernels, predict, report, risk, stax

DEGREES = (1, 2, 3)
WHY = {
    "with noisy labels the best stopping time grows with the samples and falls with the noise": "Criterion: at noise 0.1 "
    "and 100 to 1,000 samples stopping gains nothing, and the time found is the last one that is tried",
    "with noisy labels the best ridge and the best stopping time say the same: λ t is of order 1": "Criterion: where "
    "neither gains anything both are at an end of what is tried; at noise 0.3 and 1 the product is 0.20 to 0.72",
}


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    data: datasets.Name = "digits"
    """Which images; labels are +1 for even digits and −1 for odd ones, less their mean."""
    pool: report.Count = 1500
    """Images that stand for the population."""
    samples: report.Ascending[report.Count] = (50, 150, 450)
    """Training samples, ascending."""
    drawn: report.Count = 4000
    """Samples drawn in all for each of these: fewer sets where they are larger, but two or more."""
    times: tuple[report.Positive, report.Positive] = (100.0, 3000.0)
    """t of (a) and (b), in units of the kernel's mean diagonal."""
    l2: tuple[report.Positive, report.Positive] = (1e-3, 1e-4)
    """λ of (a) and (b), in the same units."""
    sizes: report.Ascending[report.Count] = (30, 100, 300, 1000)
    """Numbers of samples of (c) and (d), ascending."""
    noise: tuple[report.Positive, ...] = (0.1, 0.3, 1.0)
    """Standard deviations of the labels' noise in (c) and (d)."""


DESK = Options(
    data="mnist", pool=8000, samples=(50, 150, 500, 1500, 5000), drawn=20_000, sizes=(30, 100, 300, 1000, 3000)
)  # fmt: skip
PAPER = Options(
    data="mnist", pool=20_000, samples=(50, 150, 500, 1500, 5000), drawn=50_000, sizes=(30, 100, 300, 1000, 3000)
)  # fmt: skip


def main(options: Options) -> None:
    """Learning curves, best stopping times and best ridges."""
    jax.config.update("jax_enable_x64", True)
    what = f"{options.data}, {options.pool} images, even/odd"
    out = report.Report("l2", "learning_curves", options, data=what, dtype="float64")
    theta, y = population(options)
    spectrum = risk.spectrum(theta, y)
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    times, rates = np.array(options.times), np.array(options.l2)
    found = [
        measured(theta, y, n, max(2, options.drawn // n), times, rates) for n in options.samples
    ]
    for i, ax in enumerate(axes[0]):
        curves(
            ax,
            f"({'ab'[i]})",
            out,
            options,
            spectrum,
            [one[..., i] for one in found],
            times[i],
            rates[i],
        )
    choices(axes[1], out, options, spectrum)
    out.explain(WHY)
    out.save(figure)


def population(options: Options):
    """The kernel of a two-layer ReLU network between images of norm 1, of mean diagonal 1, and their labels."""
    data = datasets.load(options.data, options.data_dir)
    if options.pool > len(data.x_train):
        raise ValueError(
            f"`--pool` is {options.pool}; {options.data} has {len(data.x_train)} training images."
        )
    x = data.x_train[: options.pool].reshape(options.pool, -1).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = datasets.parity(data.y_train[: options.pool])[:, 0]
    layers = stax.Dense(1, b_std=None), stax.Relu(), stax.Dense(1, b_std=None)
    theta = np.asarray(kernels.analytic_kernel(stax.serial(*layers)[2], x, tile=1000))
    return theta / theta.diagonal().mean(), y - y.mean()


def measured(theta, y, n: int, sets: int, times, rates) -> np.ndarray:
    """Errors over the pool of training sets of n images: (sets, degrees, times)."""
    errors = []
    for seed in range(sets):
        rows = np.random.default_rng([n, seed]).integers(0, len(y), n)
        found = _functions(theta[np.ix_(rows, rows)], y[rows, None], theta[:, rows], times, rates)
        errors.append(np.mean((np.asarray(found) - y) ** 2, -1))
    return np.array(errors)


@jax.jit
def _functions(k_train_train, y_train, k_test_train, times, rates):
    """Test outputs, (degrees, times, test): one program, in which all share the kernel's decomposition."""

    def found(t, l2, degree: int):
        predict_fn = predict.gradient_descent_mse(k_train_train, y_train, l2=l2, degree=degree)
        return predict_fn(t, None, 0.0, k_test_train)[:, 0]

    return jnp.stack([jax.vmap(partial(found, degree=k))(times, rates) for k in DEGREES])


def curves(
    ax, title, out: report.Report, options: Options, spectrum: risk.Spectrum, found: list, t, l2
) -> None:
    """Predicted errors at one time and λ, and those found, (sets, degrees), at each number of samples."""
    sizes = np.geomspace(options.samples[0] / 2, options.samples[-1] * 1.5, 40)
    away = []
    for color, degree in enumerate(DEGREES):
        line = risk.learning_curve(*spectrum, sizes, t=t, l2=l2, degree=degree)
        ax.loglog(sizes, line, color=f"C{color}", label=f"k = {degree}: predicted")
        at = np.asarray(risk.learning_curve(*spectrum, np.array(options.samples, float), t=t, l2=l2, degree=degree))  # fmt: skip
        means = [one[:, color].mean() for one in found]
        errors = [one[:, color].std(ddof=1) / np.sqrt(len(one)) for one in found]
        ax.errorbar(options.samples, means, errors, fmt="o", ms=4, color=f"C{color}", label="measured")  # fmt: skip
        away.append(np.array(means) / at - 1)
        out.numbers[f"k = {degree}, t = {t:g}, λ = {l2:g}"] = {
            "samples": options.samples, "predicted": at, "measured": means, "standard error": errors,
        }  # fmt: skip
    ax.set(xlabel="training samples n", ylabel="test error E|f − f*|²", title=f"{title} t = {t:g}, λ = {l2:g}")  # fmt: skip
    ax.set_xticks(options.samples, [str(n) for n in options.samples])
    ax.tick_params(which="minor", labelleft=False, labelbottom=False)
    ticks = [
        v
        for v in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
        if ax.get_ylim()[0] <= v <= ax.get_ylim()[1]
    ]
    ax.set_yticks(ticks, [f"{v:g}" for v in ticks])
    ax.legend(fontsize="x-small", ncols=3)
    worst = np.abs(away).max(0)
    out.claim(
        f"the test error is the predicted one at t = {t:g}, λ = {l2:g}, k = 1, 2, 3",
        expected=f"means over training sets within 5 % at every n from {options.samples[0]} to {options.samples[-1]}",
        measured="; ".join(f"n = {n}: within {w:.1%}" for n, w in zip(options.samples, worst, strict=True)),
        holds=worst.max() < 0.05,
        ours=True,
    )  # fmt: skip


def choices(axes, out: report.Report, options: Options, spectrum: risk.Spectrum) -> None:
    """When to stop, and how much to decay."""
    n = np.array(options.sizes, float)
    found = []
    for color, noise in enumerate(options.noise):
        stopped = risk.best(*spectrum, n, degree=2, l2=0.0, noise=noise)
        ridge = risk.best(*spectrum, n, degree=1, t=np.inf, noise=noise)
        found.append((stopped.t, ridge.l2))
        axes[0].loglog(n, stopped.t, marker="o", color=f"C{color}", label=f"noise {noise:g}")
        axes[1].loglog(n, ridge.l2, marker="o", color=f"C{color}", label=f"noise {noise:g}")
        out.numbers[f"noise {noise:g}"] = {
            "n": n, "best time, λ = 0": stopped.t, "its error": stopped.error,
            "best λ, k = 1, t = ∞": ridge.l2, "its error with λ": ridge.error,
        }  # fmt: skip
    stop, decay = np.moveaxis(np.array(found), 1, 0)  # (noise, n)
    axes[0].set(xlabel="training samples n", ylabel="best stopping time", title="(c) early stopping, λ = 0")  # fmt: skip
    axes[1].set(xlabel="training samples n", ylabel="best λ", title="(d) ridge: k = 1, t = ∞")
    for ax in axes:
        ax.legend(fontsize="x-small")
    out.claim(
        "with noisy labels the best stopping time grows with the samples and falls with the noise",
        expected="at every n and noise a longer time than at the next smaller n and the next larger noise",
        measured="slopes of log t against log n "
        + ", ".join(f"{np.polyfit(np.log(n), np.log(t), 1)[0]:.2f}" for t in stop)
        + f" at noise {', '.join(f'{s:g}' for s in options.noise)}",
        holds=bool(np.all(stop[:, 1:] > stop[:, :-1]) and np.all(stop[1:] < stop[:-1])),
        ours=True,
    )
    product = stop * decay
    out.claim(
        "with noisy labels the best ridge and the best stopping time say the same: λ t is of order 1",
        expected="their product between 1/3 and 3 at every n and noise",
        measured=f"{product.min():.2f} to {product.max():.2f}",
        holds=bool(product.min() > 1 / 3 and product.max() < 3),
        ours=True,
    )


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
