r"""The closed form of a mode under L2, proved: where eq. (3) has an integral, this has G_s.

.. math:: G_s(u) = u^{1-s} e^u \Gamma(s, u), \quad s = \frac{k-2}{2(k-1)}, \quad
          u_t = \frac{\gamma}{c} e^{-ct}, \quad c = 2(k-1)\lambda

.. math:: f(t) = y\,G_s(u_t) + (u_t/u_0)^{1-s} e^{u_t-u_0} (f_0 - y\,G_s(u_0))
"""

from __future__ import annotations

import mpmath as mp
import sympy as sp

from ntkdecay.symbolic.registry import positive, statement

lam, gamma, c, t, u, w = sp.symbols("lambda gamma c t u w", positive=True)
p = sp.Symbol("p", positive=True)  # 1 − s, which is above 1/2 for every k > 1
s, f0, y = sp.symbols("s f_0 y", real=True)


def _g(u, s):
    return u ** (1 - s) * sp.exp(u) * sp.uppergamma(s, u)


@statement(
    "ntkdecay",
    "G_s, integral",
    "G_s(u) = ∫_0^∞ e^{−w} (1 + w/u)^{s−1} dw",
    kind="proof",
    mutants={"(1 + w/u)^s": {"power": s}, "(1 − w/u)^{s−1}": {"sign": -1}},
    scope="the substitution x = u + w in Γ(s, u) = ∫_u^∞ x^{s−1} e^{−x} dx, for any real s",
)
def g_integral(power=s - 1, sign=1):
    incomplete_gamma = (u + w) ** (s - 1) * sp.exp(-(u + w))
    ratio = u ** (1 - s) * sp.exp(u) * incomplete_gamma / (1 + sign * w / u) ** power
    return sp.expand_log(sp.log(ratio.rewrite(sp.exp)), force=True).simplify() + w


@statement(
    "ntkdecay",
    "G_s, equation",
    "u G_s' = (1 − s + u) G_s − u",
    kind="proof",
    mutants={"+ u": {"source": u}, "(s + u) G_s": {"rate": s + u}},
)
def g_equation(source=-u, rate=1 - s + u):
    return u * sp.diff(_g(u, s), u) - rate * _g(u, s) - source


@statement(
    "ntkdecay",
    "G_s, limits",
    "1 − (1−s)/u ≤ G_s(u) ≤ min(1, √(πu)) and G_s increases, so G_s(0) = 0 and G_s(∞) = 1",
    kind="proof",
    mutants={
        "bound √u": {"near_zero": lambda u: sp.sqrt(u)},
        "bound 1 − 2(1−s)/u": {"near_infinity": lambda u: 1 - 2 * p / u},
        "decreasing": {"slope_sign": -1},
    },
    scope="for s ≤ 1/2, that is k > 1; term by term under the integral",
)
def g_limits(
    near_zero=lambda u: sp.sqrt(sp.pi * u), near_infinity=lambda u: 1 - p / u, slope_sign=1
):
    x = sp.Symbol("x", positive=True)
    # (1 + x)^{−p} lies above its tangent 1 − p x: they meet at 0 and the gap's slope is ≥ 0.
    gap = (1 + x) ** -p - (1 - p * x)
    tangent = sp.integrate(sp.exp(-w) * (1 - p * w / u), (w, 0, sp.oo))
    # (1 + w/u)^{s−1} ≤ (1 + w/u)^{−1/2} ≤ (w/u)^{−1/2}.
    power = sp.integrate(sp.exp(-w) * sp.sqrt(u / w), (w, 0, sp.oo))
    slope = slope_sign * sp.diff((1 + w / u) ** -p, u)
    return [
        gap.subs(x, 0),
        sp.diff(gap, x) - p * (1 - (1 + x) ** (-p - 1)),
        tangent - near_infinity(u),
        power - near_zero(u),
        positive(sp.simplify(slope)),
    ]


def _closed_form(s, transient=1):
    u0 = gamma / c
    ut = u0 * sp.exp(-c * t)
    free = (ut / u0) ** (1 - s) * sp.exp(transient * (ut - u0))
    return y * _g(ut, s) + free * (f0 - y * _g(u0, s))


@statement(
    "ntkdecay",
    "closed form",
    "y G_s(u_t) + (u_t/u_0)^{1−s} e^{u_t−u_0} (f_0 − y G_s(u_0)) solves the mode equation from f_0",
    kind="proof",
    mutants={
        "s = k/(2(k−1))": {"index": lambda k: k / (2 * (k - 1))},
        "s = (k−1)/(2(k−1))": {"index": lambda k: sp.Rational(1, 2)},
        "e^{u_0−u_t}": {"transient": -1},
    },
    scope="symbolic k ≠ 1, γ, λ, y, f_0; with (3) proved to solve the same linear equation from "
    "the same start, the two are equal",
)
def closed_form(index=lambda k: (k - 2) / (2 * (k - 1)), transient=1):
    k = 1 + c / (2 * lam)
    f = _closed_form(sp.simplify(index(k)), transient)
    velocity = -gamma * sp.exp(-c * t) * (f - y) - k * lam * f
    residual = (sp.diff(f, t) - velocity).rewrite(sp.uppergamma)
    return [sp.powsimp(sp.expand(residual)), f.subs(t, 0) - f0]


