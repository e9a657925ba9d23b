r"""Figures 6 and 7 of the intrinsic learning rate's paper: averages of weights along a run, and how far apart they are.

.. math:: E\|W_T - W_{T+\Delta}\|^2 = 2 E\|W\|^2 (1 - e^{-\lambda_e\Delta})

is what (5) gives at equilibrium if the gradient never pulls back: then W_{T+Δ} has the mean e^{−λ_eΔ} W_T. In a bowl
(Ornstein-Uhlenbeck) the distance would stop growing. Figure 6 is plain SGD, Figure 7 has momentum.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from _runs import CIFAR, DESK, EPOCH, Options, images, network, run, settled
from _schedules import in_order, schedule
from jax.flatten_util import ravel_pytree

from ntkdecay import report
from ntkdecay import scale_invariant as si
from ntkdecay.training import accuracy


@dataclasses.dataclass(frozen=True)
class Fig67(Options):
    """Sizes of the experiment."""

    seeds: report.Count = 4
    """Runs of each optimizer."""
    learning_rate: report.Positive = 0.4
    """η of plain SGD; with momentum it is 1 − β times as large."""
    l2: report.Positive = 0.005
    """λ."""
    momentum: report.Share = 0.9
    """β of Figure 7."""
    burn_in: report.Whole = 3000
    """Steps before the first weights that count; epoch 2000 in the paper."""
    end: report.Count = 9000
    """Steps of a run; epoch 8000."""
    snapshots: report.Count = 41
    """Weights that count."""


DESK_SIZES = Fig67(**DESK, snapshots=21)
PAPER = dataclasses.replace(
    Fig67(**CIFAR), seeds=2, l2=0.0005, burn_in=2000 * EPOCH, end=8000 * EPOCH, snapshots=25
)


class Averages(NamedTuple):
    """What averages of weights do, for each run."""

    single: np.ndarray
    """Test accuracy of each network, (seeds, n)."""
    pairs: np.ndarray
    """Of the average of two along a run, (seeds, n, n)."""
    across: np.ndarray
    """Of the average of two from different runs at the same step, (n, seeds − 1)."""
    running: np.ndarray
    """Of the average of all up to each (SWA), (seeds, n)."""
    distance2: np.ndarray
    """Squared distance of two along a run, (seeds, n, n)."""


def main(options: Fig67) -> None:
    """Figures 6 and 7: stochastic weight averaging at equilibrium, by plain SGD and with momentum."""
    in_order(options, *(["burn_in"] if options.burn_in else []), "end")
    outs = [report.Report("intrinsic_lr", name, options, data=options.words) for name in ("fig6", "fig7")]  # fmt: skip
    eta, betas = options.learning_rate, (0.0, options.momentum)
    schedules = [schedule((0,), (eta * (1 - beta),), (options.l2,)) for beta in betas]
    record = np.round(np.linspace(options.burn_in, options.end, options.snapshots)).astype(int)
    grid = run(
        options, schedules, options.end, record, momentum=betas, noise=False,
        metrics={"weights": lambda s: ravel_pytree(s.params)[0]}, progress="SGD and momentum",
    )  # fmt: skip
    for i, (out, beta) in enumerate(zip(outs, betas, strict=True)):
        intrinsic_lr = float(si.intrinsic_learning_rate(eta * (1 - beta), options.l2, beta))
        weights = grid["weights"][i].transpose("seed", "step", ...).to_numpy()
        found = averages(options, weights)
        figure, axes = plt.subplots(1, 3, figsize=(16, 4.6), layout="constrained")
        figure.suptitle(f"{'plain SGD' if not beta else f'momentum {beta:g}'}, λ_e = {intrinsic_lr:g}, {options.seeds} runs")  # fmt: skip
        accuracies(axes, out, record, found)
        distances(axes[2], out, record, weights, found, intrinsic_lr)
        out.save(figure)


def running_average(weights: jax.Array) -> jax.Array:
    """The mean of all weights up to each, (n, parameters)."""
    return jnp.cumsum(weights, 0) / jnp.arange(1, len(weights) + 1, dtype=weights.dtype)[:, None]


def averages(options: Options, weights: np.ndarray) -> Averages:
    """Test accuracies of averages of flat weights, (seeds, n, parameters)."""
    net, data = network(options), images(options)
    like: Any = jax.eval_shape(lambda: net.init(jax.random.key(0), data.x_train))
    unravel = ravel_pytree(jax.tree.map(lambda w: jnp.zeros(w.shape, w.dtype), like))[1]
    x_test, y_test = jnp.asarray(data.x_test), jnp.asarray(data.y_test)

    def tested(flat: jax.Array) -> jax.Array:
        return accuracy(net.apply(unravel(flat), x_test), y_test)

    @jax.jit
    def of_run(path: jax.Array):
        def with_all(one: jax.Array) -> tuple[jax.Array, jax.Array]:
            pair = jax.lax.map(lambda other: tested((one + other) / 2), path)
            return pair, jnp.sum((path - one[None]) ** 2, -1)

        pairs, distance2 = jax.lax.map(with_all, path)
        return jnp.diagonal(pairs), pairs, jax.lax.map(tested, running_average(path)), distance2

    single, pairs, running, distance2 = (
        np.array(values) for values in zip(*map(of_run, weights), strict=True)
    )
    mixed = jnp.asarray((weights[1:] + weights[:-1]) / 2)
    across = np.asarray(jax.jit(lambda w: jax.lax.map(lambda run: jax.lax.map(tested, run), w))(mixed)).T  # fmt: skip
    return Averages(single, pairs, across, running, distance2)


def by_lag(square: np.ndarray) -> np.ndarray:
    """Mean of (seeds, n, n) over pairs of each lag 0, …, n − 1, and over seeds."""
    size = square.shape[-1]
    return np.array([np.diagonal(square, lag, 1, 2).mean() for lag in range(size)])


def accuracies(axes, out: report.Report, record: np.ndarray, found: Averages) -> None:
    """Left: running average; middle: pairs against their lag."""
    size, lags = len(record), record - record[0]
    level = found.single.mean()
    for ax in axes[:2]:
        ax.axhline(level, color="C0", lw=1, label="single networks, mean")
    axes[0].plot(record, found.single.mean(0), "C0.", label="single networks")
    axes[0].plot(record, found.running.mean(0), "C1", label="average of all so far (SWA)")
    axes[0].set(xlabel="step", ylabel="test accuracy", title="averages along the run")
    pair = by_lag(found.pairs)
    axes[1].plot(lags[1:], pair[1:], "C1.-", label="two of one run")
    if found.across.size:
        axes[1].axhline(found.across.mean(), color="C3", ls="--", label="two of different runs")
    axes[1].set(xlabel="steps between the two", ylabel="test accuracy", title="averages of two")
    for ax in axes[:2]:
        ax.legend(fontsize="small")

    upper = np.triu_indices(size, 1)
    both = (found.single[:, :, None] + found.single[:, None, :]) / 2
    gain = (found.pairs - both)[:, *upper]
    last = found.running[:, -1] - found.single.mean(1)
    out.numbers |= {
        "step": record, "single": found.single.mean(0), "running average": found.running.mean(0), "pairs by lag": pair,
        "pairs of different runs": found.across.mean() if found.across.size else None,
    }  # fmt: skip
    out.claim(
        "the average of two networks of one run is better than each is alone",
        expected="a gain over the mean of the two, on average at every distance in time",
        measured=f"{100 * gain.mean():.2f} % on average; {100 * (pair[1:] - level).min():.2f} to {100 * (pair[1:] - level).max():.2f} % by distance, "
        f"{100 * np.mean(gain > 0):.0f} % of the pairs gain",
        holds=bool(np.all(pair[1:] > level)),
    )
    out.claim(
        "the more networks are averaged the better (SWA)",
        expected="the average of all above single networks and above the average of two, in the mean",
        measured=f"{100 * last.mean():.2f} % gained over single networks, {100 * gain.mean():.2f} % by two",
        holds=last.mean() > max(gain.mean(), 0),
    )
    if found.across.size:
        out.claim(
            "not so between runs from different initializations: the improvement is local",
            expected="their average below single networks",
            measured=f"{100 * found.across.mean():.1f} % after {100 * level:.1f} %",
            holds=found.across.mean() < level,
        )


def distances(
    ax, out: report.Report, record: np.ndarray, weights: np.ndarray, found: Averages, intrinsic_lr: float
) -> None:  # fmt: skip
    """Right: root mean square distance against the lag."""
    lags = (record - record[0]).astype(float)
    measured = np.sqrt(by_lag(found.distance2))
    norm2 = float(np.mean(np.sum(weights.astype(float) ** 2, -1)))
    free = np.sqrt(2 * norm2 * -np.expm1(-intrinsic_lr * lags))
    ax.plot(lags, measured, "C0.-", label="measured")
    ax.plot(lags, free, "k:", label="√(2‖w‖²(1 − exp(−λ_e Δ)))")
    ax.axhline(np.sqrt(norm2), color="grey", lw=0.8, ls="--", label="‖w‖")
    ax.set(xlabel="Δ, steps between the two", ylabel="‖w(T) − w(T + Δ)‖", title="distance")
    ax.legend(fontsize="small")
    # The longest lags have few pairs: one in four is left out.
    known = measured[1 : 3 * len(lags) // 4]
    half = known[len(known) // 2]
    there = settled(intrinsic_lr, record[0]) and intrinsic_lr * lags[len(known)] >= 1
    out.numbers["distance"] = {"lag": lags, "measured": measured, "without a pull": free, "‖w‖": np.sqrt(norm2)}  # fmt: skip
    out.claim(
        "the distance goes on growing, as it would not in a bowl",
        expected="larger at the end than half way, and growing in at least 90 % of the lags",
        measured=f"{known[-1] / half:.3f} times that half way, growing in {100 * np.mean(np.diff(known) > 0):.0f} % of the lags",
        holds=known[-1] > half and np.mean(np.diff(known) > 0) >= 0.9 if there else None,
    )
    out.claim(
        "it is of the size of the weights, so the weights stay correlated",
        expected="between half and √2 times ‖w‖ at the end; √2 ‖w‖ is no correlation",
        measured=f"{known[-1] / np.sqrt(norm2):.2f} ‖w‖; {np.median(known / free[1 : len(known) + 1]):.2f} times the distance without a pull",
        holds=0.5 < known[-1] / np.sqrt(norm2) < 0.99 * np.sqrt(2) if there else None,
    )


if __name__ == "__main__":
    report.cli(main, Fig67(), PAPER, desk=DESK_SIZES)
