"""The walk along an ODE: steps as long as the tolerance allows, explicit until implicit ones are cheaper.

Tsit5 goes as long as accuracy limits its steps. Where stability does, the steps still to come at this length
are weighed against those of Rodas5P, and what is cheaper goes on; Rodas5P gives way again where Tsit5's steps
could be nearly as long. A derivative is that of the steps taken.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay.predict._dynamics import Dynamics
from ntkdecay.predict._linear import linear_call
from ntkdecay.predict._steps import (
    RODAS_WEIGHTS,
    STAGES,
    TSIT5_A,
    TSIT5_WEIGHTS,
    Step,
    combine,
    explicit_step,
    implicit_step,
)

REACH = 3.3  # |hλ| up to which Tsit5 is stable
IMPLICIT_STEPS = 6.0  # of Rodas5P, for each doubling of time


class Options(NamedTuple):
    """How the walk is done: numbers known when it is compiled."""

    max_steps: int
    price: float  # of an implicit step in explicit ones; inf: there are none
    reverse: bool = False  # whether its loops can be differentiated backwards


class Walk(NamedTuple):
    """Where the walk is, and its last step."""

    t: Array
    y: Array
    slope: Array  # F(t, y)
    h: Array  # of the next step
    error: Array  # of the last one, in units of the tolerance
    steps: Array
    implicit: Array  # whether the next step is
    stiff: Array  # how many steps stability has limited
    direction: Array  # (m, o), where the flow is stiffest
    before: tuple[Array, Array, Array]  # t, y and h of the last step
    increments: Array
    weights: Array  # of its increments, (STAGES, 4)
    resting: Array  # a speed of f that is none
    end: Array  # GOING, STILL: nothing moves any more, or STUCK: no step is short enough


GOING, STILL, STUCK, LATE = range(4)  # LATE: `max_steps` are over


def rms(x: Array) -> Array:
    """Root mean square over samples and outputs."""
    return jnp.sqrt(jnp.mean(x**2, axis=(-2, -1)))


def begin(dynamics: Dynamics, t: Array, y: Array, tolerance: Array) -> Walk:
    """The walk before its first step, whose length is a fraction of the time in which F changes."""
    slope, tiny = dynamics(t, y), jnp.finfo(y.dtype).tiny
    size = jnp.linalg.norm(slope.reshape(-1))
    small = 1e-4 * jnp.linalg.norm(y.reshape(-1)) / jnp.maximum(size, tiny) + 1e-6
    bend = jnp.linalg.norm((dynamics(t + small, y + small * slope) - slope).reshape(-1)) / small
    h = jnp.where(size > 0, 0.3 * tolerance[0] ** 0.2 * size / jnp.maximum(bend, tiny), 1.0)
    one, zero = jnp.ones_like(t), jnp.zeros_like(t)
    return Walk(
        t=t,
        y=y,
        slope=slope,
        h=jax.lax.stop_gradient(h),
        error=one,
        steps=jnp.zeros((), int),
        implicit=jnp.zeros((), bool),
        stiff=zero,
        direction=jnp.zeros_like(y[0, 0, 0]),
        before=(t, y, one),
        increments=jnp.zeros((STAGES, *y.shape), y.dtype),
        weights=jnp.asarray(TSIT5_WEIGHTS, y.dtype),
        resting=jax.lax.stop_gradient(
            jnp.finfo(y.dtype).eps ** 0.75 * rms(dynamics.change(t, slope))[0]
        ),
        end=jnp.where(jnp.isfinite(size), GOING, STUCK),
    )


def _after(
    dynamics: Dynamics,
    walk: Walk,
    goal: Array,
    tolerance: Array,
    weights: object,
    step: Step,
    h: Array,
) -> tuple[Walk, Array]:
    """The walk after a step, or before a shorter one, and whether it was taken."""
    t = jnp.where(h == goal - walk.t, goal, walk.t + h)
    old, new = dynamics.values(walk.t, walk.y), dynamics.values(t, step.y)
    allowed = tolerance[1] + tolerance[0] * jnp.maximum(rms(old), rms(new))
    error = jax.lax.stop_gradient((rms(dynamics.change(t, step.error)) / allowed).max())
    moved = rms(dynamics.change(t, step.slope))
    error = jnp.where(jnp.isfinite(error) & jnp.isfinite(moved).all(), error, jnp.inf)
    taken, error = error <= 1, jnp.clip(error, 1e-4, 1e10)
    factor = jnp.where(
        taken,
        jnp.clip(0.9 * error**-0.17 * walk.error**0.04, 0.2, 10.0),
        jnp.clip(0.9 * error**-0.2, 0.1, 0.9),
    )
    # A step cut off by the goal says little of the next one.
    following = jnp.where(
        taken, jnp.maximum(factor * h, jnp.where(t >= goal, walk.h, 0.0)), factor * h
    )
    following = jax.lax.stop_gradient(following)
    still = jnp.isinf(goal) & ((moved * t <= allowed).all() | (moved.max() <= walk.resting))
    return walk._replace(
        t=jnp.where(taken, t, walk.t),
        y=jnp.where(taken, step.y, walk.y),
        slope=jnp.where(taken, step.slope, walk.slope),
        h=following,
        error=jnp.where(taken, error, walk.error),
        steps=walk.steps + 1,
        before=(walk.t, walk.y, h),
        increments=step.increments,
        weights=jnp.asarray(weights, walk.y.dtype),
        end=jnp.where(
            taken,
            jnp.where(still, STILL, GOING),
            jnp.where(walk.t + following > walk.t, GOING, STUCK),
        ),
    ), taken


def _length(walk: Walk, goal: Array) -> Array:
    """The next step's length; also where, one of several, the walk has come to its end and stays there."""
    return jnp.where(walk.t < goal, jnp.minimum(walk.h, goal - walk.t), 1.0)


