"""Figure 9 of the periodic paper: sequences with any β_t in [a, b] end in [√(a/α), √(b/α)].

x ← (1 − α)x + β_t/x with β_t uniform in [a, b], beside the two sequences with β = a and β = b.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from ntkdecay import report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """The paper's setting, and how many sequences test the claims."""

    alpha: report.Positive = 0.1
    """α."""
    least: report.Positive = 1.0
    """a."""
    most: report.Positive = 10.0
    """b."""
    x_0: report.Positive = 30.0
    """Where the sequence of the picture starts, above √(b/α)."""
    steps: report.Count = 100
    """How far the picture goes; the claims are measured over ten times as many."""
    sequences: report.Count = 4096
    """Random sequences with starts from 0.01 to 100 times √(b/α)."""
    seed: report.Seed = 0
    """Of the random β."""


def main(options: Options) -> None:
    """Figure 9: convergence to an interval, and its rate."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("periodic", "fig9", options)
    alpha, least, most = options.alpha, options.least, options.most
    low, high = (float(end) for end in si.attracting_interval(least, most, alpha))

    keys = jax.random.split(jax.random.key(options.seed))
    shape = (10 * options.steps, options.sequences)
    beta = jax.random.uniform(keys[0], shape, minval=least, maxval=most)
    start = high * 10 ** jax.random.uniform(keys[1], shape[1:], minval=-2.0, maxval=2.0)
    start = start.at[0].set(options.x_0)
    x = np.asarray(si.sequence(start, beta, alpha))
    out.numbers = {"interval": (low, high), "x of the picture": x[: options.steps + 1, 0]}

    last = x[-options.steps :]
    out.claim(
        "sequences end in [√(a/α), √(b/α)], as α√b/(1 − α) <= √a",
        expected=f"from {low:.3f} to {high:.3f} in the last {options.steps} steps, whatever the start",
        measured=f"{last.min():.3f} to {last.max():.3f} over {options.sequences} sequences",
        holds=low <= last.min() and last.max() <= high,
    )
    above = x[:, x[0] > high]
    arrived = np.argmax(above <= high, axis=0)
    t = jnp.arange(len(x))[:, None]
    bound = np.asarray(si.rate_bounds(t, above[0], least, most, alpha).upper)
    out.claim(
        "from above they come at least as fast as (1 − α)^t, in time of order 1/α",
        expected="x_t below the bound of Corollary 2 at every step",
        measured=f"largest x_t over the bound {np.max(above / bound):.6f}; inside after {arrived.max()} steps at most, "
        f"{alpha * arrived.max():.1f}/α",
        holds=np.all(above <= bound * (1 + 1e-12)) and np.all(above[-1] <= high),
    )
    inside = (low <= x) & (x <= high)
    left = np.sum(inside[:-1] & ~inside[1:])
    out.claim(
        "once inside they stay",
        expected="no step out of the interval",
        measured=f"{left} of {np.sum(inside[:-1])} steps",
        holds=left == 0,
    )

    figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    ends = si.bounding_sequences(options.x_0, least, most, alpha, options.steps)
    ax.plot(ends.upper, ls="--", color="tab:red", label="β = b")
    ax.plot(x[: options.steps + 1, 0], color="black", lw=1, label="β uniform in [a, b]")
    ax.plot(ends.lower, ls="--", color="tab:blue", label="β = a")
    ax.axhspan(low, high, color="tab:green", alpha=0.15, label="[√(a/α), √(b/α)]")
    ax.set(xlabel="step t", ylabel="x", title=f"α = {alpha}, a = {least:g}, b = {most:g}")
    ax.legend()
    out.save(figure)


if __name__ == "__main__":
    report.cli(main, Options(), Options())
