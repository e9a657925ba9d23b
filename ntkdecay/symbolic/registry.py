"""The register of checked statements: what is claimed, how it is checked, what must be refuted.

A statement is a claim, a formula as text, and a check that evaluates it: the function gets the
`Claim`, gives values to its names and returns what is left of "left-hand side minus right-hand
side". So the same check can be given the claim with one number, sign, exponent or relation
altered; it must then fail. An alteration counts as refuted when its residual is not zero at a
point, not when it is merely hard to simplify.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import sympy as sp

from ntkdecay._checks import (
    checked,
    choice,
    function,
    instance,
    integer,
    mapping,
    number,
    optional,
    text,
)
from ntkdecay.symbolic.claims import Claim
from ntkdecay.symbolic.verdicts import Undecided, differs, flat, vanishes

Kind = Literal["proof", "identity", "simulation"]

# The papers behind this library, in the tables' order; a statement may name another.
PAPERS = ("l2", "intrinsic_lr", "periodic", "output_scale", "ntkdecay")
STATEMENTS: list[Statement] = []

# The numeric residual of what is refuted must exceed the tolerance by this factor.
MARGIN = {"proof": 1.0, "identity": 100.0, "simulation": 2.0}


@dataclass(frozen=True)
class Verdict:
    """Outcome of one check: `holds`, the largest numeric residual (0 for a proof), its time."""

    holds: bool
    residual: float
    seconds: float


@dataclass(frozen=True)
class Mutation:
    """What became of a claim's alterations: how many there were, and those not refuted."""

    total: int
    standing: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Statement:
    """A statement and its check; made by the decorator `statement`, which explains the fields."""

    paper: str
    number: str
    title: str
    claim: Claim
    kind: Kind
    check: Callable[[Claim], Any]
    tolerance: float = 0.0
    refuted: Mapping[str, Claim] = field(default_factory=dict)
    survivors: Mapping[str, str] = field(default_factory=dict)
    scope: str = ""

    @property
    def name(self) -> str:
        return f"{self.paper} {self.number}"

    @property
    def content(self) -> str:
        """The statement in one line: its title and, from the claim itself, the formula."""
        return f"{self.title}: {self.claim.text}"

    def run(self) -> Verdict:
        """Check the statement."""
        start = time.perf_counter()
        residuals = flat(self.check(self.claim))
        symbolic = sp.Basic | bool | Undecided
        numeric = [abs(float(r)) for r in residuals if not isinstance(r, symbolic)]
        holds = all(vanishes(r, self.tolerance) for r in residuals)
        return Verdict(holds, max(numeric, default=0.0), time.perf_counter() - start)

    @checked(claim=instance(Claim, "a Claim"))
    def refutes(self, claim: Claim) -> bool:
        """Whether another claim in this one's place is shown to be false, or to have no value."""
        try:
            with np.errstate(all="ignore"):
                residuals = flat(self.check(claim))
        except (ZeroDivisionError, OverflowError):
            return True
        return any(differs(r, MARGIN[self.kind] * self.tolerance) for r in residuals)

    @checked(sample=optional(integer(low=1)))
    def mutate(self, sample: int | None = None) -> Mutation:
        """Alter the claim at each place in turn, or at `sample` places, and refute what results."""
        start, alterations = time.perf_counter(), list(self.claim.alterations())
        if sample is not None:
            alterations = random.Random(self.name).sample(
                alterations, min(sample, len(alterations))
            )
        standing = [label for label, altered in alterations if not self.refutes(altered)]
        return Mutation(len(alterations), tuple(standing), time.perf_counter() - start)


TEXTS = optional(mapping(text()))


@checked(
    paper=text(),
    number=text(),
    title=text(),
    claim=text(),
    kind=choice(*get_args(Kind)),
    tolerance=number(low=0),
    refuted=TEXTS,
    survivors=TEXTS,
    show=TEXTS,
    scope=text(),
)
def statement(
    paper: str,
    number: str,
    title: str,
    claim: str,
    *,
    kind: Kind,
    tolerance: float = 0.0,
    refuted: Mapping[str, str] | None = None,
    survivors: Mapping[str, str] | None = None,
    show: Mapping[str, str] | None = None,
    scope: str = "",
) -> Callable[[Callable[[Claim], Any]], Statement]:
    """Register the decorated function as the check of a statement.

    The function takes a `Claim`. It returns one residual or any nesting of lists of them: a sympy
    expression that must be identically zero, a truth value that must be true, or a float that
    must be at most `tolerance`. `run()` of what is made checks it; `mutate()` alters each of its
    numbers, signs and exponents and says which alterations the check does not notice.

    Args:
        paper, number: where it stands, by the paper's own numbering.
        title: what it says, without a formula.
        claim: the formula, in the syntax of `Claim`. It is what the check evaluates, what is
            altered and what the tables print.
        kind: `proof` (exact, by computer algebra), `identity` (random cases in floating point) or
            `simulation` (a trained or simulated system against the prediction).
        tolerance: for numeric residuals; 0 for a proof.
        refuted: name -> another claim that must be refuted too. A name that begins with "printed"
            is the statement as the paper prints it, where that is a slip.
        survivors: alteration -> why it is no mistake (x² does not see the sign of x).
        show: how to print a name of the claim.
        scope: what is proved and what only checked on cases, where the two differ.

    Raises:
        ValueError: a kind that does not exist, a number that the paper already has, an identity or
            a simulation without a tolerance, a claim that is no formula or has nothing to alter.

    >>> import sympy as sp
    >>> from ntkdecay.symbolic import statement
    >>> @statement("mine", "Lemma 1", "the norm decays", "n_t == exp(-2*λ*t)*n_0", kind="proof")
    ... def norm_decays(claim):
    ...     λ, t, n_0 = sp.symbols("λ t n_0", positive=True)
    ...     (n,) = claim.sides(λ, t, n_0, n_t=0)
    ...     return [sp.diff(n, t) + 2 * λ * n, n.subs(t, 0) - n_0]
    ...
    >>> norm_decays.run().holds
    True
    """
    if (kind == "proof") != (tolerance == 0.0):
        raise ValueError(
            f"{paper} {number}: `tolerance` is {tolerance}; a proof is exact (0), an identity or a "
            "simulation needs one."
        )
    formula = Claim(claim, show)
    if next(formula.alterations(), None) is None:
        raise ValueError(
            f"{paper} {number}: `claim` is {claim!r}, with nothing to alter, so it could not fail."
        )

    @checked(check=function("of a Claim"))
    def register(check: Callable[[Claim], Any]) -> Statement:
        entry = Statement(
            paper,
            number,
            title,
            formula,
            kind,
            check,
            tolerance,
            {name: Claim(text, show) for name, text in (refuted or {}).items()},
            dict(survivors or {}),
            scope,
        )
        for i, other in enumerate(STATEMENTS):
            if other.name == entry.name:
                if _place(other) != _place(entry):
                    raise ValueError(f"{entry.name} is already checked, by {_place(other)}.")
                STATEMENTS[i] = entry  # its cell or module was run again
                return entry
        STATEMENTS.append(entry)
        return entry

    return register


def _place(entry: Statement) -> str:
    return f"{entry.check.__module__}.{entry.check.__qualname__}"
