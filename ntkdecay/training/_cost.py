"""What a grid will take, before it is trained: counted by the compiler, and timed by a few steps of it."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay._arrays import own
from ntkdecay._checks import checked, choice, number, optional
from ntkdecay._tiles import bytes_in, shapes_of
from ntkdecay.training import _engine
from ntkdecay.training._choice import first_width
from ntkdecay.training._how import How
from ntkdecay.training._places import Places
from ntkdecay.training._plan import Plan
from ntkdecay.training._problem import Data, Problem, measure, step_fn
from ntkdecay.training._programs import Programs, available_bytes
from ntkdecay.training._progress import DONE, Progress
from ntkdecay.training._run import shapes

TIMED_SECONDS = 0.3  # of the steps that are timed, and of the measurements


class Device(NamedTuple):
    """What its maker states: operations a second by dtype, matrices' where there are such units, and bytes of memory."""

    float64: float
    float32: float
    bfloat16: float
    memory: float


DEVICES = {
    "V100": Device(7.8e12, 15.7e12, 15.7e12, 32e9),
    "T4": Device(0.25e12, 8.1e12, 8.1e12, 16e9),
    "A100": Device(19.5e12, 156e12, 312e12, 80e9),
    "RTX 4090": Device(1.3e12, 82.6e12, 165e12, 24e9),
    "L4": Device(0.5e12, 60e12, 121e12, 24e9),
    "H100": Device(67e12, 494e12, 989e12, 80e9),
    "H200": Device(67e12, 494e12, 989e12, 141e9),
    "TPU v4": Device(0.0, 275e12, 275e12, 32e9),
    "TPU v5e": Device(0.0, 197e12, 197e12, 16e9),
    "TPU v5p": Device(0.0, 459e12, 459e12, 95e9),
}
"""Peaks without sparsity. float32 stands for JAX's default precision: tf32 on NVIDIA's from A100 on, bfloat16 on a TPU."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a grid takes.

    `flops` and `bytes` are those of all steps and measurements, operations and bytes read and written as the compiler counts
    them before it fuses any; `memory` is the most bytes at once on one device; `seconds` the time, with that of compiling where steps were timed.
    """

    members: int
    steps: int
    flops: float
    bytes: float
    memory: float
    seconds: float
    device: str
    devices: int
    share: float | None
    """The fraction of the device's peak that `seconds` takes for granted; None where steps were timed."""
    advice: str = ""
    """What to change, where it does not fit."""

    def __str__(self) -> str:
        by = "timed here" if self.share is None else f"at {self.share:.0%} of its peak"
        many = f"{self.devices} × " if self.devices > 1 else ""
        return (
            f"{self.members} members, {self.steps:.3g} steps, {self.flops:.2g} operations; {many}{self.device}: "
            f"{in_words(self.seconds)} ({by}), {self.memory / 2**20:,.0f} MiB"
            + (" on each" if self.devices > 1 else "")
            + (f". It does not fit: {self.advice}" if self.advice else "")
        )


