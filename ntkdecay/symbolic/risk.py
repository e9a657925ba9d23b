r"""What the learning curve of `risk` rests on: its filter, proved, and ridge regression."""

from __future__ import annotations

import numpy as np
import sympy as sp

from ntkdecay.symbolic.registry import statement

lam, gamma, t, v = sp.symbols("λ γ t v", positive=True)
p = sp.symbols("p", positive=True)  # k − 1


@statement(
    "ntkdecay",
    "learned, filter",
    "what is learned of a label, X in f = e^{−x} f_0 + X y, as an entire function of γ",
    "c = 2*(k - 1)*λ; σ = k/(2*(k - 1)); "
    "X == Integral(γ*exp(-γ*v)*(1 + c*exp(c*t)*v)**(-σ), v, 0, (1 - exp(-c*t))/c)",
    kind="proof",
    scope="Ẋ = γe^{−ct}(1 − X) − kλX with X = 0 at t = 0, for symbolic k > 1; under the integral, by parts",
)
def learned_filter(claim):
    parts = []

    def integral(integrand, variable, low, high):
        parts.extend([integrand, low, high])
        return whole

    k, whole = 1 + p, sp.Symbol("X")
    (relation,) = claim.relations(lam, gamma, t, v, k=k, X=whole, Integral=integral)
    w, low, high = parts
    c = 2 * p * lam
    fading = sp.exp(-c * t)
    # dX/dt + kλX + γe^{−ct}X is that of w, under the integral, and w τ' at its end: together e^{−ct} w(0)
    log = sp.expand_log(sp.log(w), force=True)
    inside = sp.diff(log, t) + fading * sp.diff(log, v) + k * lam + gamma * fading
    start = sp.log(gamma) - log.subs(v, 0)
    ends = low, sp.diff(high, t) - fading, high.subs(t, 0)
    return [_rational(one) for one in (inside, start, *ends, relation.right - whole)]


def _rational(expression):
    """Zero where the expression is: its exponential is one number more."""
    growth = sp.Symbol("G", positive=True)
    plain = sp.expand(expression).subs(sp.exp(2 * p * lam * t), growth)
    return sp.cancel(sp.together(sp.expand(plain).subs(sp.exp(-2 * p * lam * t), 1 / growth)))


@statement(
    "ntkdecay",
    "learning curve, ridge",
    "the expected test error of degree 1 at t = ∞, for noise s, against `risk.learning_curve`",
    "A = Λ_1/(Λ_1 + κ); B = Λ_2/(Λ_2 + κ); λ == κ*(1 - (A + B)/n); "
    "E == (κ**2*(c_1**2*A**2/Λ_1 + c_2**2*B**2/Λ_2) + s**2*(A**2 + B**2)/n)/(1 - (A**2 + B**2)/n)",
    kind="identity",
    tolerance=1e-10,
    scope="two modes, n = 2.5 and 40 samples, κ of the size of each: the double contour integral is another way to it",
)
def learning_curve_ridge(claim):
    from ntkdecay import risk

    eigenvalues, coefficients, noise, residuals = [0.7, 0.02], [1.3, -2.0], 0.6, []
    known = {"Λ_1": 0.7, "Λ_2": 0.02, "c_1": 1.3, "c_2": -2.0, "s": noise}
    for n, kappa in ((2.5, 1.0), (40.0, 0.05)):
        l2, error = claim.sides(n=n, κ=kappa, **known)
        found = risk.learning_curve(
            np.array(eigenvalues),
            np.array(coefficients),
            n,
            t=np.inf,
            l2=abs(l2),
            degree=1,
            noise=noise,
        )
        residuals.append(float(abs(found / error - 1)) + (l2 < 0))
    return residuals


@statement(
    "ntkdecay",
    "λ(t), mixture",
    "what is learned of a mode under a λ(t) that shrinks f to s of it at one instant, and under one that falls at a rate",
    "stopped == 1 - exp(-γ*τ); pulsed == (1 - s)*early + s*late; "
    "h == γ*Integral(exp(-γ*(τ - x))*(A_τ/A_x)**(k/(2*k - 2)), x, 0, τ)",
    kind="proof",
    show={"early": "(1 − e^{−γτ_1})", "late": "(1 − e^{−γτ_2})", "A_τ": "A(τ)", "A_x": "A(x)"},
    scope="τ driven time, dτ = A dt, A = e^{−2(k−1)∫λ}, k > 1 symbolic: the instant comes when τ_1 of τ_2 is left; "
    "(A_τ/A_x)^{k/(2k−2)} = e^{−k∫λ} is any function that falls from 1, so h is a mixture of stopped ones",
)
def mixture(claim):
    gamma, tau, first, more, s, x = sp.symbols("γ τ τ_1 x_1 s x", positive=True)
    k, scale, whole, parts = 1 + p, sp.Function("A", positive=True), sp.Symbol("h"), []

    def integral(integrand, variable, low, high):
        parts[:] = [integrand, low, high]
        return whole

    def of(tau, early=0, late=0):
        known = {"k": k, "A_τ": scale(tau), "A_x": scale(x), "Integral": integral}
        return claim.sides(gamma, s, x, τ=tau, early=early, late=late, **known)

    early, late, between = (of(at)[0] for at in (first, first + more, more))
    # driven on from s times what was learned: what is left to learn decays
    onwards = 1 - (1 - s * between) * sp.exp(-gamma * first)
    _, pulsed, h = of(tau, early, late)
    # dh/dτ = γ(1 − h) − kλh/A with dA/dτ = −2(k−1)λ: of the integrand, and at its ends
    w, low, high = parts
    log = sp.expand_log(sp.log(w), force=True)
    rate = k / (2 * p) * sp.diff(scale(tau), tau) / scale(tau) - gamma
    inside = sp.simplify(sp.diff(log, tau) - rate)
    return [
        sp.expand(pulsed - onwards),
        inside,
        w.subs(x, tau) - 1,
        low,
        high - tau,
        h - gamma * whole,
    ]
