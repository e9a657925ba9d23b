"""Kanoh & Sugiyama (2021): the α-scaled centred loss (3), (4), its optimizers (5)–(10), §4.1.

F = α(f − f_0) and the loss is mean ℓ(F, y)/α². Everything here is at or near initialization,
where the orders in α are exact; the network is a small softplus one with the soft hinge (14).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sympy as sp

from ntkdecay import output_scale
from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import positive

ALPHAS = (1e-3, 1e-1, 1.0, 1e1, 1e3)
RHO, EPS, ETA = 0.999, 1e-8, 0.01


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


def _loss(alpha):
    """The library's loss (3), and θ_0."""
    outputs, labels, start = _network()
    scaled = output_scale.scaled_loss(output_scale.soft_hinge, alpha)
    apply_fn = output_scale.centred(lambda theta, _: outputs(theta), start, alpha)
    return lambda theta: scaled(apply_fn(theta, None), labels), start


@functools.cache
def _gradient(alpha):
    loss, start = _loss(alpha)
    return np.asarray(jax.grad(loss)(start))


@statement(
    "output_scale",
    "(3)",
    "the loss of the scaled and centred output of n samples, and its value at the start (loss_0)",
    "F = α*(f - f_0); loss == total(ell(F, y))/(n*α**2); loss_0 == ell(0, 1)/α**2",
    kind="identity",
    tolerance=1e-12,
    refuted={"not centred": "F = α*f; loss == total(ell(F, y))/(n*α**2); loss_0 == ell(0, 1)/α**2"},
    show={"total": "Σ"},
    survivors={
        "1 → 2": "the label does not matter at F = 0",
        "1 → 1.05": "the label does not matter at F = 0",
    },
    scope="`scaled_loss` and `centred` of `ntkdecay.output_scale` at θ_0 and beside it",
)
def loss_3(claim):
    outputs, labels, start = _network()
    residuals = []
    for alpha in ALPHAS:
        loss, theta = _loss(alpha)[0], start * (1 + 0.1 / max(alpha, 0.1))
        known = {"f": np.asarray(outputs(theta)), "f_0": np.asarray(outputs(start)), "n": 6}
        known |= {"y": np.asarray(labels), "ell": _hinge, "total": np.sum, "α": alpha}
        values = {"loss": float(loss(theta)), "loss_0": float(loss(start))}
        residuals += [relative(r.right, r.left) for r in claim.relations(**known, **values)]
    return residuals


def _hinge(outputs, labels):
    return np.logaddexp(0.0, 20.0 * (1.0 - outputs * labels)) / 20.0  # eq. (14), β = 20


@statement(
    "output_scale",
    "(4)",
    "gradient flow on (3), L' the slope of the loss in F: no α but through Θ, order α⁰",
    "F = α*(f - f_0); L_prime = ell_prime/(n*α**2); F_dot == -Θ*ell_prime/n",
    kind="proof",
    scope="two parameters, one of n samples, any f and ℓ; the sum over samples is linear",
)
def output_velocity_4(claim):
    alpha, p, q, n = sp.symbols("α p q n", positive=True)
    f, f_0, slope = sp.Function("f")(p, q), sp.Symbol("f_0"), sp.Symbol("ell_prime")
    known = {"f": f, "Θ": sp.diff(f, p) ** 2 + sp.diff(f, q) ** 2}
    outputs, loss = (claim.value(name, alpha, n, f_0, slope, **known) for name in ("F", "L_prime"))
    velocity = sum(sp.diff(outputs, v) * -loss * sp.diff(outputs, v) for v in (p, q))
    return [claim(alpha, n, f_0, slope, F_dot=velocity, **known), outputs.subs(f, f_0)]


@statement(
    "output_scale",
    "(8), (9)",
    "gradient and second moment at the start, by those at α = 1",
    "G == G_1/α; v == v_1/α**2",
    kind="identity",
    tolerance=1e-12,
    scope="exact at θ_0, where F = 0 for every α",
)
def gradient_8_9(claim):
    one, residuals = _gradient(1.0), []
    for alpha in ALPHAS:
        g = _gradient(alpha)
        known = {"G": g, "G_1": one, "v": (1 - RHO) * g**2, "v_1": (1 - RHO) * one**2}
        residuals += [relative(r.right, r.left) for r in claim.relations(α=alpha, **known)]
    return residuals


@statement(
    "output_scale",
    "(10)",
    "the second moment of αG after the first step, and the effective learning rate",
    "v == (1 - ρ)*(α*G)**2; rate == η/(sqrt(v) + ε)",
    kind="identity",
    tolerance=1e-12,
    refuted={"original (7): G²": "v == (1 - ρ)*G**2; rate == η/(sqrt(v) + ε)"},
    scope="at every α the rate of unmodified RMSProp (6), (7) at α = 1",
)
def modified_10(claim):
    expected, residuals = ETA / (np.sqrt((1 - RHO) * _gradient(1.0) ** 2) + EPS), []
    for alpha in ALPHAS:
        _, rate = claim.sides(ρ=RHO, ε=EPS, η=ETA, α=alpha, G=_gradient(alpha))
        residuals.append(relative(rate, expected))
    return residuals