def in_words(seconds: float) -> str:
    """A time in its own unit."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} seconds"


def estimated(
    problem: Problem,
    data: Data,
    plan: Plan,
    places: Places,
    members_per_batch: int | None,
    device: str | None,
    share: float,
) -> Estimate:
    """Of a whole plan, from one block of its members."""
    members, peak = len(plan.budget), None if device is None else DEVICES[device]
    if places.shard is None:  # of a device that is not here there is one
        places = places._replace(devices=places.devices[: 1 if peak else members])
    cells = {name: own(values) for name, values in plan.cells.items()}
    step, measured = _costs(problem, data, cells)
    steps, records = float(plan.budget.sum()), float(plan.wanted.sum())
    flops, moved = (steps * step + records * measured).tolist()

    rows = -(-members // places.groups)
    on = "gpu" if peak else places.devices[0].platform
    block = min(rows, members_per_batch or first_width(rows, on))
    tried = 1 if peak else block  # wide blocks of large networks take long to compile
    programs = _programs(problem, data, cells, places, tried, here=not peak)
    usage, memory = programs.usage(tried), math.nan
    if usage:
        state, temporary = usage.argument_size_in_bytes - bytes_in(data), usage.temp_size_in_bytes
        memory = bytes_in(data) + (state * rows + temporary * block) / tried
    free = peak.memory if peak else available_bytes(places.devices[0])
    advice = _advice(memory, free, block, places) if free and memory > free else ""
    if peak:
        dtype = problem.compute_dtype or jnp.result_type(*jax.tree.leaves(programs.shapes.params))
        speed = getattr(peak, jnp.dtype(dtype).name)
        if not speed:
            raise ValueError(
                f"`device` is {device!r}, which does not compute in {jnp.dtype(dtype).name}."
            )
        seconds = flops / (share * speed * len(places.devices))
    else:
        seconds = math.nan
        if not advice:
            seconds = _timed(problem, data, plan, places, programs, block)
    name = device or places.devices[0].device_kind
    at = share if peak else None
    return Estimate(
        members, int(steps), flops, moved, float(memory), seconds, name, len(places.devices), at, advice
    )  # fmt: skip


def _costs(problem: Problem, data: Data, cells: Any) -> tuple[np.ndarray, np.ndarray]:
    """Operations and bytes of a member's step, and of its measurement in one piece, whose loops would be counted once."""
    problem = problem._replace(eval_batch_size=None, places=None)
    cell = {name: jax.ShapeDtypeStruct((), values.dtype) for name, values in cells.items()}
    samples, number = shapes_of(data), jax.ShapeDtypeStruct((), np.int32)
    state = shapes(problem, data, cells)

    def step(data: Data, cell: Any, number: Any, state: Any) -> Any:
        return step_fn(problem, data, cell)(number, state)

    def found(function: Callable[..., Any]) -> np.ndarray:
        cost = jax.jit(function).lower(samples, cell, number, state).cost_analysis() or {}
        return np.array([cost.get("flops", math.nan), cost.get("bytes accessed", math.nan)])

    return found(step), found(partial(measure, problem))


def _programs(
    problem: Problem, data: Data, cells: Any, places: Places, block: int, here: bool
) -> Programs:
    """Those of one block on each device; if they are not to run here, of the data's shapes alone."""
    few = block * places.groups
    rows = {name: np.resize(values, (few, *values.shape[1:])) for name, values in cells.items()}
    one = shapes(problem, data, rows)
    states = jax.tree.map(lambda a: jax.ShapeDtypeStruct((few, *a.shape), a.dtype), one)
    samples = places.everywhere(data) if here else shapes_of(data)
    return Programs(problem, samples, places.members(rows), places.shapes(states), places)


def _advice(memory: float, free: float, block: int, places: Places) -> str:
    """One way to make it fit."""
    if block > 1:
        return f"take `members_per_batch={max(1, int(block * free / memory))}`, or fewer members"
    if places.shard is None:
        return f'take `shard="width"` over {math.ceil(memory / free) + 1} devices, or a smaller `batch_size`'
    return "take more devices, or a smaller `batch_size`"


def _timed(
    problem: Problem, data: Data, plan: Plan, places: Places, programs: Programs, block: int
) -> float:
    """Seconds of the plan, from those of compiling, and from those that a block's start, steps and measurements take here."""
    begin = time.perf_counter()
    states = places.members(_engine.started(problem, data, jax.device_get(programs.cells)))
    starting = time.perf_counter() - begin
    living = np.ones(block * places.groups, bool)
    at = 0

    def took(steps: int, ends: int, recorded: bool) -> float:
        nonlocal states, at
        begin, stops = time.perf_counter(), at + np.arange(1, ends + 1) * steps
        states, found = programs.advance(block, states, living, at, stops, recorded)
        jax.block_until_ready(found)
        at = int(stops[-1])
        return time.perf_counter() - begin

    def each(most: int, run: Callable[[int], float]) -> float:
        """Of as many as take a while; the first call is slower."""
        count = 1
        run(count)
        while (seconds := run(count)) < TIMED_SECONDS and count < most:
            count = min(most, count * 4)
        return seconds / count

    longest = max(1, int(plan.budget.max()))
    step = each(longest, lambda count: took(count, 1, False))
    record = max(0.0, each(_engine.RECORDS, lambda count: took(1, count, True)) - step)
    order, records = np.sort(plan.budget)[::-1], np.sort(plan.wanted.sum(1))[::-1]
    together = block * places.groups  # a block lasts as long as its longest member
    begun = programs.compile_seconds + starting
    return begun + float(step * order[::together].sum() + record * records[::together].sum())