@statement(
    "ntkdecay",
    "closed form, digits",
    "closed form and eq. (3) by quadrature agree at 40 digits",
    kind="identity",
    tolerance=1e-30,
    mutants={
        "s = k/(2(k−1))": {"index": lambda k: k / (2 * (k - 1))},
        "γ(t') with + in (3)": {"sign": 1},
    },
    scope="k from 1.3 to 10, γ/λ from 0.03 to 40",
)
def closed_form_digits(index=lambda k: (k - 2) / (2 * (k - 1)), sign=-1):
    cases = [("1.3", 1, "0.5"), ("2", "0.3", 10), ("3", 8, "0.2"), ("4.5", 2, 1), ("10", 1, 2)]
    with mp.workdps(40):
        residuals = []
        for degree, eigenvalue, l2 in cases:
            k, eig, l2 = mp.mpf(degree), mp.mpf(eigenvalue), mp.mpf(l2)
            c, start, label, end = 2 * (k - 1) * l2, mp.mpf("0.3"), mp.mpf("-1.2"), 1 / l2

            def at(t, c=c, eig=eig):
                return eig * mp.exp(-c * t) / c

            def integrand(t, at=at, k=k, l2=l2):
                return mp.exp(sign * at(t) - (k - 2) * l2 * t)

            integral = mp.quad(integrand, mp.linspace(0, end, 9))
            printed = mp.exp(at(end) - k * l2 * end) * (
                mp.exp(-at(0)) * start + eig * label * integral
            )
            residuals.append(float(abs(_mode(end, eig, l2, k, start, label, index) - printed)))
        return residuals


def _mode(t, eigenvalue, l2, k, f0, y, index=lambda k: (k - 2) / (2 * (k - 1))):
    """The closed form by mpmath, G_s from its integral where Γ(s, u) would be slow."""
    c, s = 2 * (k - 1) * l2, index(k)
    u0 = eigenvalue / c
    ut = u0 * mp.exp(-c * t)
    free = (ut / u0) ** (1 - s) * mp.exp(u0 * mp.expm1(-c * t))
    return y * _g_digits(ut, s) + free * (f0 - y * _g_digits(u0, s))


def _g_digits(u, s):
    if abs(s) < 100:
        return u ** (1 - s) * mp.exp(u) * mp.gammainc(s, u)
    return mp.quad(lambda w: mp.exp(-w + (s - 1) * mp.log1p(w / u)), [0, 1, 4, 16, 64, mp.inf])


@statement(
    "ntkdecay",
    "closed form, k = 0, 1",
    "y + (f_0−y) e^{−γ(e^{2λt}−1)/(2λ)} at k = 0; y γ/(γ+λ) + … e^{−(γ+λ)t} at k = 1",
    kind="proof",
    mutants={
        "e^{λt} at k = 0": {"growth": 1},
        "γ/(γ+2λ) at k = 1": {"shift": 2},
    },
)
def closed_form_k_0_and_1(growth=2, shift=1):
    scale_invariant = y + (f0 - y) * sp.exp(
        -gamma * (sp.exp(growth * lam * t) - 1) / (growth * lam)
    )
    rest = gamma * y / (gamma + shift * lam)
    linear = rest + (f0 - rest) * sp.exp(-(gamma + lam) * t)
    return [
        residual
        for k, f in ((0, scale_invariant), (1, linear))
        for residual in (
            sp.diff(f, t) + gamma * sp.exp(-2 * (k - 1) * lam * t) * (f - y) + k * lam * f,
            f.subs(t, 0) - f0,
        )
    ]


