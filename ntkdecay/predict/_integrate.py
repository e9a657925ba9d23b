"""The walk along an ODE: steps as long as the tolerance allows, of the method that is cheapest from there on.

Tsit5 goes as long as accuracy limits its steps. Where stability does, the products with the kernels still to
come at this length are weighed against those of a stabilized method and the factorizations of Rodas5P, and what
is cheapest goes on; Tsit5 comes back where its steps could be nearly as long. A walk stops, PRESSED by stability,
where a step of a kind is due that its program does not hold.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay.predict._dynamics import Dynamics, Factors
from ntkdecay.predict._stabilized import WEIGHTS as STABILIZED_WEIGHTS
from ntkdecay.predict._stabilized import most_stages, reach, stabilized_step
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
COST = 6  # of a step of Tsit5, in products with the kernels
EXPLICIT, STABILIZED, IMPLICIT = range(3)


class Options(NamedTuple):
    """How the walk is done: numbers known when it is compiled."""

    max_steps: int
    price: float  # of an implicit step in products with the kernels; inf: there are none
    stabilized: bool  # whether the fast rates are real, as a stabilized step needs them
    basis: float | None = None  # the price of the eigenbasis, where the flow falls into modes
    reverse: bool = False  # whether its loops can be differentiated backwards

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kinds of step there are: of stabilized and implicit ones both, unless one is hardly ever worth it."""
        if self.basis is not None:
            return (EXPLICIT, IMPLICIT)
        stabilized = self.stabilized and not self.reverse and self.price > 40
        implicit = self.price < (500 if stabilized else np.inf)
        return (EXPLICIT, *[STABILIZED] * stabilized, *[IMPLICIT] * implicit)


class Tried(NamedTuple):
    """A step that may be taken."""

    step: Step
    h: Array
    rate: Array  # the fastest one of the flow
    direction: Array  # (m, o), where that is


class Walk(NamedTuple):
    """Where the walk is, and its last step."""

    t: Array
    y: Array
    h: Array  # of the next step
    error: Array  # of the last one, in units of the tolerance
    steps: Array
    kind: Array  # of the next step
    count: Array  # of steps that were for another kind
    before: tuple[Array, Array, Array]  # t, y and h of the last step
    weights: Array  # of its increments, (STAGES, 4)
    tried: Tried  # the last one, whose slope is F(t, y)
    slope: Array  # F(t, y)
    at: Factors  # of t
    size: Array  # of f and its velocity, (1 or 2,)
    resting: Array  # a speed of f that is none
    end: Array  # GOING, STILL: nothing moves any more, STUCK: no step is short enough, or PRESSED


GOING, STILL, STUCK, LATE, PRESSED = range(5)  # LATE: `max_steps` are over


def rms(x: Array) -> Array:
    """Root mean square over samples and outputs."""
    return jnp.sqrt(jnp.mean(x**2, axis=(-2, -1)))


def begin(dynamics: Dynamics, t: Array, y: Array, tolerance: Array) -> Walk:
    """The walk before its first step, at `start`, whose length is a fraction of the time in which f moves."""
    at = dynamics.first(t)
    slope = dynamics.flow(at, y)
    (at, *ends), still = jax.lax.stop_gradient((at, y, slope)), dynamics.still()
    size, moved = rms(still.values(at, ends[0])), rms(still.change(at, ends[1])).max()
    h = 0.1 * tolerance[0] ** 0.2 * (size.max() + tolerance[0]) / moved
    h = jnp.where(moved > 0, h, 1.0)
    one, zero = jnp.ones_like(t), jnp.zeros_like(t)
    # each as differentiable as it will be, so that a derivative of the loop is traced once
    nothing, length = 0 * y, 1 + 0 * t
    increments = jnp.broadcast_to(nothing, (STAGES, *y.shape))
    return Walk(
        t=t,
        y=y,
        h=h,
        error=one,
        steps=jnp.zeros((), int),
        kind=jnp.full((), EXPLICIT),
        count=zero,
        before=(t, y, length),
        weights=jnp.asarray(TSIT5_WEIGHTS, y.dtype),
        tried=Tried(Step(increments, y, slope, nothing), length, one, jnp.zeros_like(y[0, 0, 0])),
        slope=slope,
        at=at,
        size=size,
        resting=jnp.finfo(y.dtype).eps ** 0.75 * moved,
        end=jnp.where(jnp.isfinite(moved), GOING, STUCK),
    )


def explicit(dynamics: Dynamics, walk: Walk, h: Array, tolerance: Array, tried: Tried) -> Tried:
    """A step of Tsit5; two stages at its end tell how fast F changes with y."""
    step = explicit_step(dynamics, walk.t, walk.y, walk.slope, h)
    row = jnp.asarray(TSIT5_A[6] - TSIT5_A[5], walk.y.dtype)
    change = (step.increments[6] - step.increments[5]) / h
    ends = jax.lax.stop_gradient((walk.at, combine(row, step.increments), change))
    return Tried(step, h, *dynamics.still().rate(*ends))


