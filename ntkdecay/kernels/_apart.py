r"""Whether an output of a network depends on its own sample alone.

.. math:: f(x_1, \ldots, x_n)_i = f(x_i)

is tried on a few samples, and the program for them must be that for all n, its sizes apart: then
what holds for a few holds for n. Where it is not, for a network that asks how many samples there
are, or takes the third one, all n are tried.
"""

import math
import weakref
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay._at_once import at_once
from ntkdecay._host import on_host
from ntkdecay._program import Program, differ_in_size_alone
from ntkdecay.kernels._checks import ApplyFn, exact, read_at
from ntkdecay.kernels._stand_ins import chosen, stand_ins

_FEW = 6


def check_apart(apply_fn: ApplyFn, single: Program, params: Any, x: Array) -> None:
    """Refuse a network whose outputs for the samples x depend on one another.

    Args:
        single: the network for one sample.
        x: traced or not; params likewise: numbers stand in for what is not known.

    Raises:
        ValueError: if they do.
    """
    n = len(x)
    seen, key = _seen(apply_fn), (single.text, n)
    if n == 1 or key in seen:
        return
    tried = _few(apply_fn, params, x)
    with at_once(), exact():
        programs = (read_at(apply_fn, params, x, tried), single)
        known = stand_ins(programs, (params, chosen(x, tried)))
        if known is None:
            return
        (whole, single), (params, x) = known
        both = whole, single, params, x
        found = on_host(_meeting, *both, compiled=_compiled) if tried <= _FEW else _compiled(*both)
        difference, size = map(float, found)
    close = float(jnp.finfo(single.out.dtype).eps) ** 0.5 * size
    if math.isfinite(size) and not difference <= close:  # nor NaN, 0/0 in a batch of 1
        raise ValueError(
            f"`apply_fn`'s output for a sample changes by {difference:.1e} with the rest of the "
            "batch, usually by batch normalization with batch statistics: pass vmap_axes=None."
        )
    seen.add(key)


_tried: weakref.WeakKeyDictionary[Any, dict[Any, set]] = weakref.WeakKeyDictionary()


def _seen(apply_fn: ApplyFn) -> set:
    """What this function was tried for, kept as long as it, or the object that it is a method of."""
    owner = getattr(apply_fn, "__self__", apply_fn)
    try:
        return _tried.setdefault(owner, {}).setdefault(getattr(apply_fn, "__func__", None), set())
    except TypeError:  # not to be hashed
        return set()


def _few(apply_fn: ApplyFn, params: Any, x: Array) -> int:
    """How many samples are enough."""
    n = len(x)
    if n <= _FEW:
        return n
    try:
        first, second, third = (read_at(apply_fn, params, x, m) for m in (_FEW - 1, _FEW, n))
    except Exception:  # whatever a network raises that does not take any number of samples
        return n
    # what is of length zero for a few, as what a roll by their number moves, is so for n
    return _FEW if differ_in_size_alone(_FEW - 1, first, second, third, n) else n


def _meeting(whole: Program, single: Program, params: Any, x: Array) -> tuple[Array, Array]:
    """How far the outputs for x differ from those of its samples one by one, and their size."""
    together = whole(params, x)
    alone = jax.vmap(lambda x: single(params, x[None])[0])(x)
    return jnp.max(jnp.abs(together - alone)), jnp.max(jnp.abs(together))


_compiled = jax.jit(_meeting)
