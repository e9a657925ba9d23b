"""Beyond the output-scale paper: what L2 does to the lazy limit.

Gradient descent on the loss (3) plus λ/2 ‖θ‖² with λ = Λ, Λ/α and Λ/α², a two-layer ReLU network of degree
k = 2, against its lazy limit: `predict.sgd` with the kernel at θ_0. With λ ∝ α⁰ L2 shrinks f_0 under a
centring that does not follow, and F = −α(1 − a²) f_0 + … grows like α: nothing is lazy, nothing is learned. With
Λ/α a drift −2Λt f_0 stays; with Λ/α² L2 is lost.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from _plane import (
    DESK_SIZES,
    SIZES,
    Options,
    above,
    described,
    every,
    explain,
    images,
    loss,
    near,
    powers,
)

from ntkdecay import kernels, output_scale, predict, report, stax, training

LABEL = {0: "λ = Λ", 1: "λ = Λ/α", 2: "λ = Λ/α²"}
DEGREE, LAZY = 2, 1e4
"""From this α on hardly a hidden unit changes its sign on a sample, and F − F_lazy is a power of α."""
WHY = {
    "the network tends to its lazy limit like 1/α where λ falls with α": "Size: of more units on more samples some change their sign up to α = 1e4, "
    "which sets the distance there; beyond it falls as 1/α"
}


ALPHAS = powers(0, 6)


@dataclasses.dataclass(frozen=True)
class Scales(Options):
    """Sizes of the experiment."""

    samples: report.Count = 100
    """Training samples."""
    width: report.Count = 256
    """Hidden units."""
    steps: report.Count = 300
    """Steps on all samples."""
    learning_rate: report.Positive = 1.0
    """η; time is step × η."""
    l2: report.Positive = 3e-3
    """Λ."""
    alphas: report.Ascending[report.Positive] = ALPHAS
    """α, ascending."""


QUICK = Scales()
DESK = dataclasses.replace(Scales(**DESK_SIZES, steps=500), samples=100, width=512)
PAPER = dataclasses.replace(
    Scales(**SIZES), samples=500, steps=1000, l2=1e-3, alphas=powers(0, 6, 0.5)
)


def main(options: Scales) -> None:
    """L2 with λ ∝ α⁰, 1/α and 1/α² on the way to the lazy limit, trained and predicted."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report("output_scale", "l2", options, data=described(options))
    net = stax.serial(
        stax.Dense(options.width, b_std=None), stax.Relu(), stax.Dense(10, b_std=None)
    )
    alpha = np.array(options.alphas)
    runs = trained(options, net)
    limit = np.stack([lazy_limit(options, net, seed) for seed in options.seeds], axis=2)
    apart = rms(runs["fx"].to_numpy() - limit) / rms(limit)
    y = images(options).y
    expected = np.array([[[loss(f, y, 1.0) for f in one] for one in row] for row in limit]).mean(2)
    panels = {
        "movement": ("parameter movement ‖θ − θ₀‖ / ‖θ₀‖", None),
        "output": ("RMS of F on training samples", rms(limit).mean(2)),
        "loss": ("training loss α²L", expected),
        "test_accuracy": ("test accuracy", None),
        "apart": ("RMS of F − lazy limit, relative", None),
    }
    each = {name: runs[name].to_numpy() for name in ("movement", "loss", "test_accuracy")}
    each |= {"output": rms(runs["fx"].to_numpy()), "apart": apart}
    measured = {name: values.mean(2) for name, values in each.items()}
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained")
    for ax, (name, (title, theory)) in zip(axes.flat, panels.items(), strict=False):
        for power, label in LABEL.items():
            ax.semilogx(alpha, measured[name][power], "o", color=f"C{power}", label=label)
            if theory is not None:
                ax.semilogx(alpha, theory[power], color=f"C{power}", lw=1)
        if name != "test_accuracy":
            ax.set_yscale("log")
        ax.set(xlabel="output scale α", ylabel=title)
    axes[0, 1].plot([], [], color="grey", lw=1, label="lazy limit, predicted")
    axes[1, 2].axis("off")
    axes[1, 2].legend(*axes[0, 1].get_legend_handles_labels(), loc="center", fontsize="large")
    figure.suptitle(
        f"gradient descent on (3) + λ/2 ‖θ‖², ReLU network; Λ = {options.l2:g}, η = {options.learning_rate:g}; {described(options)}"
    )
    out.numbers |= {"alpha": alpha, "power of 1/α in λ": list(LABEL), **measured}
    out.numbers["predicted"] = {"output": rms(limit).mean(2), "loss": expected}
    compare(out, options, alpha, measured, each["test_accuracy"])
    explain(out, WHY)
    out.save(figure)


def rms(fx) -> np.ndarray:
    """Root of the mean square over samples and outputs, the last two axes."""
    return np.sqrt(np.mean(np.square(fx), axis=(-2, -1)))


