"""Fixed points of deep linear networks under L2: every branch, and trained networks on them.

SM B.1 of Lewkowycz & Gur-Ari (2020). A network W_L … W_0 with one sample x = y = 1, then with
twenty samples, is trained to rest for a range of λ.
"""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ntkdecay.deep_linear import critical_l2, fixed_points, normalization
from ntkdecay.report import Count, Options, Positive, Report, cli


@dataclass(frozen=True)
class DeepLinear(Options):
    """Deep linear networks of every depth and width given, in NTK normalization."""

    depths: tuple[Count, ...] = (1, 2, 3, 4)
    width: Count = 16
    widths: tuple[Count, ...] = (4, 32)
    """Of the networks that show the scaling with n."""
    points: Count = 8
    """Values of λ at which networks are trained, from 0.1 to 0.97 of the critical one."""
    rest: Positive = 1e-11
    """Gradient below which a network counts as trained to rest."""
    max_steps: Count = 1_000_000
    learning_rate: Positive = 0.03
    """With momentum 0.9, in units of the inverse of the largest eigenvalue of XXᵀ."""


def descend(weights, x, y, l2, beta, learning_rate, rest, max_steps):
    """Heavy ball on ½ Σ (f − y)² + (λ/2)‖θ‖² to rest; returns the end-to-end vector."""

    def product(weights):
        return beta * functools.reduce(lambda below, W: W @ below, weights)[0]

    def loss(weights):
        residual = x @ product(weights) - y
        return 0.5 * residual @ residual + 0.5 * l2 * sum(jnp.sum(W**2) for W in weights)

    def moving(state):
        _, _, slopes, steps = state
        largest = jnp.max(jnp.stack([jnp.abs(g).max() for g in slopes]))
        return (largest > rest) & (steps < max_steps)

    def step(state):
        weights, velocity, slopes, steps = state
        velocity = [0.9 * v + g for v, g in zip(velocity, slopes, strict=True)]
        weights = [W - learning_rate * v for W, v in zip(weights, velocity, strict=True)]
        return weights, velocity, jax.grad(loss)(weights), steps + 1

    start = (weights, [jnp.zeros_like(W) for W in weights], jax.grad(loss)(weights), 0)
    return product(jax.lax.while_loop(moving, step, start)[0])


def draw(rng, members, inputs, width, depth, scale):
    """Independent Gaussian weights for each member of a sweep."""
    sizes = [inputs, *[width] * depth, 1]
    return [
        jnp.asarray(scale * rng.normal(size=(members, o, i))) for i, o in itertools.pairwise(sizes)
    ]


def train(options, x, y, l2s, depth, width, scale=1.0):
    """End-to-end vectors of networks trained to rest, one for each λ."""
    beta = normalization(width, depth)
    start = draw(np.random.default_rng(depth), len(l2s), x.shape[1], width, depth, scale)
    learning_rate = options.learning_rate / np.linalg.norm(x, 2) ** 2

    @jax.jit
    @jax.vmap
    def sweep(weights, l2):
        return descend(weights, x, y, l2, beta, learning_rate, options.rest, options.max_steps)

    return np.asarray(sweep(start, jnp.asarray(l2s)))


def to_nearest(v, points):
    return min(float(np.abs(v - point.v).max()) for point in points)


