"""Does L2 with a decaying kernel ever beat early stopping and ridge regression, and which λ(t) is best of all?

Kernels whose eigenvalues fall like i^−α, targets whose coefficients fall like i^−β, noisy labels, expected test error from the
spectrum. (a) ridge against early stopping, (b) what k = 2 with constant λ gains on the better of both, (c) what the best λ(t)
of all gains, over α and β; (d) the best λ(t) of a rough target as the scale of f against driven time, beside the best
constant λ and AutoL2's own λ(t) on one training set.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from auto_l2_infinite_width import Options as AutoOptions
from auto_l2_infinite_width import auto_l2

from ntkdecay import predict, report, risk


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    """Sizes of the experiment."""

    modes: report.Count = 300
    """Eigenvalues of the kernel."""
    samples: report.Count = 100
    """Training samples."""
    noise: report.Positive = 0.3
    """Standard deviation of the labels' noise; targets have variance 1."""
    alpha: report.Ascending[report.Positive] = (1.25, 2.0)
    """Exponents of the eigenvalues."""
    beta: report.Ascending[report.Exponent] = (-0.3, 0.0, 0.5)
    """Exponents of the coefficients, ascending; 0 is a target drawn from the kernel's own prior."""
    stopping: report.Count = 120
    """Times that a schedule may mix."""
    steps: report.Count = 20_000
    """Steps of AutoL2."""


DESK = Options(
    modes=1000, samples=200, alpha=(1.25, 1.5, 2.0, 2.5, 3.0), beta=(-0.4, -0.2, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0),
    stopping=160, steps=100_000,
)  # fmt: skip
PAPER = dataclasses.replace(DESK, modes=4000, samples=1000, steps=1_000_000)


WHY = {
    "rougher targets want ridge rather than early stopping, smoother ones early stopping": "Criterion: the border moves from β = 0.1 at "
    "α = 1.25 to between 0.25 and 0.5 at α = 3",
    "a constant λ with k = 2 leaves little to any λ(t)": "Criterion: at α = 1.25, β = −0.4, the roughest target, three instants are better",
    "AutoL2, stopped when it is best, comes near the best λ(t)": "Size: it waits for the training loss to rise, and with noise in "
    "the labels the test error is at its least before",
}


def problem(options: Options, alpha, beta):
    """Eigenvalues and coefficients of a target of variance 1."""
    i = jnp.arange(1.0, options.modes + 1)
    values, coefficients = i**-alpha, i**-beta
    return values, coefficients / jnp.sqrt((coefficients**2 * values).sum())


def main(options: Options) -> None:
    """The phase diagram, and one schedule."""
    jax.config.update("jax_enable_x64", True)
    what = f"{options.modes} modes, {options.samples} samples, noise {options.noise:g}"
    out = report.Report("l2", "best_schedule", options, data=what, dtype="float64")
    errors, atoms = diagram(options)
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    better = np.minimum(errors["ridge"], errors["early stopping"])
    for ax, title, gain in (
        (axes[0, 0], "(a) early stopping's error over ridge's, less 1", errors["early stopping"] / errors["ridge"] - 1),
        (axes[0, 1], "(b) gain of k = 2, constant λ, on the better", 1 - errors["k = 2"] / better),
        (axes[1, 0], "(c) gain of the best λ(t) on the better", 1 - errors["any λ(t)"] / better),
    ):  # fmt: skip
        heat(ax, options, title, 100 * gain)
    out.numbers |= {"alpha": options.alpha, "beta": options.beta, "instants": atoms, **errors}
    phases(out, options, errors, better, atoms)
    example(axes[1, 1], out, options)
    out.explain(WHY)
    out.save(figure)


def diagram(options: Options):
    """The least errors of each kind, (α, β), and in how many instants the best λ(t) shrinks the weights."""
    grid = [problem(options, a, b) for a in options.alpha for b in options.beta]
    values, coefficients = (jnp.stack(part) for part in zip(*grid, strict=True))
    shape = len(options.alpha), len(options.beta)

    def least(**asked):
        def one(pair):
            values, coefficients = pair
            return risk.best(
                values, coefficients, float(options.samples), noise=options.noise, **asked
            ).error

        return np.asarray(jax.lax.map(one, (values, coefficients))).reshape(shape)

    found = {
        "early stopping": least(degree=2, l2=0.0),
        "ridge": least(degree=1, t=np.inf),
        "k = 2": least(degree=2),
    }
    best = [schedule(options, *pair) for pair in grid]
    found["any λ(t)"] = np.array([float(one.error) for one in best]).reshape(shape)
    return found, np.array([instants(one.weights) for one in best]).reshape(shape)


