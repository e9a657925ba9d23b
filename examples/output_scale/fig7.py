"""Figures 7, 8 and 9 of the output-scale paper: how many hidden features keep their sign.

Figure 7: sign consistency over the plane of η and α, on the test samples. Figure 8: its colours on bars as
high as the test accuracy. Figure 9: at the near-best η of each α. The plane is that of fig3.py: with the same
``--store`` it is trained once.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from _plane import (
    DESK_PLANE,
    GD,
    MARKS,
    MODIFIED,
    PAPER_PLANE,
    RMSPROP,
    PlaneOptions,
    described,
    draw,
    explain,
    near_best,
    plain,
    planes,
)

from ntkdecay import report

SMALL, LARGE = 1e-2, 1e2
"""α up to the first is active training, from the second on lazy."""
CHANGE = "Figure 9: at small α and the best η, hidden features change more under modified RMSProp than under gradient descent"
FEW = "Size: at small α gradient descent has one or two near-best η, whose consistencies are as far apart as those of the optimizers"


def main(options: PlaneOptions) -> None:
    """Figures 7 to 9: consistency of the hidden features' signs over the (η, α) plane."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("output_scale", "fig7", options, data=described(options))
    found = planes(options)
    figure = plt.figure(figsize=(13, 8), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    for i, (name, plane) in enumerate(found.items()):
        ax = figure.add_subplot(grid[0, i])
        draw(ax, plane, plane["sign_consistency"], f"Fig. 7: {name}", vmin=0.5, vmax=1)
        if i:
            ax.set_ylabel("")
        out.numbers[name] = plain(
            plane, ("sign_consistency", "test_accuracy", "trained", "diverged", "lost")
        )
    for i, name in enumerate((GD, MODIFIED)):
        bars(figure.add_subplot(grid[1, i], projection="3d"), found[name], f"Fig. 8: {name}")
    ax = figure.add_subplot(grid[1, 2])
    signs = {name: at_near_best(plane) for name, plane in found.items()}
    for name, values in signs.items():
        mean, least, first = (values[which] for which in ("mean", "least", "at the smallest η"))
        (line,) = ax.semilogx(values["alpha"], mean, marker="o", ms=4, label=name)
        ax.semilogx(values["alpha"], first, color=line.get_color(), ls=":", lw=1)
        ax.fill_between(values["alpha"], least, first, color=line.get_color(), alpha=0.15)
        out.numbers[f"{name}: sign consistency at the near-best η"] = {
            str(which): v.to_numpy() for which, v in values.variables.items()
        }
    ax.set(
        xlabel="α", ylabel="sign consistency", title="Fig. 9: mean over the near-best η of each α"
    )
    ax.plot([], [], color="grey", ls=":", lw=1, label="at the smallest of them")
    ax.legend()
    figure.colorbar(
        figure.axes[0].collections[0], ax=figure.axes, label="sign consistency", shrink=0.5
    )
    figure.suptitle(f"{described(options)}; {MARKS}")
    compare(out, found, signs)
    explain(out, {CHANGE: FEW})
    out.save(figure)


def at_near_best(plane: xr.Dataset) -> xr.Dataset:
    """Sign consistency at the near-best η of each α: the mean, the least, and that at the smallest η."""
    chosen = near_best(plane)
    rates = plane["learning_rate"].where(chosen)
    signs = plane["sign_consistency"].where(chosen)
    first = signs.where(rates == rates.min("learning_rate")).max("learning_rate")
    return xr.Dataset(
        {
            "mean": signs.mean("learning_rate"),
            "least": signs.min("learning_rate"),
            "at the smallest η": first,
        }
    )


def bars(ax, plane, title: str) -> None:
    """Bars over (α, η), as high as the test accuracy, coloured by sign consistency."""
    alpha, rate = (np.log10(plane[name].to_numpy()) for name in ("alpha", "learning_rate"))
    x, y = (mesh.ravel() for mesh in np.meshgrid(alpha, rate))
    cells = plane[["test_accuracy", "sign_consistency"]]
    cells = cells.where(plane["trained"] & ~plane["diverged"])
    height, signs = (
        cells[name].transpose("learning_rate", "alpha").to_numpy().ravel()
        for name in ("test_accuracy", "sign_consistency")
    )
    kept = np.isfinite(height)
    color = plt.get_cmap("viridis")(np.clip(2 * signs - 1, 0, 1))[kept]
    width, depth = 0.8 * np.diff(alpha).mean(), 0.8 * np.diff(rate).mean()
    ax.bar3d(x[kept], y[kept], 0, width, depth, height[kept], color=color)
    ax.set(xlabel="log₁₀ α", ylabel="log₁₀ η", zlabel="test accuracy", title=title)
    ax.view_init(elev=35, azim=-120)
    ax.set_box_aspect(None, zoom=0.85)


def compare(out: report.Report, found: dict, signs: dict) -> None:
    """The drop of sign consistency at small α."""
    for name in (GD, MODIFIED):
        plane = found[name]
        chosen = plane["sign_consistency"].where(near_best(plane))
        small = float(chosen.where(plane["alpha"] <= SMALL).mean())
        large = float(chosen.where(plane["alpha"] >= LARGE).mean())
        out.claim(
            f"Section 4.2.3: sign consistency is small where η and α are small and accuracy is high, {name}",
            expected=f"near-best cells at α ≤ {SMALL:g} below those at α ≥ {LARGE:g}",
            measured=f"{small:.3f} against {large:.3f}, a drop of {large - small:.3f}",
            holds=small < large - 0.05,
        )
    gap = {
        name: (signs[GD] - signs[name])["mean"].where(signs[GD]["alpha"] <= SMALL, drop=True)
        for name in (RMSPROP, MODIFIED)
    }
    out.claim(
        CHANGE,
        expected=f"mean consistency over the near-best η lower at every α ≤ {SMALL:g}",
        measured="; ".join(
            f"lower by {', '.join(f'{v:.3f}' for v in values.to_numpy())} with {name}"
            for name, values in gap.items()
        )
        + f" at α = {', '.join(f'{a:g}' for a in gap[MODIFIED]['alpha'].to_numpy())}",
        holds=bool((gap[MODIFIED] > 0).all()) if gap[MODIFIED].size else None,
        revised="the near-best η are an interval, of which the smallest alone was compared",
    )
    lazy = {
        n: float(s["at the smallest η"].where(s["alpha"] >= LARGE).min()) for n, s in signs.items()
    }
    out.claim(
        "lazy training keeps the features, with every optimizer",
        expected=f"consistency above 0.99 at the smallest near-best η of each α ≥ {LARGE:g}",
        measured=", ".join(f"{n} at least {v:.4f}" for n, v in lazy.items()),
        holds=None if np.isnan(list(lazy.values())).any() else min(lazy.values()) > 0.99,
        ours=True,
    )


if __name__ == "__main__":
    report.cli(main, PlaneOptions(), PAPER_PLANE, desk=DESK_PLANE)
