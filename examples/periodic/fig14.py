"""Figure 14 of the periodic paper: x²/(x² + y²) with and without weight decay, and whether it is chaos.

Gradient descent from (0.01, 1) with η = 1, as there; λ is not given there. Below, the setting of
Figure 5a of the intrinsic learning rate's paper: two nearby starts, η = 0.1, λ = 0.5.
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
    """The runs."""

    start: tuple[report.Positive, report.Positive] = (0.01, 1.0)
    """(x_0, y_0)."""
    learning_rate: report.Positive = 1.0
    """η."""
    l2: report.Positive = 0.1
    """λ of the run with decay."""
    steps: report.Count = 2000
    """Steps of each run."""
    shown: report.Count = 150
    """Steps in the picture of periods."""
    apart: report.Positive = 1e-10
    """Relative distance of the two nearby starts in x."""
    exponent_steps: report.Count = 200_000
    """Steps over which the Lyapunov exponents are averaged."""


def main(options: Options) -> None:
    """Figure 14: convergence without decay, periods and chaos with it."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("periodic", "fig14", options)
    figure, axes = plt.subplots(3, 2, figsize=(11, 10), layout="constrained")
    without_decay(axes[0], out, options)
    with_decay(axes[1], out, options)
    nearby_starts(axes[2, 0], out, options)
    exponents(axes[2, 1], out, options)
    out.save(figure)


def without_decay(axes, out: report.Report, options: Options) -> None:
    """Top: λ = 0."""
    run = si.descend(jnp.array(options.start), options.learning_rate, 0.0, options.steps)
    rate = options.learning_rate / np.asarray(run.norm2)
    draw(axes, run, rate, "λ = 0")
    out.claim(
        "without weight decay the effective learning rate falls and the run converges",
        expected="η/ρ² never rises; the loss goes to 0",
        measured=f"largest rise {max(np.diff(rate).max(), 0):.0e}, from {rate[0]:.5f} to {rate[-1]:.5f}; "
        f"last loss {run.loss[-1]:.0e}; {si.periods(run).number} periods",
        holds=np.all(np.diff(rate) <= 0) and float(run.loss[-1]) < 1e-20,
    )