def stabilized(dynamics: Dynamics, walk: Walk, h: Array, tolerance: Array, tried: Tried) -> Tried:
    """A step of as many stages as its length needs."""
    bound = 1.2 * (tried.rate + dynamics.slow())  # power iterations come from below
    h = jnp.minimum(h, reach(most_stages(tolerance[0]), bound))
    step = stabilized_step(dynamics, walk.t, walk.y, walk.slope, h, bound)
    # of second order, there are so many of them that their errors add up
    return tried._replace(step=step._replace(error=4 * step.error), h=h)


def implicit(dynamics: Dynamics, walk: Walk, h: Array, tolerance: Array, tried: Tried) -> Tried:
    """A step of Rodas5P."""
    step = implicit_step(dynamics, dynamics.solver, walk.t, walk.y, walk.slope, h)
    return tried._replace(step=step, h=h)


STEPS = (explicit, stabilized, implicit)
ORDERS = np.array([5.0, 3.0, 5.0])
WEIGHTS = np.stack([TSIT5_WEIGHTS, STABILIZED_WEIGHTS, RODAS_WEIGHTS])


def when(condition: Array, function: Callable[[Any], Any], x: Any, reverse: bool) -> Any:
    """`function(x)` or `x`; of several walks at once none pays for it if none wants it, which `cond` does not give."""
    if reverse:
        return jax.lax.cond(condition, function, lambda x: x, x)
    return jax.lax.while_loop(
        lambda state: state[0],
        lambda state: (jnp.zeros((), bool), function(state[1])),
        (condition, x),
    )[1]


def onward(
    dynamics: Dynamics,
    walk: Walk,
    going: Array,
    goal: Array,
    last: Array,
    tolerance: Array,
    options: Options,
    here: tuple[int, ...],
) -> Walk:
    """A step of a kind that is `here`, or a shorter one proposed; one of several that has arrived pays for none."""
    h = jnp.where(walk.t < goal, jnp.minimum(walk.h, goal - walk.t), 1.0)
    tried = walk.tried

    def stiffest(tried: Tried) -> Tried:
        now = jax.lax.stop_gradient((walk.at, walk.y, tried.direction))
        rate, direction = dynamics.still().stiffest(*now)
        return tried._replace(rate=rate, direction=direction)

    if len(here) > 1:
        tried = when(going & (walk.kind != EXPLICIT), stiffest, tried, options.reverse)
    for kind in here:
        step = partial(STEPS[kind], dynamics, walk, h, tolerance)
        if len(here) == 1:
            tried = step(tried)
        else:
            tried = when(going & (walk.kind == kind), step, tried, options.reverse)
    step, t = tried.step, jnp.where(tried.h == goal - walk.t, goal, walk.t + tried.h)
    taken, (following, error, *found) = judged(
        dynamics.still(),
        *jax.lax.stop_gradient((walk, tried, t, goal, last, tolerance)),
        options,
        here,
    )
    after = (t, step.y, step.slope, error, *found[:2])
    before = (walk.t, walk.y, walk.slope, walk.error, walk.at, walk.size)
    after = jax.tree.map(lambda x, y: jnp.where(taken, x, y), after, before)
    t, y, slope, error, at, size = after
    kind, count, end = found[2:]
    return walk._replace(
        t=t,
        y=y,
        slope=slope,
        at=at,
        size=size,
        h=following,
        error=error,
        steps=walk.steps + 1,
        kind=kind,
        count=count,
        before=(walk.t, walk.y, tried.h),
        weights=jnp.asarray(WEIGHTS, walk.y.dtype)[walk.kind],
        tried=tried,
        end=end,
    )