@statement(
    "ntkdecay",
    "closed form, limits",
    "f → y + (f_0−y) e^{−γt} as λ → 0, → the linear model as k → 1, → f_0 e^{−kλt} as γ → 0",
    kind="identity",
    tolerance=1e-12,
    mutants={
        "e^{−2γt} as λ → 0": {"free_rate": 2},
        "γ/(γ+2λ) as k → 1": {"shift": 2},
        "e^{−λt} as γ → 0": {"decay": lambda k: 1},
    },
    scope="at 50 digits, the small parameter at 1e-15",
)
def closed_form_limits(free_rate=1, shift=1, decay=lambda k: k):
    with mp.workdps(50):
        small, start, label, residuals = mp.mpf("1e-15"), mp.mpf("0.3"), mp.mpf("-1.2"), []
        for degree in ("1.5", "2", "4"):
            k, eig, t = mp.mpf(degree), mp.mpf("0.7"), mp.mpf("1.3")
            unregularized = label + (start - label) * mp.exp(-free_rate * eig * t)
            residuals.append(_mode(t, eig, small, k, start, label) - unregularized)
            flat = start * mp.exp(-decay(k) * t * mp.mpf("0.4"))
            residuals.append(_mode(t, small**2, mp.mpf("0.4"), k, start, label) - flat)
        eig, l2, t = mp.mpf("0.7"), mp.mpf("0.4"), mp.mpf("1.3")
        rest = label * eig / (eig + shift * l2)
        linear = rest + (start - rest) * mp.exp(-(eig + l2) * t)
        residuals.append(_mode(t, eig, l2, 1 + small, start, label) - linear)
        return [float(abs(r)) for r in residuals]


@statement(
    "ntkdecay",
    "t_peak",
    "γ t_peak = L + (λ/γ)[(k−1)L² − (5k−4)L + 6k − 4] + O((λ/γ)²), L = ln(γ²/(2k(k−1)λ²))",
    kind="simulation",
    tolerance=0.2,
    mutants={
        "L = ln(γ²/(k(k−1)λ²))": {"inside": lambda k: k * (k - 1)},
        "(5k−2)L": {"linear": lambda k: 5 * k - 2},
        "+(5k−4)L": {"linear": lambda k: 4 - 5 * k},
    },
    scope="f_0 = 0, k = 2, 2.5 and 3; residual: distance from −2 of the exponent with which the "
    "error falls from γ/λ = 1e9 to 1e12; λ t_peak is then (λ/γ) L: it falls as γ/λ grows",
)
def peak_time(inside=lambda k: 2 * k * (k - 1), linear=lambda k: 5 * k - 4):
    with mp.workdps(60):
        residuals = []
        for degree in ("2", "2.5", "3"):
            k, errors = mp.mpf(degree), []
            for ratio in (mp.mpf(10) ** 9, mp.mpf(10) ** 12):

                def velocity(x, k=k, r=ratio):
                    f = _mode(x / r, r, mp.mpf(1), k, mp.mpf(0), mp.mpf(1))
                    return mp.exp(-2 * (k - 1) * x / r) * (1 - f) * r - k * f

                log = mp.log(ratio**2 / inside(k))
                expansion = log + ((k - 1) * log**2 - linear(k) * log + 6 * k - 4) / ratio
                errors.append(abs(mp.findroot(velocity, (log, log + 1e-3)) - expansion))
            residuals.append(float(mp.log(errors[1] / errors[0]) / mp.log(1000)) + 2)
        return residuals


@statement(
    "l2",
    "§5",
    "stretching time by 1/λ: f(t; γ, λ) depends on λt and γ/λ only, so t_peak ∝ 1/λ at fixed γ/λ",
    kind="proof",
    mutants={"printed: time ∝ λ": {"power": 1}, "time independent of λ": {"power": 0}},
)
def time_scales_as_one_over_l2(power=-1):
    a, k = sp.Symbol("a", positive=True), sp.Symbol("k", positive=True)

    def right_hand_side(f, t, gamma, lam):
        return -gamma * sp.exp(-2 * (k - 1) * lam * t) * (f - y) - k * lam * f

    # If f(t) solves the equation for (γ, λ), then f(t/a^power) must solve it for (aγ, aλ).
    f, stretched = sp.Symbol("f", real=True), t * a**power
    return right_hand_side(f, t, gamma, lam) / a**power - right_hand_side(
        f, stretched, a * gamma, a * lam
    )


@statement(
    "ntkdecay",
    "test points",
    "f_*(t) = e^{−kλt} f_*(0) + Σ_a (K_*·ê_a) (f_a(t) − e^{−kλt} f_a(0))/γ_a solves (1)",
    kind="proof",
    mutants={"without the decay of f_a(0)": {"decay": 0}, "e^{−λt} f_a(0)": {"decay": 1}},
    scope="one mode (the sum is linear), any solution f_a of the mode equation, symbolic k",
)
def mode_to_test_points(decay=None):
    k, cross, start = sp.symbols("k K_* f_*", real=True)
    mode, decay = sp.Function("f_a")(t), k if decay is None else decay
    velocity = -gamma * sp.exp(-2 * (k - 1) * lam * t) * (mode - y) - k * lam * mode
    readout = (mode - sp.exp(-decay * lam * t) * f0) / gamma
    f = sp.exp(-k * lam * t) * start + cross * readout
    expected = -sp.exp(-2 * (k - 1) * lam * t) * cross * (mode - y) - k * lam * f
    return sp.diff(f, t).subs(sp.Derivative(mode, t), velocity) - expected
