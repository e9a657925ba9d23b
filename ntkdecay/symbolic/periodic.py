"""Lobacheva et al. (2021): norm dynamics (3), jumps (8), (9), times (5), (6), (15), (16).

The recurrence behind them (A.4) is in `symbolic.recurrent`. The main text is not among our
sources: (4a), (4b), (5), (6) are taken from the derivations in A.3 and A.5.
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from ntkdecay.symbolic.calculus import finite_sum
from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import positive

eta, lam, rho, g, delta = sp.symbols("η λ ρ g δ", positive=True)
low, high, start = sp.symbols("ell L ρ_0", positive=True)
keep = 1 - eta * lam
X, P = (sp.Matrix(sp.symbols(f"{name}1:4", real=True)) for name in "xp")


def _step():
    """One step from x with a gradient orthogonal to it, and the squared effective gradient."""
    slope = X.cross(P)
    return keep * X - eta * slope, slope.dot(slope) * X.dot(X)


@statement(
    "periodic",
    "(3)",
    "the norm ρ after a step, g̃ = ρg the effective gradient",
    "ρ_next**2 == (1 - η*λ)**2*ρ**2 + η**2*g_tilde**2/ρ**2",
    kind="proof",
    scope="three dimensions, any gradient orthogonal to x (x × p)",
)
def norm_3(claim):
    after, squared = _step()
    norms = {"ρ": sp.sqrt(X.dot(X)), "ρ_next": sp.sqrt(after.dot(after))}
    return claim(eta, lam, g_tilde=sp.sqrt(squared), **norms)


@statement(
    "periodic",
    "(3), derivation",
    "the norm after a step before orthogonality is used",
    "ρ_next**2 == (1 - η*λ)**2*dot(x, x) - 2*η*(1 - η*λ)*dot(grad_f, x) + η**2*dot(grad_f, grad_f)",
    kind="proof",
    refuted={
        "printed: +2η(1−ηλ)⟨∇f, x⟩": "ρ_next**2 == (1 - η*λ)**2*dot(x, x) "
        "+ 2*η*(1 - η*λ)*dot(grad_f, x) + η**2*dot(grad_f, grad_f)"
    },
    show={"grad_f": "∇f"},
    scope="harmless: ⟨∇f, x⟩ = 0",
)
def norm_3_cross_term(claim):
    after = keep * X - eta * P
    norm = sp.sqrt(after.dot(after))
    return claim(eta, lam, ρ_next=norm, x=X, grad_f=P, dot=lambda a, b: a.dot(b))


@statement(
    "periodic",
    "(8)",
    "cosine between x_t and x_{t+1}",
    "cosine == (1 + η**2*g_tilde**2/((1 - η*λ)**2*ρ**4))**(-1/2)",
    kind="proof",
    show={"cosine": "cos(x_t, x_{t+1})"},
    survivors={
        "(1 + η²g̃²/((1 − ηλ)²ρ⁴))^{−1/2} → −(1 + η²g̃²/((1 − ηλ)²ρ⁴))^{−1/2}": "squares are "
        "compared, the cosine is positive"
    },
    scope="three dimensions, any gradient orthogonal to x; squares compared (the cosine is > 0)",
)
def cosine_8(claim):
    after, squared = _step()
    rho = sp.sqrt(X.dot(X))
    (stated,) = claim.sides(eta, lam, ρ=rho, g_tilde=sp.sqrt(squared))
    return X.dot(after) ** 2 / (X.dot(X) * after.dot(after)) - stated**2


@statement(
    "periodic",
    "(9)",
    "the exact norm below which a step is a δ-jump, 1 − cos > δ, and what (9) has in its place",
    "exact = η*g/((1 - η*λ)*sqrt((1 - δ)**(-2) - 1)); ρ**2 < exact; "
    "exact < η*g/((1 - η*λ)*sqrt(2*δ))",
    kind="proof",
    show={"g": "g̃"},
    scope="cos = 1 − δ at the exact norm, and the cosine falls as ρ does; (1−δ)^{−2} − 1 − 2δ = "
    "δ²(3−2δ)/(1−δ)² > 0, and the two norms agree as δ → 0",
)
def jump_9(claim):
    q, p, squared = sp.symbols("q p s", positive=True)
    jump, decay = q / (1 + q), 1 / (eta * (1 + p))  # any 0 < δ < 1, any ηλ < 1
    first, second = claim.relations(eta, g, λ=decay, δ=jump, ρ=sp.sqrt(squared))
    # 1/cos² at ρ⁴ = exact²; a jump is where it exceeds 1/(1 − δ)².
    at_edge = 1 + eta**2 * g**2 / ((1 - eta * decay) ** 2 * first.right**2)
    return [
        at_edge - (1 - jump) ** -2,
        first.lesser - squared,
        second.lesser - first.right,
        positive(sp.simplify(second.greater**2 / second.lesser**2 - 1)),
        sp.limit(sp.simplify(second.greater**2 / second.lesser**2), q, 0) - 1,
    ]


@statement(
    "periodic",
    "Proposition 1",
    "squared norms below which a δ-jump is possible (necessary) and certain (sufficient), "
    "effective gradients in [ℓ, L]",
    "necessary == η*L/sqrt(2*δ); sufficient == η*ell/sqrt(2*δ)",
    kind="proof",
    scope="against the exact norm η g̃/((1−ηλ)√((1−δ)^{−2} − 1)), which grows with g̃: the ratio "
    "tends to 1 as δ, ηλ → 0; exactly sufficient only for ηλ ≥ 3δ/4 to first order",
)
def proposition_1(claim):
    exact = eta * g / ((1 - eta * lam) * sp.sqrt((1 - delta) ** -2 - 1))
    sides = claim.sides(eta, delta, low, high)
    ratios = [s / exact.subs(g, edge) for s, edge in zip(sides, (high, low), strict=True)]
    # To first order in δ and ηλ the ratio is 1 + 3δ/4 − ηλ.
    small = sp.Symbol("h", positive=True)
    orders = [r.subs({delta: small * delta, lam: small * lam}) for r in ratios]
    first = [sp.series(sp.simplify(r), small, 0, 2).removeO() for r in orders]
    return [
        [positive(sp.diff(exact, g).subs(lam, 0).subs(delta, 1 / (1 + small)))],
        [order - (1 + small * (3 * delta / 4 - eta * lam)) for order in first],
    ]


@statement(
    "periodic",
    "(5), (6), Proposition 2",
    "the steps before which no δ-jump comes and after which one must have come",
    "κ = sqrt(η/(2*λ)); "
    "t_min == log((η*L/sqrt(2*δ) - κ*ell)/(ρ_0**2 - κ*ell))/log(1 - 4*η*λ); "
    "t_max == log((η*ell/sqrt(2*δ) - κ*L)/(ρ_0**2 - κ*L))/log(1 - 2*η*λ)",
    kind="simulation",
    tolerance=1e-9,
    scope="solved: Corollary 2's bounds, α = 2ηλ, a = η²ℓ², b = η²L², meet Proposition 1's norms "
    "at these times; simulated: no time is passed by constant and random effective gradients in "
    "[ℓ, L] or by the adversary that stays at ℓ until L makes a jump (residual: how far)",
)
def proposition_2(claim):
    residuals = []
    for least, most, factor in ((1.0, 1.3, 1.02), (1.0, 1.5, 1.5), (1.0, 1.1, 30.0), (0.5, 1, 4.0)):
        rate, decay = 0.1, 0.01
        jump = 0.5 * rate * decay * (least / most) ** 2  # below ηλ ℓ²/L²: both times exist
        necessary, sufficient = (rate * e / np.sqrt(2 * jump) for e in (most, least))
        squared = factor * max(necessary, np.sqrt(rate / (2 * decay)) * most)
        known = {"η": rate, "λ": decay, "δ": jump, "ell": least, "L": most}
        first, last = claim.sides(ρ_0=np.sqrt(squared), **known)
        alpha = 2 * rate * decay
        for edge, target, pace, t in (
            (least, necessary, 1 - 2 * alpha, first),
            (most, sufficient, 1 - alpha, last),
        ):
            rest = np.sqrt((rate * edge) ** 2 / alpha)
            residuals.append((rest + pace**t * (squared - rest)) / target - 1)
        for time in _jump_times(least, most, necessary, squared, rate, decay, jump):
            residuals += [max(0.0, first - time - 1) / time, max(0.0, time - last - 1) / time]
    return residuals


def _jump_times(low, high, necessary, squared, rate, decay, jump):
    rng = np.random.default_rng(13)
    slopes = (
        lambda _: low,
        lambda _: high,
        lambda _: rng.uniform(low, high),
        lambda s: high if s < necessary else low,
    )
    return [_jump_time(slope, squared, rate, decay, jump) for slope in slopes]


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
    "Proposition 2, conditions",
    "the δ up to which the stationary norms κℓ and κL lie below Proposition 1's two norms",
    "κ = sqrt(η/(2*λ)); δ_min == η*λ*L**2/ell**2; κ*ell == η*L/sqrt(2*δ_min); "
    "δ_max == η*λ*ell**2/L**2; κ*L == η*ell/sqrt(2*δ_max)",
    kind="proof",
)
def proposition_2_conditions(claim):
    first, second = eta * lam * high**2 / low**2, eta * lam * low**2 / high**2
    return claim(eta, lam, low, high, δ_min=first, δ_max=second)


@statement(
    "periodic",
    "Proposition 3, Remark 3",
    "the interval in which the effective learning rate η/ρ² ends, if 2ηλL ≤ ℓ",
    "sqrt(2*η*λ)/L <= rate <= sqrt(2*η*λ)/ell",
    kind="proof",
    show={"rate": "η/ρ²"},
    scope="the ends are attained: they are the stationary points of (3) at constant g̃ = L and ℓ "
    "to leading order in ηλ; that ρ² ends between them is Proposition 5",
)
def proposition_3(claim):
    rate = sp.Symbol("rate", positive=True)
    lower, upper = claim.relations(eta, lam, low, high, rate)
    residuals = [lower.greater - rate, upper.lesser - rate]
    for bound, edge in ((lower.lesser, high), (upper.greater, low)):
        squared = eta / bound
        after = (1 - eta * lam) ** 2 * squared + eta**2 * edge**2 / squared
        drift = sp.simplify((after - squared) / squared)
        residuals.append(sp.series(drift, lam, 0, 2).removeO())
        residuals.append(positive(bound))
    return residuals


@statement(
    "periodic",
    "A.7, hop",
    "the squared norm from below which one step can hop over κL (g̃ ≤ L)",
    "κ = sqrt(η/(2*λ)); threshold == 2*η*λ*κ*L/(1 - 2*η*λ)",
    kind="proof",
    refuted={
        "printed: 2ηλL": "threshold == 2*η*λ*L",
        "2ηλ κL": "κ = sqrt(η/(2*λ)); threshold == 2*η*λ*κ*L",
    },
    scope="(13d) at the stationary point κL of β = η²L², α = 2ηλ: from the threshold the step ends "
    "there",
)
def hop_threshold(claim):
    (before,) = claim.sides(eta, lam, high)
    alpha, rest = 2 * eta * lam, sp.sqrt(eta / (2 * lam)) * high
    return (1 - alpha) * before + eta**2 * high**2 / before - rest


@statement(
    "periodic",
    "(15)",
    "the squared norm after t steps",
    "ρ_t**2 == (1 - η*λ)**(2*t)*ρ_0**2 + η**2*Sum((1 - η*λ)**(2*(t - s - 1))*g_s(s)**2, s, 0, t - 1)",
    kind="proof",
    show={"g_s": "g"},
    scope="t = 0 to 3 against (3) step by step, and the step t to t + 1 for symbolic t, any g_t",
)
def unrolled_15(claim):
    t, s = sp.symbols("t s", integer=True, nonnegative=True)
    slope = sp.Function("g", positive=True)

    def stated(time, **how):
        known = {"ρ_0": start, "g_s": slope, "ρ_t": rho, "Sum": finite_sum}
        (relation,) = claim.relations(eta, lam, s, t=time, **known | how)
        return relation.right * rho**2 / relation.left

    path, residuals = start**2, []
    for time in range(4):
        residuals.append(stated(sp.Integer(time)) - path)
        path = (1 - eta * lam) ** 2 * path + eta**2 * slope(time) ** 2
    # Induction: each term of Σ_{s<t} ages by (1 − ηλ)², and the term s = t joins.
    terms = []
    for time in (t, t + 1):
        stated(time, Sum=lambda term, s, first, last: terms.append((term, last)) or rho)
    (now, last), (later, next_last) = terms
    residuals += [later / now - (1 - eta * lam) ** 2, next_last - t, last - t + 1]
    return [*residuals, later.subs(s, t) - slope(t) ** 2]


@statement(
    "periodic",
    "(16)",
    "the weights of (15) in all, and the factor C of the mean squared gradient for large t",
    "Sum((1 - η*λ)**(2*(t - s - 1)), s, 0, t - 1) == (1 - (1 - η*λ)**(2*t))/(1 - (1 - η*λ)**2); "
    "C == η/(2*λ)",
    kind="proof",
    refuted={
        "printed: the factor inverted": "Sum((1 - η*λ)**(2*(t - s - 1)), s, 0, t - 1) == "
        "(1 - (1 - η*λ)**2)/(1 - (1 - η*λ)**(2*t)); C == η/(2*λ)",
        "printed: C = 2η³λ": "Sum((1 - η*λ)**(2*(t - s - 1)), s, 0, t - 1) == "
        "(1 - (1 - η*λ)**(2*t))/(1 - (1 - η*λ)**2); C == 2*η**3*λ",
    },
    scope="both sides at t = 1, 2, 3 and their increments for symbolic t; C to leading order in ηλ",
)
def averaged_16(claim):
    t, s = sp.symbols("t s", integer=True, nonnegative=True)
    known = {"C": 0, "Sum": finite_sum}
    cases = (claim.relations(eta, lam, s, t=sp.Integer(n), **known) for n in (1, 2, 3))
    total, limit = zip(*cases, strict=True)
    residuals = [relation.residual for relation in total]
    ratio = claim.relations(eta, lam, s, t=t, C=0)[0].right
    residuals.append(ratio.subs(t, t + 1) - ((1 - eta * lam) ** 2 * ratio + 1))
    forgotten = eta**2 / (1 - (1 - eta * lam) ** 2)  # t → ∞, where (1−ηλ)^{2t} → 0
    return [*residuals, sp.limit(forgotten * lam, lam, 0) / lam - limit[0].right]


@statement(
    "periodic",
    "Proposition 4",
    "what to change together and keep the trajectory in function space",
    "x_prime == c*x_0; η_prime == c**2*η; λ_prime == λ/c**2",
    kind="identity",
    tolerance=1e-11,
    scope="41 steps on x²/(x²+y²); the step itself: gradients scale by 1/c (Lemma 3.1 of "
    "intrinsic_lr), so c² η ∇f(cx) = c η ∇f(x)",
)
def proposition_4(claim):
    def slope(z):
        x, y = z
        return 2 * x * y / (x**2 + y**2) ** 2 * np.array([y, -x])

    def run(z, rate, decay):
        path = []
        for _ in range(41):
            z = (1 - rate * decay) * z - rate * slope(z)
            path.append(z / np.linalg.norm(z))
        return path

    known = {"c": 1.7, "x_0": np.array([0.6, 1.0]), "η": 0.2, "λ": 0.05}
    return relative(run(*claim.sides(**known)), run(known["x_0"], 0.2, 0.05))
