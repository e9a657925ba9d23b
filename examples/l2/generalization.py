"""What L2 does to generalization, at infinite width: an answer to a question of the L2 paper's Section 4.

The linear model (k = 1) with L2 ends at kernel ridge regression; a deep one (k = 2, 3, 4) forgets in the
end, so it has to be stopped early. Same kernel, same labels: (a) the test error against λ, (b) against the
number of training samples at the best λ, (c) on the way, and (d) when it is best to stop.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from ntkdecay import datasets, kernels, predict, report, stax

DEEP = (2, 3, 4)
RIDGE, NO_L2 = "k = 1, t = ∞ (ridge)", "λ = 0, best t"


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    data: datasets.Name = "digits"
    """Which images; ten classes, labels one-hot less 1/10."""
    samples: report.Ascending[report.Count] = (100, 200, 400, 800)
    """Sizes of the training set, ascending."""
    test_samples: report.Count = 297
    """Size of the test set."""
    label_noise: report.Share = 0.2
    """Fraction of the training labels that are replaced by random ones."""
    depth: report.Count = 3
    """Weight layers of the ReLU network whose kernel all models use."""
    l2: tuple[report.Positive, report.Positive, report.Count] = (1e-5, 10.0, 19)
    """Smallest λ, largest λ and how many, in units of the mean diagonal of the kernel."""
    times: report.Count = 100
    """Times at which a trajectory may be stopped."""
    seed: report.Seed = 0
    """Seed of the noise in the labels."""


DESK = Options(data="mnist", samples=(100, 300, 1000), test_samples=10_000)
PAPER = Options(data="mnist", samples=(300, 1000, 3000, 10_000), test_samples=2000)


def network(depth: int):
    """The analytic kernel of a ReLU network without biases."""
    layers = [layer for _ in range(depth - 1) for layer in (stax.Dense(1, b_std=None), stax.Relu())]
    return stax.serial(*layers, stax.Dense(1, b_std=None))[2]


def main(options: Options) -> None:
    """Test error of the ridge path, of deep models stopped early, and without L2."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report(
        "l2",
        "generalization",
        options,
        data=f"{options.data}, {100 * options.label_noise:.0f} % random labels",
    )
    data = datasets.load(options.data, options.data_dir)
    n, n_test = options.samples[-1], options.test_samples
    if n > len(data.x_train) or n_test > len(data.x_test):
        raise ValueError(
            f"`--samples` and `--test-samples` are {n} and {n_test}; {options.data} has {len(data.x_train)} "
            f"training and {len(data.x_test)} test images."
        )
    x, x_test = (
        a[:size].reshape(size, -1) for a, size in ((data.x_train, n), (data.x_test, n_test))
    )
    rng = np.random.default_rng(options.seed)
    labels = np.where(
        rng.random(n) < options.label_noise, rng.integers(10, size=n), data.y_train[:n]
    )
    y, y_test = (np.eye(10)[label] - 0.1 for label in (labels, data.y_test[:n_test]))
    kernel_fn = network(options.depth)
    k = kernels.analytic_kernel(kernel_fn, x.astype(np.float64), tile=2000)
    k_test = kernels.analytic_kernel(
        kernel_fn, x_test.astype(np.float64), x.astype(np.float64), tile=2000
    )
    scale = float(jnp.trace(k)) / n
    l2 = scale * np.geomspace(*options.l2)
    t = np.geomspace(1e-2 / (scale * n), 1e3 / l2[0], options.times)
    results = {
        size: evaluate(k[:size, :size], y[:size], k_test[:, :size], y_test, l2, t)
        for size in options.samples
    }
    out.numbers |= {"l2 / mean diagonal": l2 / scale, "t × mean diagonal": t * scale}
    out.numbers["results"] = {
        size: {
            name: {part: summary(array) for part, array in parts.items()}
            for name, parts in found.items()
        }
        for size, found in results.items()
    }
    claims(out, results, l2, options)
    draw(out, results, l2 / scale, t * scale, options)


def evaluate(k, y, k_test, y_test, l2, t) -> dict[str, dict[str, np.ndarray]]:
    """Test error and mean squared error of each model: (λ, times), (λ, 1) or (1, times)."""
    label = y_test.argmax(-1)

    def measure(f):
        return {
            "error": (f.argmax(-1) != label).mean(-1),
            "mse": ((f - y_test) ** 2).mean((-2, -1)),
        }

    def model(degree, l2, t):
        def one(strength):
            predict_fn = predict.gradient_descent_mse(
                k, y, l2=strength, degree=degree, reduction="sum"
            )
            return measure(predict_fn(t, None, 0.0, k_test))

        with jax.numpy_rank_promotion("allow"):
            found = jax.lax.map(one, jnp.asarray(l2))
        return {name: np.asarray(array) for name, array in found.items()}

    return {
        RIDGE: model(1, l2, np.array([np.inf])),
        **{f"k = {degree}, best t": model(degree, l2, t) for degree in DEEP},
        NO_L2: model(1, np.zeros(1), t),
    }


