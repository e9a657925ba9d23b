"""Li, Lyu & Arora (2020), on the intrinsic learning rate: Lemmas 3.1, 5.2, B.1–B.4, eqs. (4)–(15).

Vectors are three-dimensional with symbolic entries; a vector orthogonal to W is written as W × p
with p free, so what is proved for it holds for every tangent vector. The statements about steps
of an optimizer are in `symbolic.scale_invariant_steps`.
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from ntkdecay.symbolic.homogeneous import THETA, dot, gradient, homogeneous, rescaled
from ntkdecay.symbolic.registry import positive, statement

eta, lam_e, t, c, eps, sigma = sp.symbols("eta lambda_e t c epsilon sigma", positive=True)
W = sp.Matrix(sp.symbols("w1:4", real=True))
P, B1, B2 = (sp.Matrix(sp.symbols(f"{name}1:4", real=True)) for name in ("p", "b", "d"))
G = W.dot(W)


@statement(
    "intrinsic_lr",
    "Lemma 3.1",
    "scale-invariant f: ∇f(αw) = ∇f(w)/α, ∇²f(αw) = ∇²f(w)/α², ⟨∇f, w⟩ = 0",
    kind="proof",
    mutants={"∇f(αw) = ∇f(w)": {"first": 0}, "∇²f(αw) = ∇²f(w)/α": {"second": -1}},
    scope="any scale-invariant function of three parameters",
)
def lemma_3_1(first=-1, second=-2):
    f = homogeneous("f", 0)
    slopes = gradient(f)
    curvatures = [d for slope in slopes for d in gradient(slope)]
    return [
        [rescaled(d, c) - c**first * d for d in slopes],
        [rescaled(d, c) - c**second * d for d in curvatures],
        dot(THETA, slopes),
    ]


@statement(
    "intrinsic_lr",
    "(4), (5)",
    "a unit Euler step of the SDE (5) has the mean and covariance of SGD (4)",
    kind="proof",
    mutants={"covariance η Σ": {"noise": sp.sqrt(eta)}, "mean with λ_e²": {"decay": lam_e**2}},
    scope="three dimensions, Σ = A Aᵀ with A of rank two; Gaussian moments of dB",
)
def sde_4_5(noise=eta, decay=lam_e):
    slopes, root = W.cross(P), sp.Matrix.hstack(W.cross(B1), W.cross(B2))
    xi = sp.Matrix(sp.symbols("xi1:3"))
    step = (1 - decay) * W - eta * slopes - noise * root * xi

    def mean(expression):  # of a polynomial in independent standard normals
        for x in xi:
            poly = sp.Poly(sp.expand(expression), x)
            moments = {0: 1, 1: 0, 2: 1}
            expression = sum(k * moments[degree[0]] for degree, k in poly.terms())
        return expression

    average = step.applyfunc(mean)
    spread = (step - average) * (step - average).T
    expected = eta**2 * root * root.T
    return [
        (average - ((1 - lam_e) * W - eta * slopes)).applyfunc(sp.expand),
        (spread.applyfunc(mean) - expected).applyfunc(sp.expand),
    ]


def _ito(h, drift, root):
    """Itô's lemma: the drift of h(W), and its coefficients on dB."""
    slopes = sp.Matrix([sp.diff(h, w) for w in W])
    curvature = sp.Matrix(3, 3, lambda i, j: sp.diff(h, W[i], W[j]))
    return slopes.dot(drift) + (root.T * curvature * root).trace() / 2, slopes.T * root


