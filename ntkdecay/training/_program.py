"""What a program is: its text and every array it holds, hashed. Each is compiled once.

Functions that trace to the same program share what was compiled, whatever objects they are, and a function that
reads a global which has changed since traces to another program.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

KEPT = 32  # compiled programs, the latest used
LARGE = 2**26  # bytes of constants that would cost more to print than to compile with

_compiled: OrderedDict[Any, Any] = OrderedDict()


def digest(texts: Iterable[str], arrays: Iterable[Any] = ()) -> str:
    """SHA-256 of texts and of arrays' types, shapes and bytes."""
    total = hashlib.sha256()
    for text in texts:
        total.update(len(text).to_bytes(8, "big") + text.encode())
    for array in arrays:
        array = plain(array)
        total.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()[:32]


def plain(array: Any) -> np.ndarray:
    """An array as NumPy has it; random keys as their bits."""
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.ascontiguousarray(array).reshape(np.shape(array))


def constants(traced: Any) -> list[Any]:
    """Every array that a traced program holds. Its text may only refer to them: jax_use_simplified_jaxpr_constants."""
    found = list(traced.jaxpr.consts)
    for jaxpr in _nested(traced.jaxpr):
        atoms = [a for equation in jaxpr.eqns for a in equation.invars] + jaxpr.outvars
        found += [a.val for a in atoms if isinstance(a, Literal)]
        found += [
            c for inner in _inner(jaxpr) if isinstance(inner, ClosedJaxpr) for c in inner.consts
        ]
    return found


def host_calls(traced: Any) -> list[str]:
    """The primitives by which a traced program calls code that its text does not hold."""
    names = {e.primitive.name for jaxpr in _nested(traced.jaxpr) for e in jaxpr.eqns}
    return sorted(n for n in names if "callback" in n or n in ("debug_print", "ffi_call"))


def _inner(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, (ClosedJaxpr, Jaxpr)):
                yield value


def _nested(jaxpr: Any) -> Iterator[Jaxpr]:
    """A jaxpr and those within it."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    yield jaxpr
    for inner in _inner(jaxpr):
        yield from _nested(inner)


def compiled(function: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()) -> Any:
    """The program of `function` for arguments of these shapes and places, ready to be called."""
    traced = jax.jit(function, donate_argnums=donate).trace(*args)
    lowered = traced.lower()
    arrays = constants(traced)
    if host_calls(traced) or sum(np.size(a) for a in arrays) * 8 > LARGE:
        return lowered.compile()
    leaves, tree = jax.tree.flatten(args)
    places = tuple(
        (np.shape(leaf), str(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves
    )
    key = digest([lowered.as_text()], arrays), tree, lowered.out_tree, places
    if key not in _compiled:
        _compiled[key] = lowered.compile()
        while len(_compiled) > KEPT:
            _compiled.popitem(last=False)
    _compiled.move_to_end(key)
    return _compiled[key]
