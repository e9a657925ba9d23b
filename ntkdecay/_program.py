r"""A function as JAX reads it, so that what was compiled for it is found again, and only for it.

A function object says little: one may compute something new after a global that it reads has
changed, and two may compute the same. Here it is read anew at each call, which takes milliseconds,
and compiled programs are kept by what was read. Arrays that it captures are arguments.
"""

import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend import core


class Text:
    """A jaxpr, equal to another if they are the same computation.

    Attributes:
        jaxpr: the computation, of captured arrays and arguments.
        out: the tree of `jax.ShapeDtypeStruct` that it gives.
        numbers: the integers in it, such as the sizes of axes; `words`: all else.
    """

    def __init__(self, jaxpr: Any, out: Any) -> None:
        self.jaxpr, self.out = jaxpr, out
        words, numbers = [], []
        for token in itertools.chain(_of_jaxpr(jaxpr), _of(jax.tree.structure(out))):
            (numbers if type(token) is int else words).append(token)
        self.words, self.numbers = tuple(words), tuple(numbers)
        self._hash = hash((self.words, self.numbers))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: Any) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Text)
            and self._hash == other._hash
            and self.numbers == other.numbers
            and self.words == other.words
        )


@jax.tree_util.register_pytree_node_class
class Program:
    """A function that was read for arguments of given shapes; itself an argument of compiled ones."""

    def __init__(self, text: Text, captured: tuple) -> None:
        self.text, self.captured = text, captured

    def __call__(self, *args: Any) -> Any:
        leaves = jax.tree.leaves(args)
        out = jax.core.eval_jaxpr(self.text.jaxpr, self.captured, *leaves)
        return jax.tree.unflatten(jax.tree.structure(self.text.out), out)

    @property
    def out(self) -> Any:
        return self.text.out

    def tree_flatten(self) -> tuple[tuple, Text]:
        return self.captured, self.text

    @classmethod
    def tree_unflatten(cls, text: Text, captured: tuple) -> "Program":
        return cls(text, tuple(captured))


def read(function: Callable, *args: Any) -> Program:
    """`function` as a program for arguments like these, arrays or their shapes."""
    # a new object each time: JAX keeps what it once traced of one
    closed, out = jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)
    return Program(Text(closed.jaxpr, out), tuple(closed.consts))


def differ_in_size_alone(
    size: int, first: Program, second: Program, third: Program, n: int
) -> bool:
    """Whether programs for `size`, `size` + 1 and `n` samples are one, whose integers grow with them.

    Numbers are integers, a + b·samples; whatever else depends on their number is a difference.
    """
    a, b, c = first.text, second.text, third.text
    if not a.words == b.words == c.words or len({len(t.numbers) for t in (a, b, c)}) > 1:
        return False
    slopes = zip(a.numbers, b.numbers, c.numbers, strict=True)
    if any(z != x + (y - x) * (n - size) for x, y, z in slopes):
        return False
    captured = (first.captured, second.captured, third.captured)
    return all(_equal(x, y) and _equal(x, z) for x, y, z in zip(*captured, strict=True))


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    return np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b)))


def _of_jaxpr(jaxpr: Any) -> Iterator[Any]:
    number = {v: i for i, v in enumerate((*jaxpr.constvars, *jaxpr.invars))}
    yield "jaxpr"
    yield len(jaxpr.constvars)
    for v in number:
        yield from _of_aval(v.aval)
    for eqn in jaxpr.eqns:
        yield eqn.primitive
        for v in eqn.invars:
            yield from _of_literal(v) if isinstance(v, core.Literal) else [("in", number[v])]
        for name in sorted(eqn.params.keys() - {"out_trees"}):  # these follow from the rule
            yield name
            yield from _of(eqn.params[name])
        for v in eqn.outvars:
            number[v] = len(number)
            yield from _of_aval(v.aval)
    for v in jaxpr.outvars:
        yield from _of_literal(v) if isinstance(v, core.Literal) else [("out", number[v])]


def _of_aval(aval: Any) -> Iterator[Any]:
    yield str(getattr(aval, "dtype", aval)), getattr(aval, "weak_type", None)
    yield from getattr(aval, "shape", ())


def _of_literal(v: Any) -> Iterator[Any]:
    yield "literal"
    yield from _of_aval(v.aval)
    yield np.asarray(v.val).tobytes()


def _of(value: Any) -> Iterator[Any]:
    """The integers in a parameter, and all else in a form that can be compared."""
    if isinstance(value, core.ClosedJaxpr):
        yield from _of_jaxpr(value.jaxpr)
        yield from _of(tuple(value.consts))
    elif isinstance(value, core.Jaxpr):
        yield from _of_jaxpr(value)
    elif isinstance(value, (bool, np.bool_)):
        yield bool(value)
    elif isinstance(value, (int, np.integer)):
        yield int(value)
    elif isinstance(value, (tuple, list)):
        yield type(value), len(value)
        for item in value:
            yield from _of(item)
    elif isinstance(value, dict):
        yield from _of(sorted(value.items(), key=str))
    elif isinstance(value, (np.ndarray, np.generic, jax.Array)) and not _is_traced(value):
        yield str(value.dtype)
        yield from value.shape
        yield np.asarray(value).tobytes()
    else:
        yield _word(value)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _word(value: Any, depth: int = 8) -> Any:
    """Something equal for equal values: of a function its code and what it has captured."""
    if depth == 0:
        return _Same(value)
    rule = _custom_rule(value)
    if rule is not value:
        return _word(rule, depth - 1)
    if isinstance(value, types.FunctionType):
        cells = [_contents(cell) for cell in value.__closure__ or ()]
        kept = (value.__defaults__, value.__kwdefaults__)
        return value.__code__, *(_word(v, depth - 1) for v in (*cells, *kept))
    if isinstance(value, (tuple, list)):
        return tuple(_word(item, depth - 1) for item in value)
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return type(value), value


class _Same:
    """Equal if it is one object."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Same) and self.value is other.value


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _custom_rule(value: Any) -> Any:
    """The user's rule for a derivative that JAX wraps anew at each reading; else the value."""
    wrapped = getattr(value, "f", None)
    if not hasattr(value, "transforms") or not isinstance(wrapped, types.FunctionType):
        return value
    if wrapped.__qualname__ == "_memoize.<locals>.memoized":
        for outer in map(_contents, wrapped.__closure__ or ()):
            for cell in getattr(outer, "__closure__", None) or ():
                inner = _contents(cell)
                if hasattr(inner, "transforms"):
                    return inner.f
    return wrapped
