r"""Lobacheva et al. (2021), A.4: the recurrence of squared norms, eqs. (10)–(14), Lemmas 1, 2.

.. math:: x_{t+1} = (1-\alpha) x_t + \beta_t / x_t, \qquad 0 < \alpha < 1/2, \quad
          0 \le a \le \beta_t \le b
"""

from __future__ import annotations

import itertools

import numpy as np
import sympy as sp

from ntkdecay.symbolic.registry import positive, statement

beta, gamma, q = sp.symbols("beta gamma q", positive=True)
alpha = 1 / (2 * (1 + q))  # every 0 < α < 1/2, by q > 0


def _phi(g, alpha):
    return (1 - alpha) * g + alpha / g


@statement(
    "periodic",
    "(10)–(12)",
    "x* = √(β/α) is stationary, and x = γ x* obeys γ ← φ(γ) = (1−α)γ + α/γ whatever β",
    kind="proof",
    mutants={"x* = √(α/β)": {"power": -1}, "(1−α)/γ": {"pull": 1 - alpha}},
)
def recurrence_12(power=1, pull=alpha):
    stationary = sp.sqrt((beta / alpha) ** power)
    x = gamma * stationary
    after = (1 - alpha) * x + beta / x
    return [
        sp.simplify((1 - alpha) * stationary + beta / stationary - stationary),
        sp.simplify(after / stationary - ((1 - alpha) * gamma + pull / gamma)),
    ]


@statement(
    "periodic",
    "(13)",
    "(13a)–(13g): where φ rises, falls, crosses 1, and its least value 2√(α(1−α))",
    kind="proof",
    mutants={
        "hop below 1 from α": {"hop": lambda a: a},
        "least value √(α(1−α))": {"least": lambda a: sp.sqrt(a * (1 - a))},
        "least at γ = α/(1−α)": {"turn": lambda a: a / (1 - a)},
    },
    scope="each as a factorization whose signs are evident for γ > 0, 0 < α < 1/2",
)
def properties_13(
    hop=lambda a: a / (1 - a),
    least=lambda a: 2 * sp.sqrt(a * (1 - a)),
    turn=lambda a: sp.sqrt(a / (1 - a)),
):
    phi, excess = _phi(gamma, alpha), sp.Symbol("e", positive=True)
    chain = [hop(alpha), turn(alpha), least(alpha), sp.Integer(1)]
    return [
        # a, b: φ − γ = α (1 − γ²)/γ has the sign of 1 − γ
        sp.simplify(phi - gamma - alpha * (1 - gamma) * (1 + gamma) / gamma),
        # b, c, d: φ − 1 vanishes at γ = 1 and at the hop, negative between
        sp.simplify(phi - 1 - (1 - alpha) * (gamma - 1) * (gamma - hop(alpha)) / gamma),
        # e, f, g: φ − least is a square, zero at the turn
        sp.simplify(phi - least(alpha) - (1 - alpha) * (gamma - turn(alpha)) ** 2 / gamma),
        sp.simplify(sp.diff(phi, gamma).subs(gamma, turn(alpha))),
        # 13b with γ = 1 + e: 1 < φ
        positive(_phi(1 + excess, alpha) - 1),
        # α/(1−α) < √(α/(1−α)) < 2√(α(1−α)) < 1, squared
        [positive(high**2 - low**2) for low, high in itertools.pairwise(chain)],
    ]


@statement(
    "periodic",
    "(14), Lemma 1",
    "x_0 > x*: (1−2α)^t (x_0 − x*) ≤ x_t − x* ≤ (1−α)^t (x_0 − x*)",
    kind="proof",
    mutants={
        "(1−α)^t below": {"low": lambda a: 1 - a},
        "(1−2α)^t above": {"high": lambda a: 1 - 2 * a},
        "mean value at ξ = γ": {"inner": lambda g: g**2},
    },
    scope="the step t to t + 1 (the ratio stays above 1, so steps multiply)",
)
def lemma_1(low=lambda a: 1 - 2 * a, high=lambda a: 1 - a, inner=lambda g: g):
    excess = sp.Symbol("e", positive=True)
    g = 1 + excess
    ratio = sp.cancel((_phi(g, alpha) - 1) / (g - 1))
    # (14): the ratio is φ'(ξ) with ξ² = γ, between 1 and γ.
    slope = (1 - alpha) - alpha / inner(g)
    return [
        sp.simplify(ratio - slope),
        positive(ratio - low(alpha)),
        positive(high(alpha) - ratio),
    ]


def _sequences(cases=300, steps=400):
    """Random β_t in [a, b], half of them at the two ends: (α, a, b, x of shape (steps + 1,))."""
    rng = np.random.default_rng(7)
    for _ in range(cases):
        rate, low = rng.uniform(0.005, 0.49), 10.0 ** rng.uniform(-2, 0)
        high = low * 10.0 ** rng.uniform(0.05, 2)
        betas = rng.uniform(low, high, size=steps)
        ends = rng.uniform(size=steps) < 0.5
        betas[ends] = rng.choice([low, high], size=ends.sum())
        x = np.empty(steps + 1)
        x[0] = np.sqrt(high / rate) * 10.0 ** rng.uniform(-1.5, 1.5)
        for t in range(steps):
            x[t + 1] = (1 - rate) * x[t] + betas[t] / x[t]
        yield rate, low, high, x