def explicit(
    dynamics: Dynamics, walk: Walk, goal: Array, last: Array, tolerance: Array, options: Options
) -> Walk:
    """A step of Tsit5, and whether the next one should be."""
    h = _length(walk, goal)
    step = explicit_step(dynamics, walk.t, walk.y, walk.slope, h)
    after, taken = _after(dynamics, walk, goal, tolerance, TSIT5_WEIGHTS, step, h)
    if options.price == jnp.inf:
        return after
    # two stages at the step's end tell how fast F changes with y
    row = jnp.asarray(TSIT5_A[6] - TSIT5_A[5], walk.y.dtype)
    apart = combine(row, step.increments)
    rate, direction = dynamics.rate(
        walk.t + h, apart, (step.increments[6] - step.increments[5]) / h
    )
    stiff = jnp.maximum(walk.stiff + jnp.where(taken & (h * rate > 0.6 * REACH), 1.0, -1.0), 0.0)
    # what is ahead, both ways, in explicit steps; a way that is far cheaper is not waited for
    left = jnp.minimum(dynamics.horizon(after.t, last - after.t), 1e8 / rate)
    ahead = left * rate / REACH
    other = IMPLICIT_STEPS * options.price * jnp.log2(2 + left * rate)
    wait = 5 + jnp.minimum(0.2 * other * jnp.minimum(other / ahead, 1.0), 0.1 * options.max_steps)
    switch = (stiff > wait) & (ahead > jnp.minimum(other, options.max_steps))
    return after._replace(implicit=switch, stiff=jnp.where(switch, 0.0, stiff), direction=direction)


def implicit(
    dynamics: Dynamics, walk: Walk, goal: Array, last: Array, tolerance: Array, options: Options
) -> Walk:
    """A step of Rodas5P, and whether the next one should be."""
    h = _length(walk, goal)
    step = implicit_step(dynamics, dynamics.solver, walk.t, walk.y, walk.slope, h)
    after, taken = _after(dynamics, walk, goal, tolerance, RODAS_WEIGHTS, step, h)
    rate, direction = dynamics.stiffest(after.t, after.y, walk.direction)
    grows = taken & (after.h > 1.5 * h)  # how long its steps can be is not known yet
    back = ~grows & (rate * after.h < 0.5 * REACH * options.price)
    return after._replace(implicit=~back, direction=direction)