@statement(
    "intrinsic_lr",
    "Lemma B.2",
    "Itô: df = {∂f/∂t + ∇f·μ + ½ Tr[Gᵀ ∇²f G]} dt + ∇fᵀ G dB",
    kind="proof",
    mutants={"Tr without ½": {"half": 1}, "no second-order term": {"half": 0}},
    scope="the dt term of the mean of f(t + dt, X + μ dt + G√dt ξ), ξ standard normal, for a "
    "general quartic f of two variables and time",
)
def lemma_b_2(half=sp.S.Half):
    x, y = sp.symbols("x y", real=True)
    mu, g = sp.symbols("mu1:3"), sp.Matrix(2, 2, sp.symbols("g1:5"))
    powers = [(i, j, k) for i in range(5) for j in range(5 - i) for k in range(2)]
    f = sp.Add(*(sp.Symbol(f"a{i}{j}{k}") * x**i * y**j * t**k for i, j, k in powers))
    # In q = √dt the dt terms are those of second order.
    root, xi = sp.Symbol("q", positive=True), sp.symbols("xi1:3")
    moved = [
        v + m * root**2 + root * (g[i, :] * sp.Matrix(xi))[0]
        for i, (v, m) in enumerate(zip((x, y), mu, strict=True))
    ]
    shifted = f.subs({x: moved[0], y: moved[1], t: t + root**2}, simultaneous=True)
    second = sp.diff(shifted, root, 2).subs(root, 0) / 2
    poly = sp.Poly(sp.expand(second), *xi)
    moments = {0: 1, 1: 0, 2: 1}
    mean = sum(k * moments[i] * moments[j] for (i, j), k in poly.terms())
    hessian = sp.hessian(f, (x, y))
    drift = sp.diff(f, t) + sp.diff(f, x) * mu[0] + sp.diff(f, y) * mu[1]
    return sp.expand(mean - drift - half * (g.T * hessian * g).trace())


@statement(
    "intrinsic_lr",
    "(6), (7)",
    "dW̄ = −(η/G)(∇L dt + Σ^½ dB) − η²/(2G²) Tr Σ W̄ dt, dG/dt = −2λ_e G + (η²/G) Tr Σ",
    kind="proof",
    mutants={
        "η²/G² Tr Σ W̄": {"curvature": 1},
        "−λ_e G": {"decay": 1},
        "(2η²/G) Tr Σ": {"growth": 2},
        "η/√G": {"rate_power": sp.Rational(1, 2)},
    },
    scope="three dimensions, ∇L and the two columns of Σ^½ any vectors orthogonal to W",
)
def theorem_5_1(curvature=sp.S.Half, decay=2, growth=1, rate_power=1):
    slopes, root = W.cross(P), sp.Matrix.hstack(W.cross(B1), W.cross(B2))
    drift, noise = -eta * slopes - lam_e * W, -eta * root
    # At W̄ = W/√G gradients and Σ^½ are √G times larger (Lemmas 3.1, B.1).
    slopes_bar, root_bar = sp.sqrt(G) * slopes, sp.sqrt(G) * root
    trace = (root_bar.T * root_bar).trace()
    growth_rate, no_noise = _ito(G, drift, noise)
    residuals = [sp.expand(growth_rate - (-decay * lam_e * G) - growth * eta**2 / G * trace)]
    residuals.append(no_noise.applyfunc(sp.expand))
    for i in range(3):
        mean, noises = _ito(W[i] / sp.sqrt(G), drift, noise)
        rate = eta / G**rate_power
        expected = -rate * slopes_bar[i] - curvature * eta**2 / G**2 * trace * W[i] / sp.sqrt(G)
        residuals.append(sp.simplify(mean - expected))
        residuals.append((noises + rate * root_bar[i, :]).applyfunc(sp.simplify))
    return residuals


_trace = sp.Function("T", positive=True)


@statement(
    "intrinsic_lr",
    "(8)–(10)",
    "with γ = (G/η)²: dγ/dt = −4λ_e γ + 2 Tr Σ and η/G = γ^{−1/2}, nothing else of η",
    kind="proof",
    mutants={
        "γ = G²/η": {"gamma": lambda G: G**2 / eta},
        "γ = (η/G)²": {"gamma": lambda G: (eta / G) ** 2},
        "−2λ_e γ": {"decay": 2},
        "Tr Σ": {"growth": 1},
    },
    scope="from (6), (7)",
)
def norm_8_to_10(gamma=lambda G: (G / eta) ** 2, decay=4, growth=2):
    norm, trace = sp.symbols("G T", positive=True)
    velocity = -2 * lam_e * norm + eta**2 / norm * trace
    ratio = sp.diff(norm / eta, norm) * velocity
    value = gamma(norm)
    return [
        sp.expand(ratio - (-2 * lam_e * norm / eta + eta / norm * trace)),
        sp.simplify(sp.diff(value, norm) * velocity + decay * lam_e * value - growth * trace),
        sp.simplify(eta / norm - value ** sp.Rational(-1, 2)),
        sp.simplify(eta**2 / (2 * norm**2) - 1 / (2 * value)),
    ]


