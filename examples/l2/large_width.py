"""How correlation functions scale with width: measured, beside the exponents of the conjecture.

Theorem 1 of the L2 paper is what is left when T, the finite-width part of the kernel's velocity, vanishes.
Lemma 2 says so by counting powers of 1/n in cluster graphs; here they are measured over many initializations
of networks with two hidden layers, of ReLU. (Their E[Θ] is Θ∞ exactly where x = x'; its approach to Θ∞ is measured
on the erf, where numbers of mean zero take away the fluctuations, of order 1/√n, that would hide a shift of order 1/n.)
"""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from _parity import even_odd
from tqdm import tqdm

from ntkdecay import kernels, report, stax
from ntkdecay.power_counting import Correlation


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    widths: report.Ascending[report.Count] = (32, 64, 128, 256, 512)
    """Widths, ascending."""
    seeds: report.Count = 1024
    """Initializations of the widest network; narrower ones get more, by 1/width², up to 8 times as many."""
    samples: report.Count = 3
    """Training samples."""
    groups: report.Count = 32
    """Groups of initializations, left out one by one for the error bars."""
    at_a_time: report.Count = 64
    """Initializations in memory together, at width 512; inversely with the square of the width."""
    seed: report.Seed = 0
    """Seed of the initializations."""


PAPER = Options(
    preset="paper", widths=(64, 128, 256, 512, 1024, 2048, 4096, 8192), seeds=16384, at_a_time=16384
)

THETA, T = Correlation("m", "m"), Correlation("mn", "m", "n", "")


class Quantity(NamedTuple):
    """A quantity of the network, what of it is taken over initializations, and its exponent."""

    name: str
    of: str
    take: str
    exponent: Fraction


QUANTITIES = [
    Quantity("E[f²]", "f²", "mean", Correlation("", "").exponent),
    Quantity("E[Σ(∂∂f)²]", "hessian", "mean", Correlation("mn", "mn").exponent),
    Quantity("|E[Θ] − Θ∞|, erf", "Θ − Θ∞, erf", "mean", THETA.exponent - 1),
    Quantity("Var[Θ]", "Θ", "variance", (THETA * THETA).exponent - 1),
    Quantity("|E[T₀]|", "T", "mean", T.exponent),
    Quantity("E[∂∂∂f ∂f ∂f ∂f]", "third", "mean", Correlation("mnr", "m", "n", "r").exponent),
    Quantity("Var[T₀]", "T", "variance", (T * T).exponent),
]


def network(width: int, activation=stax.Relu):
    """Two hidden layers in NTK parameterization, without biases: 3-homogeneous if of ReLU."""
    hidden = [stax.Dense(width, 1.5, b_std=None), activation()]
    return stax.serial(*hidden, *hidden, stax.Dense(1, b_std=None))


def draw(key, width: int, x, activation) -> tuple[Callable[..., Any], Any]:
    init, apply_fn, _ = network(width, activation)
    return apply_fn, jax.tree.map(lambda p: p.astype(x.dtype), init(key, x.shape)[1])


def measure(key, width: int, x, y, limits: dict) -> dict:
    """The quantities of one network of each kind, averaged over pairs of samples."""
    key, relu_key, erf_key = jax.random.split(key, 3)
    apply_fn, params = draw(erf_key, width, x, stax.Erf)
    smooth = kernels.empirical_ntk(apply_fn, params, x)
    controls = fluctuations(params, x)
    apply_fn, params = draw(relu_key, width, x, stax.Relu)
    velocity = kernels.velocity(
        apply_fn, params, x, lambda fx: 0.5 * jnp.sum((fx - y) ** 2), 1.0, degree=3
    )
    theta = velocity.decay / (-2 * (3 - 1))

    def f(params):
        return apply_fn(params, x)[0, 0]

    def along(function, direction):
        return lambda p: jax.jvp(function, (p,), (direction,))[1]

    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)]
    product = along(jax.grad(f), treedef.unflatten(noise))(params)
    gradient = jax.grad(f)(params)
    return {
        "f²": f(params) ** 2,
        "hessian": sum(jnp.sum(p**2) for p in jax.tree.leaves(product)),
        "third": along(along(along(f, gradient), gradient), gradient)(params),
        "Θ": jnp.mean(theta / limits["relu"]),
        "Θ − Θ∞, erf": jnp.mean(smooth / limits["erf"] - 1),
        "controls": controls,
        "T": jnp.mean(velocity.t),
    }