def walk_to(
    dynamics: Dynamics,
    walk: Walk,
    mark: Array,
    goal: Array,
    last: Array,
    tolerance: Array,
    options: Options,
) -> Walk:
    """The walk until it has passed `mark`; it does not pass `goal`, and is to end at `last`."""

    def going(walk: Walk) -> Array:
        return (walk.t < mark) & (walk.end == GOING) & (walk.steps < options.max_steps)

    arguments = (goal, last, tolerance, options)
    if options.price == jnp.inf:
        phases = [(explicit, None)]
    else:
        phases = [(explicit, False), (implicit, True)]

    if options.reverse:
        import equinox.internal as eqxi

        def either(walk: Walk) -> Walk:
            if len(phases) == 1:
                return explicit(dynamics, walk, *arguments)
            return jax.lax.cond(
                walk.implicit,
                lambda walk: implicit(dynamics, walk, *arguments),
                lambda walk: explicit(dynamics, walk, *arguments),
                walk,
            )

        return eqxi.while_loop(
            going, either, walk, max_steps=options.max_steps, kind="checkpointed"
        )

    def around(walk: Walk) -> Walk:
        for step, kind in phases:
            walk = jax.lax.while_loop(
                lambda walk, kind=kind: (
                    going(walk) & (True if kind is None else walk.implicit == kind)
                ),
                lambda walk, step=step: step(dynamics, walk, *arguments),
                walk,
            )
        return walk

    return around(walk) if len(phases) == 1 else jax.lax.while_loop(going, around, walk)


def interpolate(walk: Walk, t: Array) -> Array:
    """y at a time within the last step."""
    start, y, h = walk.before
    theta = (t - start) / h
    powers = jnp.cumprod(jnp.broadcast_to(theta, (4,)))
    return y + jnp.tensordot(walk.weights @ powers, walk.increments, 1)


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


def trajectory(
    dynamics: Dynamics, y: Array, marks: Marks, tolerance: Array, options: Options
) -> tuple[Seen, Array]:
    """The trajectory from `y` at time 0 through all marks, and how it ended."""
    last = marks.t[-1]
    pieces = marks.l2.shape[0] > 1 and dynamics.changes

    def onward(state: tuple[Walk, Array, Array, Array], mark: tuple[Array, Array, Array]):
        walk, *start = state
        t, goal, l2 = mark
        now = replace(dynamics, start=start[0], a=start[1], velocity=start[2], l2=l2)
        if pieces:  # a step does not look across a change of λ
            walk = walk._replace(slope=now(walk.t, walk.y))
        walk = walk_to(now, walk, t, goal, last, tolerance, options)
        t = jnp.minimum(t, walk.t)
        seen = Seen(interpolate(walk, t), *now.scale(t))
        return (walk, walk.t, *now.scale(walk.t)), seen

    if options.reverse:
        onward = jax.checkpoint(onward)
    zero = jnp.zeros((), y.dtype)
    first = replace(dynamics, l2=marks.l2[0])
    walk = begin(first, zero, y, tolerance)
    (walk, *_), seen = jax.lax.scan(onward, (walk, zero, dynamics.a, dynamics.velocity), marks)
    late = (walk.end == GOING) & (walk.t < last)
    return seen, jnp.where(late, LATE, walk.end)


def differentiable(
    make: Callable[..., Dynamics], options: Options, arguments: Any
) -> tuple[Seen, Array]:
    """`trajectory` of `make(*arguments[0])` from the other arguments, with its derivatives in both directions."""

    def walked(arguments: Any, options: Options) -> tuple[Seen, Array]:
        own, *others = arguments
        y, marks, tolerance = others
        return trajectory(make(*own), y, marks, tolerance, options)

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
            return jax.vjp(lambda x: walked(x, backwards)[0], arguments)[1](change)[0]

        seen, status = solve(arguments)
        moved = linear_call(forward, backward, tangents)
        return (seen, status), (moved, np.zeros(status.shape, jax.dtypes.float0))

    return solve(arguments)