@statement(
    "intrinsic_lr",
    "(10), text",
    "γ_t is the inverse of the squared effective learning rate η/G",
    kind="proof",
    mutants={"printed: the squared effective LR": {"power": 2}},
)
def gamma_is_inverse(power=-2):
    norm = sp.Symbol("G", positive=True)
    return sp.simplify((norm / eta) ** 2 - (eta / norm) ** power)


@statement(
    "intrinsic_lr",
    "(11)",
    "γ_t = e^{−4λ_e t} γ_0 + 2∫_0^t e^{−4λ_e(t−τ)} Tr Σ_τ dτ solves (10)",
    kind="proof",
    mutants={"∫ without 2": {"growth": 1}, "e^{−2λ_e(t−τ)}": {"memory": 2}},
    scope="any Tr Σ_τ",
)
def running_average_11(growth=2, memory=4):
    tau, start = sp.symbols("tau gamma_0", positive=True)
    integral = sp.Integral(sp.exp(memory * lam_e * tau) * _trace(tau), (tau, 0, t))
    gamma = sp.exp(-4 * lam_e * t) * start + growth * sp.exp(-memory * lam_e * t) * integral
    residual = sp.diff(gamma, t) + 4 * lam_e * gamma - 2 * _trace(t)
    at_zero = gamma.subs(integral, 0).subs(t, 0) - start
    return [sp.expand(residual).xreplace({integral: sp.Symbol("I")}), at_zero]


@statement(
    "intrinsic_lr",
    "Lemma 5.2, (12)",
    "σ² ≤ Tr Σ ≤ (1+ε)σ² puts γ_t within e^{−4λ_e t}γ_0 + [1, 1+ε] σ²/(2λ_e) (1 − e^{−4λ_e t})",
    kind="proof",
    mutants={
        "printed in the proof: a factor t": {"stray": t},
        "σ²/(4λ_e)": {"stray": sp.S.Half},
    },
    scope="(11) is increasing in Tr Σ, so its two bounds are (11) at constant Tr Σ",
)
def lemma_5_2(stray=1):
    tau = sp.Symbol("tau", positive=True)
    bounds = []
    for level in (sigma**2, (1 + eps) * sigma**2):
        integral = 2 * sp.integrate(sp.exp(-4 * lam_e * (t - tau)) * level, (tau, 0, t))
        stated = level / (2 * lam_e) * (1 - sp.exp(-4 * lam_e * t)) * stray
        bounds.append(sp.simplify(integral - stated))
    weight = 2 * sp.exp(-4 * lam_e * (t - tau))
    return [*bounds, positive(weight)]


@statement(
    "intrinsic_lr",
    "Lemma 5.2, text",
    "the stationary effective learning rate γ^{−1/2} is √(2λ_e)/σ ∝ λ_e^{1/2}",
    kind="proof",
    mutants={"printed: σ/√(2λ_e)": {"power": -1}},
    scope="§5.3's equilibrium value λ_e^{−1/2} is the same slip",
)
def stationary_rate(power=1):
    gamma_0 = sp.Symbol("gamma_0", positive=True)
    decay = sp.exp(-4 * lam_e * t)
    gamma = sp.limit(decay * gamma_0 + sigma**2 / (2 * lam_e) * (1 - decay), t, sp.oo)
    return sp.simplify(gamma ** sp.Rational(-1, 2) - (sp.sqrt(2 * lam_e) / sigma) ** power)


