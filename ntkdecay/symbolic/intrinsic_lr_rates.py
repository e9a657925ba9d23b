"""Li, Lyu & Arora (2020): what they read off the equation (10) of γ — rates, times, batch sizes."""

from __future__ import annotations

import mpmath as mp
import sympy as sp

from ntkdecay.symbolic.registry import statement

eta, lam_e, t, sigma = sp.symbols("η λ_e t σ", positive=True)
norm, trace = sp.symbols("G_0 T", positive=True)


@statement(
    "intrinsic_lr",
    "Lemma 5.2, text",
    "the stationary effective learning rate γ^{−1/2} where Tr Σ = σ²",
    "rate == sqrt(2*λ_e)/σ",
    kind="proof",
    refuted={"printed: σ/√(2λ_e)": "rate == σ/sqrt(2*λ_e)"},
    scope="§5.3's equilibrium value λ_e^{−1/2} is the same slip",
)
def stationary_rate(claim):
    gamma = sp.Symbol("γ", positive=True)
    (rest,) = sp.solve(-4 * lam_e * gamma + 2 * sigma**2, gamma)  # (10) at rest
    return claim(lam_e, sigma, rate=rest ** sp.Rational(-1, 2))


@statement(
    "intrinsic_lr",
    "(15)",
    "times to equilibrium at rate Kη, and from there at η, γ_0 = (G_0/η)²",
    "T_1 == 1/(4*K*λ_e)*log(γ_0/K); T_2 == 1/(4*λ_e)*log(K)",
    kind="identity",
    tolerance=1e-5,
    scope="(10) solved exactly at 40 digits with Tr Σ = 2λ_e; until γ is within 1e-30 of its "
    "target, less the logarithm of 1e-30 over the rate; γ_0 to 1e50, K to 1e12, as ln(γ_0/K) and ln K "
    "are leading terms",
)
def two_phases_15(claim):
    residuals = []
    with mp.workdps(60):
        near = mp.mpf(10) ** -30

        def settle(start, target, rate):
            """Time for γ to come near its target under (10), solved exactly."""
            return (mp.log(abs(start / target - 1) / near) + mp.log(near)) / (4 * rate)

        for log_gamma, log_k in ((50, 12), (40, 9), (30, 7)):
            K, rate = mp.mpf(10) ** log_k, mp.mpf("1e-3")
            gamma_0 = mp.mpf(10) ** log_gamma
            # γ = (G/(Kη))² goes to Tr Σ/(2Kλ_e); at the smaller rate η it is K² times larger.
            first = settle(gamma_0 / K**2, 1 / K, K * rate)
            second = settle(K**2 / K, mp.mpf(1), rate)
            relations = claim.relations(K=K, λ_e=rate, γ_0=gamma_0, T_1=first, T_2=second)
            residuals += [float(r.right / r.left - 1) for r in relations]
    return residuals


@statement(
    "intrinsic_lr",
    "E, text",
    "γ at the start at learning rates η and Kη",
    "γ_0 == (G_0/η)**2; γ_K == (G_0/(K*η))**2",
    kind="proof",
    refuted={"printed: G_0/η²": "γ_0 == G_0/η**2; γ_K == G_0/(K*η)**2"},
    scope="with G for G_0 the right-hand sides have to solve (10) when G solves (7)",
)
def initial_gamma(claim):
    K = sp.Symbol("K", positive=True)
    residuals = []
    for gamma, factor in zip(claim.sides(eta, norm, K), (1, K), strict=True):
        velocity = -2 * factor * lam_e * norm + (factor * eta) ** 2 / norm * trace
        residuals.append(sp.diff(gamma, norm) * velocity + 4 * factor * lam_e * gamma - 2 * trace)
    return residuals


@statement(
    "intrinsic_lr",
    "§5.3, batch size",
    "without batch norm: batch size B in time t is batch size 1 in time Bt with intrinsic rate λ_1 "
    "and Γ for γ",
    "λ_1 == λ_e/B; Γ == B**2*γ",
    kind="proof",
    refuted={"printed: λ/B": "λ_1 == λ_e/(η*B); Γ == B**2*γ"},
    scope="(10) with Tr Σ/B against (10) with Tr Σ, drift and noise of (9); the factor B² only "
    "multiplies the initial learning rate",
)
def batch_size(claim):
    B, gamma = sp.symbols("B γ", positive=True)
    one_rate, scaled = claim.sides(eta, lam_e, B, gamma)
    own = -4 * lam_e * gamma + 2 * trace / B
    other = B * (-4 * one_rate * scaled + 2 * trace)
    speeds = gamma ** sp.Rational(-1, 2), B * scaled ** sp.Rational(-1, 2)
    noises = (gamma * B) ** sp.Rational(-1, 2), sp.sqrt(B / scaled)
    return [
        sp.diff(scaled, gamma) * own - other,
        speeds[0] - speeds[1],
        noises[0] - noises[1],
    ]


@statement(
    "intrinsic_lr",
    "§4, toy",
    "gradient flow with L2 on a scale-invariant loss of two parameters: no λ in the direction",
    "L = x**2/(x**2 + y**2); q_dot == -2*η*(x/y)/(x**2 + y**2)",
    kind="proof",
    show={"q_dot": "d(x/y)/dt"},
)
def toy_flow(claim):
    x, y, lam = sp.symbols("x y λ", positive=True)
    loss = claim.value("L", x, y, eta)
    velocity = [-eta * (sp.diff(loss, v) + lam * v) for v in (x, y)]
    ratio = sp.diff(x / y, x) * velocity[0] + sp.diff(x / y, y) * velocity[1]
    return claim(x, y, eta, q_dot=ratio)