def schedule(options: Options, values, coefficients) -> risk.BestSchedule:
    """The best λ(t)."""
    longest = 30 * options.samples ** (np.log(values[0] / values[1]) / np.log(2))
    stopping = np.geomspace(0.1, max(1e6, float(longest)), options.stopping)
    return risk.best_schedule(values, coefficients, options.samples, noise=options.noise, stopping=stopping)  # fmt: skip


def instants(weights) -> int:
    """Groups of neighbouring stopping times that are mixed."""
    mixed = np.asarray(weights) > 1e-4
    return int(np.sum(mixed & ~np.append(False, mixed[:-1])))


def heat(ax, options: Options, title, percent) -> None:
    """Percent over β and α, each cell with its number."""
    limit = np.abs(percent).max()
    ax.imshow(percent, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", origin="lower")
    for (i, j), value in np.ndenumerate(percent):
        dark = abs(value) > 0.6 * limit
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize="small", color="white" if dark else "black")  # fmt: skip
    ax.set_xticks(range(len(options.beta)), [f"{b:g}" for b in options.beta])
    ax.set_yticks(range(len(options.alpha)), [f"{a:g}" for a in options.alpha])
    ax.set(xlabel="β: coefficients ∝ i^−β", ylabel="α: eigenvalues ∝ i^−α", title=f"{title}, %")


def phases(out: report.Report, options: Options, errors, better, atoms) -> None:
    """Which regularization wins where."""
    beta = np.array(options.beta)
    rough, prior, smooth = beta < 0, beta == 0, beta >= 0.25
    ridge, stopped, two, best = (errors[name] for name in ("ridge", "early stopping", "k = 2", "any λ(t)"))  # fmt: skip
    gap = (ridge / best - 1)[:, prior]
    out.claim(
        "where the target is drawn from the kernel's own prior (β = 0), ridge is the best of all",
        expected="no λ(t) more than 0.1 % better, at every α: it is Bayes' own predictor",
        measured=f"at most {gap.max():.2%} better",
        holds=bool(gap.max() < 1e-3),
        ours=True,
    )
    out.claim(
        "rougher targets want ridge rather than early stopping, smoother ones early stopping",
        expected="at every α ridge's error below at β < 0, above at β ≥ 1/4",
        measured=f"ridge over early stopping {(ridge / stopped)[:, rough].min():.3f} to {(ridge / stopped)[:, rough].max():.3f} "
        f"at β < 0, {(ridge / stopped)[:, smooth].min():.3f} to {(ridge / stopped)[:, smooth].max():.3f} at β ≥ 1/4",
        holds=bool((ridge < stopped)[:, rough].all() and (ridge > stopped)[:, smooth].all()),
        ours=True,
    )
    gain = 1 - two / better
    at = np.unravel_index(gain.argmax(), gain.shape)
    out.claim(
        "L2 with k = 2 somewhere beats both early stopping and ridge by more than 1 %",
        expected="1 % or more below the better of both at some α and β",
        measured=f"{gain.max():.2%} at α = {options.alpha[at[0]]:g}, β = {beta[at[1]]:g}; by β "
        + ", ".join(f"{b:g}: {g:.2%}" for b, g in zip(beta, gain.max(0), strict=True)),
        holds=bool(gain.max() > 0.01),
        ours=True,
    )
    more = 1 - best / np.minimum(two, better)
    out.claim(
        "a constant λ with k = 2 leaves little to any λ(t)",
        expected="the best λ(t) within 3 % of the best of ridge, early stopping and k = 2, at every α and β",
        measured=f"up to {more.max():.2%} better",
        holds=bool(more.max() < 0.03),
        ours=True,
    )
    out.claim(
        "the best λ(t) is bang-bang: instants at which weights shrink, none between",
        expected=f"fewer than a quarter of the {options.stopping} times are in the mixture, at every α and β, in groups of neighbours",
        measured=f"{atoms.min()} to {atoms.max()} groups",
        holds=bool(atoms.max() < options.stopping / 4),
        ours=True,
    )


