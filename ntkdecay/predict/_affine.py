"""Whether the program of a function shows that it is x ↦ c x + b, with one number c for all entries.

Of each value in the program is known how it depends on x. A step without a rule below may give anything, so that the
answer is yes only where it is proved, whatever the numbers: that of the gradient of a sum of squares, but not of one
with weights or a mask, of a loss that is quadratic here and not there, or of one with a rule of its own for derivatives.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
from jax import Array
from jax.extend import core

# one number for all entries; anything without x; c x + b in the order of x's entries; anything
EVEN, FIXED, AFFINE, OTHER = range(4)
SUMS = {"add", "add_any", "sub"}
SAME_ORDER = {"neg", "copy", "reshape", "squeeze", "broadcast_in_dim", "convert_element_type"}
KEEPS_EVEN = SUMS | SAME_ORDER | {"mul", "div", "integer_pow", "square", "reduce_sum"}


def is_affine(function: Callable[[Array], Array], x: Any) -> bool:
    """Whether `function` is proved to be x ↦ c x + b for arguments like this one, c and b without x, c a number."""
    closed = jax.make_jaxpr(function)(x)
    (out,) = closed.jaxpr.outvars
    return _kinds(closed, (AFFINE,), x) == [AFFINE] and out.aval.dtype == x.dtype


def _kinds(closed: core.ClosedJaxpr, arguments: tuple[int, ...], x: Any) -> list[int]:
    """The kind of each output, from those of the arguments."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.invars, arguments, strict=True))
    known |= {v: EVEN if v.aval.size == 1 else FIXED for v in jaxpr.constvars}  # pyright: ignore

    def kind(v: Any) -> int:
        if isinstance(v, core.Literal):
            return EVEN if v.aval.size == 1 else FIXED  # pyright: ignore
        return known[v]

    for eqn in jaxpr.eqns:
        given = tuple(kind(v) for v in eqn.invars)
        if eqn.primitive.name in ("jit", "pjit"):
            found = _kinds(eqn.params["jaxpr"], given, x)
        else:
            found = [_kind(eqn, given, v.aval, x) for v in eqn.outvars]
        known |= dict(zip(eqn.outvars, found, strict=True))
    return [kind(v) for v in jaxpr.outvars]


def _kind(eqn: Any, given: tuple[int, ...], out: Any, x: Any) -> int:
    """The kind of what an equation gives, from those of what it is given."""
    name = eqn.primitive.name
    if eqn.effects or OTHER in given:
        return OTHER
    if AFFINE not in given:
        even = out.size == 1 or (name in KEEPS_EVEN and set(given) == {EVEN})
        return EVEN if even else FIXED
    if out.size != x.size or out.dtype != x.dtype:
        return OTHER
    plain = eqn.params.get("dimensions") is None  # of a reshape
    outer = name == "dot_general" and not any(map(any, eqn.params["dimension_numbers"]))
    scaled = name == "mul" or outer
    if (
        (name in SUMS and x.size == max(v.aval.size for v in eqn.invars))
        or (name in SAME_ORDER and plain)
        or (scaled and EVEN in given)
        or (name == "div" and given == (AFFINE, EVEN))
    ):
        return AFFINE
    return OTHER
