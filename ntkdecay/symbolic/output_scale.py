"""Kanoh & Sugiyama (2021): the α-scaled centred loss (3), (4), its optimizers (5)–(10), §4.1.

F = α(f − f_0) and the loss is mean ℓ(F, y)/α². Everything here is at or near initialization,
where the orders in α are exact; the network is a small softplus one with the soft hinge (14).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp

from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import statement

ALPHAS = (1e-3, 1e-1, 1.0, 1e1, 1e3)
RHO, EPS = 0.999, 1e-8


def _hinge(outputs, labels):
    return jax.nn.softplus(20.0 * (1.0 - outputs * labels)) / 20.0  # eq. (14), β = 20


@functools.cache
def _network():
    """f(θ), labels and θ_0 of a two-layer softplus network on six inputs."""
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(6, 4)))
    labels = jnp.asarray(rng.choice([-1.0, 1.0], size=6))

    def outputs(theta):
        first, last = theta[:28].reshape(4, 7), theta[28:]
        return jax.nn.softplus(5.0 * (x @ first) / 2.0) / 5.0 @ last / np.sqrt(7.0)

    return outputs, labels, jnp.asarray(rng.normal(size=35))


def _loss(alpha, centred=True, power=2):
    outputs, labels, start = _network()
    zero = outputs(start) if centred else 0.0

    def loss(theta):
        return jnp.mean(_hinge(alpha * (outputs(theta) - zero), labels)) / alpha**power

    return loss, start


@statement(
    "output_scale",
    "(3)",
    "centring makes F = α(f − f_0) zero and the loss ℓ(0)/α² at the start, whatever α and f_0",
    kind="identity",
    tolerance=1e-12,
    mutants={"not centred": {"centred": False}, "1/α": {"power": 1}},
)
def loss_3(centred=True, power=2):
    expected = float(_hinge(jnp.zeros(1), jnp.ones(1))[0])
    losses = [_loss(alpha, centred, power) for alpha in ALPHAS]
    return [
        float(loss(start)) * alpha**2 / expected - 1
        for alpha, (loss, start) in zip(ALPHAS, losses, strict=True)
    ]


@statement(
    "output_scale",
    "(4)",
    "gradient flow on (3): dF/dt = −(1/n) Θ ℓ'(F), no α but through Θ: order α⁰",
    kind="proof",
    mutants={"loss divided by α": {"power": 1}, "loss not divided": {"power": 0}},
    scope="two parameters, one sample, any f and ℓ; with more samples Θ has more entries",
)
def output_velocity_4(power=2):
    alpha, p, q, n = sp.symbols("alpha p q n", positive=True)
    f, f_0 = sp.Function("f")(p, q), sp.Symbol("f_0")
    outputs, slope = alpha * (f - f_0), sp.Symbol("ell")  # ℓ'(F)
    flow = [-slope * sp.diff(outputs, v) / (alpha**power * n) for v in (p, q)]
    velocity = sp.diff(outputs, p) * flow[0] + sp.diff(outputs, q) * flow[1]
    kernel = sp.diff(f, p) ** 2 + sp.diff(f, q) ** 2
    return sp.expand(velocity + kernel * slope / n)


def _order(values):
    """d ln(value) / d ln α over the range of ALPHAS."""
    return float(np.log(values[-1] / values[0]) / np.log(ALPHAS[-1] / ALPHAS[0]))


def _gradients():
    return [np.asarray(jax.grad(loss)(start)) for loss, start in map(_loss, ALPHAS)]


@statement(
    "output_scale",
    "(8), (9)",
    "G_t ∝ α^{−1} and v_t ∝ α^{−2} at the start",
    kind="identity",
    tolerance=1e-12,
    mutants={"G ∝ α^{−2}": {"gradient": -2}, "v ∝ α^{−1}": {"second_moment": -1}},
    scope="exact at θ_0, where F = 0 for every α",
)
def gradient_8_9(gradient=-1, second_moment=-2):
    slopes = _gradients()
    moments = [np.sum((1 - RHO) * g**2) for g in slopes]
    return [
        _order([np.linalg.norm(g) for g in slopes]) - gradient,
        _order(moments) - second_moment,
    ]


@statement(
    "output_scale",
    "(10)",
    "v with (αG)² is independent of α, so the effective learning rate η/(√v + ε) is too",
    kind="identity",
    tolerance=1e-12,
    mutants={"original (7): G²": {"power": 0}, "αG²": {"power": 0.5}},
    scope="first step from θ_0",
)
def modified_10(power=1):
    rates = []
    for alpha, g in zip(ALPHAS, _gradients(), strict=True):
        rates.append(1 / (np.sqrt((1 - RHO) * (alpha**power * g) ** 2) + EPS))
    return [relative(rate, rates[2]) for rate in rates]


@statement(
    "output_scale",
    "(6)–(8), α*",
    "RMSProp's rate η/(√v + ε) is ∝ α below α* (where √v = ε) and η/ε, constant, above",
    kind="simulation",
    tolerance=0.02,
    mutants={"constant below": {"below": 0.0}, "∝ α above": {"above": 1.0}, "∝ α²": {"below": 2.0}},
    scope="log-log slope of the rate two decades below and above α*; exactly half-way at α*",
)
def critical_alpha(below=1.0, above=0.0):
    g = np.linalg.norm(np.asarray(jax.grad(_loss(1.0)[0])(_loss(1.0)[1])))
    critical = np.sqrt(1 - RHO) * g / EPS

    def rate(alpha):
        return 1 / (np.sqrt((1 - RHO) * (g / alpha) ** 2) + EPS)

    def slope(alpha):
        return np.log(rate(1.01 * alpha) / rate(alpha)) / np.log(1.01)

    return [
        slope(1e-2 * critical) - below,
        slope(1e2 * critical) - above,
        rate(critical) * EPS - 0.5,
    ]


@statement(
    "output_scale",
    "Algorithm 1",
    "at α = 1 Algorithm 1 is RMSProp (6), (7): needs v_{t−1} on line 3 and √v + ε on line 4",
    kind="identity",
    tolerance=1e-12,
    mutants={
        "printed: √(v + ε)": {"root": lambda v: np.sqrt(v + EPS)},
        "printed: v_t ← ρ v_t, with v_t still 0": {"remembers": False},
    },
    scope="300 steps on one coordinate",
)
def algorithm_1(root=lambda v: np.sqrt(v) + EPS, remembers=True):
    rng = np.random.default_rng(4)
    slopes = rng.normal(size=300) * 1e-3
    one = other = v = w = 0.0
    path, reference = [], []
    for g in slopes:
        v = RHO * v + (1 - RHO) * g**2
        one -= 1e-3 / (np.sqrt(v) + EPS) * g
        w = RHO * (w if remembers else 0.0) + (1 - RHO) * g**2
        other -= 1e-3 / root(w) * g
        path.append(other)
        reference.append(one)
    return relative(path, reference)


@functools.cache
def _curvatures():
    """Largest Hessian eigenvalue of (3) at θ_0 for several α, and the two terms of the Hessian."""
    outputs, labels, start = _network()
    jac = np.asarray(jax.jacobian(outputs)(start))
    # ℓ' and ℓ'' of the soft hinge at F = 0.
    slopes = jax.vmap(jax.grad(_hinge))(jnp.zeros(6), labels)
    curvatures = jax.vmap(jax.grad(jax.grad(_hinge)))(jnp.zeros(6), labels)
    gauss_newton = jac.T @ (np.asarray(curvatures)[:, None] * jac) / len(labels)
    second = np.asarray(jax.hessian(lambda p: slopes @ outputs(p))(start)) / len(labels)
    alphas = (1e-6, 1e-5, 1e10, 1e11)
    largest = [
        np.linalg.eigvalsh(np.asarray(jax.hessian(_loss(alpha)[0])(start)))[-1] for alpha in alphas
    ]
    return alphas, np.array(largest), gauss_newton, second


@statement(
    "output_scale",
    "§4.1, η < 2/λ_max",
    "Hessian of (3) at the start: Jᵀℓ''J/n + (1/α) Σ ℓ' ∇²f/n, so 2/λ_max ∝ α for small α only",
    kind="identity",
    tolerance=2e-3,
    mutants={
        "ℓ' term ∝ α⁰": {"second_power": 0.0},
        "printed: 2/λ_max ∝ α, for large α too": {"large": -1.0},
        "2/λ_max constant for small α": {"small": 0.0},
    },
    scope="the paper expects ∝ α throughout; where Jᵀℓ''J dominates the threshold is constant. At "
    "the start ℓ''(0) is 4e-8 for the soft hinge with β = 20, so ∝ α reaches to about 1e7; at the "
    "margin, F y = 1, ℓ'' is 5 and it ends at α = 0.05 (this network)",
)
def sharpness(second_power=-1.0, small=-1.0, large=0.0):
    alphas, largest, gauss_newton, second = _curvatures()
    expected = [
        np.linalg.eigvalsh(gauss_newton + alpha**second_power * second)[-1] for alpha in alphas
    ]
    slopes = np.log(largest[1::2] / largest[::2]) / np.log(10.0)
    return [
        *(relative(a, b) for a, b in zip(expected, largest, strict=True)),
        float(slopes[0] - small),
        float(slopes[1] - large),
    ]


@statement(
    "output_scale",
    "(14)",
    "the soft hinge has ℓ' = −y σ(β(1 − Fy)) and tends to max(0, 1 − Fy) as β → ∞",
    kind="proof",
    mutants={"ℓ' = +y σ": {"sign": 1}, "max(0, 1 + Fy)": {"margin": -1}},
    scope="y = ±1",
)
def soft_hinge_14(sign=-1, margin=1):
    beta, F = sp.Symbol("beta", positive=True), sp.Symbol("F", real=True)
    residuals = []
    for label in (-1, 1):
        loss = sp.log(1 + sp.exp(beta * (1 - F * label))) / beta
        expected = sign * label / (1 + sp.exp(-beta * (1 - F * label)))
        residuals.append(sp.simplify(sp.diff(loss, F) - expected))
        for value in (sp.Rational(-3, 2), sp.Rational(1, 3), sp.Rational(5, 2)):
            limit = sp.limit(loss.subs(F, value), beta, sp.oo)
            residuals.append(limit - sp.Max(0, 1 - margin * value * label))
    return residuals
