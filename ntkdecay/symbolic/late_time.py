r"""Late training, where learning and decay are in balance: how the balance moves, and how late the flow is, proved."""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.registry import statement

p = sp.symbols("p", positive=True)  # k − 1


@statement(
    "ntkdecay",
    "late time",
    "the point of balance f of a mode, how it moves, and by how much the flow is late: ℓ the loss, c = 2(k − 1)λ",
    "A == γ*exp(-c*t)*ell_2 + k*λ; f_dot == -c*k*λ*f/A; delay == c*k*λ*f/A**2; t_c == log(γ*ell_0/(k*λ))/c",
    kind="proof",
    show={"ell_2": "ℓ''", "ell_0": "ℓ''(0)", "f_dot": "df/dt"},
    scope="any loss of one output; f where γe^{−ct}ℓ'(f) + kλf = 0, delay to first order in how fast it moves, t_c where the "
    "loss holds f = 0 as fast as it decays",
)
def late_time(claim):
    gamma, lam, c, t, f, bend, first = sp.symbols("γ λ c t f ell_2 ell_0", positive=True)
    k = 1 + p
    loss, at = sp.Function("ell"), sp.Symbol("f_t")
    flow = -gamma * sp.exp(-c * t) * sp.diff(loss(at), at) - k * lam * at

    def known(expression):
        """At the balance: ℓ' = −kλf e^{ct}/γ, and ℓ'' a symbol."""
        there = {
            sp.diff(loss(at), at, 2): bend,
            sp.diff(loss(at), at): -k * lam * at * sp.exp(c * t) / gamma,
        }
        return expression.subs(there).subs(at, f)

    restoring, moves = known(sp.diff(flow, at)), known(sp.diff(flow, t))
    rate, f_dot, delay, _ = claim.sides(
        gamma, lam, c, t, f, k=k, ell_2=bend, ell_0=first, A=-restoring
    )
    spent = claim.sides(gamma, lam, c, t, f, k=k, ell_2=bend, ell_0=first, A=1)[3]
    held = gamma * sp.exp(-c * spent) * first - k * lam
    return [
        sp.simplify(rate + restoring),
        sp.simplify(f_dot + moves / restoring),
        sp.simplify(delay - f_dot / restoring),
        sp.simplify(held),
    ]