def summary(array: np.ndarray) -> dict:
    """The best over time for each λ, and which time that is."""
    return {"best over t": array.min(1), "index of t": array.argmin(1)}


def claims(out: report.Report, results, l2, options: Options) -> None:
    """How the models compare at their best λ and t, chosen on the test set for all of them alike."""
    n = options.samples[-1]
    best = {name: float(parts["mse"].min()) for name, parts in results[n].items()}
    errors = {name: float(parts["error"].min()) for name, parts in results[n].items()}
    out.numbers["best at the largest training set"] = {"mse": best, "error": errors}
    names = [f"k = {degree}, best t" for degree in DEEP]
    out.claim(
        "stopped at its best time, the deep model generalizes as well as ridge regression",
        expected=f"least test MSE of k = 2, 3, 4 within 5 % of the ridge path's, {n} samples",
        measured=", ".join(
            f"{name[:5]}: {100 * (best[name] / best[RIDGE] - 1):+.1f} %" for name in names
        )
        + f" of {best[RIDGE]:.4f}",
        holds=all(abs(best[name] / best[RIDGE] - 1) < 0.05 for name in names),
        ours=True,
    )
    out.claim(
        "L2 helps the deep model beyond early stopping",
        expected="least test MSE below that of λ = 0 at its best time",
        measured=", ".join(
            f"{name[:5]}: {100 * (best[name] / best[NO_L2] - 1):+.1f} %" for name in names
        )
        + f" of {best[NO_L2]:.4f}",
        holds=all(best[name] < best[NO_L2] for name in names),
        ours=True,
    )
    spread = {
        name: float(np.ptp(np.log10(l2[parts["mse"].min(1) < 1.1 * best[name]])))
        for name, parts in results[n].items()
        if name != NO_L2
    }
    out.claim(
        "stopped at its best time, the deep model is less sensitive to λ than ridge regression",
        expected="more decades of λ within 10 % of the least test MSE",
        measured=", ".join(f"{name[:5]}: {decades:.1f}" for name, decades in spread.items()),
        holds=all(spread[name] > spread[RIDGE] for name in names),
        ours=True,
    )
    last = [results[n][name]["mse"][:, -1] for name in names]
    nothing = 0.09  # the mean square of a one-hot label less 1/10
    out.claim(
        "without early stopping the deep model forgets what it learned, whatever λ",
        expected=f"test MSE at the last time, 1000 times 1/λ of the smallest λ, is {nothing}, that of f = 0",
        measured=f"from {np.min(last):.5f} to {np.max(last):.5f}",
        holds=bool(np.allclose(last, nothing, rtol=1e-6)),
        ours=True,
    )


def draw(out: report.Report, results, l2, t, options: Options) -> None:
    """The four panels."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    n = options.samples[-1]
    colors = dict(zip(results[n], ("black", "C0", "C1", "C2", "C7"), strict=True))
    for name, parts in results[n].items():
        best = parts["mse"].min(1)
        if name == NO_L2:
            axes[0, 0].axhline(best[0], color=colors[name], ls=":", label=name)
        else:
            axes[0, 0].semilogx(l2, best, color=colors[name], marker=".", label=name)
        errors = [100 * results[size][name]["error"].min() for size in options.samples]
        axes[0, 1].semilogx(options.samples, errors, color=colors[name], marker=".", label=name)
    axes[0, 0].set(
        xlabel="λ / mean diagonal of the kernel",
        ylabel="test MSE (mean over outputs)",
        title=f"(a) {options.data}, {n} samples, {100 * options.label_noise:.0f} % random labels",
    )
    axes[0, 1].set(
        xlabel="training samples", ylabel="test error (%)", title="(b) at the best λ and t"
    )
    for degree in DEEP:
        name = f"k = {degree}, best t"
        mse = results[n][name]["mse"]
        i = int(mse.min(1).argmin())
        axes[1, 0].semilogx(
            t, mse[i], color=colors[name], label=f"k = {degree}, best λ = {l2[i]:.1e}"
        )
        axes[1, 1].loglog(
            l2, t[mse.argmin(1)], color=colors[name], marker=".", label=f"k = {degree}"
        )
    axes[1, 0].semilogx(t, results[n][NO_L2]["mse"][0], color=colors[NO_L2], ls=":", label="λ = 0")
    axes[1, 1].loglog(l2, 1 / l2, color="grey", lw=0.8, ls=":", label="1/λ")
    axes[1, 0].set(
        xlabel="time t × mean diagonal of the kernel",
        ylabel="test MSE (mean over outputs)",
        title=f"(c) on the way, {n} samples",
    )
    axes[1, 1].set(
        xlabel="λ / mean diagonal of the kernel",
        ylabel="best time t × mean diagonal",
        title="(d) when to stop",
    )
    for ax in axes.flat:
        ax.legend(fontsize="small")
    out.save(figure)


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
