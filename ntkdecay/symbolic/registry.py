"""The register of checked statements: what is claimed, how it is checked, what must be refuted.

A check is a function whose keyword arguments are the parts of the statement that could be
wrong (a sign, a factor, an index), with the right ones as defaults. It returns what is left of
"left-hand side minus right-hand side". A mutant is the same function with one part altered; it
counts only when it is refuted: its residual is not zero at a point, not merely hard to simplify.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.logic.boolalg import BooleanAtom

Paper = Literal["l2", "intrinsic_lr", "periodic", "output_scale", "ntkdecay"]
Kind = Literal["proof", "identity", "simulation"]

PAPERS: tuple[Paper, ...] = ("l2", "intrinsic_lr", "periodic", "output_scale", "ntkdecay")
STATEMENTS: list[Statement] = []

# A mutant's numeric residual must exceed the statement's own tolerance by this factor.
MARGIN = {"proof": 1.0, "identity": 100.0, "simulation": 2.0}


@dataclass(frozen=True)
class Verdict:
    """Outcome of one check: `holds`, the largest numeric residual (0 for a proof), its time."""

    holds: bool
    residual: float
    seconds: float


@dataclass(frozen=True)
class Statement:
    """A numbered statement of a paper, or one of this library's own (paper `ntkdecay`).

    Args:
        paper, number: where it stands, by the paper's own numbering.
        content: the statement in one line.
        kind: `proof` (exact, by computer algebra), `identity` (random cases in floating
            point) or `simulation` (a trained or simulated system against the prediction).
        check: returns residuals; see `statement`.
        tolerance: for numeric residuals.
        mutants: name -> the altered keyword arguments of `check`. A name that begins with
            "printed" is the statement as the paper prints it, where that is a slip.
        scope: what is proved and what only checked on cases, where the two differ.
    """

    paper: Paper
    number: str
    content: str
    kind: Kind
    check: Callable[..., Any]
    tolerance: float
    mutants: Mapping[str, Mapping[str, Any]] = field(repr=False)
    scope: str = ""

    @property
    def name(self) -> str:
        return f"{self.paper} {self.number}"

    def run(self) -> Verdict:
        start = time.perf_counter()
        residuals = _flatten(self.check())
        numeric = [abs(float(r)) for r in residuals if not isinstance(r, sp.Basic | bool)]
        holds = all(_vanishes(r, self.tolerance) for r in residuals)
        return Verdict(holds, max(numeric, default=0.0), time.perf_counter() - start)

    def refutes(self, mutant: str) -> bool:
        """Whether the altered statement is shown to be false."""
        residuals = _flatten(self.check(**self.mutants[mutant]))
        return any(_differs(r, MARGIN[self.kind] * self.tolerance) for r in residuals)


def statement(
    paper: Paper,
    number: str,
    content: str,
    *,
    kind: Kind,
    mutants: Mapping[str, Mapping[str, Any]],
    tolerance: float = 0.0,
    scope: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the check of a statement.

    The function returns one residual or any nesting of lists of them: a sympy expression that
    must be identically zero, a truth value that must be true, or a float that must be at most
    `tolerance`.

    Raises:
        ValueError: a statement without a mutant, an identity or simulation without a
            tolerance, a mutant that alters an argument the check does not have.
    """

    def register(check: Callable[..., Any]) -> Callable[..., Any]:
        if not mutants:
            raise ValueError(f"{paper} {number} has no mutant, so its check could not fail")
        if (kind == "proof") != (tolerance == 0.0):
            raise ValueError(f"{paper} {number}: a proof is exact, other kinds need a tolerance")
        known = inspect.signature(check).parameters
        for name, altered in mutants.items():
            if unknown := set(altered) - set(known):
                raise ValueError(f"{paper} {number}, mutant {name!r} alters unknown {unknown}")
        STATEMENTS.append(
            Statement(paper, number, content, kind, check, tolerance, dict(mutants), scope)
        )
        return check

    return register


def positive(expression: sp.Expr) -> bool:
    """Whether an expression is positive for all values of its symbols: proved, or a point against.

    Raises:
        ValueError: where neither is found.
    """
    factored = sp.factor(expression)
    if factored.is_positive:
        return True
    for point in _points(factored):
        # The point itself, and with each symbol in turn far smaller and far larger.
        moved = [point | {v: f * point[v]} for v in point for f in (sp.Rational(1, 50), 50)]
        if any(sp.N(factored.subs(values), 30) <= 0 for values in (point, *moved)):
            return False
    raise ValueError(f"the sign of {factored} is not decided")


def _flatten(residuals: Any) -> list[Any]:
    if isinstance(residuals, sp.MatrixBase):
        return residuals.flat()
    scalar = isinstance(residuals, sp.Basic) or getattr(residuals, "shape", None) == ()
    if isinstance(residuals, Iterable) and not scalar:
        return [leaf for item in residuals for leaf in _flatten(item)]
    return [residuals]


def _vanishes(residual: Any, tolerance: float) -> bool:
    if isinstance(residual, bool | BooleanAtom):
        return bool(residual)
    if not isinstance(residual, sp.Basic):
        return abs(float(residual)) <= tolerance
    if _differs(residual, 0.0):
        return False
    return any(
        transform(residual) == 0
        for transform in (sp.expand, sp.powsimp, lambda e: sp.powsimp(sp.expand(e)), sp.simplify)
    )


def _differs(residual: Any, tolerance: float) -> bool:
    """Whether a residual is shown to be non-zero (an expression: at one of three points)."""
    if isinstance(residual, bool | BooleanAtom):
        return not residual
    if not isinstance(residual, sp.Basic):
        return not abs(float(residual)) <= tolerance
    # Functions left free by the statement, and their derivatives, are independent values.
    free = residual.atoms(AppliedUndef, sp.Derivative)
    opened = residual.xreplace({f: sp.Dummy(f"f{i}", positive=True) for i, f in enumerate(free)})
    values = [sp.N(opened.subs(point), 30) for point in _points(opened)]
    return any(v.is_number and abs(v) > sp.Float("1e-18") for v in values)


def _points(expression: sp.Basic) -> list[Any]:
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