def example(ax, out: report.Report, options: Options) -> None:
    """f's scale, e^{−k∫λ} up to the end, against driven time that is left: the best, the best constant λ, AutoL2's."""
    alpha, beta = options.alpha[0], options.beta[0]
    values, coefficients = problem(options, alpha, beta)
    n, noise = float(options.samples), options.noise
    best = schedule(options, values, coefficients)
    left = 1 - np.concatenate([[0], np.cumsum(best.weights)])[:-1]
    ax.step(best.stopping, left, where="pre", color="C0", label=f"best λ(t): {float(best.error):.4f}")  # fmt: skip
    constant = risk.best(values, coefficients, n, degree=2, noise=noise)
    rule, rate = decayed(options, values, coefficients)
    times = np.geomspace(1, options.steps * rate * n, 400)
    errors = np.asarray(risk.learning_curve(values, coefficients, n, t=times, l2=rule, degree=2, noise=noise))  # fmt: skip
    t = times[errors.argmin()]
    never = predict.PiecewiseConstant(np.array([float(constant.l2)]), np.zeros(0))
    for color, name, l2, end, error in (
        ("C1", "k = 2, best constant λ", never, float(constant.t), float(constant.error)),
        ("C2", "AutoL2's λ(t), best t", rule, float(t), float(errors.min())),
    ):
        tau, scale = driven(l2, end)
        ax.plot(tau, scale, color=color, label=f"{name}: {error:.4f}")
    stopped = float(best.early_stopping.min())
    at = float(best.stopping[best.early_stopping.argmin()])
    ax.plot([1e-1, at, at], [1, 1, 0], color="C7", ls=":", label=f"early stopping: {stopped:.4f}")
    ax.set(xscale="log", xlim=(0.1, best.stopping[-1]), xlabel="driven time left, v", ylabel="w(v) = exp(−k∫λ) over it", title=f"(d) α = {alpha:g}, β = {beta:g}: test error")  # fmt: skip
    ax.legend(fontsize="x-small")
    ratio = errors.min() / float(best.error)
    out.numbers["example"] = {
        "stopping": best.stopping, "weights": best.weights, "error": float(best.error), "early stopping": stopped,
        "k = 2": constant._asdict(), "AutoL2": {"l2": rule.values, "until": rule.boundaries, "error": errors.min(), "t": t, "error at the end": errors[-1]},
    }  # fmt: skip
    out.claim(
        "AutoL2, stopped when it is best, comes near the best λ(t)",
        expected="its error within 5 % of the best schedule's",
        measured=f"{ratio - 1:.2%} above; early stopping {stopped / float(best.error) - 1:.2%}, best constant λ "
        f"{float(constant.error) / float(best.error) - 1:.2%}; without stopping {errors[-1] / float(best.error) - 1:.0%}",
        holds=bool(ratio < 1.05),
        ours=True,
    )


def decayed(options: Options, values, coefficients) -> tuple[predict.PiecewiseConstant, float]:
    """λ(t) of AutoL2 on one training set of Gaussian features, from 0.1 Λ_1 on, in the mean's units; η of the sum's."""
    n, rng = options.samples, np.random.default_rng(0)
    features = rng.normal(size=(n, options.modes)) * np.sqrt(np.asarray(values))
    y = features @ np.asarray(coefficients) + options.noise * rng.normal(size=n)
    k = features @ features.T
    rate = 1 / np.linalg.eigvalsh(k)[-1]
    auto = AutoOptions(steps=options.steps, l2=0.1 * n)
    l2, *_ = auto_l2(jnp.asarray(k), jnp.asarray(y[:, None]), rate, auto)
    drops = np.flatnonzero(np.diff(l2))
    edges = auto.every * (drops + 1) * rate * n
    return predict.PiecewiseConstant(l2[np.append(0, drops + 1)] / n, edges), rate


def driven(l2: predict.PiecewiseConstant, end: float, degree: int = 2):
    """Driven time left and e^{−k∫λ} over it, on a grid of t up to `end`."""
    t = np.unique(np.concatenate([[0], end - np.geomspace(end, end * 1e-9, 4000)]))
    middle = (t[1:] + t[:-1]) / 2
    decay = np.concatenate([[0], np.cumsum(np.asarray(l2(middle)) * np.diff(t))])
    speed = np.exp(-2 * (degree - 1) * decay)
    tau = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2 * np.diff(t))])
    return tau[-1] - tau, np.exp(-degree * (decay[-1] - decay))


if __name__ == "__main__":
    report.cli(main, Options(), PAPER, desk=DESK)
