"""The store's unit is the member: one cell of a grid, under the hash of all that its numbers depend on.

A file holds the members of one call, which is found under the program they share: for each its cell, how far it came, what
was measured and its last state. Finished files stay; an unfinished one, written again and again while
members train, goes when finished ones hold all of it. Two processes that train the same members write
the same names with the same content.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ntkdecay._arrays import own
from ntkdecay._commit import source
from ntkdecay._warn import warn
from ntkdecay.training import _engine, _store
from ntkdecay.training._plan import Plan
from ntkdecay.training._problem import Data, Problem, start
from ntkdecay.training._program import constants, digest, host_calls
from ntkdecay.training._progress import DIVERGED, DONE, PER_MEMBER, RUNNING, Progress

FORMAT = 1
COMPILERS = ("ntkdecay", "jax", "jaxlib")
PACKAGES = (*COMPILERS, "numpy", "optax")
UNFINISHED = ".unfinished.npz"


commit = functools.cache(source)


def versions() -> dict[str, str]:
    """Of Python and the packages that a run rests on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | found


def member_keys(problem: Problem, data: Data, plan: Plan, device: Any) -> tuple[str, np.ndarray]:
    """The key of the program that the members share, and of each of them.

    The program is one member's as the compiler gets it, with every constant in it, the data, the versions, the device's kind
    and the compiler's flags. A member adds the values of its cell that the program reads.
    """
    cell = {name: own(values) for name, values in plan.cells.items()}

    def member(cell, data, span):
        state = start(problem, data, cell)
        return _engine.one_member(problem, data, cell, state, span)

    span = _engine.interval(0, np.array([0]), True)
    one = {name: jax.ShapeDtypeStruct((), values.dtype) for name, values in cell.items()}
    traced = jax.jit(member).trace(one, data, span)
    if calls := host_calls(traced):
        raise ValueError(
            f"`store` cannot name a run that calls back into Python or foreign code ({', '.join(calls)}), which its program does "
            "not hold: take the call out of the functions, or leave `store` out."
        )
    text = traced.lower(lowering_platforms=(device.platform,)).as_text()
    names = [name for name, _ in problem.metrics]
    parts = [n for n, part in zip(Data._fields, data, strict=True) if part is not None]
    numbers = [importlib.metadata.version(name) for name in COMPILERS]
    environment = [device.platform, device.device_kind, platform.machine(), *_flags(), *numbers]
    program = digest(
        [
            str(FORMAT),
            text,
            *(json.dumps(t) for t in (names, parts, environment)),
        ],
        [*constants(traced), *jax.tree.leaves(data)],
    )
    jaxpr = traced.jaxpr.jaxpr
    atoms = {a for e in jaxpr.eqns for a in e.invars if not hasattr(a, "val")}
    read = [n for n, var in zip(sorted(cell), jaxpr.invars, strict=False) if var in atoms]
    columns = [np.asarray(cell[name]) for name in read]
    keys = [digest([program, *read], [c[i] for c in columns]) for i in range(len(plan.budget))]
    return program, np.array(keys, "S32")


COMPILER_OPTIONS = (
    "jax_disable_most_optimizations",
    "jax_exec_time_optimization_effort",
    "jax_memory_fitting_effort",
    "jax_memory_fitting_level",
    "jax_optimization_level",
)


