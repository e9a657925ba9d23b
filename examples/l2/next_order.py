"""One network's own f to next order in 1/width, beside infinite width and the network itself.

(a)–(c) Three two-layer networks of several widths n under gradient flow with L2, on even/odd digits: how far infinite width (the
network's own f and kernel at the start) and the next order (`finite_width.next_order`) are from it; (d) the largest distance against n;
(e) the training loss of a narrow one; (f) that of Figure 5c of the paper, whose late loss infinite width misses.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _parity import even_odd
from tqdm import tqdm

from ntkdecay import finite_width, kernels, predict, report, training

DEGREE = {"linear": 2, "ReLU": 2, "squared ReLU": 3, "cubed ReLU": 4}
LEADING, NEXT = "infinite width", "next order"
NARROWER = {
    "linear": 16
}  # at widths over this, as its distances are soon below the steps' own error


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    samples: report.Count = 12
    """Training samples of (a) to (e)."""
    networks: tuple[str, ...] = ("linear", "squared ReLU", "cubed ReLU", "ReLU")
    """Activations of the two-layer networks."""
    widths: report.Ascending[report.Count] = (1024, 3072, 9216)
    """Widths, ascending; of the linear network a sixteenth of them."""
    seeds: report.Count = 4
    """Initializations, over which logarithms of distances are averaged."""
    l2: report.Positive = 0.3
    """λ of (a) to (e)."""
    span: report.Positive = 0.5
    """λt at the end of (a) to (e)."""
    late_samples: report.Count = 64
    """Training samples of (f)."""
    late_width: report.Count = 2048
    """Width of (f)."""
    late_l2: report.Positive = 0.01
    """λ of (f)."""
    late_time: report.Positive = 150.0
    """When training of (f) stops, in steps × η."""
    late_learning_rate: report.Positive = 0.02
    """η of (f)."""
    restarts: report.Whole = 20
    """How often the next order may begin anew in (f)."""


PAPER = Options(preset="paper", widths=(1024, 4096, 16_384, 65_536), late_width=10_000)


def network(kind: str, params, x):
    """A two-layer network in NTK parameterization, without biases."""
    h = x @ params[0] / jnp.sqrt(x.shape[1])
    if kind != "linear":
        h = jnp.sqrt(2.0) * jnp.maximum(h, 0) ** (DEGREE[kind] - 1)
    return h @ params[1] / jnp.sqrt(h.shape[1])


NETWORKS = {kind: functools.partial(network, kind) for kind in DEGREE}


def draw(seed: int, width: int, inputs: int):
    """Standard normal weights."""
    rng = np.random.default_rng([seed, width])
    return [rng.normal(size=shape) for shape in ((inputs, width), (width, 1))]


def squared_error(fx, y):
    """The paper's loss, summed over the samples."""
    return 0.5 * jnp.sum((fx - y) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def flow(kind: str, params, x, y, l2: float, times, steps):
    """f at these times by gradient flow of the network itself: Runge-Kutta of order 4, which kinks of ReLU do not slow down."""

    def velocity(params):
        gradient = jax.grad(lambda p: squared_error(network(kind, p, x), y))(params)
        return jax.tree.map(lambda g, p: -g - l2 * p, gradient, params)

    def record(params, duration):
        h = duration / steps

        def step(_, params):
            def moved(share, force):
                return jax.tree.map(lambda p, f: p + share * h * f, params, force)

            k1 = velocity(params)
            k2 = velocity(moved(0.5, k1))
            k3 = velocity(moved(0.5, k2))
            k4 = velocity(moved(1.0, k3))
            mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4)
            return moved(1.0, mean)

        params = jax.lax.fori_loop(0, steps, step, params)
        return params, network(kind, params, x)

    return jax.lax.scan(record, params, jnp.diff(times, prepend=0.0))[1]


def trained(kind: str, params, x, y, l2: float, times):
    """`flow` in steps of a tenth of the kernel's fastest time or shorter, where it may double."""
    fastest = np.linalg.eigvalsh(kernels.empirical_ntk(NETWORKS[kind], params, x))[-1]
    steps = int(np.ceil(20 * fastest * np.diff(times, prepend=0.0).max()))
    return flow(kind, params, x, y, l2, times, steps)


