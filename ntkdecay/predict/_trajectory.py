"""The trajectory of a flow at the times that are asked for: by one program, or by explicit steps and one that goes on.

Explicit steps are the first part. Where they are PRESSED by stability, all kinds of step go on; where the flow falls into
modes, implicit ones do so in these, to the end. A derivative is that of the steps taken; backwards, of Tsit5's and
Rodas5P's.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._refuse import refuse
from ntkdecay.predict._dynamics import Dynamics
from ntkdecay.predict._eigenbasis import in_modes, turned
from ntkdecay.predict._integrate import (
    EXPLICIT,
    GOING,
    IMPLICIT,
    LATE,
    PRESSED,
    Options,
    Walk,
    begin,
    interpolate,
    walk_to,
    when,
)
from ntkdecay.predict._linear import linear_call

STIFF_BACKWARDS = (
    "A stiff flow of so many outputs has no derivative backwards within `max_steps`; take `jax.jvp`, earlier times, or "
    "fewer samples."
)


class Marks(NamedTuple):
    """Where a trajectory is to be seen, or where λ changes: in order."""

    t: Array  # (marks,)
    goal: Array  # up to which λ is what it is before the mark
    l2: Array  # (marks, layers)


class Seen(NamedTuple):
    """The trajectory at the marks."""

    y: Array
    a: Array
    velocity: Array  # of a


class Stage(NamedTuple):
    """A walk, and where λ was last seen to change: what another program goes on from."""

    walk: Walk
    start: Array  # the time there
    a: Array  # (layers,), then
    velocity: Array  # of a


def started(dynamics: Dynamics, y: Array, marks: Marks, tolerance: Array) -> Stage:
    """Before the first step, at time 0."""
    zero = jnp.minimum(marks.t[0], 0.0)  # as differentiable as time is
    first = replace(dynamics, l2=marks.l2[0])
    return Stage(begin(first, zero, y, tolerance), zero, dynamics.a, dynamics.velocity)


def trajectory(
    dynamics: Dynamics,
    stage: Stage,
    marks: Marks,
    tolerance: Array,
    options: Options,
    here: tuple[int, ...],
) -> tuple[Seen, Stage]:
    """The trajectory through the marks that are ahead, by steps of kinds that are `here`."""
    last = marks.t[-1]
    pieces = marks.l2.shape[0] > 1 and dynamics.changes

    def to_mark(stage: Stage, mark: tuple[Array, Array, Array]) -> tuple[Stage, Seen]:
        walk, *start = stage
        t, goal, l2 = mark
        now = replace(dynamics, start=start[0], a=start[1], velocity=start[2], l2=l2)
        if pieces:  # a step does not look across a change of λ
            walk = walk._replace(slope=now.flow(now.first(walk.t), walk.y))
        walk = walk_to(now, walk, t, goal, last, tolerance, options, here)
        t = jnp.minimum(t, walk.t)
        scales = jax.vmap(now.scale)(jnp.stack([t, walk.t]))
        (a, a_after), (velocity, velocity_after) = scales
        return Stage(walk, walk.t, a_after, velocity_after), Seen(interpolate(walk, t), a, velocity)

    if options.reverse:
        to_mark = jax.checkpoint(to_mark)
    stage, seen = jax.lax.scan(to_mark, stage, marks)
    return seen, stage


def ended(stage: Stage, marks: Marks) -> Array:
    """How it ended."""
    late = (stage.walk.end == GOING) & (stage.walk.t < marks.t[-1])
    return jnp.where(late, LATE, stage.walk.end)


class Differentiated(Exception):
    """A part of a trajectory has no derivative."""


def first_part(
    make: Callable[..., Dynamics], options: Options, arguments: Any
) -> tuple[Seen, Stage]:
    """The trajectory of `make(*arguments[0])` from the other arguments as far as explicit steps go."""

    @jax.custom_jvp
    def solve(arguments: Any) -> tuple[Seen, Stage]:
        own, y, marks, tolerance = arguments
        dynamics = make(*own)
        stage = started(dynamics, y, marks, tolerance)
        return trajectory(dynamics, stage, marks, tolerance, options, (EXPLICIT,))

    @solve.defjvp  # pyright: ignore[reportArgumentType]
    def _(*_: Any):
        raise Differentiated

    return solve(arguments)


def onwards(
    dynamics: Dynamics, stage: Stage, marks: Marks, tolerance: Array, options: Options
) -> tuple[Seen, Array]:
    """`trajectory` from where another walk was pressed to the end, by all kinds of step or in modes."""
    walk = stage.walk._replace(end=jnp.full_like(stage.walk.end, GOING))
    if options.basis is None:
        found = stage._replace(walk=walk)
        seen, after = trajectory(dynamics, found, marks, tolerance, options, options.kinds)
        return seen, ended(after, marks)
    modes = in_modes(dynamics)
    vectors = modes.net.kernels[0].vectors  # pyright: ignore[reportAttributeAccessIssue]
    back = partial(turned, vectors.T)
    start, y, h = walk.before
    step = jax.tree.map(back, walk.tried.step)
    tried = walk.tried._replace(step=step, direction=back(walk.tried.direction))
    walk = walk._replace(
        y=back(walk.y), slope=back(walk.slope), before=(start, back(y), h), tried=tried
    )
    found = stage._replace(walk=walk)
    seen, after = trajectory(modes, found, marks, tolerance, options, (IMPLICIT,))
    return seen._replace(y=turned(vectors, seen.y)), ended(after, marks)


def joined(before: Seen, after: Seen, stage: Stage, marks: Marks) -> Seen:
    """What was seen until a stage, and from there on."""
    passed = marks.t <= stage.walk.t
    return jax.tree.map(
        lambda x, y: jnp.where(jnp.expand_dims(passed, range(1, x.ndim)), x, y), before, after
    )


def whole(
    dynamics: Dynamics, y: Array, marks: Marks, tolerance: Array, options: Options
) -> tuple[Seen, Array]:
    """The trajectory from `y` at time 0 through all marks, and how it ended, in one program."""
    stage = started(dynamics, y, marks, tolerance)
    here = options.kinds if options.basis is None else (EXPLICIT,)
    seen, stage = trajectory(dynamics, stage, marks, tolerance, options, here)
    end = ended(stage, marks)
    if options.basis is None:
        return seen, end

    def on(found: tuple[Seen, Array]) -> tuple[Seen, Array]:
        after, end = onwards(dynamics, stage, marks, tolerance, options)
        return joined(found[0], after, stage, marks), end

    return when(end == PRESSED, on, (seen, end), options.reverse)


def differentiable(
    make: Callable[..., Dynamics], options: Options, arguments: Any
) -> tuple[Seen, Array]:
    """`whole` of `make(*arguments[0])` from the other arguments, with its derivatives in both directions."""

    def walked(arguments: Any, options: Options) -> tuple[Seen, Array]:
        own, y, marks, tolerance = arguments
        return whole(make(*own), y, marks, tolerance, options)

    @jax.custom_jvp
    def solve(arguments: Any) -> tuple[Seen, Array]:
        return walked(arguments, options)

    @solve.defjvp  # pyright: ignore[reportArgumentType]
    def _(primals: tuple[Any], tangents: tuple[Any]):
        (arguments,), (tangents,) = primals, tangents

        def forward(tangents: Any) -> Seen:
            return jax.jvp(lambda x: walked(x, options)[0], (arguments,), (tangents,))[1]

        def backward(change: Seen) -> Any:
            backwards = options._replace(reverse=True)
            _, pull, status = jax.vjp(lambda x: walked(x, backwards), arguments, has_aux=True)
            (found,) = pull(change)
            if IMPLICIT in backwards.kinds:
                return found
            late = ((status == LATE) & (end != LATE)).any()
            return refuse(found, late, STIFF_BACKWARDS)

        seen, end = solve(arguments)
        moved = linear_call(forward, backward, tangents, seen)
        return (seen, end), (moved, np.zeros(end.shape, jax.dtypes.float0))

    return solve(arguments)