@statement(
    "output_scale",
    "(6)–(8), α*",
    "the α above which ε takes the place of √v, and RMSProp's rate at any α; g the gradient at α = 1",
    "α_star == sqrt(1 - ρ)*norm(g)/ε; rate == η/ε*α/(α + α_star)",
    kind="identity",
    tolerance=1e-9,
    scope="rate η/(√v + ε) of measured gradients from four decades below α* to four above, one "
    "second moment for all parameters; ∝ α below, η/ε above; α* as `output_scale.critical_alpha`",
)
def critical_alpha(claim):
    known = {"ρ": RHO, "ε": EPS, "η": ETA, "g": _gradient(1.0), "norm": np.linalg.norm}
    v_1 = (1 - RHO) * np.sum(_gradient(1.0) ** 2)
    library = float(output_scale.critical_alpha(jnp.asarray(v_1), eps=EPS))
    critical, residuals = claim.sides(α=1.0, **known)[0], []
    for decade in (-4, -1, 0, 1, 4):
        alpha = library * 10.0**decade
        v = (1 - RHO) * np.sum(_gradient(alpha) ** 2)
        rate = claim.sides(α=alpha, **known)[1]
        residuals.append(rate * (np.sqrt(v) + EPS) / ETA - 1)
    return [critical / library - 1, *residuals]


@statement(
    "output_scale",
    "Algorithm 1",
    "modified RMSProp",
    "v == ρ*v_before + (1 - ρ)*(α*G)**2; θ_next == θ - η/(sqrt(v) + ε)*G",
    kind="identity",
    tolerance=1e-9,
    refuted={
        "printed: √(v + ε)": "v == ρ*v_before + (1 - ρ)*(α*G)**2; θ_next == θ - η/sqrt(v + ε)*G",
        "printed: v_t ← ρ v_t, with v_t still 0": "v == ρ*0 + (1 - ρ)*(α*G)**2; "
        "θ_next == θ - η/(sqrt(v) + ε)*G",
    },
    scope="300 steps of random gradients: at α = 1 those of RMSProp (6), (7), at α = 1 and 30 those "
    "of `output_scale.rescaled_rmsprop`",
)
def algorithm_1(claim):
    residuals = []
    for alpha, reference in ((1.0, _rmsprop()), (1.0, _library(1.0)), (30.0, _library(30.0))):
        v = theta = 0.0
        path = []
        for g in SLOPES:
            v, theta = claim.sides(ρ=RHO, ε=EPS, η=1e-3, α=alpha, G=g, v_before=v, θ=theta)
            path.append(theta)
        residuals.append(relative(path, reference))
    return residuals


SLOPES = np.random.default_rng(4).normal(size=300) * 1e-6


def _rmsprop():
    v, theta, path = 0.0, 0.0, []
    for g in SLOPES:
        v = RHO * v + (1 - RHO) * g**2
        theta -= 1e-3 / (np.sqrt(v) + EPS) * g
        path.append(theta)
    return path