def predicted(kind: str, params, x, y, l2: float, times, restarts: int = 0) -> dict:
    """f at these times, at infinite width and to the next order."""
    given = {"l2": l2, "degree": DEGREE[kind], "reduction": "sum"}
    kernel = kernels.empirical_ntk(NETWORKS[kind], params, x)
    leading = predict.gradient_descent_mse(kernel, y, **given)
    following = finite_width.next_order(NETWORKS[kind], params, x, y, **given, restarts=restarts)
    return {LEADING: leading(times, NETWORKS[kind](params, x)), NEXT: following(times)}


def main(options: Options) -> None:
    """Distances to trained networks at infinite width and to the next order, and the late loss of Figure 5c."""
    jax.config.update("jax_enable_x64", True)
    data = f"digits, {options.samples} and {options.late_samples} samples, even/odd"
    out = report.Report("l2", "next_order", options, data=data, dtype="float64")
    x, y = inputs(options, options.samples)
    times = options.span / options.l2 * np.linspace(1 / 24, 1, 24)
    figure, axes = plt.subplots(2, 4, figsize=(20, 9), layout="constrained")
    largest: dict[str, dict[str, list[float]]] = {}
    with tqdm(
        total=len(options.networks) * len(options.widths) * options.seeds, desc="networks"
    ) as bar:
        for ax, kind in zip(axes.flat, options.networks, strict=False):
            largest[kind] = distances(ax, out, options, kind, x, y, times, bar)
    slopes(axes[1, 0], out, options, largest)
    narrow(axes[1, 1], out, options, x, y)
    late(axes[1, 2], out, options)
    for ax in axes.flat[len(options.networks) : 4]:
        ax.set_axis_off()
    key(axes[1, 3], options)
    out.save(figure)


def inputs(options: Options, samples: int):
    """Digits of root mean square 1, and their labels."""
    x, y = even_odd(options, samples)
    x = np.asarray(x, float)
    return x / np.sqrt((x**2).mean(1, keepdims=True)), np.asarray(y, float)


def distances(ax, out: report.Report, options: Options, kind: str, x, y, times, bar) -> dict:
    """One panel of (a): root mean square distance in f to trained networks, geometric mean over the seeds."""
    largest = {LEADING: [], NEXT: []}
    for i, width in enumerate(widths_of(options, kind)):
        found = {LEADING: [], NEXT: []}
        for seed in range(options.seeds):
            params = draw(seed, width, x.shape[1])
            own = trained(kind, params, x, y, options.l2, times)
            for name, f in predicted(kind, params, x, y, options.l2, times).items():
                found[name].append(np.sqrt(np.mean((f - own) ** 2, (1, 2))))
            bar.update()
        for name, style in ((LEADING, "--"), (NEXT, "-")):
            mean = np.exp(np.log(found[name]).mean(0))
            ax.semilogy(options.l2 * times, mean, f"C{i}{style}")
            largest[name].append(float(np.exp(np.log(np.max(found[name], 1)).mean())))
            out.numbers[f"{kind}, n = {width}, {name}"] = {"t": times, "distance": mean}
    ax.set(
        xlabel="λt",
        ylabel="RMS distance in f to the trained network",
        title=f"{kind}, k = {DEGREE[kind]}, n = {', '.join(map(str, widths_of(options, kind)))}",
    )
    out.numbers[f"{kind}, largest distance"] = {"widths": widths_of(options, kind), **largest}
    return largest


