"""The closed form of a mode by mpmath: against eq. (3), in its limits, and where it peaks."""

from __future__ import annotations

from typing import Any

import mpmath as mp

from ntkdecay.symbolic.claims import Claim
from ntkdecay.symbolic.closed_form import CLOSED_FORM
from ntkdecay.symbolic.registry import statement

_FORMULA = Claim(CLOSED_FORM)


def g_digits(s, u):
    """G_s(u), from its integral where Γ(s, u) would be slow."""
    if abs(s) < 100:
        return u ** (1 - s) * mp.exp(u) * mp.gammainc(s, u)
    return mp.quad(lambda w: mp.exp(-w + (s - 1) * mp.log1p(w / u)), [0, 1, 4, 16, 64, mp.inf])


def _mode(t, eigenvalue, l2, k, f0, y, formula=_FORMULA):
    (f,) = formula.sides(t=t, γ=eigenvalue, λ=l2, k=k, f_0=f0, y=y, G=g_digits)
    return f


@statement(
    "ntkdecay",
    "closed form, digits",
    "the closed form against eq. (3) by quadrature at 40 digits",
    CLOSED_FORM,
    kind="identity",
    tolerance=1e-30,
    scope="k from 1.3 to 10, γ/λ from 0.03 to 40; G(s, u) = G_s(u)",
)
def closed_form_digits(claim):
    cases = [("1.3", 1, "0.5"), ("2", "0.3", 10), ("3", 8, "0.2"), ("4.5", 2, 1), ("10", 1, 2)]
    with mp.workdps(40):
        residuals = []
        for degree, eigenvalue, l2 in cases:
            case = mp.mpf(degree), mp.mpf(eigenvalue), mp.mpf(l2)
            k, eig, l2 = case
            start, label = mp.mpf("0.3"), mp.mpf("-1.2")
            ours = _mode(1 / l2, eig, l2, k, start, label, claim)
            residuals.append(float(abs(ours - _printed(*map(str, case)))))
        return residuals


_CACHE: dict[tuple[str, ...], Any] = {}


def _printed(*case):
    """Eq. (3) at t = 1/λ from 0.3 to the label −1.2, its integral by quadrature."""
    if case not in _CACHE:
        k, eig, l2 = map(mp.mpf, case)
        c, start, label, end = 2 * (k - 1) * l2, mp.mpf("0.3"), mp.mpf("-1.2"), 1 / l2

        def at(t):
            return eig * mp.exp(-c * t) / c

        integral = mp.quad(lambda t: mp.exp(-at(t) - (k - 2) * l2 * t), mp.linspace(0, end, 9))
        _CACHE[case] = mp.exp(at(end) - k * l2 * end) * (
            mp.exp(-at(0)) * start + eig * label * integral
        )
    return _CACHE[case]


@statement(
    "ntkdecay",
    "closed form, limits",
    "the closed form as λ → 0 (p), as γ → 0 (q) and as k → 1 (r)",
    "p == y + (f_0 - y)*exp(-γ*t); q == f_0*exp(-k*λ*t); "
    "r_1 = y*γ/(γ + λ); r == r_1 + (f_0 - r_1)*exp(-(γ + λ)*t)",
    kind="identity",
    tolerance=1e-12,
    scope="at 50 digits, the small parameter at 1e-15",
)
def closed_form_limits(claim):
    with mp.workdps(50):
        small, start, label = mp.mpf("1e-15"), mp.mpf("0.3"), mp.mpf("-1.2")
        eig, l2, t, residuals = mp.mpf("0.7"), mp.mpf("0.4"), mp.mpf("1.3"), []
        for degree in ("1.5", "2", "4"):
            k = mp.mpf(degree)
            known = {"k": k, "γ": eig, "λ": l2, "t": t, "f_0": start, "y": label}
            p, q, r = claim.sides(**known)
            residuals.append(_mode(t, eig, small, k, start, label) - p)
            residuals.append(_mode(t, small**2, l2, k, start, label) - q)
        residuals.append(_mode(t, eig, l2, 1 + small, start, label) - r)
        return [float(abs(residual)) for residual in residuals]


@statement(
    "ntkdecay",
    "t_peak",
    "when one mode peaks, for γ ≫ λ and f_0 = 0",
    "L = log(γ**2/(2*k*(k - 1)*λ**2)); γ*t_peak == L + λ/γ*((k - 1)*L**2 - (5*k - 4)*L + 6*k - 4)",
    kind="simulation",
    tolerance=0.02,
    scope="up to O((λ/γ)²): k = 2, 2.5 and 3; residual: distance from −2 of the exponent with which "
    "the error falls from γ/λ = 1e20 to 1e24, less that of its ln³; λ t_peak falls as γ/λ grows",
)
def peak_time(claim):
    with mp.workdps(160):
        residuals = []
        for degree in ("2", "2.5", "3"):
            k, l2, errors = mp.mpf(degree), mp.mpf("0.5"), []
            for ratio in (mp.mpf(10) ** 20, mp.mpf(10) ** 24):
                peak = _peak(degree, ratio)
                (relation,) = claim.relations(k=k, γ=l2 * ratio, λ=l2, t_peak=peak / (l2 * ratio))
                errors.append(abs(relation.residual) / mp.log(ratio) ** 3)
            residuals.append(float(mp.log(errors[1] / errors[0]) / mp.log(10**4)) + 2)
        return residuals


_PEAKS: dict[tuple[str, int], Any] = {}


def _peak(degree, r):
    """γ t_peak where γ = r and λ = 1."""
    key = (degree, int(r))
    if key not in _PEAKS:
        k = mp.mpf(degree)

        def velocity(x):
            f = _mode(x / r, r, mp.mpf(1), k, mp.mpf(0), mp.mpf(1))
            return mp.exp(-2 * (k - 1) * x / r) * (1 - f) * r - k * f

        guess = mp.log(r**2 / (2 * k * (k - 1)))
        _PEAKS[key] = mp.findroot(velocity, (guess, guess + 1e-3))
    return _PEAKS[key]
