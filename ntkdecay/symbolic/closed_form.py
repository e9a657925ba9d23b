r"""The closed form of a mode under L2, proved: where eq. (3) has an integral, this has G_s.

.. math:: G_s(u) = u^{1-s} e^u \Gamma(s, u), \quad s = \frac{k-2}{2(k-1)}, \quad
          u_t = \frac{\gamma}{c} e^{-ct}, \quad c = 2(k-1)\lambda

.. math:: f(t) = y\,G_s(u_t) + (u_t/u_0)^{1-s} e^{u_t-u_0} (f_0 - y\,G_s(u_0))

Its digits, its limits and the time of its peak are in `symbolic.closed_form_digits`.
"""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import positive

lam, gamma, c, t, u, w = sp.symbols("λ γ c t u w", positive=True)
s, f0, y = sp.symbols("s f_0 y", real=True)

G_S = "u**(1 - s)*exp(u)*Gamma(s, u)"
CLOSED_FORM = (
    "c = 2*(k - 1)*λ; s = (k - 2)/(2*(k - 1)); u_0 = γ/c; u_t = u_0*exp(-c*t); "
    "f_t == y*G(s, u_t) + (u_t/u_0)**(1 - s)*exp(u_t - u_0)*(f_0 - y*G(s, u_0))"
)


def g(s, u):
    return u ** (1 - s) * sp.exp(u) * sp.uppergamma(s, u)


@statement(
    "ntkdecay",
    "G_s, integral",
    "G_s by the incomplete Γ function and by an integral",
    f"{G_S} == Integral(exp(-w)*(1 + w/u)**(s - 1), w, 0, oo)",
    kind="proof",
    show={"oo": "∞"},
    survivors={"∞ → 2∞": "twice infinity is infinity"},
    scope="the substitution x = u + w in Γ(s, u) = ∫_u^∞ x^{s−1} e^{−x} dx, for any real s",
)
def g_integral(claim):
    ends = []

    def integrand(f, x, low, high):
        ends.extend([low, high - sp.oo if high != sp.oo else 0])
        return f

    # Γ(s, u), with its argument x, stands for its integrand at x = u + w.
    def gamma_integrand(s, x):
        return (x + w) ** (s - 1) * sp.exp(-(x + w))

    (relation,) = claim.relations(u, s, w, oo=sp.oo, Gamma=gamma_integrand, Integral=integrand)
    ratio = sp.log(relation.left / relation.right)
    return [sp.simplify(sp.expand_log(ratio, force=True)), *ends]


@statement(
    "ntkdecay",
    "G_s, equation",
    "the differential equation of G_s",
    f"G = {G_S}; u*d(G, u) == (1 - s + u)*G - u",
    kind="proof",
    scope="any real s",
)
def g_equation(claim):
    return claim(u, s)


@statement(
    "ntkdecay",
    "G_s, limits",
    "bounds between which G_s increases from 0 to 1",
    "1 - (1 - s)/u <= G <= Min(1, sqrt(pi*u))",
    kind="proof",
    scope="for s ≤ 1/2, that is k > 1; term by term under the integral: (1 + x)^{s−1} is above its "
    "tangent at 0, at most 1 and at most x^{−1/2}; each bound is what its integral gives, and the "
    "integrand increases with u",
)
def g_limits(claim):
    x, p = sp.symbols("x p", positive=True)  # p = 1 − s, which is ≥ 1/2
    value = sp.Symbol("G", positive=True)
    low, high = claim.relations(u, s=1 - p, G=value, Min=lambda *bounds: sp.Tuple(*bounds))
    # (1 + x)^{−p} lies above its tangent 1 − p x: they meet at 0 and the gap's slope is ≥ 0.
    gap = (1 + x) ** -p - (1 - p * x)
    tangent = sp.integrate(sp.exp(-w) * (1 - p * w / u), (w, 0, sp.oo))
    # (1 + w/u)^{s−1} ≤ (1 + w/u)^{−1/2} ≤ (w/u)^{−1/2}, and it is ≤ 1.
    power = sp.integrate(sp.exp(-w) * sp.sqrt(u / w), (w, 0, sp.oo))
    one, root = high.right if isinstance(high.right, sp.Tuple) else (0, 0)
    return [
        [low.sign == "<=", high.sign == "<=", low.right - value],
        [gap.subs(x, 0), sp.diff(gap, x) - p * (1 - (1 + x) ** (-p - 1))],
        [tangent - low.left, power - root, one - sp.integrate(sp.exp(-w), (w, 0, sp.oo))],
        positive(sp.simplify(sp.diff((1 + w / u) ** -p, u))),
    ]


