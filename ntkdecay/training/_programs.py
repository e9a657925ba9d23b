"""The grid's program for each width of its blocks, and whether it fits the memory."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ntkdecay.training import _engine
from ntkdecay.training._places import Places
from ntkdecay.training._problem import Data, Problem, State
from ntkdecay.training._program import compiled


class Programs:
    """The compiled program of each width, made when first used; `compile_seconds` are those of the slowest."""

    def __init__(
        self,
        problem: Problem,
        data: Data,
        cells: Any,
        states: State,
        places: Places,
        say: Callable[[str], Any] = str,
    ) -> None:
        self._say = say
        self.problem, self.places, self.data = problem, places, data
        self.cells = cells
        self.shapes = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), states
        )
        self.rows = len(cells["seed"]) // places.groups
        self._compiled: dict[int, Any] = {}
        self.compile_seconds = 0.0

    def __getitem__(self, block: int) -> Callable[..., Any]:
        if block not in self._compiled:
            program = self._timed(block)
            self._check_memory(program, block)
            self._compiled[block] = program
        return self._compiled[block]

    def usage(self, block: int) -> Any:
        """The memory that a width takes on each device, which then counts as one that fits; None where it is not known."""
        self._compiled[block] = self._timed(block)
        return self._compiled[block].memory_analysis()

    def _timed(self, block: int) -> Any:
        self._say(f"compiling for {block} at a time")
        begin = time.perf_counter()
        program = self._compile(block)
        self.compile_seconds = max(self.compile_seconds, time.perf_counter() - begin)
        return program

    def _compile(self, block: int) -> Any:
        order, alive = self._queue(np.ones(self.rows * self.places.groups, bool), block)
        advance = _engine.program(self.problem, block, self.places)
        span = self._interval(0, np.array([1]), True)
        return compiled(
            advance, self.cells, self.shapes, order, alive, span, self.data, donate=(1,)
        )

    def __contains__(self, block: int) -> bool:
        return block in self._compiled

    def advance(
        self,
        block: int,
        states: State,
        living: np.ndarray,
        begin: int,
        ends: np.ndarray,
        recorded: bool = True,
    ) -> tuple[State, _engine.Measured]:
        """The living rows' states after `ends[-1]`, and what was measured of all rows at each end; `states` are used up."""
        order, alive = self._queue(living, block)
        span = self._interval(begin, ends, recorded)
        return self[block](self.cells, states, order, alive, span, self.data)

    def _queue(self, living: np.ndarray, block: int) -> Any:
        return self.places.members(_engine.queue(living, self.places.groups, block))

    def _interval(self, begin: int, ends: np.ndarray, recorded: bool) -> Any:
        return self.places.everywhere(_engine.interval(begin, ends, recorded))

    def _check_memory(self, program: Any, block: int) -> None:
        usage, available = program.memory_analysis(), available_bytes(self.places.devices[0])
        if usage is None or available is None:
            return
        resident = (
            usage.argument_size_in_bytes + usage.output_size_in_bytes - usage.alias_size_in_bytes
        )
        of_one = max(usage.temp_size_in_bytes // block, 1)
        if resident + usage.temp_size_in_bytes > available:
            fit = max(0, available - resident) // of_one
            advice = (
                f"pass `members_per_batch={fit}`"
                if fit
                else f"run the grid in parts of {max(1, int(self.rows * available / (2 * resident)))} members"
            )
            raise MemoryError(
                f"{block} members at a time need {(resident + usage.temp_size_in_bytes) / 2**20:.0f} MiB "
                f"and {available / 2**20:.0f} MiB are free: {fit} fit, so {advice}."
            )


def available_bytes(device: Any) -> int | None:
    """Free memory: the device's own account, or the machine's on a CPU; None where neither is known."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kib is None else int(kib) * 1024
