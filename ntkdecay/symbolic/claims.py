r"""A claim: the formula of a statement, read once and then evaluated, altered and printed.

    Claim("c = 2*(k - 1)*λ; Θ_t == exp(-c*t)*Θ_0")

It is Python's own syntax: `=` defines, `==`, `<=` and `<` claim. What a check evaluates, what
`alterations` puts wrong and what the tables print is one syntax tree, so the three cannot differ.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from ntkdecay._checks import anything, checked, either, instance, mapping, optional
from ntkdecay._checks import text as string
from ntkdecay.symbolic.notation import written
from ntkdecay.symbolic.verdicts import nonnegative, positive

_SWAPPED: dict[type, Any] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Lt: ast.Gt,
    ast.Gt: ast.Lt,
    ast.LtE: ast.GtE,
    ast.GtE: ast.LtE,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_FUNCTIONS = ("exp", "log", "sqrt")
_SYMBOLIC = {
    **{name: getattr(sp, name) for name in (*_FUNCTIONS, "Abs", "Max", "Min")},
    "pi": sp.pi,
    "Gamma": lambda s, u=0: sp.uppergamma(s, u),
    "Sum": lambda term, s, first, last: sp.Sum(term, (s, first, last)),
    "Integral": lambda f, x, low, high: sp.Integral(f, (x, low, high)),
    "d": lambda f, x: sp.diff(f, x),
}
_NUMERIC = {
    **{name: getattr(np, name) for name in _FUNCTIONS},
    **{"Abs": np.abs, "Max": np.maximum, "Min": np.minimum, "pi": np.pi},
}
_DIGITS = {
    **{name: getattr(mp, name) for name in _FUNCTIONS},
    **{"Abs": abs, "Max": max, "Min": min, "Gamma": mp.gammainc},
    "Integral": lambda f, x, low, high: mp.quad(f, mp.linspace(low, high, 9)),
}


SYMBOL = instance(sp.Symbol, "a symbol of sympy")


@dataclass(frozen=True)
class Relation:
    """One side against the other: `==`, `<`, `<=`, `>` or `>=`."""

    left: Any
    sign: str
    right: Any

    @property
    def residual(self) -> Any:
        """Left minus right: zero where an equation holds."""
        return self.left - self.right

    @property
    def rises(self) -> bool:
        return self.sign in ("<", "<=")

    @property
    def lesser(self) -> Any:
        return self.left if self.rises else self.right

    @property
    def greater(self) -> Any:
        return self.right if self.rises else self.left

    @property
    def gap(self) -> Any:
        """Greater minus lesser: not negative where an inequality holds."""
        return self.greater - self.lesser

    @property
    def supremum(self) -> float:
        """max(lesser/greater) − 1 over positive numbers: 0 for a bound that holds and is attained."""
        return float(np.max(np.asarray(self.lesser) / np.asarray(self.greater)) - 1.0)


class Claim:
    """A formula, `;` between its parts.

    Args:
        claim: definitions `name = expression` and relations, in Python's syntax. Known without a
            definition: exp, log, sqrt, Abs, Max, Min, pi, Gamma(s, u), d(f, x),
            Sum(term, s, first, last), Integral(f, x, low, high).
        show: how to print a name, where not as itself with its subscripts, primes and bars.

    Raises:
        ValueError: if it does not parse or claims nothing.
    """

    @checked(
        claim=either(string(), instance(ast.Module, "a module of ast")),
        show=optional(mapping(string())),
    )
    def __init__(self, claim: str | ast.Module, show: Mapping[str, str] | None = None):
        self.show = dict(show or {})
        try:
            self.tree = ast.parse(claim) if isinstance(claim, str) else claim
        except (SyntaxError, ValueError) as error:
            raise ValueError(
                f"`claim` is {claim!r}, which is not Python's syntax ({getattr(error, 'msg', error)}): "
                "powers are **, products *, equations ==."
            ) from None
        if not any(isinstance(part, ast.Expr) for part in self.tree.body):
            raise ValueError(
                f"`claim` is {claim!r} and has no relation: write == where you have =."
            )
        for part in self.tree.body:
            related = isinstance(part, ast.Expr) and isinstance(part.value, ast.Compare)
            if not (related or isinstance(part, ast.Assign)):
                raise ValueError(
                    f"`claim` has a part {ast.unparse(part)!r} that is no definition and no relation."
                )

    @cached_property
    def text(self) -> str:
        """The formula as one line of mathematics."""
        return "; ".join(written(part, self.show) for part in self.tree.body)

    def __str__(self) -> str:
        return self.text

    @checked(symbols=SYMBOL, values=anything())
    def __call__(self, *symbols: sp.Symbol, **values: Any) -> list[Any]:
        """Left minus right of each relation; of an inequality whether it is proved.

        Args:
            symbols: stand for the names that they bear.
            values: of the other names. With a sympy value among them numbers are exact.
        """
        out = []
        for relation in self.relations(*symbols, **values):
            if relation.sign == "==":
                out.append(relation.residual)
            elif isinstance(relation.gap, sp.Basic):
                strict = "=" not in relation.sign
                out.append((positive if strict else nonnegative)(relation.gap))
            else:
                out.append(float(max(0.0, np.max(relation.lesser - relation.greater))))
        return out

    @checked(symbols=SYMBOL, values=anything())
    def relations(self, *symbols: sp.Symbol, **values: Any) -> list[Relation]:
        """The relations with their two sides evaluated, chains (a <= b <= c) taken apart."""
        return self._evaluate(symbols, values)[1]

    @checked(name=string(), symbols=SYMBOL, values=anything())
    def value(self, name: str, *symbols: sp.Symbol, **values: Any) -> Any:
        """What a definition of the claim gives."""
        return self._evaluate(symbols, values, stop=name)[0][name]

    @checked(symbols=SYMBOL, values=anything())
    def sides(self, *symbols: sp.Symbol, **values: Any) -> list[Any]:
        """The right-hand sides: what the claim says of each left; a left that is a name is bound."""
        return [relation.right for relation in self._evaluate(symbols, values, bind=True)[1]]

    def _evaluate(
        self, symbols, values, stop=None, bind=False
    ) -> tuple[dict[str, Any], list[Relation]]:
        values = {str(symbol): symbol for symbol in symbols} | values
        known, number = _arithmetic([*symbols, *values.values()])
        scope: dict[str, Any] = {**known, **values, "__number__": number}
        relations = []
        for part in self._compiled:
            if isinstance(part, tuple):
                name, code = part
                scope[name] = self._value(code, scope)
                if name == stop:
                    break
            elif stop is None:
                name, first, *rest = part
                left = None if bind and name else self._value(first, scope)
                for sign, code in rest:
                    right = self._value(code, scope)
                    scope |= {name: right} if bind and name else {}
                    relations.append(Relation(left, sign, right))
                    left = right
        return scope, relations

    def _value(self, code: Any, scope: dict[str, Any]) -> Any:
        try:
            return eval(code, scope)
        except NameError as error:
            raise ValueError(
                f"the claim {self.text!r} needs a value for `{error.name}`: give a symbol of that "
                "name, or the value by keyword."
            ) from None

    @cached_property
    def _compiled(self) -> list[Any]:
        def code(node):
            wrapped = ast.Expression(_Numbers().visit(copy.deepcopy(node)))
            return compile(ast.fix_missing_locations(wrapped), self.text, "eval")

        parts: list[Any] = []
        for part in self.tree.body:
            if isinstance(part, ast.Assign):
                parts.append((ast.unparse(part.targets[0]), code(part.value)))
            else:
                chain: Any = part.value  # pyright: ignore[reportAttributeAccessIssue]
                signs = [_SIGN[type(op)] for op in chain.ops]
                sides = [code(side) for side in chain.comparators]
                name = chain.left.id if isinstance(chain.left, ast.Name) else ""
                parts.append([name, code(chain.left), *zip(signs, sides, strict=True)])
        return parts

    def alterations(self) -> Iterator[tuple[str, Claim]]:
        """Each number, implied coefficient, sign, exponent, root and relation altered in turn.

        Yields:
            what was done, "k − 1 → k + 1", and the claim with it done.
        """
        seen, labels = {ast.unparse(self.tree)}, Counter()
        for index, (node, parent) in enumerate(_nodes(self.tree)):
            for new in _altered(node, parent):
                tree = _replaced(self.tree, index, new)
                text = ast.unparse(tree)
                if text in seen:
                    continue
                seen.add(text)
                label = self._label(node, new)
                labels[label] += 1
                label += f" ({labels[label]})" if labels[label] > 1 else ""
                yield label, Claim(tree, self.show)

    def _label(self, node: Any, new: Any) -> str:
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
            node, new = (side.comparators[-1] for side in (node, new))
        return f"{written(node, self.show)} → {written(new, self.show)}"


_SIGN = {ast.Eq: "==", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


class _Numbers(ast.NodeTransformer):
    """Every number through `__number__`, so that 1/2 is exact where the names are sympy's."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        name = ast.Name("__number__", ast.Load())
        return ast.Call(name, [ast.Constant(repr(node.value))], [])


