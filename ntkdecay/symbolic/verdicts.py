"""Whether a residual is zero, and whether it is shown not to be: proved, or a point against."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.logic.boolalg import BooleanAtom

from ntkdecay._checks import Rule, checked, number, shown


@dataclass(frozen=True)
class Undecided:
    """The sign of an expression for which neither a proof nor a point against was found."""

    expression: sp.Basic

    def __bool__(self) -> bool:
        return False


class _Expression(Rule):
    """A real expression of sympy, or a number."""

    refuses = frozenset(
        {"text", "none", "mapping", "object", "complex", "nan", "inf", "many", "empty"}
    )

    def __call__(self, name: str, value: Any) -> None:
        if isinstance(value, sp.Expr):
            return
        if not isinstance(value, (numbers.Real, np.ndarray)):
            raise TypeError(f"`{name}` is {shown(value)}; it must be an expression of sympy.")
        number()(name, value)


@checked(expression=_Expression())
def positive(expression: Any) -> bool | Undecided:
    """Whether an expression is positive for all values of its symbols: proved, or a point against.

    `Undecided` where neither is found: then the statement does not hold, nor is it refuted.

    >>> import sympy as sp
    >>> from ntkdecay import symbolic
    >>> x = sp.Symbol("x", real=True)
    >>> symbolic.positive(x**2 + 1), symbolic.positive(x**2 - 1)
    (True, False)
    """
    return _signed(expression, "is_positive", lambda value: value <= 0)


@checked(expression=_Expression())
def nonnegative(expression: Any) -> bool | Undecided:
    """As `positive`, with zero allowed.

    >>> import sympy as sp
    >>> from ntkdecay import symbolic
    >>> symbolic.nonnegative(sp.Symbol("x", real=True) ** 2)
    True
    """
    return _signed(expression, "is_nonnegative", lambda value: value < 0)


def _signed(expression, assumption, against) -> bool | Undecided:
    simplest = sp.sympify(expression)
    for transform in (sp.factor, sp.expand, sp.simplify):
        simplest = transform(simplest)
        if getattr(simplest, assumption):
            return True
    for point in generic_points(simplest):
        # The point itself, and with each symbol in turn far smaller and far larger.
        moved = [point | {v: f * point[v]} for v in point for f in (sp.Rational(1, 50), 50)]
        for values in (point, *moved):
            value = sp.N(simplest.subs(values), 30)
            if not value.is_real or against(value):
                return False
    return Undecided(simplest)


def flat(residuals: Any) -> list[Any]:
    """The leaves of any nesting of lists, matrices and arrays."""
    if isinstance(residuals, sp.MatrixBase):
        return residuals.flat()
    scalar = isinstance(residuals, sp.Basic) or getattr(residuals, "shape", None) == ()
    if isinstance(residuals, Iterable) and not scalar:
        return [leaf for item in residuals for leaf in flat(item)]
    return [residuals]


def vanishes(residual: Any, tolerance: float) -> bool:
    """Whether a residual is zero: an expression identically, a number within the tolerance."""
    if isinstance(residual, bool | BooleanAtom | Undecided):
        return bool(residual)
    if not isinstance(residual, sp.Basic):
        return abs(float(residual)) <= tolerance
    if differs(residual, 0.0):
        return False
    return any(
        transform(residual) == 0
        for transform in (
            sp.expand,
            sp.powsimp,
            lambda e: sp.powsimp(sp.expand(e)),
            sp.factor,
            sp.simplify,
            lambda e: sp.simplify(sp.expand_log(e, force=True)),
        )
    )


def differs(residual: Any, tolerance: float) -> bool:
    """Whether a residual is shown to be non-zero (an expression: at one of four points)."""
    if isinstance(residual, Undecided):
        return False
    if isinstance(residual, bool | BooleanAtom):
        return not residual
    if not isinstance(residual, sp.Basic):
        return not abs(float(residual)) <= tolerance
    if residual.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        return True  # it has no value where the statement gives it one
    # Functions left free by the statement, and their derivatives, are independent values.
    free = residual.atoms(AppliedUndef, sp.Derivative)
    opened = residual.xreplace({f: sp.Dummy(f"f{i}", positive=True) for i, f in enumerate(free)})
    points = generic_points(opened)
    points.append(
        {symbol: value / 9 for symbol, value in points[0].items() if not symbol.is_integer}
    )
    values = (sp.N(opened.subs(point), 30) for point in points)
    return any(
        v.is_number and (v.has(sp.nan, sp.zoo) or abs(v) > sp.Float("1e-18")) for v in values
    )


def generic_points(expression: sp.Basic) -> list[Any]:
    """Three generic points: rationals, distinct for each symbol; small integers for integers."""
    symbols = sorted(expression.free_symbols, key=str)
    return [
        {
            symbol: sp.Integer(2 + j + i)
            if symbol.is_integer
            else sp.Rational(17 + 13 * i + 7 * j, 23 + 5 * ((i * i + 3 * j) % 11))
            for i, symbol in enumerate(symbols)
        }
        for j in range(3)
    ]