def _determined(rate, beta, start, steps):
    x = np.empty(steps + 1)
    x[0] = start
    for t in range(steps):
        x[t + 1] = (1 - rate) * x[t] + beta / x[t]
    return x


def _above(larger, smaller):
    """How far `smaller` exceeds `larger`, relative; 0 when the inequality holds."""
    return float(np.max((smaller - larger) / np.maximum(np.abs(larger), 1e-300), initial=0.0))


@statement(
    "periodic",
    "Lemma 2",
    "x_{a,t} ≤ x_t always; x_t ≤ x_{b,t} as long as x_t > √(b/(1−α)) held before",
    kind="identity",
    tolerance=1e-12,
    mutants={
        "upper bound without its condition": {"threshold": 0.0},
        "upper bound by x_a": {"swapped": True},
    },
    scope="300 random sequences of 400 steps; its induction step, that φ increases above "
    "√(α/(1−α)), is (13f)",
)
def lemma_2(threshold=1.0, swapped=False):
    residuals = []
    for rate, low, high, x in _sequences():
        lower = _determined(rate, low, x[0], len(x) - 1)
        upper = lower if swapped else _determined(rate, high, x[0], len(x) - 1)
        allowed = x[:-1] > threshold * np.sqrt(high / (1 - rate))
        until = len(x) if allowed.all() else int(np.argmin(allowed)) + 1
        residuals += [_above(x, lower), _above(upper[:until], x[:until])]
    return max(residuals)


@statement(
    "periodic",
    "Remark 2",
    "α√b/(1−α) ≤ √a and x_0 > √(b/α) make x_t ≤ x_{b,t} for all t",
    kind="identity",
    tolerance=1e-12,
    mutants={"without α√b/(1−α) ≤ √a": {"needed": False}},
    scope="300 random sequences of 400 steps, and a sequence that hops where the condition fails",
)
def remark_2(needed=True):
    residuals = []
    for rate, low, high, x in [*_sequences(), _hopping()]:
        if x[0] > np.sqrt(high / rate) and (
            not needed or rate / (1 - rate) * np.sqrt(high) <= np.sqrt(low)
        ):
            residuals.append(_above(_determined(rate, high, x[0], len(x) - 1), x))
    return max(residuals)


def _hopping(rate=0.3, low=1e-6, high=1.0, steps=60):
    """β = a until x is small, then β = b: x hops over √(b/α)."""
    x = [1.01 * np.sqrt(high / rate)]
    for _ in range(steps):
        x.append((1 - rate) * x[-1] + (low if x[-1] > 1e-2 else high) / x[-1])
    return rate, low, high, np.array(x)


@statement(
    "periodic",
    "Corollary 2",
    "x_t − √(a/α) ≥ (1−2α)^t (x_0 − √(a/α)), and x_t − √(b/α) ≤ (1−α)^t (x_0 − √(b/α))",
    kind="identity",
    tolerance=1e-12,
    mutants={
        "(1−α)^t below": {"low_rate": 1.0},
        "(1−2α)^t above": {"high_rate": 2.0},
    },
    scope="300 random sequences of 400 steps; the second while x_t ≥ √(αb)/(1−α), from "
    "x_0 > √(b/α); the first from x_0 > √(a/α)",
)
def corollary_2(low_rate=2.0, high_rate=1.0):
    residuals = []
    for rate, low, high, x in _sequences():
        t, bottom, top = np.arange(len(x)), np.sqrt(low / rate), np.sqrt(high / rate)
        if x[0] > bottom:
            bound = bottom + (1 - low_rate * rate) ** t * (x[0] - bottom)
            residuals.append(_above(x, bound))
        if x[0] > top:
            inside = x >= np.sqrt(rate * high) / (1 - rate)
            until = len(x) if inside.all() else int(np.argmin(inside))
            bound = top + (1 - high_rate * rate) ** t * (x[0] - top)
            residuals.append(_above(bound[:until], x[:until]))
    return max(residuals)


@statement(
    "periodic",
    "Proposition 5",
    "α√b/(1−α) ≤ √a: x_t ends in [√(a/α), √(b/α)]",
    kind="identity",
    tolerance=1e-3,
    mutants={
        "[√(a/α), √(a/α)]": {"top": 0.0},
        "[√(b/α), √(b/α)]": {"bottom": 0.0},
        "[√a/α, √b/α]": {"power": 1.0},
    },
    scope="the last tenth of random sequences of 400 steps, α ≥ 0.05 (the limit is approached "
    "like (1−α)^t)",
)
def proposition_5(top=1.0, bottom=1.0, power=0.5):
    residuals = []
    for rate, low, high, x in _sequences():
        if rate >= 0.05 and rate / (1 - rate) * np.sqrt(high) <= np.sqrt(low):
            least = np.sqrt(low**bottom * high ** (1 - bottom)) / rate**power
            most = np.sqrt(high**top * low ** (1 - top)) / rate**power
            residuals += [_above(x[-40:], least), _above(most, x[-40:])]
    return max(residuals)
