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
