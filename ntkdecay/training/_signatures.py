"""A function's signature says which values of its cell it is told."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def named(function: Callable[..., Any], positional: int = 0) -> frozenset[str]:
    """The names that `function` takes after its first `positional` arguments."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a builtin
        return frozenset()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [p for p in parameters if p.kind in kinds]
    return frozenset(p.name for i, p in enumerate(taken) if i >= positional or p.kind == kinds[1])


def required(function: Callable[..., Any], positional: int) -> frozenset[str] | None:
    """Those of `named` that have no default; None where `function` does not take `positional` arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return frozenset()
    lacking = {
        name: inspect.Parameter.empty
        for name in named(function, positional)
        if signature.parameters[name].default is inspect.Parameter.empty
    }
    try:
        signature.bind(*[None] * positional, **lacking)
    except TypeError:
        return None
    return frozenset(lacking)


def told(
    function: Callable[..., Any], positional: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """The values that it names."""
    return {name: values[name] for name in named(function, positional) & values.keys()}
