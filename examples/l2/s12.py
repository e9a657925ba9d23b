"""Figure S12 of the L2 paper: the scale of initialization σ_w matters early, and is washed out late.

The wide residual network of Figure 1a with several σ_w: test accuracy in time, and early and late against σ_w.
"""

import dataclasses

import matplotlib.pyplot as plt
from _sweeps import colors, plain
from _wrn import DESK, PAPER, Setting, schedule, train

from ntkdecay import optimizers, report


@dataclasses.dataclass(frozen=True)
class Options(Setting):
    """Sizes of the experiment."""

    w_std: tuple[report.Positive, ...] = (0.5, 1.0, 2.0, 4.0)
    """σ_w."""
    l2: tuple[report.Positive, ...] = (1e-3, 2e-3)
    """λ."""
    scale: report.Positive = 0.4
    """a of T = a/λ epochs."""
    early: report.Positive = 0.01
    """The early time, in units of T."""


DESK_OPTIONS = Options(**DESK, w_std=(0.35, 0.7, 1.4, 2.8, 5.6), l2=(3e-4, 1e-3), scale=0.2)
PAPER_OPTIONS = Options(**PAPER, l2=(2e-4, 5e-4, 2e-3), scale=0.1)


def main(options: Options) -> None:
    """Figure S12: test accuracy for several σ_w, early and late."""
    out = report.Report("l2", "s12", options, data=options.words)

    def epochs(l2):
        return options.scale / l2

    def sgd(l2):
        rate = schedule(options, epochs(l2))
        return optimizers.sgd(rate, l2=l2, momentum=options.momentum)

    grid = {"w_std": options.w_std, "l2": options.l2}
    run = train(options, grid, epochs, "σ_w", sgd)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    l2, accuracy = options.l2[0], run["test_accuracy"]
    for color, w_std in zip(colors(len(options.w_std)), options.w_std, strict=True):
        line = accuracy.sel(w_std=w_std, l2=l2).dropna("step")[1:]
        axes[0].semilogx(line["step"] / options.epoch, line, color=color, label=f"σ_w = {w_std:g}")
    axes[0].set(xlabel="epochs", ylabel="test accuracy", title=f"(a) λ = {l2:g}, T = {epochs(l2):.0f} epochs")  # fmt: skip
    apart = {}
    for i, l2 in enumerate(options.l2):
        member = accuracy.sel(l2=l2).dropna("step")
        early = member.sel(step=options.early * epochs(l2) * options.epoch, method="nearest")
        for line, when, style in ((early, "early", ":"), (member[:, -1], "late", "-")):
            label = f"λ = {l2:g}, {when}"
            axes[1].semilogx(options.w_std, line, color=f"C{i}", ls=style, marker=".", label=label)
            apart[f"{when}, λ = {l2:g}"] = float(line.max() - line.min())
    axes[1].set(xlabel="σ_w", ylabel="test accuracy", title=f"(b) at {options.early:g} T and T, T = {options.scale:g}/λ epochs")  # fmt: skip
    axes[1].set_xticks(options.w_std, [f"{w_std:g}" for w_std in options.w_std])
    axes[1].minorticks_off()
    for ax in axes:
        ax.legend(fontsize="small")
    out.numbers |= {"test accuracy": plain(accuracy), "apart over σ_w": apart}
    for l2 in options.l2:
        early, late = apart[f"early, λ = {l2:g}"], apart[f"late, λ = {l2:g}"]
        out.claim(
            f"λ = {l2:g}: σ_w matters early and is washed out late",
            expected="test accuracies over σ_w more than 5 % apart early, and less than 2 % at the end",
            measured=f"{100 * early:.1f} % and {100 * late:.1f} %",
            holds=early > 0.05 and late < 0.02,
        )
    out.save(figure)


if __name__ == "__main__":
    report.cli(main, Options(), PAPER_OPTIONS, desk=DESK_OPTIONS)
