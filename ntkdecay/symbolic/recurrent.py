r"""Lobacheva et al. (2021), A.4: the recurrence of squared norms, eqs. (10)–(14), Lemmas 1, 2.

.. math:: x_{t+1} = (1-\alpha) x_t + \beta_t / x_t, \qquad 0 < \alpha < 1/2, \quad
          0 \le a \le \beta_t \le b
"""

from __future__ import annotations

import numpy as np
import sympy as sp

from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import positive

beta, gamma, q, a, b, x = sp.symbols("β γ q a b x", positive=True)
alpha = 1 / (2 * (1 + q))  # every 0 < α < 1/2, by q > 0


def _phi(g):
    return (1 - alpha) * g + alpha / g


@statement(
    "periodic",
    "(10)–(12)",
    "the stationary point, and the recurrence of γ = x/x* whatever β",
    "x_star == sqrt(β/α); γ_next == (1 - α)*γ + α/γ",
    kind="proof",
)
def recurrence_12(claim):
    stationary, after = claim.sides(beta, gamma, α=alpha)
    x = gamma * sp.sqrt(beta / alpha)
    step = (1 - alpha) * x + beta / x
    return [
        (1 - alpha) * stationary + beta / stationary - stationary,
        positive(stationary),
        step / stationary - after,
    ]


@statement(
    "periodic",
    "(13)",
    "where φ(γ) = (1 − α)γ + α/γ is least, its least value, and where it crosses 1 from above",
    "hop = α/(1 - α); turn = sqrt(α/(1 - α)); least = 2*sqrt(α*(1 - α)); "
    "hop < turn; turn < least; least < 1; "
    "φ - γ == α*(1 - γ)*(1 + γ)/γ; φ - 1 == (1 - α)*(γ - 1)*(γ - hop)/γ; "
    "φ - least == (1 - α)*(γ - turn)**2/γ",
    kind="proof",
    survivors={
        "1 → 2 (4)": "least < 1 implies it",
        "1 → 1.05 (4)": "least < 1 implies it",
        "turn → 2 turn": "hop < turn implies it",
        "least → 2 least": "turn < least implies it",
    },
    scope="(13a)–(13g), as factorizations whose signs are evident for γ > 0, 0 < α < 1/2",
)
def properties_13(claim):
    relations = claim.relations(gamma, α=alpha, φ=_phi(gamma))
    order = [positive(r.greater**2 - r.lesser**2) for r in relations if r.sign != "=="]
    return [order, [r.residual for r in relations if r.sign == "=="]]


@statement(
    "periodic",
    "(14), Lemma 1",
    "bounds on the approach to x*, for x_0 > x*",
    "(1 - 2*α)**t*(x_0 - x_star) <= x_t - x_star <= (1 - α)**t*(x_0 - x_star)",
    kind="proof",
    scope="at t = 0, and the step t to t + 1 (the ratio (x_{t+1} − x*)/(x_t − x*) is above "
    "1 − 2α, which it tends to at x*, and below 1 − α, which it tends to at infinity, so steps "
    "multiply)",
)
def lemma_1(claim):
    t, excess = sp.symbols("t e", positive=True)
    rest, start, now = (sp.Symbol(name, positive=True) for name in ("x_star", "x_0", "x_t"))
    low, high = claim.relations(t, rest, start, now, α=alpha)
    ratio = sp.cancel((_phi(1 + excess) - 1) / excess)
    residuals = []
    for bound, other, limit in ((low.lesser, low.greater, 0), (high.greater, high.lesser, sp.oo)):
        pace = sp.simplify(bound.subs(t, t + 1) / bound)
        residuals += [other - now + rest, bound.subs(t, 0) - start + rest]
        residuals.append(sp.limit(ratio, excess, limit) - pace)
        residuals.append(positive((ratio - pace) * (1 if limit == 0 else -1)))
    return residuals


def _sequences(cases=300, steps=400):
    """Random β_t in [a, b], half of them at the two ends: (α, a, b, x of shape (steps + 1,))."""
    rng = np.random.default_rng(7)
    for _ in range(cases):
        rate, low = rng.uniform(0.005, 0.49), 10.0 ** rng.uniform(-2, 0)
        high = low * 10.0 ** rng.uniform(0.05, 2)
        betas = rng.uniform(low, high, size=steps)
        ends = rng.uniform(size=steps) < 0.5
        betas[ends] = rng.choice([low, high], size=ends.sum())
        start = np.sqrt(high / rate) * 10.0 ** rng.uniform(-1.5, 1.5)
        yield rate, low, high, _path(rate, betas, start)


def _path(rate, betas, start):
    x = np.empty(len(betas) + 1)
    x[0] = start
    for t, beta_t in enumerate(betas):
        x[t + 1] = (1 - rate) * x[t] + beta_t / x[t]
    return x


def _above(larger, smaller):
    """How far `smaller` exceeds `larger`, relative; 0 when the inequality holds."""
    return float(np.max((smaller - larger) / np.maximum(np.abs(larger), 1e-300), initial=0.0))