@functools.cache
def _library(alpha):
    optimizer = output_scale.rescaled_rmsprop(1e-3, alpha=alpha, decay=RHO, eps=EPS)

    def step(carry, g):
        theta, state = carry
        updates, state = optimizer.update(g, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    start = jnp.zeros(())
    return np.asarray(jax.lax.scan(step, (start, optimizer.init(start)), jnp.asarray(SLOPES))[1])


@functools.cache
def _curvatures():
    """Largest Hessian eigenvalue of (3) at θ_0 for several α, and the two terms of the Hessian.

    2/λ_max is no bound of η: ℓ' is bounded, and a step too long for the curvature where ℓ'' is large passes over it. It is
    of the order of the edge of divergence while the term of ∇²f, which makes the weights grow, is the larger one.
    """
    outputs, labels, start = _network()
    jac = np.asarray(jax.jacobian(outputs)(start))
    # ℓ' and ℓ'' of the soft hinge at F = 0.
    slope = jax.grad(output_scale.soft_hinge)
    slopes = jax.vmap(slope)(jnp.zeros(6), labels)
    curvatures = jax.vmap(jax.grad(slope))(jnp.zeros(6), labels)
    gauss_newton = jac.T @ (np.asarray(curvatures)[:, None] * jac)
    second = np.asarray(jax.hessian(lambda p: slopes @ outputs(p))(start))
    alphas = (1e-6, 1e-5, 1e7, 1e8, 1e10, 1e11)
    largest = [
        np.linalg.eigvalsh(np.asarray(jax.hessian(_loss(alpha)[0])(start)))[-1] for alpha in alphas
    ]
    return alphas, np.array(largest), gauss_newton, second


@statement(
    "output_scale",
    "§4.1, η < 2/λ_max",
    "the Hessian's largest eigenvalue at the start: A = Jᵀℓ''J and B = Σ ℓ' ∇²f over n samples",
    "λ_max == largest(A + B/α)/n",
    kind="identity",
    tolerance=2e-4,
    refuted={"printed: 2/λ_max ∝ α, for large α too": "λ_max == largest(B/α)/n"},
    scope="so 2/λ_max at θ_0 is ∝ α up to where A takes over (ℓ''(0) is 4e-8 for the soft hinge with "
    "β = 20: about 1e7 here) and constant above. Up to there it is a first guess of a stable η, some factor "
    "below the edge of divergence, which is ∝ α at every α: §4.1, edge",
)
def sharpness(claim):
    alphas, largest, gauss_newton, second = _curvatures()
    residuals = []
    for alpha, measured in zip(alphas, largest, strict=True):
        known = {"A": gauss_newton, "B": second, "α": alpha, "n": 6}
        known["largest"] = lambda matrix: np.linalg.eigvalsh(matrix)[-1]
        (stated,) = claim.sides(**known)
        residuals.append(stated / measured - 1)
    return residuals


@functools.cache
def _edges(alphas=(1e6, 1e8, 1e10), steps=300):
    """The least η at which gradient descent from θ_0 ends above the loss it began with."""
    ratios = jnp.asarray(10.0 ** np.arange(1.0, 2.0, 0.002))  # η/α

    def edge(alpha):
        loss, start = _loss(alpha)
        slope = jax.grad(loss)

        def final(ratio):
            def step(_, theta):
                return theta - ratio * alpha * slope(theta)

            return loss(jax.lax.fori_loop(0, steps, step, start))

        rises = ~(jax.jit(jax.vmap(final))(ratios) <= loss(start))
        return float(alpha * ratios[jnp.argmax(rises)])

    return [(alpha, edge(alpha)) for alpha in alphas]


@statement(
    "output_scale",
    "§4.1, edge",
    "the learning rate at which gradient descent diverges, against that at a reference α_0",
    "η_edge == η_0*α/α_0",
    kind="simulation",
    tolerance=0.01,
    scope="300 steps of seven units, a soft hinge with β = 20, α from 1e6 to 1e10, where 2/λ_max is constant: "
    "there is no fold, as ℓ' is bounded and a step is at most ~η/α times as large as the weights; ∝ α at "
    "small α too, with another factor: η_edge/α is 5000 at 1e-6; of 64 units on digits it is 10 to 100 from "
    "1e-6 to 1e12",
)
def edge_of_divergence(claim):
    (alpha_0, eta_0), *others = _edges()
    residuals = []
    for alpha, edge in others:
        relations = claim.relations(α=alpha, α_0=alpha_0, η_0=eta_0, η_edge=edge)
        residuals += [r.right / r.left - 1 for r in relations]
    return residuals


@statement(
    "output_scale",
    "(14)",
    "the soft hinge, its slope, and how near it is to the hinge",
    "ell == log(1 + exp(β*(1 - F*y)))/β; ell_prime == -y/(1 + exp(-β*(1 - F*y))); "
    "Max(0, 1 - F*y) <= ell <= Max(0, 1 - F*y) + log(2)/β",
    kind="proof",
    scope="y = ±1, any F; the upper bound is attained at Fy = 1, the lower one as βF → ∞, and the two "
    "meet as β → ∞",
)
def soft_hinge_14(claim):
    beta, z, x = sp.symbols("β z x", positive=True)
    F, residuals = sp.Symbol("F", real=True), []
    for label in (-1, 1):
        loss, slope = claim.sides(beta, F, y=label)[:2]
        residuals.append(sp.diff(loss, F) - slope)
        for margin in (z, -z, sp.Integer(0)):  # 1 − F y
            at = (1 - margin) * label
            known = {"F": at, "ell": loss.subs(F, at), "ell_prime": slope.subs(F, at)}
            lower, upper = claim.relations(beta, y=label, **known)[2:]
            residuals += [lower.sign == "<=", upper.sign == "<="]
            # ℓ − max(0, 1 − Fy) is ln(1 + e^{−β|1 − Fy|})/β, between 0 and ln 2/β.
            above = sp.log(1 + sp.exp(-beta * sp.Abs(margin))) / beta
            residuals.append(lower.right - lower.left - above)
            residuals.append(upper.right - lower.left - sp.log(2) / beta)
    return [*residuals, positive(sp.log(1 + x)), positive(sp.diff(sp.log(1 + x), x))]
