"""Programs made for a function of the caller's: compiled once for each, and dropped with it."""

import weakref
from collections.abc import Callable
from typing import Any

import jax

_KEPT: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()


def program_of(
    function: Callable, body: Callable, static_argnums: int | tuple[int, ...] = ()
) -> Callable:
    """jit of `body(function, …)`, one for each of both. It holds the function weakly: a dead one frees its programs.

    `static_argnums` counts without `function`.
    """
    try:
        kept = _KEPT.setdefault(function, {})
    except TypeError:  # neither hashable nor weakly held
        return jax.jit(lambda *arguments: body(function, *arguments), static_argnums=static_argnums)
    if body not in kept:
        held = weakref.ref(function)
        kept[body] = jax.jit(
            lambda *arguments: body(held(), *arguments), static_argnums=static_argnums
        )
    return kept[body]