@statement(
    "periodic",
    "Lemma 2",
    "the sequence x_t lies above x_a,t (β = a), and below x_b,t (β = b) while the condition held",
    "x_t > sqrt(b/(1 - α)); x_a_t <= x_t; x_t <= x_b_t",
    kind="proof",
    scope="induction: a step rises with β, and with x exactly where x > √(β/(1−α)); after its first "
    "step x_a is ≥ 2√(a(1−α)) > √(a/(1−α)), so the lower bound needs no condition",
)
def lemma_2(claim):
    more = sp.Symbol("p", positive=True)
    now, lower, upper = (sp.Symbol(name, positive=True) for name in ("x_t", "x_a_t", "x_b_t"))
    condition, below, above = claim.relations(b, now, lower, upper, α=alpha)
    step = (1 - alpha) * x + beta / x
    slope = sp.diff(step, x).subs(beta, b)
    side = 1 + more if condition.sign == ">" else 1 / (1 + more)
    # The least value of a step, 2√(β(1−α)), by completing the square.
    least = 2 * sp.sqrt(a * (1 - alpha))
    edge = sp.sqrt(a / (1 - alpha))
    return [
        condition.left - now,
        slope.subs(x, condition.right),
        positive(slope.subs(x, condition.right * side)),
        [below.lesser - lower, below.greater - now, above.lesser - now, above.greater - upper],
        positive(sp.diff(step, beta)),
        step.subs(beta, a) - least - (1 - alpha) * (x - edge) ** 2 / x,
        positive(least**2 - edge**2),
    ]


@statement(
    "periodic",
    "Remark 2",
    "where x_t ≤ x_b,t for all t, for x_0 above √(b/α)",
    "α*sqrt(b)/(1 - α) <= sqrt(a)",
    kind="proof",
    scope="at the boundary a step with β = a from the hop point α√(b/α)/(1−α) cannot be reached: "
    "the least value of a step, 2√(a(1−α)), is there not below it; beyond the boundary the "
    "stationary point √(a/α) of β = a is below the hop point, so x_t hops (60 steps, checked)",
)
def remark_2(claim):
    (relation,) = claim.relations(a, b, α=alpha)
    # The boundary as a value of b, and the hop point of (13d) over √(b/α) there.
    (edge,) = sp.solve(relation.lesser**2 - relation.greater**2, b)
    hop = alpha / (1 - alpha) * sp.sqrt(edge / alpha)
    rest = sp.sqrt(a / alpha)
    inside = relation.gap.subs({a: 1, b: edge.subs(a, 1) / 4})
    return [hop**2 - rest**2, positive(inside), _hops(1.2), not _hops(0.8)]


def _hops(factor, rate=0.3, high=1.0, steps=200):
    """Whether x_t passes √(b/α) after β = a brought it to rest, √a a factor below its bound."""
    low = (rate / (1 - rate)) ** 2 * high / factor**2
    betas = np.full(steps, low)
    rest = _path(rate, betas, 1.01 * np.sqrt(high / rate))[-1]
    return bool((1 - rate) * rest + high / rest > np.sqrt(high / rate) * (1 + 1e-9))


@statement(
    "periodic",
    "Corollary 2",
    "bounds on the approach of x_t to its interval, from above it",
    "(1 - 2*α)**t*(x_0 - sqrt(a/α)) <= x_t - sqrt(a/α); "
    "x_t - sqrt(b/α) <= (1 - α)**t*(x_0 - sqrt(b/α))",
    kind="identity",
    tolerance=1e-6,
    scope="300 random sequences of 400 steps, the second while x_t ≥ √(αb)/(1−α), from x_0 > √(b/α), "
    "the first from x_0 > √(a/α); and attained: by β = a from just above √(a/α), by β = b from far "
    "above √(b/α)",
)
def corollary_2(claim):
    residuals = []
    for rate, low, high, path in _sequences():
        lower, upper = _bounds(claim, rate, low, high, path)
        if path[0] > np.sqrt(low / rate):
            residuals.append(_above(lower.greater, lower.lesser))
        if path[0] > np.sqrt(high / rate):
            inside = path >= np.sqrt(rate * high) / (1 - rate)
            until = len(path) if inside.all() else int(np.argmin(inside))
            residuals.append(_above(upper.greater[:until], upper.lesser[:until]))
        # At t = 0 both sides are the same number.
        residuals += [float(abs(r.lesser[0] - r.greater[0])) / path[0] for r in (lower, upper)]
    near = 0.3, 1.0, 1.0, _path(0.3, np.ones(4), np.sqrt(1 / 0.3) * (1 + 1e-7))
    far = 0.3, 1.0, 1.0, _path(0.3, np.ones(4), 1e8)
    lower, upper = _bounds(claim, *near)[0], _bounds(claim, *far)[1]
    tight = [np.max(np.abs(r.lesser / r.greater - 1)) for r in (lower, upper)]
    return [max(residuals), *tight]


def _bounds(claim, rate, low, high, path):
    return claim.relations(
        α=rate, a=low, b=high, x_0=path[0], x_t=path, t=np.arange(float(len(path)))
    )


@statement(
    "periodic",
    "Proposition 5",
    "the interval in which x_t ends, if α√b/(1−α) ≤ √a",
    "sqrt(a/α) <= x_t <= sqrt(b/α)",
    kind="identity",
    tolerance=1e-3,
    scope="the last tenth of random sequences of 400 steps, α ≥ 0.05 (the limit is approached "
    "like (1−α)^t), and both ends attained: by β = a and β = b",
)
def proposition_5(claim):
    violations, ends = [], []
    for rate, low, high, path in _sequences():
        if rate >= 0.05 and rate / (1 - rate) * np.sqrt(high) <= np.sqrt(low):
            known = {"α": rate, "a": low, "b": high}
            for relation in claim.relations(x_t=path[-40:], **known):
                violations.append(_above(relation.greater, relation.lesser))
            for i, end in enumerate((low, high)):
                rest = _path(rate, np.full(400, end), path[0])[-1]
                relation = claim.relations(x_t=rest, **known)[i]
                ends.append(abs(relation.lesser / relation.greater - 1))
    return [max(violations), max(ends)]