def main(options: DeepLinear) -> Report:
    """Branches of fixed points against λ, with trained networks as dots on them."""
    import matplotlib.pyplot as plt

    jax.config.update("jax_enable_x64", True)
    report = Report("l2", "deep_linear", options, data="x = y = 1; 20 Gaussian samples")
    figure, (one, several, collapse) = plt.subplots(1, 3, figsize=(15, 4.3))
    x, y = np.ones((1, 1)), np.ones(1)
    rng = np.random.default_rng(0)
    many_x, many_y = rng.normal(size=(20, 6)), rng.normal(size=20)

    on_stable, off_unstable, jumps, small_weights = [], [], {}, {}
    for depth in tqdm(options.depths, desc="branches", leave=False, disable=None):
        for axis, data in ((one, (x, y)), (several, (many_x, many_y))):
            beta = normalization(options.width, depth)
            critical = critical_l2(*data, depth=depth, beta=beta)
            draw_branches(axis, *data, depth, beta, critical)
            l2s = critical * np.geomspace(0.1, 0.97, options.points)
            trained = train(options, *data, l2s, depth, options.width)
            fit = trained @ data[0].T @ data[1] / (data[1] @ data[1])
            axis.plot(l2s / critical, fit, "o", color=f"C{depth}", ms=4)
            for v, l2 in zip(trained, l2s, strict=True):
                points = fixed_points(*data, l2=l2, depth=depth, beta=beta)
                on_stable.append(to_nearest(v, [p for p in points if p.stable]))
                unstable = [p for p in points if not p.stable]
                off_unstable += [to_nearest(v, unstable)] * bool(unstable)
        l2s = critical_l2(x, y, depth=depth, beta=beta) * np.array([0.3, 0.6, 0.9])
        small_weights[depth] = train(options, x, y, l2s, depth, options.width, scale=0.05)[:, 0]
        one.plot(l2s / l2s[0] * 0.3, small_weights[depth], "s", color=f"C{depth}", mfc="none", ms=7)
        just_below = 0.9999 * critical_l2(x, y, depth=depth)
        jumps[depth] = float(fixed_points(x, y, l2=just_below, depth=depth)[-1].v[0])

    report.numbers |= {"f just below the critical λ, x = y = 1": jumps}
    report.claim(
        "trained networks rest on the stable branches",
        expected="distance <= 1e-8, every depth and λ",
        measured=f"largest distance {max(on_stable):.1e} of {len(on_stable)} networks",
        holds=max(on_stable) <= 1e-8,
        ours=True,
    )
    report.claim(
        "no trained network rests on an unstable branch",
        expected="distance > 1e-3",
        measured=f"smallest distance {min(off_unstable):.1e}",
        holds=min(off_unstable) > 1e-3,
        ours=True,
    )
    report.claim(
        "L = 1 reaches f = 0 continuously; L >= 2 jumps there (first order)",
        expected="f just below the critical λ: < 0.05 for L = 1, > 0.1 for L >= 2",
        measured=", ".join(f"L = {d}: {f:.3f}" for d, f in jumps.items()),
        holds=all((f > 0.1) == (d > 1) for d, f in jumps.items()),
        ours=True,
    )

    dead = {depth: float(np.abs(f).max()) for depth, f in small_weights.items() if depth > 1}
    report.claim(
        "L >= 2 from small weights ends at f = 0, the other stable branch",
        expected="|f| <= 1e-8 for weights drawn 20 times smaller, λ at 0.3, 0.6, 0.9 of critical",
        measured=", ".join(f"L = {d}: {f:.1e}" for d, f in dead.items()),
        holds=max(dead.values()) <= 1e-8,
        ours=True,
    )

    trained_f = float(train(options, x, y, [0.05], 1, 25)[0, 0])
    report.claim(
        "(S21): λ√n = f − 1, as printed",
        expected="f = 1.25 at n = 25, λ = 0.05",
        measured=f"trained: {trained_f:.9f}; a slip of the sign in the paper",
        holds=abs(trained_f - 1.25) < 1e-8,
    )
    report.claim(
        "(S21) with its sign corrected: f = 1 − λ√n",
        expected="f = 0.75 at n = 25, λ = 0.05",
        measured=f"trained: {trained_f:.9f}",
        holds=abs(trained_f - 0.75) < 1e-8,
        ours=True,
    )

    ends = scaling(options, collapse, x, y)
    spread = {depth: float(np.ptp(f, axis=0).max()) for depth, f in ends.items()}
    report.numbers |= {"spread of f over n at equal λ n^(L/(L+1))": spread}
    report.claim(
        "NTK normalization: λ scales as n^(−L/(L+1))",
        expected=f"f equal for n = {options.widths} at equal λ n^(L/(L+1)), to 1e-8",
        measured=", ".join(f"L = {d}: {s:.1e}" for d, s in spread.items()),
        holds=max(spread.values()) <= 1e-8,
    )
    for axis, title in ((one, "one sample, x = y = 1"), (several, "20 samples, 6 inputs")):
        axis.set(xlabel="λ / critical λ", ylabel="y·f / |y|²", title=title)
    one.legend(loc="lower left", bbox_to_anchor=(0, 0.08))
    collapse.set(xlabel="λ n^(L/(L+1))", ylabel="f", title="trained networks of every width")
    collapse.legend()
    report.save(figure)
    return report


def draw_branches(axis, x, y, depth, beta, critical):
    """Stable points as a line, unstable ones dashed; each branch is followed over λ."""
    l2s = critical * np.concatenate([np.linspace(0.02, 0.99, 150), np.linspace(0.9905, 1, 40)])
    branches: dict[tuple[int, bool], list[tuple[float, float]]] = {}
    for l2 in l2s:
        for i, point in enumerate(fixed_points(x, y, l2=float(l2), depth=depth, beta=beta)):
            fit = float(x @ point.v @ y / (y @ y))
            branches.setdefault((i, point.stable), []).append((l2 / critical, fit))
    for (i, stable), path in branches.items():
        label = f"L = {depth}" if stable and i else None
        axis.plot(*zip(*path, strict=True), "-" if stable else "--", color=f"C{depth}", label=label)


def scaling(options, axis, x, y):
    """f of trained networks against λ n^(L/(L+1)): one curve for every width."""
    ends = {}
    for depth in tqdm(options.depths, desc="widths", leave=False, disable=None):
        scaled = critical_l2(x, y, depth=depth) * np.geomspace(0.15, 0.9, 6)
        rows = []
        for width, marker in zip(options.widths, "osD^v", strict=False):
            l2s = scaled * width ** (-depth / (depth + 1))
            f = train(options, x, y, l2s, depth, width)[:, 0]
            label = f"n = {width}" if depth == options.depths[0] else None
            axis.plot(
                scaled, f, marker, color=f"C{depth}", mfc="none", ms=4 + width**0.5, label=label
            )
            rows.append(f)
        ends[depth] = np.array(rows)
        curve = critical_l2(x, y, depth=depth) * np.linspace(0.1, 0.999, 100)
        f = [fixed_points(x, y, l2=float(s), depth=depth)[-1].v[0] for s in curve]
        axis.plot(curve, f, color=f"C{depth}", lw=1)
    return ends


if __name__ == "__main__":
    cli(
        main,
        quick=DeepLinear(),
        paper=DeepLinear(width=64, widths=(16, 64, 256, 1024), points=24),
    )
