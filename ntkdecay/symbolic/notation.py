"""The syntax tree of a claim as one line of mathematics: `exp(-k*λ*t)` is e^{−kλt}."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

_ACCENT = {"bar": "\u0304", "dot": "\u0307", "hat": "\u0302", "tilde": "\u0303"}
_MARK = {"prime": "'", "star": "*"}
_LETTER = {"ell": "ℓ", "pi": "π"}
_RELATION = {
    ast.Eq: "=",
    ast.Lt: "<",
    ast.LtE: "≤",
    ast.Gt: ">",
    ast.GtE: "≥",
}
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ATOM, _POWER, _PRODUCT, _SUM, _LOOSE = range(5)


def written(node: ast.AST, show: Mapping[str, str]) -> str:
    """One line for a definition, a relation or an expression; `show` overrides single names."""
    return _Writer(show).write(node)[0]


class _Writer:
    def __init__(self, show: Mapping[str, str]):
        self.show = show

    def write(self, node: ast.AST) -> tuple[str, int]:
        """The text and how loosely it binds."""
        match node:
            case ast.Expr(value):
                return self.write(value)
            case ast.Assign([target], value):
                return f"{self.write(target)[0]} := {self.write(value)[0]}", _LOOSE
            case ast.Compare(left, ops, rights):
                parts = [self.write(left)[0]]
                for op, right in zip(ops, rights, strict=True):
                    parts += [_RELATION[type(op)], self.write(right)[0]]
                return " ".join(parts), _LOOSE
            case ast.BoolOp(op, values):
                word = " and " if isinstance(op, ast.And) else " or "
                texts = [self.write(v)[0] for v in values]
                inner = [f"({t})" if " and " in t or " or " in t else t for t in texts]
                return word.join(inner), _LOOSE
            case ast.Name(id=name):
                return self.show.get(name) or _name(name), _ATOM
            case ast.Constant(value=value):
                return str(value), _ATOM
            case ast.UnaryOp(operand=operand):
                return "−" + self.within(operand, _PRODUCT), _SUM
            case ast.BinOp(left, ast.Add(), right):
                return f"{self.within(left, _SUM)} + {self.within(right, _SUM)}", _SUM
            case ast.BinOp(left, ast.Sub(), right):
                return f"{self.within(left, _SUM)} − {self.within(right, _PRODUCT)}", _SUM
            case ast.BinOp(_, ast.Mult() | ast.Div(), _) if (inner := _negated(node)) is not None:
                return "−" + self.within(inner, _PRODUCT), _SUM
            case ast.BinOp(left, ast.Mult(), right):
                fraction = isinstance(right, ast.BinOp) and isinstance(right.op, ast.Div)
                second = self.within(right, _POWER if fraction else _PRODUCT)
                return _juxtaposed(self.within(left, _PRODUCT), second), _PRODUCT
            case ast.BinOp(left, ast.Div(), right):
                return f"{self.within(left, _PRODUCT)}/{self.within(right, _POWER)}", _PRODUCT
            case ast.BinOp(base, ast.Pow(), exponent):
                below, above = self.within(base, _ATOM), self.write(exponent)[0]
                if above.isdigit():
                    return below + above.translate(_SUPERSCRIPT), _POWER
                return f"{below}^{above}" if len(above) == 1 else f"{below}^{{{above}}}", _POWER
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return self.call(function, arguments)
        return ast.unparse(node), _ATOM

    def within(self, node: ast.AST, loosest: int) -> str:
        text, binding = self.write(node)
        return f"({text})" if binding > loosest else text

    def call(self, function: str, arguments: list[ast.expr]) -> tuple[str, int]:
        texts = [self.write(a)[0] for a in arguments]
        match function, texts:
            case "exp", [x]:
                return f"e^{{{x}}}", _POWER
            case "sqrt", [x]:
                return "√" + self.within(arguments[0], _ATOM), _POWER
            case "log", [x]:
                return f"ln({x})", _POWER
            case "Abs", [x]:
                return f"|{x}|", _ATOM
            case "norm", [x]:
                return f"‖{x}‖", _ATOM
            case "grad", [x]:
                return "∇" + self.within(arguments[0], _ATOM), _POWER
            case "hess", [x]:
                return "∇²" + self.within(arguments[0], _ATOM), _POWER
            case "d", [_, x]:
                return f"d{self.within(arguments[0], _ATOM)}/d{x}", _PRODUCT
            case "dot", _:
                return "·".join(self.within(a, _POWER) for a in arguments), _SUM
            case "Sum", [_, s, first, last]:
                return f"Σ_{{{s}={first}}}^{{{last}}} {self.within(arguments[0], _PRODUCT)}", _SUM
            case "Integral", [_, x, low, high]:
                return f"∫_{low}^{high} {self.within(arguments[0], _PRODUCT)} d{x}", _SUM
            case "Max" | "Min", _:
                return f"{function.lower()}({', '.join(texts)})", _ATOM
        name = self.show.get(function) or {"Gamma": "Γ"}.get(function) or _name(function)
        return f"{name}({', '.join(texts)})", _ATOM


def _negated(product: ast.AST) -> ast.AST | None:
    """The product without the sign of its first factor, if that has one."""
    if isinstance(product, ast.UnaryOp):
        return product.operand
    if isinstance(product, ast.BinOp) and isinstance(product.op, ast.Mult | ast.Div):
        first = _negated(product.left)
        return first and ast.BinOp(first, product.op, product.right)  # pyright: ignore
    return None


def _name(name: str) -> str:
    """`x_a_t` is x_{a,t}, `f_prime` f', `f_bar` f̄."""
    first, *rest = name.split("_")
    first = _LETTER.get(first, first)
    accents = "".join(_ACCENT[part] for part in rest if part in _ACCENT)
    marks = "".join(_MARK[part] for part in rest if part in _MARK)
    below = [_LETTER.get(part, part) for part in rest if part and part not in _ACCENT | _MARK]
    text = first + accents + marks
    if below:
        joined = ",".join(below)
        text += f"_{joined}" if len(joined) == 1 else f"_{{{joined}}}"
    return text


def _juxtaposed(left: str, right: str) -> str:
    if right[0].isdigit():
        return f"{left}·{right}"
    apart = "_" in re.split(r"[ ()]", left)[-1] or right.startswith(("Σ", "∫", "e^", "Tr", "∇"))
    words = re.search(r"[A-Za-z]{2,}$|Tr \S+$", left) or re.match(r"[A-Za-z]{2,}", right)
    return f"{left} {right}" if apart or words else left + right