@statement(
    "intrinsic_lr",
    "Lemma B.1",
    "Σ_{cw} = Σ_w/c² and wᵀ Σ_w w = 0 for scale-invariant losses",
    kind="proof",
    mutants={"Σ_w/c": {"power": -1}},
    scope="two minibatches (Σ is then a product of one difference), three parameters",
)
def lemma_b_1(power=-2):
    one, two = gradient(homogeneous("f", 0)), gradient(homogeneous("g", 0))
    noise = [(a - b) / 2 for a, b in zip(one, two, strict=True)]
    covariance = [x * y for x in noise for y in noise]
    return [
        [rescaled(entry, c) - c**power * entry for entry in covariance],
        dot(THETA, noise),
    ]


@statement(
    "intrinsic_lr",
    "Lemma B.3, (14)",
    "vᵀ∇²f(w)v = [vᵀ∇²g(w̄)v − w̄ᵀ∇g(w̄) ‖v‖²]/‖w‖² for f(w) = g(w/‖w‖), v ⟂ w",
    kind="proof",
    mutants={
        "+w̄ᵀ∇g": {"sign": 1},
        "1/‖w‖": {"power": sp.Rational(-1, 2)},
        "printed in the proof: ∇g(w̄)ᵀv": {"along_v": True},
    },
    scope="g the general polynomial of degree two in three variables, v = w × p",
)
def lemma_b_3(sign=-1, power=-1, along_v=False):
    u = sp.Matrix(sp.symbols("u1:4", real=True))
    a, b = sp.Matrix(sp.symbols("a1:4")), sp.symbols("B1:7")
    curved = sp.Matrix([[b[0], b[1], b[2]], [b[1], b[3], b[4]], [b[2], b[4], b[5]]])
    g = a.dot(u) + (u.T * curved * u)[0] / 2
    unit = W / sp.sqrt(G)
    f = g.subs(list(zip(u.flat(), unit.flat(), strict=True)), simultaneous=True)
    v = W.cross(P)
    step = sp.Symbol("h", real=True)
    # vᵀ∇²f v is the second derivative along w + h v at h = 0.
    moved = (W + step * v).flat()
    along = f.subs(list(zip(W.flat(), moved, strict=True)), simultaneous=True)
    left = sp.diff(along, step, 2).subs(step, 0)
    slopes = a + curved * unit
    radial = slopes.dot(v if along_v else unit)
    right = ((v.T * curved * v)[0] + sign * radial * v.dot(v)) * G**power
    # At one rational direction and generic g, p: exact, and every term of (14) is present.
    point = list(zip(W.flat(), (1, 2, 2), strict=True))
    return sp.expand(sp.expand(left.subs(point)) - right.subs(point))


@statement(
    "intrinsic_lr",
    "Lemma B.4",
    "dW = −e^{2λ_e t} η(∇L dt + Σ^½ dB) is (5) for U = e^{−λ_e t} W, so γ = ‖W‖⁴ e^{−4λ_e t}/η²",
    kind="proof",
    mutants={
        "e^{+λ_e t} in place of e^{2λ_e t}": {"exponent": 1},
        "printed in the proof: dU = … + ∇L dt, no η, wrong sign": {"rate": -1},
        "U = e^{+λ_e t} W": {"frame": 1},
        "γ with e^{−2λ_e t}": {"gamma_exponent": -2},
    },
    scope="three dimensions; dU by the product rule (U is linear in W)",
)
def lemma_b_4(exponent=2, rate=None, frame=-1, gamma_exponent=-4):
    slopes_w, root_w = W.cross(P), sp.Matrix.hstack(W.cross(B1), W.cross(B2))
    scale = sp.exp(frame * lam_e * t)
    moved = -sp.exp(exponent * lam_e * t) * eta
    drift = frame * lam_e * scale * W + scale * moved * slopes_w
    noise = scale * moved * root_w
    # At U = scale·W gradients and Σ^½ are 1/scale times those at W.
    rate = eta if rate is None else rate
    expected = -lam_e * scale * W - rate * slopes_w / scale
    effective = (scale**2 * G / eta) ** 2
    return [
        (drift - expected).applyfunc(sp.simplify),
        (noise + rate * root_w / scale).applyfunc(sp.simplify),
        sp.simplify(effective - G**2 * sp.exp(gamma_exponent * lam_e * t) / eta**2),
    ]