def judged(
    dynamics: Dynamics,
    walk: Walk,
    tried: Tried,
    t: Array,
    goal: Array,
    last: Array,
    tolerance: Array,
    options: Options,
    here: tuple[int, ...],
) -> tuple[Array, tuple[Any, ...]]:
    """Whether a step is taken; the next one's length, the error, `at`, `size`, the next one's kind, its count, the end."""
    step, h, (at, fall) = tried.step, tried.h, dynamics.falling(t)
    size = rms(dynamics.values(at, step.y))
    allowed = tolerance[1] + tolerance[0] * jnp.maximum(walk.size, size)
    error = (rms(dynamics.change(at, step.error)) / allowed).max()
    moved = rms(dynamics.change(at, step.slope))
    error = jnp.where(jnp.isfinite(error) & jnp.isfinite(moved).all(), error, jnp.inf)
    taken, error = error <= 1, jnp.clip(error, 1e-4, 1e10)
    order = jnp.asarray(ORDERS, error.dtype)[walk.kind]
    factor = jnp.where(
        taken,
        jnp.clip(0.9 * error ** (-0.85 / order) * walk.error ** (0.2 / order), 0.2, 10.0),
        jnp.clip(0.9 * error ** (-1 / order), 0.1, 0.9),
    )
    # A step cut off by the goal says little of the next one.
    following = jnp.where(
        taken, jnp.maximum(factor * h, jnp.where(t >= goal, walk.h, 0.0)), factor * h
    )
    still = jnp.isinf(goal) & ((moved * t <= allowed).all() | (moved.max() <= walk.resting))
    kind, count = walk.kind, walk.count
    if EXPLICIT in here and options.kinds != (EXPLICIT,):
        ahead = dynamics.ahead(at, fall, tried.rate, last - t)
        kind, count = following_kind(walk, tried, ahead, following, taken, tolerance, options)
    away = ~(kind == jnp.array(here)).any()
    end = jnp.where(
        taken,
        jnp.where(still, STILL, jnp.where(away, PRESSED, GOING)),
        jnp.where(walk.t + following > walk.t, GOING, STUCK),
    )
    return taken, (following, error, at, size, kind, count, end)


def following_kind(
    walk: Walk,
    tried: Tried,
    ahead: Array,
    following: Array,
    taken: Array,
    tolerance: Array,
    options: Options,
) -> tuple[Array, Array]:
    """The kind of the next step, of length `following`, and how many steps were for another kind.

    `ahead` is the fastest rate times what is left of time. An explicit step is as long as 3.3/rate; of the others
    accuracy allows so many for each doubling of time. Stabilized ones have stages as the root of their length.
    """
    kinds, now, small = options.kinds, walk.kind, tolerance[0]
    ahead = jnp.minimum(ahead, 1e8)
    costs = (  # in products with the kernels
        ahead * COST / REACH,
        3.5 * jnp.sqrt(0.8 * small ** (-1 / 3) * ahead) + ahead / most_stages(small),
        0.4 * small**-0.2 * options.price * jnp.log2(2 + ahead) + (options.basis or 0.0),
    )
    found = jnp.stack([costs[kind] for kind in kinds])
    cost, best = found.min(), jnp.asarray(kinds)[jnp.argmin(found)]
    # a way that is far cheaper is not waited for
    share = jnp.minimum(cost / costs[EXPLICIT], 1.0)
    wait = 5 + jnp.minimum(0.2 * cost / COST * share, 0.1 * options.max_steps)
    # Tsit5 is not taken up at once: what stability let grow has to fade first, or how long steps can be is not known
    own = now == EXPLICIT
    calm = jnp.array([0.0, REACH, min(0.5 * REACH / COST * options.price, 1e30)], small.dtype)[now]
    grows = following > jnp.where(now == STABILIZED, 1.1, 1.5) * tried.h
    pressed = tried.h * tried.rate > 0.6 * REACH
    other = taken & jnp.where(own, pressed, ~grows & (tried.rate * following < calm))
    count = jnp.where(other, walk.count + 1, jnp.where(own, jnp.maximum(walk.count - 1, 0.0), 0.0))
    patience = jnp.where(own, wait, jnp.where(now == STABILIZED, 5.0, 0.0))
    switch = (count > patience) & ~(own & (best == EXPLICIT))
    return (
        jnp.where(switch, jnp.where(own, best, EXPLICIT), now),
        jnp.where(switch, 0.0, count),
    )


def walk_to(
    dynamics: Dynamics,
    walk: Walk,
    mark: Array,
    goal: Array,
    last: Array,
    tolerance: Array,
    options: Options,
    here: tuple[int, ...],
) -> Walk:
    """The walk until it has passed `mark`; it does not pass `goal`, and is to end at `last`."""

    def going(walk: Walk) -> Array:
        return (walk.t < mark) & (walk.end == GOING) & (walk.steps < options.max_steps)

    def step(walk: Walk) -> Walk:
        return onward(dynamics, walk, going(walk), goal, last, tolerance, options, here)

    if options.reverse:
        import equinox.internal as eqxi

        return eqxi.while_loop(going, step, walk, max_steps=options.max_steps, kind="checkpointed")
    return jax.lax.while_loop(going, step, walk)


def interpolate(walk: Walk, t: Array) -> Array:
    """y at a time within the last step."""
    start, y, h = walk.before
    theta = (t - start) / h
    powers = jnp.cumprod(jnp.broadcast_to(theta, (4,)))
    return y + jnp.tensordot(walk.weights @ powers, walk.tried.step.increments, 1)