def widths_of(options: Options, kind: str) -> tuple[int, ...]:
    """The widths of these networks."""
    return tuple(width // NARROWER.get(kind, 1) for width in options.widths)


def slopes(ax, out: report.Report, options: Options, largest: dict) -> None:
    """The largest distance against the width, and the claims of it."""
    for i, (kind, found) in enumerate(largest.items()):
        for name, style in ((LEADING, "o--"), (NEXT, "s-")):
            ax.loglog(widths_of(options, kind), found[name], f"C{3 + i}{style}")
        exponents = {
            name: float(np.polyfit(np.log(options.widths), np.log(values), 1)[0])
            for name, values in found.items()
        }
        told = ", ".join(f"{name} {value:.2f}" for name, value in exponents.items())
        if kind != "ReLU":
            out.claim(
                f"{kind}: to next order what is left falls like the square of the width",
                expected="exponent of n in the largest distance ≤ −1.8; at infinite width −1 to 0.3",
                measured=told,
                holds=exponents[NEXT] <= -1.8 and abs(exponents[LEADING] + 1) <= 0.3,
                ours=True,
            )
        ratios = np.divide(found[LEADING], found[NEXT])
        out.claim(
            f"{kind}: the next order is nearer to the network at every width",
            expected="largest distance at infinite width over that of the next order > 1",
            measured=", ".join(
                f"{r:.3g} at n = {n}" for r, n in zip(ratios, widths_of(options, kind), strict=True)
            ),
            holds=bool((ratios > 1).all()),
            ours=True,
        )
    ax.set(
        xlabel="width n",
        ylabel="largest RMS distance in f",
        title=f"Up to λt = {options.span:g}, λ = {options.l2:g}, {options.seeds} networks",
    )


def key(ax, options: Options) -> None:
    """What colors and lines are, in a panel of its own."""
    ax.set_axis_off()
    for i, order in enumerate(("narrowest", "middle", "widest")[: len(options.widths)]):
        ax.plot([], [], f"C{i}", label=f"top row: {order}")
    for i, kind in enumerate(options.networks):
        ax.plot([], [], f"C{3 + i}", label=f"bottom left: {kind}")
    ax.plot([], [], "k--", label="infinite width, from the network's own kernel and start")
    ax.plot([], [], "k-", label="next order")
    ax.legend(loc="center", fontsize=11, frameon=False)


def narrow(ax, out: report.Report, options: Options, x, y) -> None:
    """The training loss of the narrowest ReLU network."""
    width = options.widths[0]
    params = draw(0, width, x.shape[1])
    times = np.geomspace(0.05, options.span / options.l2, 60)
    curves = {"trained": trained("ReLU", params, x, y, options.l2, times)}
    curves |= predicted("ReLU", params, x, y, options.l2, times)
    show(ax, out, "narrow", times, curves, y)
    ax.set_title(f"ReLU, n = {width}, λ = {options.l2:g}, {options.samples} samples")


def late(ax, out: report.Report, options: Options) -> None:
    """Figure 5c: far into the decay."""
    x, y = even_odd(options, options.late_samples)
    x, y = np.asarray(x, float), np.asarray(y, float)
    rate = options.late_learning_rate
    steps = np.unique(np.geomspace(1, options.late_time / rate, 60).astype(int))
    params = draw(0, options.late_width, x.shape[1])
    run = training.train(
        NETWORKS["ReLU"], params, squared_error, x, y, optax.sgd(rate), steps=int(steps[-1]), record=steps,
        l2=options.late_l2, metrics={"fx": lambda now: now.fx}, store=options.store, progress="Figure 5c",
    )  # fmt: skip
    curves = {"trained": run.data["fx"].to_numpy()}
    curves |= predicted("ReLU", params, x, y, options.late_l2, steps * rate, options.restarts)
    losses = show(ax, out, "Figure 5c", steps * rate, curves, y)
    ax.set_title(
        f"Figure 5c: ReLU, n = {options.late_width}, λ = {options.late_l2:g}, {options.late_samples} samples"
    )
    ends = {name: float(loss[-1]) for name, loss in losses.items()}
    out.claim(
        "the late loss of Figure 5c is predicted by the next order",
        expected="within 25 % of the trained network's at the end",
        measured=", ".join(f"{name} {loss:.3g}" for name, loss in ends.items()),
        holds=abs(ends[NEXT] / ends["trained"] - 1) < 0.25,
        ours=True,
    )


def show(ax, out: report.Report, name: str, times, curves: dict, y) -> dict:
    """Training losses of what `curves` holds."""
    losses = {label: 0.5 * np.sum((np.asarray(f) - y) ** 2, (1, 2)) for label, f in curves.items()}
    for (label, loss), style in zip(losses.items(), ("k-", "C1--", "C0:"), strict=True):
        ax.loglog(times, loss, style, lw=2.5 if label == NEXT else 1.5, label=label)
    ax.set(xlabel="time t", ylabel="training loss ½Σ(f − y)²")
    ax.legend(fontsize=8)
    out.numbers[name] = {"t": times, "loss": losses}
    return losses


if __name__ == "__main__":
    report.cli(main, Options(), PAPER)
