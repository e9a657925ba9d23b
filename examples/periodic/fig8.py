"""Figure 8 of the periodic paper: one step of the recurrence behind squared norms.

γ ← φ(γ) = (1 − α)γ + α/γ is x ← (1 − α)x + β/x in units of its stationary point, whatever β.
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np

from ntkdecay import report
from ntkdecay import scale_invariant as si


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """The map."""

    alpha: report.Positive = 0.1
    """α, in (0, 1/2); 2ηλ for squared norms."""
    points: report.Count = 200_001
    """Where φ is evaluated, from 0.01 to 3."""


def main(options: Options) -> None:
    """Figure 8: where φ falls, rises and crosses 1."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("periodic", "fig8", options)
    alpha = options.alpha
    gamma = np.linspace(0.01, 3, options.points)
    phi = np.asarray(si.phi(gamma, alpha))
    special = {
        "α/(1 − α)": float(si.hop_threshold(alpha)),
        "√(α/(1 − α))": float(si.turning_point(alpha)),
        "2√(α(1 − α))": float(si.least_value(alpha)),
    }
    hop, turn, least = special.values()
    out.numbers = {"alpha": alpha, **special}

    crossings = gamma[1:][np.diff(phi > 1)]
    out.claim(
        "φ(γ) = 1 at γ = α/(1 − α) and γ = 1 alone (13c)",
        expected=f"crossings at {hop:.4f} and 1",
        measured=", ".join(f"{one:.4f}" for one in crossings),
        holds=crossings.size == 2 and np.allclose(crossings, [hop, 1], atol=1e-4),
    )
    lowest = gamma[np.argmin(phi)]
    out.claim(
        "its least value is 2√(α(1 − α)), at √(α/(1 − α)) (13g)",
        expected=f"{least:.4f} at {turn:.4f}",
        measured=f"{phi.min():.4f} at {lowest:.4f}",
        holds=abs(phi.min() - least) < 1e-4 and abs(lowest - turn) < 1e-3,
    )
    slope, ratio = np.gradient(phi, gamma)[1:-1], gamma[1:-1]
    out.claim(
        "above 1 it falls towards 1 by a share between α and 2α of the distance",
        expected=f"φ' between {1 - 2 * alpha:g} and {1 - alpha:g} for γ > 1",
        measured=f"φ' from {slope[ratio > 1].min():.4f} to {slope[ratio > 1].max():.4f}",
        holds=slope[ratio > 1.0001].min() > 1 - 2 * alpha and slope.max() < 1 - alpha,
    )

    figure, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    ax.plot(gamma, phi, label="φ(γ)")
    ax.plot(gamma, gamma, color="grey", lw=0.8, label="γ")
    ax.axhline(1, color="grey", lw=0.8, ls=":")
    for (name, at), height in zip(special.items(), (1.0, least, least), strict=True):
        if name.startswith("2"):
            ax.axhline(at, color="tab:green", lw=0.8, ls="--", label=f"least value {name}")
        else:
            ax.plot(at, height, "o", label=f"γ = {name}")
    ax.set(xlabel="γ at step t", ylabel="γ at step t + 1", title=f"α = {alpha}", ylim=(0, 3))
    ax.legend()
    out.save(figure)


if __name__ == "__main__":
    report.cli(main, Options(), Options())
