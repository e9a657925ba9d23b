"""A thousand calls of any public function leave the process as large as it was."""

import gc
import os
import time
from pathlib import Path

import jax
import pytest
import surface

MIB = 2**20
ALLOWED = 50 * MIB  # over 1,000 calls
SECONDS = (
    20.0  # a function that is slower than 20 ms is called less often, and its growth scaled up
)


def resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def made(name: str, calls: int) -> int:
    """How many of `calls` calls there was time for."""
    ends = time.perf_counter() + SECONDS
    for count in range(calls):
        jax.block_until_ready(
            [
                a
                for a in jax.tree.leaves(surface.CALLS[name](other=bool(count % 2))())
                if hasattr(a, "dtype")
            ]
        )
        if time.perf_counter() > ends:
            return count + 1
    return calls


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", surface.CALLS)
def test_a_thousand_calls_do_not_grow_the_process(name):
    made(name, 100)  # caches and the allocator's arenas fill
    before = resident()
    calls = made(name, 1000)
    grown = resident() - before
    noise = 4 * MIB
    assert (grown - noise) * 1000 / calls <= ALLOWED, (
        f"{name}: {grown / MIB:.1f} MiB more after {calls} calls"
    )