def trained(options: Scales, net):
    """Every power of 1/α in λ and every α, over (power, alpha, seed), after the last step."""
    init, apply_fn, _ = net
    data = images(options)

    def start(key):
        params = init(key, data.x.shape)[1]
        return jax.tree.map(lambda p: p.astype(jnp.float64), params)

    def centred(params, x, params_0, alpha):
        return output_scale.centred(apply_fn, params_0, alpha)(params, x)

    def optimizer(alpha, power):
        decay = optax.add_decayed_weights(options.l2 / alpha**power)
        return optax.chain(decay, optax.sgd(options.learning_rate))

    def movement(snapshot):
        return output_scale.parameter_movement(snapshot.params, snapshot.params_0)

    movement.needs_params_0 = True
    return training.sweep(
        start,
        centred,
        loss,
        optimizer,
        {"power": list(LABEL), "alpha": options.alphas, "seed": options.seeds},
        data.x,
        data.y,
        steps=options.steps,
        record=[],
        x_test=data.x_test,
        y_test=data.y_test,
        metrics={
            "loss": lambda s: s.loss_fn(s.fx, s.data.y) * s.cell["alpha"] ** 2,
            "fx": lambda s: s.fx,
            "movement": movement,
            "test_accuracy": "test_accuracy",
        },
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress="power, α",
    ).isel(step=-1)


def lazy_limit(options: Scales, net, seed: int) -> np.ndarray:
    """F on the training samples, (powers, α, n, 10), of the network linearized around aθ_0."""
    init, apply_fn, _ = net
    data = images(options)
    key = training.init_key(seed)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), init(key, data.x.shape)[1])
    f_0 = apply_fn(params, data.x)
    kernel = kernels.empirical_ntk(apply_fn, params, data.x, trace_axes=())

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None))
    def scaled(alpha, l2, kernel):
        predict_fn = predict.sgd(
            output_scale.lazy_loss(output_scale.soft_hinge, alpha, f_0),
            kernel,
            data.y,
            l2=l2,
            degree=DEGREE,
            learning_rate=options.learning_rate,
            trace_axes=(),
        )
        return alpha * (predict_fn(options.steps, f_0) - f_0)

    alphas, each = jnp.asarray(options.alphas), jnp.asarray(list(LABEL))[:, None]
    l2 = options.l2 / alphas[None] ** each
    found = scaled(jnp.tile(alphas, len(LABEL)), l2.ravel(), kernel)
    return np.asarray(found).reshape(len(LABEL), len(alphas), *f_0.shape)


def compare(out: report.Report, options: Scales, alpha, measured: dict, accuracy) -> None:
    """The claims of `ntkdecay.output_scale`'s derivation; accuracy: (power, alpha, seed)."""
    lazy = alpha >= LAZY

    def exponents(name):
        if np.count_nonzero(lazy) < 2:
            return np.full(len(LABEL), np.nan)
        logs = np.log(measured[name][:, lazy]).T
        return np.polyfit(np.log(alpha[lazy]), logs, 1)[0]

    def as_expected(found, expected):
        return every(near(f, e, 0.05) for f, e in zip(found, expected, strict=True))

    moved, grown = exponents("movement"), exponents("output")
    out.claim(
        "λ ∝ α⁰ undoes the lazy limit: parameters move by a fixed share, at any α",
        expected="exponents of the movement in α: 0 with Λ, −1 with Λ/α and Λ/α²",
        measured=", ".join(f"{e:.3f}" for e in moved),
        holds=as_expected(moved, [0, -1, -1]),
        ours=True,
    )
    share = -np.expm1(options.steps * np.log1p(-options.learning_rate * options.l2))
    out.claim(
        "that share is what L2 alone takes",
        expected=f"1 − (1 − ηΛ)^steps = {share:.4f}",
        measured=f"{measured['movement'][0, -1]:.4f} at α = {alpha[-1]:g}",
        holds=abs(measured["movement"][0, -1] - share) < 0.01,
        ours=True,
    )
    out.claim(
        "F follows: it grows like α with Λ, and has a limit with Λ/α and Λ/α²",
        expected="exponents of F's RMS in α: 1, 0, 0",
        measured=", ".join(f"{e:.3f}" for e in grown),
        holds=as_expected(grown, [1, 0, 0]),
        ours=True,
    )
    apart = exponents("apart")
    out.claim(
        "the network tends to its lazy limit like 1/α where λ falls with α",
        expected="exponents of the distance in α: −1 with Λ/α and Λ/α²",
        measured=", ".join(f"{e:.3f}" for e in apart[1:])
        + f"; with Λ {apart[0]:.3f} of an F that grows",
        holds=as_expected(apart[1:], [-1, -1]),
        ours=True,
    )
    none, drift, lost = accuracy[:, -1]
    out.claim(
        "with Λ nothing is learned at large α; with Λ/α the drift costs something, with Λ/α² nothing",
        expected="test accuracy below 0.25, then above it and below the last, by two standard errors",
        measured=", ".join(f"{a.mean():.3f}" for a in (none, drift, lost))
        + f" at α = {alpha[-1]:g}",
        holds=every((above(0.25 - none), above(drift - 0.25), above(lost - drift))),
        ours=True,
    )


if __name__ == "__main__":
    report.cli(main, QUICK, PAPER, desk=DESK)