@statement(
    "intrinsic_lr",
    "(15)",
    "equilibrium at rate Kη, then at η, takes (1/(4Kλ_e)) ln(γ_0/K) + (1/(4λ_e)) ln K",
    kind="simulation",
    tolerance=0.02,
    mutants={
        "K λ_e in the second phase": {"second": lambda K: 1 / K},
        "ln K² in the second phase": {"jump": 2.0},
        "1/λ_e in the first phase": {"first": lambda K: K},
    },
    scope="(10) solved exactly, γ_0 = (G_0/η)² from 1e9 to 1e24, K = 10 and 100; each phase ends "
    "within 1% of its target, which adds ln(100) to both logarithms",
)
def two_phases_15(second=lambda K: 1.0, jump=1.0, first=lambda K: 1.0):
    residuals = []
    for log_gamma, K in ((9, 10.0), (24, 10.0), (24, 100.0), (16, 100.0)):
        decay, gamma = 1e-3, 10.0**log_gamma / K**2
        target = 1 / K

        def settle(start, target, rate):
            """Time for γ to come within 1% of its target under (10), solved exactly."""
            return np.log(abs(start / target - 1) / 0.01) / (4 * rate)

        measured = settle(gamma, target, K * decay) + settle(K**2 * target, 1.0, decay)
        margin = np.log(100) / (4 * decay) * (1 + 1 / K)
        formula = first(K) * np.log(gamma / target) / (4 * K * decay)
        formula += second(K) * jump * np.log(K) / (4 * decay)
        residuals.append(measured / (formula + margin) - 1)
    return residuals


@statement(
    "intrinsic_lr",
    "E, text",
    "γ_0 of the first process is (G_0/η)²",
    kind="proof",
    mutants={"printed: G_0/η²": {"power": 1}},
)
def initial_gamma(power=2):
    norm = sp.Symbol("G_0", positive=True)
    gamma = sp.Lambda(norm, (norm / eta) ** 2)
    return sp.simplify(gamma(norm) - norm**power / eta**2)


@statement(
    "intrinsic_lr",
    "§5.3, batch size",
    "without batch norm λ_e/B alone sets the equilibrium: (9), (10) at (λ_e, Σ/B) are those at "
    "(λ_e/B, Σ) in time Bt",
    kind="proof",
    mutants={
        "printed: λ/B": {"invariant": lambda B: eta / B},
        "λ_e B": {"invariant": lambda B: B**2},
    },
    scope="γ is rescaled by B², which only multiplies the initial learning rate",
)
def batch_size(invariant=lambda B: 1):
    B, gamma, trace = sp.symbols("B gamma T", positive=True)
    # One sample in time s = Bt with intrinsic rate λ_e/B; Γ = γ/B² is its γ at equal directions.
    one_rate = lam_e / B * invariant(B)
    own = -4 * lam_e * gamma + 2 * trace / B  # (10) for batch size B
    scale = sp.Symbol("k", positive=True)
    other = (-4 * one_rate * scale * gamma + 2 * trace) * B / scale
    k = sp.solve(sp.expand(other - own).coeff(trace), scale)[0]
    speed = [gamma ** sp.Rational(-1, 2), (k * gamma) ** sp.Rational(-1, 2) * B]
    return [sp.simplify((other - own).subs(scale, k)), sp.simplify(speed[0] - speed[1])]


@statement(
    "intrinsic_lr",
    "§4, toy",
    "gradient flow with L2 on x²/(x²+y²): d(x/y)/dt = −2η (x/y)/(y² + x²), free of λ",
    kind="proof",
    mutants={"−η(x/y)/(y² + x²)": {"factor": -1}, "growing": {"factor": 2}},
)
def toy_flow(factor=-2):
    x, y, lam = sp.symbols("x y lambda", positive=True)
    loss = x**2 / (x**2 + y**2)
    velocity = [-eta * (sp.diff(loss, v) + lam * v) for v in (x, y)]
    ratio = sp.diff(x / y, x) * velocity[0] + sp.diff(x / y, y) * velocity[1]
    return sp.simplify(ratio - factor * eta * (x / y) / (x**2 + y**2))
