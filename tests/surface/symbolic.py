import sympy as sp

from ntkdecay import symbolic
from surface import EXEMPT, RESULT, Call, call

T, X = sp.Symbol("t", positive=True), sp.Symbol("x", positive=True)


def a_claim(other: bool) -> symbolic.Claim:
    return symbolic.Claim(f"c = {2 + other}*t; x == exp(-c*t)")


@call("symbolic.positive")
def positive(other=False):
    return Call(symbolic.positive, {"expression": X + 1 + int(other)})


@call("symbolic.nonnegative")
def nonnegative(other=False):
    return Call(symbolic.nonnegative, {"expression": X + int(other)})


@call("symbolic.Claim")
def claim(other=False):
    return Call(symbolic.Claim, {"claim": f"x == {2 + other}*t", "show": {"t": "τ"}})


@call("symbolic.Claim()")
def residuals(other=False):
    return Call(a_claim(other).__call__, {"symbols": (T, X)})


@call("symbolic.Claim().relations")
def relations(other=False):
    return Call(a_claim(other).relations, {"symbols": (T, X)})


@call("symbolic.Claim().value")
def value(other=False):
    return Call(a_claim(other).value, {"name": "c", "symbols": (T, X)})


@call("symbolic.Claim().sides")
def sides(other=False):
    return Call(a_claim(other).sides, {"symbols": (T, X)})


@call("symbolic.statement")
def statement(other=False):
    arguments = {"paper": "mine", "number": "1", "title": "", "claim": "a == 1", "kind": "identity"}
    more = {"refuted": {"b": "a == 2"}, "survivors": {}, "show": {}, "scope": ""}
    return Call(symbolic.statement, arguments | more | {"tolerance": 0.1 + other})


@call("symbolic.Statement().refutes")
def refutes(other=False):
    entry = next(entry for entry in symbolic.STATEMENTS if entry.refuted)
    altered = next(iter(entry.refuted.values()))
    return Call(entry.refutes, {"claim": altered if other else entry.claim})


@call("symbolic.Statement().mutate")
def mutate(other=False):
    return Call(symbolic.STATEMENTS[0].mutate, {"sample": 1 + other})


for name in ("Mutation", "Relation", "Statement", "Verdict"):
    EXEMPT[f"symbolic.{name}"] = RESULT
