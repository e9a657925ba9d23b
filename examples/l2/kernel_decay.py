"""How far the kernel of a trained network follows exp(−2(k−1)λt), the kernel of an infinitely wide one.

Networks of k layers, k = 1…4, and several widths n are trained on even/odd labels with L2. Their kernel's size and
direction are followed, and the moment where theory and network part is set against the width. A kernel that fits the data
by its features is of order n^(−(k−1)/k): it cannot fall below, and e^(−2(k−1)λt) meets it at t = ln n/(2kλ) + const., as long as λ
is far below the one at which f dies. The law is a logarithm, not a power of n.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _parity import even_odd
from tqdm import tqdm

from ntkdecay import kernels, report, stax, training


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    samples: report.Count = 8
    """Training samples."""
    degrees: tuple[report.Count, ...] = (1, 2, 3, 4)
    """k, the number of layers."""
    widths: report.Ascending[report.Count] = (128, 512, 2048)
    """Widths, ascending."""
    l2: report.Positive = 2e-3
    """λ."""
    final_time: report.Positive = 625.0
    """When training stops, in units of step × η."""
    early: report.Positive = 0.5
    """The λt at which widths are compared."""
    times: report.Count = 40
    """Moments at which the kernel is taken."""
    parting: report.Positive = 2.0
    """How many times the predicted kernel the network's is where they have parted; or one over that."""
    seed: report.Seed = 0
    """Seed of the initializations."""


PAPER = Options(preset="paper", widths=(256, 1024, 4096, 16384))


def network(degree: int, width: int):
    """`degree` layers with ReLU between them, without biases: k-homogeneous."""
    hidden = [stax.Dense(width, b_std=None), stax.Relu()] * (degree - 1)
    return stax.serial(*hidden, stax.Dense(1, b_std=None))


def squared_error(fx, y):
    """The paper's loss, summed over the samples."""
    return 0.5 * jnp.sum((fx - y) ** 2)


def follow(options: Options, degree: int, width: int, x, y) -> dict:
    """Trains one network; its kernel's size and direction at each time, relative to the start."""
    init, apply_fn, _ = network(degree, width)
    params = init(jax.random.key(options.seed), x.shape)[1]
    params = jax.tree.map(lambda p: p.astype(x.dtype), params)
    start = np.asarray(kernels.empirical_ntk(apply_fn, params, x), np.float64)
    learning_rate = 0.25 / np.linalg.eigvalsh(start)[-1]
    last = options.final_time / learning_rate
    steps = np.unique(np.concatenate([[0], np.geomspace(1, last, options.times)]).astype(int))
    run = training.train(
        apply_fn,
        params,
        squared_error,
        x,
        y,
        optax.sgd(learning_rate),
        steps=steps[-1],
        record=steps,
        l2=options.l2,
        metrics={"kernel": lambda now: kernels.empirical_ntk(apply_fn, now.params, x)},
    )
    kernel = run.data["kernel"].to_numpy().astype(np.float64).reshape(len(steps), -1)
    size = np.linalg.norm(kernel, axis=1)
    cosine = kernel @ kernel[0] / (size * size[0])
    return {
        "t": steps * learning_rate,
        "log size": np.log(size / size[0]),
        "rotation": np.maximum(1 - cosine, 0),
    }


def parting(t, gap, threshold: float) -> float:
    """The time at which `gap` first passes `threshold`, interpolated; NaN if it never does."""
    if not (gap > threshold).any():
        return np.nan
    i = int(np.argmax(gap > threshold))
    return float(np.interp(threshold, gap[i - 1 : i + 1], t[i - 1 : i + 1]))


