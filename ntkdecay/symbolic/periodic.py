"""Lobacheva et al. (2021): norm dynamics (3), jumps (8), (9), times (5), (6), Propositions 1–4.

The recurrence behind them (A.4) is in `symbolic.recurrent`. The main text is not among our
sources: (4a), (4b), (5), (6) are taken from the derivations in A.3 and A.5.
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import positive, statement

eta, lam, rho, g, delta = sp.symbols("eta lambda rho g delta", positive=True)
keep = sp.Symbol("m", positive=True)  # 1 − ηλ
X, P = (sp.Matrix(sp.symbols(f"{name}1:4", real=True)) for name in "xp")


def _step(sign=-1):
    """One step from x with a gradient orthogonal to it, and the squared effective gradient."""
    slope = X.cross(P)
    return keep * X + sign * eta * slope, slope.dot(slope) * X.dot(X)


@statement(
    "periodic",
    "(3)",
    "ρ²_{t+1} = (1−ηλ)² ρ²_t + η² g̃²_t/ρ²_t",
    kind="proof",
    mutants={"(1−ηλ) ρ²": {"decay": 1}, "η g̃²": {"rate": 1}, "g̃²/ρ⁴": {"power": 2}},
    scope="three dimensions, any gradient orthogonal to x (x × p), g̃ = ρ g",
)
def norm_3(decay=2, rate=2, power=1):
    after, squared = _step()
    norm = X.dot(X)
    expected = keep**decay * norm + eta**rate * squared / norm**power
    return sp.factor(sp.expand(after.dot(after)) - expected)


@statement(
    "periodic",
    "(3), derivation",
    "the cross term is −2η(1−ηλ)⟨∇f, x⟩",
    kind="proof",
    mutants={"printed: +2η(1−ηλ)⟨∇f, x⟩": {"sign": 1}},
    scope="harmless: ⟨∇f, x⟩ = 0",
)
def norm_3_cross_term(sign=-1):
    after = keep * X - eta * P  # before orthogonality is used
    rest = keep**2 * X.dot(X) + eta**2 * P.dot(P)
    return sp.expand(after.dot(after) - rest - sign * 2 * eta * keep * P.dot(X))


@statement(
    "periodic",
    "(8)",
    "cos(x_t, x_{t+1}) = (1 + η² g̃²/((1−ηλ)² ρ⁴))^{−1/2}",
    kind="proof",
    mutants={"exponent +1/2": {"power": 1}, "ρ²": {"norm_power": 1}, "(1−ηλ)": {"decay": 1}},
    scope="three dimensions, any gradient orthogonal to x; squares compared (the cosine is > 0)",
)
def cosine_8(power=-1, norm_power=2, decay=2):
    after, squared = _step()
    norm = X.dot(X)
    cosine_squared = X.dot(after) ** 2 / (norm * after.dot(after))
    stated = (1 + eta**2 * squared / (keep**decay * norm**norm_power)) ** power
    return sp.factor(sp.together(cosine_squared - stated))


@statement(
    "periodic",
    "(9)",
    "1 − cos > δ needs ρ² < η g̃/((1−ηλ)√(2δ)); exactly, √((1−δ)^{−2} − 1) in place of √(2δ)",
    kind="proof",
    mutants={"√δ": {"needed": 1}, "√(4δ)": {"needed": 4}},
    scope="(1−δ)^{−2} − 1 − 2δ = δ²(3−2δ)/(1−δ)² > 0; and 2 is the largest such factor",
)
def jump_9(needed=2):
    fraction = sp.Symbol("q", positive=True)
    jump = fraction / (1 + fraction)  # any 0 < δ < 1
    exact = 1 / (1 - jump) ** 2 - 1
    cosine = (1 + eta**2 * g**2 / (keep**2 * rho**4)) ** sp.Rational(-1, 2)
    threshold = sp.solve(sp.Eq(cosine**-2 - 1, exact), g)[-1]
    return [
        positive(exact - needed * jump),
        sp.limit(exact / (needed * jump), fraction, 0) - 1,
        sp.simplify(threshold**2 - exact * keep**2 * rho**4 / eta**2),
    ]


@statement(
    "periodic",
    "Proposition 1",
    "ρ² < ηL/√(2δ) is necessary for a δ-jump, ρ² < ηℓ/√(2δ) sufficient (both for small δ, ηλ)",
    kind="simulation",
    tolerance=0.02,
    mutants={
        "thresholds with √δ": {"inside": 1.0},
        "thresholds with √(3δ)": {"inside": 3.0},
    },
    scope="residual: how much ρ² passes the threshold, δ and ηλ up to 1e-3; exactly sufficient "
    "only for ηλ ≥ 3δ/4 to first order",
)
def proposition_1(inside=2.0):
    rng, worst = np.random.default_rng(11), []
    for _ in range(2000):
        rate, jump, decay = 10.0 ** rng.uniform(-2, 1), *(10.0 ** rng.uniform(-5, -3, 2))
        low, high = np.sort(10.0 ** rng.uniform(-1, 1, 2))
        slope, squared = rng.uniform(low, high), 10.0 ** rng.uniform(-3, 3)
        squared = rng.choice([squared, rate * slope / np.sqrt(2 * jump) * rng.uniform(0.9, 1.1)])
        jumps = 1 - (1 + (rate * slope / ((1 - decay) * squared)) ** 2) ** -0.5 > jump
        necessary, sufficient = (rate * e / np.sqrt(inside * jump) for e in (high, low))
        worst.append(max(0.0, squared / necessary - 1) if jumps else 0.0)
        worst.append(max(0.0, 1 - squared / sufficient) if not jumps else 0.0)
        # The thresholds are tight: at g̃ = L and g̃ = ℓ they are where jumps begin.
        edge = rate * high / ((1 - decay) * np.sqrt((1 - jump) ** -2 - 1))
        worst.append(abs(necessary / edge - 1))
    return max(worst)


def _jump_time(slope, squared, rate, decay, jump, limit=10**6):
    """First t whose step is a δ-jump, for an effective gradient chosen from ρ²."""
    for t in range(limit):
        effective = slope(squared)
        if (1 + (rate * effective / ((1 - rate * decay) * squared)) ** 2) ** -0.5 < 1 - jump:
            return t
        squared = (1 - rate * decay) ** 2 * squared + rate**2 * effective**2 / squared
    return np.inf


@statement(
    "periodic",
    "(5), (6), Proposition 2",
    "κ = √(η/2λ): a δ-jump comes after ln[(ηL/√(2δ) − κℓ)/(ρ_0² − κℓ)]/ln(1−4ηλ) steps at the "
    "earliest, before ln[(ηℓ/√(2δ) − κL)/(ρ_0² − κL)]/ln(1−2ηλ)",
    kind="simulation",
    tolerance=0.01,
    mutants={
        "1 − 2ηλ in (5)": {"first_rate": 2.0},
        "1 − 4ηλ in (6)": {"last_rate": 4.0},
        "κ = √(η/λ)": {"kappa": lambda rate, decay: np.sqrt(rate / decay)},
    },
    scope="effective gradients in [ℓ, L]: constant, random, and the adversary that stays at ℓ "
    "until L makes a jump; relative violation of either time",
)
def proposition_2(
    first_rate=4.0, last_rate=2.0, kappa=lambda rate, decay: np.sqrt(rate / (2 * decay))
):
    rng, worst = np.random.default_rng(13), []
    rate, decay = 0.1, 0.01
    k = kappa(rate, decay)
    for low, high, start in ((1.0, 1.3, 1.02), (1.0, 1.5, 1.5), (1.0, 1.1, 30.0), (0.5, 1.0, 4.0)):
        product = rate * decay
        # δ below ηλ ℓ²/L²: both times exist.
        jump = 0.5 * product * (low / high) ** 2
        necessary, sufficient = (rate * e / np.sqrt(2 * jump) for e in (high, low))
        squared = start * max(necessary, sufficient, np.sqrt(rate / (2 * decay)) * high)
        shift = np.array([k * low, k * high])
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (np.array([necessary, sufficient]) - shift) / (squared - shift)
            rates = np.array([first_rate, last_rate]) * product
            first, last = np.log(share) / np.log1p(-rates)
        for slope in (
            lambda _, low=low: low,
            lambda _, high=high: high,
            lambda _, low=low, high=high: rng.uniform(low, high),
            lambda s, low=low, high=high, n=necessary: high if s < n else low,
        ):
            time = _jump_time(slope, squared, rate, decay, jump)
            if not (np.isfinite(first) and np.isfinite(last)):
                return 1.0
            worst += [max(0.0, first - time - 1) / time, max(0.0, time - last - 1) / time]
    return max(worst)


@statement(
    "periodic",
    "Proposition 2, conditions",
    "κℓ < ηL/√(2δ) ⟺ δ < ηλ L²/ℓ², and κL < ηℓ/√(2δ) ⟺ δ < ηλ ℓ²/L²",
    kind="proof",
    mutants={"ηλ L/ℓ": {"power": 1}, "2ηλ L²/ℓ²": {"factor": 2}},
)
def proposition_2_conditions(power=2, factor=1):
    one, other = sp.symbols("a b", positive=True)
    boundary = factor * eta * lam * (other / one) ** power
    kappa = sp.sqrt(eta / (2 * lam))
    return sp.simplify((kappa * one) ** 2 - (eta * other) ** 2 / (2 * boundary))


@statement(
    "periodic",
    "Proposition 3, Remark 3",
    "ρ² ends in [κℓ, κL]: the effective rate η/ρ² in [√(2ηλ)/L, √(2ηλ)/ℓ], if 2ηλL ≤ ℓ",
    kind="simulation",
    tolerance=0.01,
    mutants={
        "√(ηλ)": {"inside": 1.0},
        "√(4ηλ)": {"inside": 4.0},
        "ℓ and L exchanged": {"exchanged": True},
    },
    scope="the exact recursion (3), whose α is 2ηλ − (ηλ)²; residual: relative violation",
)
def proposition_3(inside=2.0, exchanged=False):
    rng, worst = np.random.default_rng(17), []
    for rate, decay, low, high in (
        (0.1, 0.02, 1.0, 3.0),
        (0.5, 0.002, 0.2, 1.0),
        (1.0, 0.005, 1, 9),
    ):
        squared = 10.0
        for t in range(int(12 / (rate * decay))):
            effective = (low, high, rng.uniform(low, high))[(t // int(1 / (rate * decay))) % 3]
            squared = (1 - rate * decay) ** 2 * squared + rate**2 * effective**2 / squared
            if t > 6 / (rate * decay):
                least, most = (np.sqrt(inside * rate * decay) / e for e in (high, low))
                least, most = (most, least) if exchanged else (least, most)
                worst += [least / (rate / squared) - 1, (rate / squared) / most - 1]
    return max(0.0, *worst)


@statement(
    "periodic",
    "A.7, hop",
    "ρ² can hop over κL only from below 2ηλ κL/(1 − 2ηλ)",
    kind="proof",
    mutants={
        "printed: 2ηλL": {"threshold": lambda a, kappa, L: a * L},
        "2ηλ κL": {"threshold": lambda a, kappa, L: a * kappa * L},
    },
    scope="(13d) at the stationary point κL of β = η²L², α = 2ηλ",
)
def hop_threshold(threshold=lambda a, kappa, L: a * kappa * L / (1 - a)):
    a, kappa, L = sp.symbols("alpha kappa L", positive=True)
    before = threshold(a, kappa, L)
    after = (1 - a) * before + a * (kappa * L) ** 2 / before
    return sp.simplify(after - kappa * L)


@statement(
    "periodic",
    "(15)",
    "ρ_t² = (1−ηλ)^{2t} ρ_0² + η² Σ_{s<t} (1−ηλ)^{2(t−s−1)} g_s²",
    kind="proof",
    mutants={"(t−s)": {"shift": 0}, "(1−ηλ)^t ρ_0²": {"decay": 1}},
    scope="the step t to t + 1, symbolic t and any g_t",
)
def unrolled_15(shift=1, decay=2):
    t, s = sp.symbols("t s", integer=True, nonnegative=True)
    slope, start = sp.Function("g"), sp.Symbol("rho_0", positive=True)

    def term(t, s):
        return keep ** (2 * (t - s - shift)) * slope(s) ** 2

    # Σ_{s<t+1} splits into m² Σ_{s<t} and the last term.
    factor = sp.simplify(term(t + 1, s) / term(t, s))
    last = term(t + 1, t)
    return [
        factor - keep**2,
        sp.simplify(last - slope(t) ** 2),
        sp.simplify(keep ** (decay * (t + 1)) * start - keep**2 * keep ** (decay * t) * start),
    ]


@statement(
    "periodic",
    "(16)",
    "Σ_{s<t} (1−ηλ)^{2(t−s−1)} = (1−(1−ηλ)^{2t})/(1−(1−ηλ)²), so C → η/(2λ) for large t",
    kind="proof",
    mutants={
        "printed: the factor inverted": {"power": -1},
        "printed: C = 2η³λ": {"constant": 2 * eta**3 * lam},
    },
)
def averaged_16(power=1, constant=None):
    t = sp.Symbol("t", integer=True, positive=True)
    ratio = ((1 - keep ** (2 * t)) / (1 - keep**2)) ** power
    step = ratio.subs(t, t + 1) - (keep**2 * ratio + 1)  # the sum gains one term, the rest ages
    forgotten = eta**2 * ((1 - keep**2) ** -1) ** power  # t → ∞, where (1−ηλ)^{2t} → 0
    small = sp.limit(forgotten.subs(keep, 1 - eta * lam) * lam, lam, 0) / lam
    stated = eta / (2 * lam) if constant is None else constant
    return [sp.simplify(step), sp.simplify(ratio.subs(t, 1) - 1), sp.simplify(small - stated)]


@statement(
    "periodic",
    "Proposition 4",
    "(x_0, η, λ) and (c x_0, c² η, λ/c²) have the same trajectory in function space",
    kind="identity",
    tolerance=1e-11,
    mutants={"cη": {"rate_power": 1.0}, "λ/c": {"decay_power": -1.0}, "cλ": {"decay_power": 1.0}},
    scope="40 steps on x²/(x²+y²); the step itself: gradients scale by 1/c (Lemma 3.1 of "
    "intrinsic_lr), so c² η ∇f(cx) = c η ∇f(x)",
)
def proposition_4(rate_power=2.0, decay_power=-2.0):
    def slope(z):
        x, y = z
        return 2 * x * y / (x**2 + y**2) ** 2 * np.array([y, -x])

    def run(scale, rate, decay):
        z = scale * np.array([0.6, 1.0])
        path = []
        for _ in range(40):
            z = (1 - rate * decay) * z - rate * slope(z)
            path.append(z[0] / z[1])
        return path

    scale = 1.7
    return relative(
        run(scale, 0.2 * scale**rate_power, 0.05 * scale**decay_power), run(1, 0.2, 0.05)
    )