def total(estimates: Sequence[Estimate]) -> str:
    """All of a script's in one line."""
    if not estimates:
        return "Nothing is trained."
    first, seconds = estimates[0], sum(e.seconds for e in estimates)
    flops, memory = sum(e.flops for e in estimates), max(e.memory for e in estimates)
    fits = "" if not any(e.advice for e in estimates) else ". It does not fit"
    many = f"{first.devices} × " if first.devices > 1 else ""
    return (
        f"In all {sum(e.members for e in estimates)} members, {flops:.2g} operations: {in_words(seconds)} on {many}{first.device}, "
        f"{memory / 2**20:,.0f} MiB at most{fits}."
    )


class Asked(NamedTuple):
    """What `estimating` wants."""

    found: list[Estimate]
    device: str | None
    share: float
    say: Callable[[str], Any]


_asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


@checked(device=optional(choice(*DEVICES)), share=number(above=0, high=1))
def estimating(
    device: str | None = None, share: float = 0.4
) -> contextlib.AbstractContextManager[list[Estimate]]:
    """Within it `sweep` and `train` train nothing: they add their `Estimate` to the list and give NaN.

    Args:
        device, share: as in `estimate`.

    >>> import jax.numpy as jnp
    >>> import optax
    >>> from ntkdecay import training
    >>> with training.estimating("H100") as found:
    ...     run = training.train(
    ...         lambda w, x: x @ w, jnp.zeros((3, 1)), lambda fx, y: ((fx - y) ** 2).mean(), jnp.ones((4, 3)), jnp.ones((4, 1)),
    ...         optax.sgd(0.1), steps=10**6)
    >>> found[0].steps, bool(jnp.isnan(run.params).all())
    (1000000, True)
    """
    return saying(device, share, str)


@contextlib.contextmanager
def saying(device: str | None, share: float, say: Callable[[str], Any]) -> Iterator[list[Estimate]]:
    """`estimating`, each said as it is made."""
    found: list[Estimate] = []
    token = _asked.set(Asked(found, device, share, say))
    try:
        yield found
    finally:
        _asked.reset(token)


def is_estimating() -> bool:
    """Whether nothing is trained."""
    return _asked.get() is not None


def instead() -> Callable[..., tuple[Progress, Any, None]] | None:
    """What stands for training within `estimating`."""
    asked = _asked.get()
    if asked is None:
        return None

    def estimate(problem: Problem, data: Data, plan: Plan, how: How) -> tuple[Progress, Any, None]:
        one = estimated(
            problem, data, plan, how.places, how.members_per_batch, asked.device, asked.share
        )
        asked.found.append(one)
        asked.say(f"{how.title or 'one run'}: {one}")
        return _nothing(problem, data, plan)

    return estimate


def _nothing(problem: Problem, data: Data, plan: Plan) -> tuple[Progress, Any, None]:
    """Every member done and nothing measured, NaN."""
    cell = {name: own(values[0]) for name, values in plan.cells.items()}
    progress = Progress.fresh(plan.steps, plan.budget)
    progress.at[:], progress.status[:], progress.measured[:] = plan.budget, DONE, plan.wanted
    state = shapes(problem, data, plan.cells)
    seen = jax.eval_shape(partial(measure, problem), data, cell, np.int32(0), state)

    def empty(*shape: int) -> np.ndarray:
        return np.broadcast_to(np.nan, (len(plan.budget), *shape))  # of no memory

    progress.records = {n: empty(len(plan.steps), *a.shape) for n, a in seen.items()}
    return progress, jax.tree.map(lambda leaf: empty(*leaf.shape), state.params), None
