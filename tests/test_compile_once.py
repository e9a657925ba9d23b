"""After one call of a public function, another with other numbers compiles nothing.

Both calls of `surface.CALLS` have equal shapes, dtypes, options and function objects. A maker whose call gives a
closure registers one that makes and calls it, so that a new closure of other numbers is held to the same.
"""

import contextlib
from collections.abc import Iterator

import jax
import pytest
import surface

COMPILED = "/jax/core/compile/backend_compile_duration"
_counters: list[list[str]] = []


def _count(event: str, duration: float, **_: object) -> None:
    del duration
    if event == COMPILED:
        for counter in _counters:
            counter.append(event)


jax.monitoring.register_event_duration_secs_listener(_count)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Holds an entry for each program that is compiled inside."""
    counter: list[str] = []
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def run(call: surface.Call) -> None:
    jax.block_until_ready([leaf for leaf in jax.tree.leaves(call()) if hasattr(leaf, "dtype")])


@pytest.mark.parametrize("name", surface.CALLS)
def test_another_call_compiles_nothing(name):
    first, second = surface.CALLS[name](), surface.CALLS[name](other=True)
    run(first)
    with compilations() as counter:
        run(second)
    assert not counter, f"{name} compiled {len(counter)} programs at its second call"
