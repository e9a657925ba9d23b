"""The closed form of a mode and its three derivatives in mpmath, which has no overflow."""

import mpmath as mp


def gain_and_slope(u, s):
    """G_s and its derivative, G' = G(1 + (1−s)/u) − 1; by their asymptotic series where that cancels."""
    if u > 200:
        terms = [(-1) ** n * mp.rf(1 - s, n) / u**n for n in range(20)]
        return mp.fsum(terms), -mp.fsum(n * term for n, term in enumerate(terms)) / u
    gain = u ** (1 - s) * mp.exp(u) * mp.gammainc(s, u)
    return gain, gain * (1 + (1 - s) / u) - 1


def value_and_slopes(point):
    """f(t), ∂f/∂t, ∂f/∂γ and ∂f/∂λ for `point` = (t, γ, λ, k, f(0), y)."""
    with mp.workdps(34):
        t, gamma, l2, k, f0, y = (mp.mpf(number) for number in point)
        c, dc = 2 * (k - 1) * l2, 2 * (k - 1)
        rho = mp.exp(-c * t)
        tau = t if c == 0 else -mp.expm1(-c * t) / c
        dtau = -t * t / 2 if c == 0 else (t * rho - tau) / c
        x, dx = k * l2 * t + gamma * tau, (tau, k * t + gamma * dtau * dc)  # by γ and by λ
        kept = mp.exp(-x)
        if gamma == 0:
            lag = k * l2 - c
            learned = mp.mpf(0)
            slopes = [(rho - kept) / lag if lag else t * rho, mp.mpf(0)]
        elif k == 0:
            learned, slopes = 1 - kept, [kept * d for d in dx]
        elif l2 == 0:
            learned, slopes = 1 - kept, [kept * t, _slope_at_no_l2(t, gamma, k)]
        elif k == 1:
            share = gamma / (gamma + l2)
            learned = share * (1 - kept)
            dshare = l2 / (gamma + l2) ** 2, -gamma / (gamma + l2) ** 2
            slopes = [d * (1 - kept) + share * kept * e for d, e in zip(dshare, dx, strict=True)]
        else:
            s = (k - 2) / (2 * (k - 1))
            u0, ut = gamma / c, gamma / c * rho
            (g0, dg0), (gt, dgt) = gain_and_slope(u0, s), gain_and_slope(ut, s)
            learned = gt - kept * g0
            du0, dut = (u0 / gamma, -u0 / l2), (ut / gamma, -ut / l2 - ut * t * dc)
            slopes = [
                dgt * b - kept * (dg0 * a - g0 * d) for a, b, d in zip(du0, dut, dx, strict=True)
            ]
        f = kept * f0 + learned * y
        by_t = -gamma * rho * (f - y) - k * l2 * f
        rest = (slope * y - d * kept * f0 for slope, d in zip(slopes, dx, strict=True))
        return [float(number) for number in (f, by_t, *rest)]


def _slope_at_no_l2(t, gamma, k):
    """∂X/∂λ at λ = 0: X solves Ẋ = γe^{−ct}(1 − X) − kλX."""
    lost = mp.exp(
        -gamma * t
    )  # and so this is ∫ e^{−γ(t−s)} [−2(k−1)γs e^{−γs} − k(1 − e^{−γs})] ds
    return -(k - 1) * gamma * t**2 * lost - k * ((1 - lost) / gamma - t * lost)