def fluctuations(params, x) -> jax.Array:
    """Numbers of mean zero that say how far an erf network's layers are from their expectations.

    Its products of activations and of slopes, summed over units, less their Gaussian means given
    the layer below; and the same with the output weights, less their means over these.
    """

    def means(k):
        """E[erf(z) erf(z')] and E[erf'(z) erf'(z')] for z ~ N(0, k)."""
        diagonal = 1 + 2 * jnp.diag(k)
        square = diagonal[:, None] * diagonal[None]
        slopes = 4 / np.pi / jnp.sqrt(square - 4 * k**2)
        return 2 / np.pi * jnp.arcsin(2 * k / jnp.sqrt(square)), slopes

    w1, w2, w3 = jax.tree.leaves(params)
    n = len(w2)
    below, controls, slopes = x / np.sqrt(x.shape[1]), [], []
    for w in (w1, w2):
        z = 1.5 * below @ w
        slope = 2 / np.sqrt(np.pi) * jnp.exp(-(z**2))
        below, slopes = jax.lax.erf(z) / np.sqrt(n), [*slopes, slope / np.sqrt(n)]
        controls += [below @ below.T, slopes[-1] @ slopes[-1].T]
    for i, k in ((0, 1.5**2 * x @ x.T / x.shape[1]), (2, 1.5**2 * controls[0])):
        controls[i : i + 2] = [
            c - mean for c, mean in zip(controls[i : i + 2], means(k), strict=True)
        ]
    d1, d2 = slopes
    out = (d2 * w3[None, :, 0]) @ w2.T  # ∂f/∂h1, up to a factor
    squares = jnp.einsum("aj,bj,ij->abi", d2, d2, w2**2)
    controls += [jnp.einsum("aj,bj,j->ab", d2, d2, w3[:, 0] ** 2 - 1)]
    controls += [jnp.einsum("ai,bi,abi->ab", d1, d1, out[:, None] * out[None] - squares)]
    return jnp.concatenate([c[np.triu_indices(len(x))] for c in controls])


def without(controls: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The values less what is linear in the controls, which are of mean zero."""
    design = np.column_stack([np.ones(len(values)), controls])
    return values - controls @ np.linalg.lstsq(design, values)[0][1:]


def fitted(
    options: Options, values: list, take: str
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """At each width the quantity and its error; its exponent and that one's error, by the jackknife."""

    def estimate(left_out: int | None) -> np.ndarray:
        groups = [v.reshape(options.groups, -1) for v in values]
        kept = [g if left_out is None else np.delete(g, left_out, axis=0) for g in groups]
        return np.array([abs(k.mean()) if take == "mean" else k.var(ddof=1) for k in kept])

    whole, parts = estimate(None), np.stack([estimate(i) for i in range(options.groups)])
    spread = np.sqrt(options.groups - 1) * parts.std(0)
    slopes = [
        np.polyfit(np.log(options.widths), np.log(v), 1, w=whole / spread)[0]
        for v in (whole, *parts)
    ]
    return whole, spread, slopes[0], float(np.sqrt(options.groups - 1) * np.std(slopes[1:]))


def main(options: Options) -> None:
    """Scaling with width of T, of the kernel and of others, beside the conjecture's exponents."""
    jax.config.update("jax_enable_x64", True)
    out = report.Report(
        "l2", "large_width", options, data=f"digits, {options.samples} samples, even/odd"
    )
    x, y = even_odd(options, options.samples)
    y = jnp.asarray(y, x.dtype)
    limits = {
        "relu": kernels.analytic_kernel(network(1)[2], x).astype(x.dtype),
        "erf": kernels.analytic_kernel(network(1, stax.Erf)[2], x).astype(x.dtype),
    }

    measured: dict[str, list] = {}
    for width in tqdm(options.widths, desc="widths"):
        more = min(8, (options.widths[-1] // width) ** 2)
        keys = jax.random.split(jax.random.key(options.seed), options.seeds * more)
        one = partial(measure, width=width, x=jnp.asarray(x), y=y, limits=limits)
        together = min(len(keys), max(1, options.at_a_time * 512**2 // width**2))
        values = jax.jit(lambda keys, one=one, n=together: jax.lax.map(one, keys, batch_size=n))(
            keys
        )
        for name, value in values.items():
            measured.setdefault(name, []).append(np.asarray(value, np.float64))

    name = "Θ − Θ∞, erf"
    raw = measured[name]
    measured[name] = [without(c, v) for c, v in zip(measured.pop("controls"), raw, strict=True)]
    out.numbers["variance of Θ, erf, before over after its controls"] = [
        v.var() / k.var() for v, k in zip(raw, measured[name], strict=True)
    ]
    figure, ax = plt.subplots(figsize=(11, 6), layout="constrained")
    widths = np.array(options.widths)
    for quantity in QUANTITIES:
        values, errors, slope, error = fitted(options, measured[quantity.of], quantity.take)
        label = (
            f"{quantity.name}: {slope:.2f} ± {error:.2f} (conjecture {float(quantity.exponent):g})"
        )
        line = ax.errorbar(widths, values, errors, fmt="o", capsize=3, label=label)
        reference = values[-1] * (widths / widths[-1]) ** float(quantity.exponent)
        ax.plot(widths, reference, lw=0.8, ls=":", color=line[0].get_color())
        out.numbers[quantity.name] = {
            "width": widths,
            "value": values,
            "standard error": errors,
            "exponent": slope,
            "standard error of the exponent": error,
            "conjecture": float(quantity.exponent),
        }
        out.claim(
            f"{quantity.name} = O(n^{float(quantity.exponent):g})",
            expected=f"exponent {float(quantity.exponent):g} or below, to 0.1 or two standard errors of at most 0.25",
            measured=f"{slope:.3f} ± {error:.3f}",
            holds=error < 0.25 and slope - float(quantity.exponent) < max(0.1, 2 * error),
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="width n",
        ylabel="value (Θ in units of Θ∞)",
        title=f"Two hidden layers, at least {options.seeds} initializations; dotted: the conjecture's slope",
    )
    ax.set_xticks(widths, [str(width) for width in widths], minor=False)
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    out.save(figure)


if __name__ == "__main__":
    report.cli(main, Options(), PAPER)