def with_decay(axes, out: report.Report, options: Options) -> None:
    """Middle: periods, the phases of some of them shaded."""
    eta, l2 = options.learning_rate, options.l2
    run = si.descend(jnp.array(options.start), eta, l2, options.steps)
    rate = eta / np.asarray(run.norm2)
    found = si.periods(run)
    shown = slice(0, options.shown)
    draw(
        axes,
        jax.tree.map(lambda a: a[shown], run),
        rate[shown],
        f"λ = {l2}; phases A blue, B green, C red",
    )
    borders = zip(found.start, found.low, found.destabilization, found.end, strict=True)
    for start, low, burst, end in borders:
        for (a, b), colour in zip(
            ((start, low), (low, burst), (burst, end)),
            ("tab:blue", "tab:green", "tab:red"),
            strict=True,
        ):
            if b < options.shown:
                for ax in axes:
                    ax.axvspan(a, b, color=colour, alpha=0.15, lw=0)
    lengths = found.lengths[1:]
    phases = {name: float(values[1:].mean()) for name, values in found.phases.items()}
    out.numbers["periods"] = {
        "number": found.number,
        "lengths": lengths,
        "mean length of the phases": phases,
        "loss": found.loss,
        "effective learning rate × 1/η": found.learning_rate,
    }
    out.claim(
        "with weight decay it does not converge: periods of three phases",
        expected="the loss jumps up again and again; phases A, B and C in each period",
        measured=f"{found.number} destabilizations in {options.steps} steps, one in {lengths.mean():.1f}; mean "
        + ", ".join(f"{name} {value:.1f}" for name, value in phases.items())
        + f" steps; loss from {np.median(found.loss[:, 1]):.0e} to {np.median(found.loss[:, 0]):.2f} (medians)",
        holds=found.number > 10 and all(value > 0 for value in phases.values()),
    )
    fixed = si.descend(jnp.array(options.start), eta / 2, l2, options.steps, fixed_norm=True)
    out.claim(
        "with a fixed norm there are no periods",
        expected="none",
        measured=f"{si.periods(fixed).number} in {options.steps} steps at η/ρ² = {eta / 2:g}",
        holds=si.periods(fixed).number == 0,
    )
    bounds = si.bounds(run, eta, l2)
    # ℓ and L over the whole run: Proposition 3 for all of it.
    slope = np.asarray(run.effective_gradient_norm)
    low, high = si.equilibrium_norm2(slope.min(), slope.max(), eta, l2, exact=True)
    late = np.asarray(run.norm2)[options.steps // 2 :]
    out.numbers["bounds"] = {"share inside": bounds.attrs["share_inside"], "norm2": (low, high)}
    out.claim(
        "the squared norm stays in the bounds that its effective gradients allow (Proposition 3, A.7)",
        expected=f"from {low:.1e} to {high:.1e}",
        measured=f"{late.min():.3f} to {late.max():.3f}",
        holds=low <= late.min() and late.max() <= high,
    )


def draw(axes, run: si.Trajectory, rate: np.ndarray, title: str) -> None:
    """Loss on the left; effective learning rate and gradient on the right."""
    axes[0].semilogy(run.loss, color="black", lw=1)
    axes[0].set(xlabel="step", ylabel="x²/(x² + y²)", title=title)
    axes[1].plot(rate, lw=1, label="effective learning rate η/ρ²")
    axes[1].plot(run.effective_gradient_norm, lw=1, label="effective gradient norm")
    axes[1].set(xlabel="step", title=title)
    axes[1].legend(fontsize="small")


def nearby_starts(ax, out: report.Report, options: Options) -> None:
    """Bottom left: two starts that differ in the tenth digit part until they have nothing in common."""
    x, y = options.start
    starts = jnp.array([[x, y], [x * (1 + options.apart), y]])
    runs = jax.vmap(lambda z: si.descend(z, 0.1, 0.5, 600).z)(starts)
    apart = np.linalg.norm(np.asarray(runs[0] - runs[1]), axis=1)
    exponent = float(si.lyapunov_exponent(starts[0], 0.1, 0.5, options.exponent_steps))
    t = np.arange(apart.size)
    first, last = 20, int(np.argmax(apart > 1e-3))
    parting = last - first > 1  # not before they are followed, nor after the record's end
    slope = np.polyfit(t[first:last], np.log(apart[first:last]), 1)[0] if parting else np.nan
    ax.semilogy(t, apart, label="distance of the two runs")
    guide = np.exp(exponent * (t - last)) * apart[last]
    ax.semilogy(t[:last], guide[:last], "--", label=f"exponent {exponent:.3f} per step")
    ax.set(
        xlabel="step", title="two nearby starts, η = 0.1, λ = 0.5", ylim=(apart[1:].min() / 10, 10)
    )
    ax.legend()
    out.numbers["nearby starts"] = {"slope": slope, "Lyapunov exponent": exponent}
    out.claim(
        "with weight decay the dynamics are chaotic: nearby trajectories diverge (Figure 5a of intrinsic_lr)",
        expected="a positive Lyapunov exponent, and two runs that part at that rate",
        measured=f"exponent {exponent:.3f} per step, the runs part at {slope:.3f}; {apart[-100:].max():.2f} apart at the end",
        holds=exponent > 0.01 and 0.5 < slope / exponent < 2 and apart[-100:].max() > 0.1
        if parting
        else None,
    )


def exponents(ax, out: report.Report, options: Options) -> None:
    """Bottom right: Lyapunov exponents for several λ and starts at η = 1, which is any η by Proposition 4."""
    products = np.array([0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15])
    starts = np.array([options.start, (0.1, 2.0), (0.5, 1.0), (0.03, 3.0), (1.0, 5.0)])
    found = jax.vmap(
        lambda l2: jax.vmap(
            lambda z: si.lyapunov_exponent(z, 1.0, l2, options.exponent_steps // 4, burn_in=2000)
        )(jnp.asarray(starts))
    )(jnp.asarray(products))
    for column, start in zip(np.asarray(found).T, starts, strict=True):
        ax.plot(products, column, "o-", ms=4, lw=1, label=f"from ({start[0]:g}, {start[1]:g})")
    ax.axhline(0, color="grey", lw=0.8)
    ax.set(xlabel="ηλ", ylabel="Lyapunov exponent per step", title="η = 1")
    ax.legend(fontsize="small")
    out.numbers["exponents"] = {"products": products, "starts": starts, "exponents": found}
    regular = np.sum(np.asarray(found) < 1e-3)
    out.claim(
        "training is chaotic with any learning rate (Section 4 of intrinsic_lr)",
        expected="a positive exponent at every ηλ, from every start",
        measured=f"{regular} of {found.size} are below 0.001, those from {options.start} at ηλ = "
        + ", ".join(f"{p:g}" for p, one in zip(products, found[:, 0], strict=True) if one < 1e-3)
        + f"; the largest is {float(jnp.max(found)):.3f}"
        + (
            ". The paper: where the exponent is 0 the run has settled on a regular orbit"
            if regular
            else ""
        ),
        holds=regular == 0,
    )


if __name__ == "__main__":
    report.cli(main, Options(), Options())