def main(options: Options) -> None:
    """Size and rotation of the kernel of trained networks, beside exp(−2(k−1)λt)."""
    jax.config.update("jax_enable_x64", True)
    last = options.l2 * options.final_time
    if options.early > last:
        raise ValueError(f"`--early` is {options.early:g}; runs end at λt = {last:g}.")
    data = f"digits, {options.samples} samples, even/odd"
    out = report.Report("l2", "kernel_decay", options, data=data)
    x, y = even_odd(options, options.samples)
    x, y = jnp.asarray(x), jnp.asarray(y, x.dtype)
    figure, axes = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")

    parted: dict[int, list[float]] = {}
    with tqdm(total=len(options.degrees) * len(options.widths), desc="networks") as bar:
        for degree in options.degrees:
            rate, color = 2 * (degree - 1) * options.l2, f"C{degree}"
            t = np.linspace(0, options.final_time, 200)
            axes[0].plot(t, -rate * t, color=color, lw=0.8, label=f"k = {degree}, −2(k−1)λt")
            for width, style in zip(options.widths, (":", "-.", "--", "-"), strict=False):
                if degree == 1 and width != options.widths[-1]:
                    bar.update()  # one layer has no width
                    continue
                run = follow(options, degree, width, x, y)
                label = f"k = {degree}" + (f", width {width}" if degree > 1 else "")
                axes[0].plot(run["t"], run["log size"], color=color, ls=style)
                if degree > 1:
                    axes[1].loglog(
                        run["t"][1:], run["rotation"][1:], color=color, ls=style, label=label
                    )
                gap = np.abs(run["log size"] + rate * run["t"])
                parted.setdefault(degree, []).append(
                    parting(run["t"], gap, np.log(options.parting))
                )
                out.numbers[label] = run | {"parting time": parted[degree][-1]}
                bar.update()
    for degree, moments in parted.items():
        if degree > 1:
            axes[2].semilogx(
                options.widths, moments, "o-", color=f"C{degree}", label=f"k = {degree}"
            )
            law = moments[-1] + np.log(np.array(options.widths) / options.widths[-1]) / (2 * degree * options.l2)  # fmt: skip
            axes[2].semilogx(options.widths, law, color=f"C{degree}", lw=0.8, ls="--")
    axes[2].plot([], [], color="grey", lw=0.8, ls="--", label="ln n/(2kλ) + const.")
    claims(out, options, parted)
    axes[0].set(
        xlabel="time t (step × η)",
        ylabel="log ‖Θ_t‖/‖Θ_0‖",
        title="Size; thin: infinite width, others: as in the middle",
    )
    axes[1].set(
        xlabel="time t (step × η)",
        ylabel="1 − cos(Θ_t, Θ_0)",
        title=f"Rotation (none at infinite width), λ = {options.l2}",
        ylim=(1e-7, 1),
    )
    axes[2].axhline(options.final_time, color="grey", lw=0.8, ls=":", label="end of training")
    axes[2].set(
        xlabel="width",
        ylabel="time t at which they part",
        ylim=(0, 1.05 * options.final_time),
        title=f"Where ‖Θ‖ is off by a factor {options.parting:g}",
    )
    for ax in axes:
        ax.legend(fontsize=8)
    axes[2].set_xticks(options.widths, [str(width) for width in options.widths])
    axes[2].minorticks_off()
    out.save(figure)


def claims(out: report.Report, options: Options, parted: dict[int, list[float]]) -> None:
    """What Theorem 1 says of the kernel, and how it is approached."""

    def by_width(values) -> str:
        pairs = zip(values, options.widths, strict=True)
        return ", ".join(f"{value:.2g} at width {width}" for value, width in pairs)

    def at(run: dict, name: str) -> float:
        return float(np.interp(options.early / options.l2, run["t"], run[name]))

    if 1 in options.degrees:
        run = out.numbers["k = 1"]
        out.claim(
            "k = 1: the kernel does not move",
            expected="log size and rotation 0, to float32",
            measured=f"{np.abs(run['log size']).max():.1e}, {run['rotation'].max():.1e}",
            holds=np.abs(run["log size"]).max() < 1e-4 and run["rotation"].max() < 1e-4,
        )
    for degree, moments in parted.items():
        if degree == 1:
            continue
        runs = [out.numbers[f"k = {degree}, width {width}"] for width in options.widths]
        rotations = [at(run, "rotation") for run in runs]
        followed = [-at(run, "log size") / (2 * (degree - 1) * options.early) for run in runs]
        steps = np.diff(moments) / np.diff(np.log(options.widths))
        rise = options.l2 * float(steps[-1]) if steps.size else np.nan
        out.numbers[f"k = {degree}"] = {"parting time": moments, "λ dt/d ln n of the last": rise}
        parted_all = len(moments) > 1 and bool(np.isfinite(moments).all())
        out.claim(
            f"k = {degree}: the wider the network, the longer its kernel follows exp(−2(k−1)λt)",
            expected=f"λt at which ‖Θ‖ is off by a factor {options.parting:g} rises with width",
            measured=by_width(options.l2 * np.array(moments)),
            holds=bool(np.all(np.diff(moments) > 0)) if parted_all else None,
            revised="a threshold of 0.1 in log ‖Θ‖ is passed while features are learned at the start, before the decay",
        )
        law = 1 / (2 * degree)
        out.claim(
            f"k = {degree}: that time grows like ln n/(2kλ)",
            expected=f"λ dt/d ln n = {law:.3f}, to 30 %, between the two largest widths",
            measured=f"{rise:.3f}",
            holds=abs(rise - law) < 0.3 * law if np.isfinite(rise) else None,
            ours=True,
            revised="it was fitted by a power of the width; the law is a logarithm",
        )
        when = f"at λt = {options.early:g}"
        late = "Theorem 1 is of a fixed time: at the end, on the floor, kernels of every width have turned"
        out.claim(
            f"k = {degree}: the wider the network, the less its kernel turns",
            expected=f"1 − cos(Θ_t, Θ_0) {when} falls with width",
            measured=by_width(rotations),
            holds=bool(np.all(np.diff(rotations) < 0)),
            revised=late,
        )
        out.claim(
            f"k = {degree}: the wider the network, the nearer its kernel's decay to the predicted one",
            expected=f"log(‖Θ₀‖/‖Θ_t‖) / (2(k−1)λt) {when} nears 1 with width",
            measured=by_width(followed),
            holds=bool(np.all(np.diff(np.abs(np.array(followed) - 1)) < 0)),
        )


if __name__ == "__main__":
    report.cli(main, Options(), PAPER)