def _flags() -> list[str]:
    """The compiler's flags and JAX's options for it, but how many devices a CPU is and what is dumped."""
    every = " ".join(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"))
    aside = ("--xla_force_host_platform_device_count", "--xla_dump")
    flags = sorted(flag for flag in every.split() if not flag.startswith(aside))
    return flags + [f"{name}={jax.config.values.get(name)}" for name in COMPILER_OPTIONS]


class Found(NamedTuple):
    """What a store knows of the members asked for."""

    progress: Progress
    answered: np.ndarray  # (members,): nothing is left to do
    unkept: np.ndarray  # answered, but by an unfinished file
    saved: dict[int, list[np.ndarray]]  # the states of those to go on, to be kept or to be returned


class Store:
    """The members of one program in a folder."""

    def __init__(
        self, folder: str | os.PathLike[str], program: str, title: str | None, axes: Sequence[str]
    ) -> None:
        self.folder, self.program = Path(folder), program
        self.title, self.axes = title, list(axes)

    def probe(self, size: int) -> None:
        """One sentence where no file of so many bytes can be written."""
        try:
            _store.probe(self.folder, size)
        except OSError as error:
            raise ValueError(
                f"`store` cannot be written to ({self.folder}: {error.strerror}): choose another folder."
            ) from error

    def find(self, keys: np.ndarray, plan: Plan, with_params: bool) -> Found:
        """What answers the plan, and what can go on; a file that cannot be read counts as absent, with a warning."""
        pattern = f"{self.program[:16]}-*.npz"

        def best(shards: list[Shard]) -> Found:
            mine = [s for s in shards if s.file.meta["program"] == self.program]
            return _best(mine, keys, plan, with_params)

        return reading(self.folder, pattern, best)

    def save(
        self,
        keys: np.ndarray,
        cells: dict[str, np.ndarray],
        progress: Progress,
        leaves: list[np.ndarray],
    ) -> None:
        """Keep the members: in an unfinished file while any of them runs. A warning where that does not work."""
        order = np.argsort(keys)
        asked = [keys[order], progress.budget[order], progress.steps]
        name = f"{self.program[:16]}-{digest([], asked)[:16]}"
        path = self.folder / (name + (UNFINISHED if progress.running.any() else ".npz"))
        arrays = {name: getattr(progress, name) for name in PER_MEMBER}
        arrays |= {"key": keys, "steps": progress.steps}
        arrays |= {f"cell/{name}": values for name, values in cells.items()}
        arrays |= {f"records/{name}": values for name, values in progress.records.items()}
        arrays |= {f"state/{i}": leaf for i, leaf in enumerate(leaves)}
        device = jax.local_devices()[0]
        meta = {
            "format": FORMAT, "program": self.program, "title": self.title or "", "axes": self.axes,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": commit(),
            "versions": versions(), "device": f"{device.platform}, {device.device_kind}",
        }  # fmt: skip
        try:
            _store.write(path, arrays, meta)
        except OSError as error:
            warn(
                f"`store` could not be written to ({self.folder}: {error.strerror}): this run is not kept."
            )

    def tidy(self) -> None:
        """Remove the unfinished files all of whose members finished ones hold."""

        def held(shards: list[Shard]) -> list[Path]:
            kept = [shard for shard in shards if shard.finished]
            return [s.file.path for s in shards if not s.finished and _held(s, kept)]

        for path in reading(self.folder, f"{self.program[:16]}-*.npz", held):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


class Damaged(Exception):
    """A file that cannot be read, whatever the reason."""

    def __init__(self, path: Path, cause: BaseException) -> None:
        super().__init__(
            f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
        )
        self.path = path


class Shard:
    """One file's members."""

    def __init__(self, path: Path) -> None:
        try:
            self.file = _store.File(path)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise Damaged(path, error) from error
        try:
            self.keys = self.file["key"]
            rows: list[Any] = [self.file[name] for name in PER_MEMBER]
            self.progress = Progress(self.file["steps"], *rows)
            if self.file.meta["format"] != FORMAT:
                raise ValueError(f"its format is {self.file.meta['format']}, not {FORMAT}")
            if any(len(table) != len(self.keys) for table in rows):
                raise ValueError("its tables differ in length")
        except Exception as error:
            self.file.__exit__()
            raise Damaged(path, error) from error

    @property
    def finished(self) -> bool:
        return not self.file.path.name.endswith(UNFINISHED)

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self.file[name]
        except Exception as error:
            raise Damaged(self.file.path, error) from error

    def full(self) -> Progress:
        """With what was measured."""
        self.progress.records = {n: self[f"records/{n}"] for n in self.file.names("records/")}
        return self.progress


def reading(folder: Path, pattern: str, use: Callable[[list[Shard]], Any]) -> Any:
    """`use` of the folder's files; what cannot be read counts as absent, with a warning of one line."""
    bad: set[Path] = set()
    while True:
        try:
            with contextlib.ExitStack() as stack:
                return use(list(_opened(folder, pattern, stack, bad)))
        except Damaged as damaged:
            warn(f"{damaged.path} cannot be read and counts as absent ({damaged}).")
            bad.add(damaged.path)


def _opened(
    folder: Path, pattern: str, stack: contextlib.ExitStack, without: set[Path]
) -> Iterable[Shard]:
    """All at once and until the stack closes: what another process writes or removes meanwhile does not mix in."""
    for path in sorted(folder.glob(pattern)):
        if path in without or path.name.startswith("."):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process tidied up
            shard = Shard(path)
            stack.enter_context(shard.file)
            yield shard


def _best(shards: list[Shard], keys: np.ndarray, plan: Plan, with_params: bool) -> Found:
    """For each member asked for the entry that answers it or, failing that, has come furthest."""
    members = len(keys)
    best: list[tuple[tuple[int, int, int], int, int]] = [((0, 0, 0), 0, 0)] * members
    wanted = plan.wanted
    for number, shard in enumerate(shards):
        row_of = {key: row for row, key in enumerate(shard.keys)}
        here = np.array([m for m in range(members) if keys[m] in row_of], int)
        if not len(here):
            continue
        entry = shard.progress.take(np.array([row_of[keys[m]] for m in here]))
        reached, entry = entry.reached, entry.on(plan.steps)
        ranks = _ranks(entry, reached, wanted[here], plan.budget[here], with_params)
        extra = (entry.measured & ~wanted[here]).sum(1)
        for m, rank, at, more in zip(here, ranks, entry.at, extra, strict=True):
            merits = (at, shard.finished) if rank == 1 else (shard.finished, more)
            score = int(rank), int(merits[0]), int(merits[1])
            if rank and score > best[m][0]:
                best[m] = score, number, row_of[keys[m]]

    progress = Progress.fresh(plan.steps, plan.budget)
    kinds = np.array([score[0] for score, _, _ in best])
    answered, unkept, saved = kinds == 2, np.zeros(members, bool), {}
    for number in {n for score, n, _ in best if score[0]}:
        shard = shards[number]
        these = np.array([m for m in range(members) if best[m][0][0] and best[m][1] == number])
        rows = np.array([best[m][2] for m in these])
        whole = shard.full().take(rows)
        entry = whole.on(plan.steps)
        _cut(entry, plan.budget[these], kinds[these])
        progress.put(these, entry)
        same = (whole.status != RUNNING) & (whole.measured.sum(1) == entry.measured.sum(1))
        unkept[these] = answered[these] & same & (not shard.finished)
        needed = ~answered[these] | unkept[these] | with_params
        if needed.any():
            count = len(shard.file.names("state/"))
            leaves = [shard[f"state/{i}"] for i in range(count)]
            saved |= {
                int(m): [leaf[r] for leaf in leaves]
                for m, r in zip(these[needed], rows[needed], strict=True)
            }
    return Found(progress, answered, unkept, saved)


def _ranks(
    entry: Progress, reached: np.ndarray, wanted: np.ndarray, budget: np.ndarray, with_params: bool
) -> np.ndarray:
    """2: the entry answers; 1: it can go on, as what is wanted of the steps made was measured; 0: neither."""
    diverged = entry.status == DIVERGED
    known = np.where(diverged, reached, entry.at)
    lacks = wanted & ~entry.measured
    complete = ~(lacks & (entry.steps <= known[:, None])).any(1)
    cut = (budget <= known) & ((entry.at == budget) | (not with_params)) & ~(diverged & with_params)
    answers = complete & (cut | (diverged & (budget >= entry.at)))
    before = ~(lacks & (entry.steps < entry.at[:, None])).any(1)
    return np.where(answers, 2, np.where(before & ~diverged & (entry.at <= budget), 1, 0))


def _cut(entry: Progress, budget: np.ndarray, kinds: np.ndarray) -> None:
    """What is over at the budget is done; the rest of it never happened."""
    over = entry.steps > budget[:, None]
    entry.measured &= ~over
    for values in entry.records.values():
        values[over] = np.nan
    ended = (entry.status == DIVERGED) & (budget >= entry.at)
    entry.status[:] = np.where(ended, DIVERGED, np.where(kinds == 2, DONE, RUNNING))
    entry.at[:] = np.minimum(entry.at, budget)
    entry.budget[:] = budget


def _held(shard: Shard, kept: list[Shard]) -> bool:
    """Whether finished files hold every member of an unfinished one."""
    mine = shard.progress
    held = np.zeros(len(shard.keys), bool)
    for other in kept:
        row_of = {key: row for row, key in enumerate(other.keys)}
        rows = np.array([row_of.get(key, -1) for key in shard.keys])
        theirs = other.progress.take(rows).on(mine.steps)
        further = (theirs.at >= mine.at) & (mine.status == RUNNING)
        same = (theirs.budget == mine.budget) & ~(mine.measured & ~theirs.measured).any(1)
        held |= (rows >= 0) & (further | same)
    return bool(held.all())