def _arithmetic(values: list[Any]) -> tuple[dict[str, Any], Any]:
    if any(isinstance(value, sp.Basic | sp.MatrixBase) for value in values):
        return _SYMBOLIC, sp.Rational
    if any(isinstance(value, mp.mpf) for value in values):
        return _DIGITS, mp.mpf
    return _NUMERIC, lambda text: float(text) if "." in text else int(text)


def _nodes(tree: ast.Module) -> list[tuple[ast.AST, ast.AST | None]]:
    found: list[tuple[ast.AST, ast.AST | None]] = []

    def walk(node, parent):
        found.append((node, parent))
        for child in ast.iter_child_nodes(node):
            walk(child, node)

    walk(tree, None)
    return found


def _replaced(tree: ast.Module, index: int, new: ast.AST) -> Any:
    changed: Any = copy.deepcopy(tree)
    target = _nodes(changed)[index][0]

    class Replace(ast.NodeTransformer):
        def visit(self, node):
            return copy.deepcopy(new) if node is target else self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(changed))


def _altered(node: Any, parent: Any) -> list[Any]:
    """What may stand wrongly in the place of a node."""
    if isinstance(parent, ast.Call) and (node is parent.func or node is _bound(parent)):
        return []
    equation = isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.Eq)
    if equation and isinstance(node, ast.Name) and node is getattr(parent, "left", None):
        return []  # "2 f = …" is "f = …/2": the right-hand side's own alteration
    match node:
        case ast.Constant(value=int() | float() as value):
            near = [ast.Constant(round(1.05 * value, 6))] if value else []
            return [ast.Constant(value + 1), *near]
        case ast.Name(ctx=ast.Load()):
            return [ast.BinOp(ast.Constant(2), ast.Mult(), node)]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return [operand]
        case ast.BinOp(left, ast.Add() | ast.Sub() as op, right):
            return [ast.BinOp(left, _SWAPPED[type(op)](), right)]
        case ast.BinOp(base, ast.Pow(), exponent):
            higher = ast.BinOp(exponent, ast.Add(), ast.Constant(1))
            powers: list[ast.expr] = [ast.UnaryOp(ast.USub(), exponent)]
            if not isinstance(exponent, ast.Constant):
                powers.append(higher)
            return [ast.BinOp(base, ast.Pow(), power) for power in powers]
        case ast.BoolOp(op, values):
            return [ast.BoolOp(_SWAPPED[type(op)](), values)]
        case ast.Call(func=ast.Name(id="sqrt"), args=[inside]):
            return [inside]
        case ast.Call(func=ast.Name(id="Max" | "Min" as name), args=inside):
            other = "Min" if name == "Max" else "Max"
            return [ast.Call(ast.Name(other, ast.Load()), inside, [])]
        case ast.Compare(left, [op], [right]):
            if isinstance(op, ast.Eq):
                if isinstance(right, ast.Constant) and not right.value:
                    return []  # −0 and 1.05·0 are 0
                sides = (
                    ast.UnaryOp(ast.USub(), right),
                    ast.BinOp(ast.Constant(1.05), ast.Mult(), right),
                )
                return [ast.Compare(left, [op], [side]) for side in sides]
            return [ast.Compare(left, [_SWAPPED[type(op)]()], [right])]
        case ast.Compare(left, ops, rest):
            flipped = [_SWAPPED.get(type(op), type(op))() for op in ops]
            return [
                ast.Compare(left, [*ops[:i], flipped[i], *ops[i + 1 :]], rest)
                for i in range(len(ops))
                if type(flipped[i]) is not type(ops[i])
            ]
    return []


def _bound(call: ast.Call) -> ast.AST | None:
    """The variable that a sum, an integral or a derivative runs over."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    return call.args[1] if name in ("Sum", "Integral", "d") else None