@statement(
    "ntkdecay",
    "closed form",
    "the solution of the mode equation of (3) from f_0",
    CLOSED_FORM,
    kind="proof",
    scope="symbolic k ≠ 1, γ, λ, y, f_0, G(s, u) = G_s(u); with (3) proved to solve the same linear "
    "equation from the same start, the two are equal",
)
def closed_form(claim):
    k = 1 + c / (2 * lam)
    (f,) = claim.sides(lam, gamma, t, y, f0, k=k, G=g)
    velocity = -gamma * sp.exp(-c * t) * (f - y) - k * lam * f
    residual = (sp.diff(f, t) - velocity).rewrite(sp.uppergamma)
    return [sp.powsimp(sp.expand(residual)), f.subs(t, 0) - f0]


@statement(
    "ntkdecay",
    "closed form, k = 0, 1",
    "the solutions g at k = 0 and h at k = 1",
    "g == y + (f_0 - y)*exp(-γ*(exp(2*λ*t) - 1)/(2*λ)); "
    "r = γ*y/(γ + λ); h == r + (f_0 - r)*exp(-(γ + λ)*t)",
    kind="proof",
)
def closed_form_k_0_and_1(claim):
    residuals = []
    for k, f in enumerate(claim.sides(lam, gamma, t, f0, y)):
        force = gamma * sp.exp(-2 * (k - 1) * lam * t) * (f - y)
        residuals += [sp.diff(f, t) + force + k * lam * f, f.subs(t, 0) - f0]
    return residuals


@statement(
    "l2",
    "§5",
    "a solution for (γ, λ), with time divided by a, is one for (γ', λ'): t_peak ∝ 1/λ at fixed γ/λ",
    "t_prime == t/a; γ_prime == a*γ; λ_prime == a*λ",
    kind="proof",
    refuted={
        "printed: time ∝ λ": "t_prime == a*t; γ_prime == a*γ; λ_prime == a*λ",
        "time independent of λ": "t_prime == t; γ_prime == a*γ; λ_prime == a*λ",
    },
)
def time_scales_as_one_over_l2(claim):
    a, k, f = sp.symbols("a k f", positive=True)

    def right_hand_side(t, gamma, lam):
        return -gamma * sp.exp(-2 * (k - 1) * lam * t) * (f - y) - k * lam * f

    stretched, eigenvalue, l2 = claim.sides(a, t, gamma, lam)
    speed = sp.diff(stretched, t)
    return right_hand_side(t, gamma, lam) - speed * right_hand_side(stretched, eigenvalue, l2)


@statement(
    "ntkdecay",
    "test points",
    "the function at a test point with kernel row K, from a mode f_a of the training set",
    "f_x == exp(-k*λ*t)*f_x_0 + K*(f_a - exp(-k*λ*t)*f_a_0)/γ",
    kind="proof",
    scope="it solves (1), from f_x(0); one mode (the sum is linear), any solution f_a of the mode "
    "equation, symbolic k",
)
def mode_to_test_points(claim):
    k, cross, start, own = sp.symbols("k K f_x_0 f_a_0", real=True)
    mode = sp.Function("f_a")(t)
    velocity = -gamma * sp.exp(-2 * (k - 1) * lam * t) * (mode - y) - k * lam * mode
    (f,) = claim.sides(k, cross, start, own, lam, gamma, t, f_a=mode)
    expected = -sp.exp(-2 * (k - 1) * lam * t) * cross * (mode - y) - k * lam * f
    return [
        sp.diff(f, t).subs(sp.Derivative(mode, t), velocity) - expected,
        f.subs(mode, own).subs(t, 0) - start,
    ]
