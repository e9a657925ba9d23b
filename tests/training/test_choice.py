"""The width of blocks, chosen on a clock of our own."""

import types

import numpy as np
import pytest

from ntkdecay.training._choice import SHARE, Choice
from ntkdecay.training._progress import Progress, turn


class Machine:
    """Programs that take so many seconds a step of a block by its width, and as many to compile."""

    def __init__(self, rows, seconds, compiling, platform="cpu", too_wide=2**31):
        self.rows, self.seconds, self.compiling = rows, seconds, compiling
        devices = (types.SimpleNamespace(platform=platform),)
        self.places = types.SimpleNamespace(devices=devices, groups=1)
        self.too_wide, self.made, self.compile_seconds = too_wide, [], 0.0

    def __getitem__(self, width):
        if width >= self.too_wide:
            raise MemoryError
        if width not in self:
            self.made.append(width)
            self.compile_seconds = self.compiling

    def __contains__(self, width):
        return width in self.made


def trained(machine, budget):
    """The choice at the end, and the seconds that the run took without compiling."""
    budget = np.broadcast_to(budget, machine.rows).astype(np.int64)
    progress = Progress.fresh(np.unique(budget), budget)
    choice, chunk, total = Choice(machine, progress, np.ones(machine.rows, bool)), 1, 0.0
    while progress.running.any():
        choice.adapt()
        now = turn(progress, chunk, 64)
        width = int(progress.width[now.rows[0]])
        machine[width]
        blocks = -(-len(now.rows) // width)
        seconds = blocks * machine.seconds(width) * int(now.ends[-1] - now.begin)
        total += seconds
        if not choice.heard(now, seconds):
            chunk = max(1, int(chunk * min(4.0, 1 / seconds)))
        finite = np.ones((len(now.rows), len(now.ends)), bool)
        progress.note(
            now.rows, now.ends, finite, {"a": np.zeros(finite.shape)} if now.recorded else {}
        )
    return choice, total


LOOP, VMAP = (lambda width: 1e-3 * width**1.5), (lambda width: 1e-2)


def test_a_short_run_compiles_one_program():
    machine = Machine(64, LOOP, compiling=5.0)
    choice, seconds = trained(machine, 500)
    assert machine.made == [8] and choice.spent == 0
    assert seconds < 5.0 * 20


@pytest.mark.parametrize(
    ("seconds", "best"), [(LOOP, 1), (VMAP, 64), (lambda width: width * 1e-3, 8)]
)
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_long_run_ends_in_the_best_blocks(seconds, best, platform):
    machine = Machine(64, seconds, compiling=0.1, platform=platform)
    choice, total = trained(machine, 20_000)
    widths = (1, 8, 64)
    times = {width: 20_000 * 64 / width * seconds(width) for width in widths}
    assert times[choice.width] < 1.01 * min(times.values())
    assert platform == "gpu" or choice.width == best
    assert total + machine.compiling * (len(machine.made) - 1) < (1 + SHARE) * min(times.values())


def test_blocks_too_wide_for_the_memory_are_left_out():
    machine = Machine(64, VMAP, compiling=0.1, platform="gpu", too_wide=64)
    assert trained(machine, 20_000)[0].width == 8
    with pytest.raises(MemoryError):
        trained(Machine(64, VMAP, compiling=0.1, too_wide=1), 100)


@pytest.mark.parametrize(("length", "made"), [(1_000, [8]), (100_000, [8, 1])])
def test_a_block_whose_members_have_ended_is_narrowed_where_that_pays(length, made):
    """One member of eight goes on; the seconds of a block grow with its width."""
    machine = Machine(8, lambda width: 1e-3 * width, compiling=20.0, platform="gpu")
    budget = np.full(8, 100)
    budget[3] = length
    trained(machine, budget)
    assert machine.made == made
