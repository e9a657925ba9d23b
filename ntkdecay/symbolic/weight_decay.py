r"""Equilibria of decayed weights whose gradients are noise, from their second moments."""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.registry import statement

eta, lam, beta, size, noise, batch, samples = sp.symbols("η λ β C G B S", positive=True)
ww, wm, mm, small = sp.symbols("ww wm mm ε", real=True)


def _stationary(to_w: tuple, to_m: tuple, variance: object) -> dict:
    """E w², E wm, E m² of w' = a w + b m', m' = c m + d w + e g, with E g² = `variance`."""
    (a, b), (c, d, e) = to_w, to_m
    m2 = c**2 * mm + d**2 * ww + 2 * c * d * wm + e**2 * variance
    cross = c * wm + d * ww  # E w m'
    equations = [
        a**2 * ww + 2 * a * b * cross + b**2 * m2 - ww,
        a * cross + b * m2 - wm,
        m2 - mm,
    ]
    return sp.solve(equations, [ww, wm, mm], dict=True)[0]


def _leading(value: sp.Expr, claimed: sp.Expr) -> sp.Expr:
    """What the ratio of both lacks of 1 as λ → 0."""
    return sp.simplify(sp.limit(sp.simplify((value / claimed).subs(lam, small)), small, 0, "+") - 1)


@statement(
    "ntkdecay",
    "equilibrium, AdamW",
    "squared norm and squared rotation per step of C weights whose gradients are noise",
    "norm2 == η*C/(2*λ); rotation2 == 2*η*λ*(1 - β)/(1 + β)",
    kind="proof",
    scope="leading order in λ; the exact second moments of w ← (1 − ηλ)w − ηm, m ← βm + (1 − β)g with E g² = 1 for each "
    "weight, as dividing by √v makes it (β₂ → 1)",
)
def adamw_equilibrium(claim):
    norm2, rotation2 = claim.sides(eta, lam, beta, size)
    at = _stationary((1 - eta * lam, -eta), (beta, 0, 1 - beta), 1)
    moved = eta**2 * size * at[mm]  # what decay adds is along w
    return [_leading(size * at[ww], norm2), _leading(moved / norm2, rotation2)]


@statement(
    "ntkdecay",
    "equilibrium, SGD",
    "fourth power of the norm and squared rotation per step of scale-invariant weights under heavy ball with L2",
    "norm4 == η*G**2/(2*λ*(1 - β)); rotation2 == 2*η*λ/(1 + β)",
    kind="proof",
    scope="leading order in λ; the exact second moments of v ← βv + g + λw, w ← w − ηv with E ‖g‖² = G²/‖w‖²",
)
def sgd_equilibrium(claim):
    norm4, rotation2 = claim.sides(eta, lam, beta, noise)
    at = _stationary((1, -eta), (beta, lam, 1), 1)
    ours = at[ww] * noise**2  # ‖w‖² times ‖w‖²
    moved = eta**2 * at[mm] / at[ww]
    return [_leading(ours, norm4), _leading(moved, rotation2)]


@statement(
    "ntkdecay",
    "λ, transferred",
    "the λ that keeps the share of training that is remembered, τ/T, when batch size, rate, samples and width change",
    "share == B/(η*λ*S); λ_next == λ*b*n/(h*s)",
    kind="proof",
    scope="b, h, s and n: new over old batch size, base rate, samples and width; hidden matrices learn at the base rate over n",
)
def transferred(claim):
    b, h, s, n = sp.symbols("b h s n", positive=True)
    share, moved = claim.sides(eta, lam, batch, samples, b=b, h=h, s=s, n=n)
    changed = {batch: b * batch, eta: h * eta / n, samples: s * samples, lam: moved}
    steps = samples / batch
    return [
        sp.simplify(share.subs(changed, simultaneous=True) - share),
        sp.simplify(share * steps - 1 / (eta * lam)),
    ]
