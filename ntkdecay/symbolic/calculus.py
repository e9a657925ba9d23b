"""Sums and integrals in a form that a check can compare term by term."""

from __future__ import annotations

from typing import Any

import sympy as sp


def opened(expression: sp.Expr) -> sp.Expr:
    """Each integral a symbol of its own, or 0 where it goes from a point to the same."""
    integrals: list[Any] = sorted(expression.atoms(sp.Integral), key=str)
    symbols = {
        integral: sp.Integer(0)
        if integral.limits[0][1] == integral.limits[0][2]
        else sp.Symbol(f"I{i}", positive=True)
        for i, integral in enumerate(integrals)
    }
    return sp.powsimp(sp.expand(sp.powsimp(expression.xreplace(symbols))))


def integral(f: sp.Expr, x: sp.Symbol, low: sp.Expr, high: sp.Expr) -> sp.Expr:
    """∫ f dx with the factors that are free of x in front."""
    outside, inside = sp.expand(f, power_exp=True).as_independent(x, as_Add=False)
    return outside * sp.Integral(inside, (x, low, high))


def finite_sum(term: sp.Expr, s: sp.Symbol, first: sp.Expr, last: sp.Expr) -> sp.Expr:
    """The sum written out; without a value where a bound is no whole number."""
    if not (first.is_integer and last.is_integer):
        return sp.nan
    return sp.Add(*(term.subs(s, i) for i in range(int(first), int(last) + 1)))
