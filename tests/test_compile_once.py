"""The first call of a public function compiles a few programs, another with other numbers none.

Both calls of `surface.CALLS` and `surface.HARDER` have equal shapes, dtypes, options and function objects. A maker whose call gives a
closure registers one that makes and calls it, so that a new closure of other numbers is held to the same.
"""

import contextlib
import functools
from collections.abc import Iterator

import jax
import pytest
import surface

from ntkdecay.kernels import _choice
from ntkdecay.training import _program

COMPILED = "/jax/core/compile/backend_compile_duration"
CALLS = surface.CALLS | surface.HARDER
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


@functools.cache
def compiled(name: str) -> tuple[int, int]:
    """How many programs the first and the second call compile, when nothing is compiled yet."""
    calls = CALLS[name](), CALLS[name](other=True)
    jax.clear_caches()
    _program._compiled.clear()
    _choice._known.clear()
    counts = []
    for call in calls:
        with compilations() as counter:
            run(call)
        counts.append(len(counter))
    return counts[0], counts[1]


@pytest.mark.parametrize("name", CALLS)
def test_a_first_call_compiles_at_most_five_programs(name):
    count, _ = compiled(name)
    assert count <= 5, f"{name} compiled {count} programs at its first call"


@pytest.mark.parametrize("name", CALLS)
def test_another_call_compiles_nothing(name):
    _, count = compiled(name)
    assert not count, f"{name} compiled {count} programs at its second call"


def test_a_network_is_tried_and_recognized_without_a_program():
    for function in ("empirical_ntk of images, by tiles", "analytic of images"):
        assert compiled(f"kernels.{function}")[0] == 1, f"{function} compiles more than the kernel"
