"""A grid of members advanced together: blocks of them vmapped, the blocks one after another, in one compiled program.

With blocks of one this is a loop over members, with one block of all a plain vmap; which is faster
depends on the network and the device, and `_choice` measures it. Each call advances every living member from one step to
another and measures it on the way. A member that is done or has diverged moves behind the living ones, and the number
of blocks, which is no constant of the program, falls. What a member computes depends, to the last bit, on the width of its
block (XLA's sums differ with shapes) and on nothing else of the grid: not on its neighbours, its place or the device's number.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import PartitionSpec as P

from ntkdecay.training._metrics import TRAINING_LOSSES
from ntkdecay.training._places import AXIS, Places
from ntkdecay.training._problem import Data, Problem, State, measure, start, step_fn
from ntkdecay.training._program import compiled

RECORDS = 64  # at most, of one call


class Interval(NamedTuple):
    """From step `begin` to `ends[count − 1]`, stopping at each of the first `count` ends, to measure if `recorded`."""

    begin: Any
    ends: Any  # (RECORDS,)
    count: Any
    recorded: Any


def interval(begin: int, ends: np.ndarray, recorded: bool) -> Interval:
    padded, count = np.zeros(RECORDS, np.int32), np.int32(len(ends))
    padded[: len(ends)] = ends
    return Interval(np.int32(begin), padded, count, np.bool_(recorded))


class Measured(NamedTuple):
    """A row for each end."""

    finite: Array  # whether all parameters are, and the training loss where it is recorded
    metrics: dict[str, Array]  # zeros if not recorded


def one_member(
    problem: Problem, data: Data, cell: Any, state: State, span: Interval
) -> tuple[State, Measured]:
    """One member from `span.begin` on."""
    step = step_fn(problem, data, cell)
    losses = [name for name, metric in problem.metrics if metric in TRAINING_LOSSES]

    def observe(number: Array, state: State):
        return measure(problem, data, cell, number, state)

    def rows_like(leaf):
        return jnp.zeros((RECORDS, *leaf.shape), leaf.dtype)

    def advance(carry):
        row, number, state, (finite, metrics) = carry
        end = span.ends[row]
        state = jax.lax.fori_loop(number, end, step, state)

        def enter(metrics):
            return jax.tree.map(lambda a, b: a.at[row].set(b), metrics, observe(end, state))

        # Whether to record is no member's own: under vmap this stays a branch.
        metrics = jax.lax.cond(span.recorded, enter, lambda metrics: metrics, metrics)
        sizes = [optax.tree.norm(state.params), *(metrics[name][row] for name in losses)]
        finite = finite.at[row].set(jnp.all(jnp.isfinite(jnp.stack(sizes))))
        return row + 1, end, state, Measured(finite, metrics)

    metrics = jax.tree.map(rows_like, jax.eval_shape(observe, span.begin, state))
    measured = Measured(jnp.zeros(RECORDS, bool), metrics)
    carry = jnp.zeros((), jnp.int32), span.begin, state, measured
    _, _, state, measured = jax.lax.while_loop(lambda c: c[0] < span.count, advance, carry)
    return state, measured


def _blocks(problem, block, cells, states, order, alive, span, data):
    """The members of one device. Rows past the living ones keep their state."""

    def many(cells, states):
        member = partial(one_member, problem, data, span=span)
        if block > 1:
            return jax.vmap(lambda cell, state: member(cell, state))(cells, states)
        first = jax.tree.map(lambda a: a[0], (cells, states))
        return jax.tree.map(lambda a: a[None], member(*first))

    def run(number, carry):
        states, measured = carry
        rows = jax.lax.dynamic_slice(order, (number * block,), (block,))
        lives = number * block + jnp.arange(block) < alive
        take = partial(jax.tree.map, lambda a: a.at[rows].get(mode="clip"))
        old = take(states)
        new, found = many(take(cells), old)
        new = jax.tree.map(
            lambda a, b: jnp.where(lives.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, old
        )
        put = partial(jax.tree.map, lambda every, some: every.at[rows].set(some, mode="drop"))
        return put(states, new), put(measured, found)

    rows = len(cells["seed"])
    shapes = jax.eval_shape(
        lambda tree: many(*jax.tree.map(lambda a: a[jnp.zeros(block, int)], tree)), (cells, states)
    )[1]
    measured = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape[1:]), leaf.dtype), shapes)
    return jax.lax.fori_loop(0, (alive + block - 1) // block, run, (states, measured))


def program(problem: Problem, block: int, places: Places) -> Callable[..., Any]:
    """advance(cells, states, order, alive, span, data) -> (states, measured), not yet compiled."""

    def local(cells, states, order, alive, span, data):
        states, measured = _blocks(problem, block, cells, states, order[0], alive[0], span, data)
        return places.kept(states), measured

    if places.groups > 1:
        rows = P(AXIS)
        local = jax.shard_map(
            local,
            mesh=places.mesh,
            in_specs=(rows, rows, rows, rows, P(), P()),
            out_specs=(rows, rows),
            check_vma=False,
        )
    return local


def started(problem: Problem, data: Data, cells: Any) -> State:
    """Every member before its first step, one after another, so that one initialization's memory is enough."""

    def each(cells: Any, data: Data) -> State:
        return jax.lax.map(lambda cell: start(problem, data, cell), cells)

    return compiled(each, cells, data)(cells, data)


def queue(living: np.ndarray, devices: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Each device's rows, living ones first, in whole blocks (a row that is none fills up), and how many live."""
    living = living.reshape(devices, -1)
    rows = living.shape[1]
    order = np.full((devices, -(-rows // block) * block), rows, np.int32)
    order[:, :rows] = np.argsort(~living, axis=1, kind="stable")
    return order, living.sum(1).astype(np.int32)
