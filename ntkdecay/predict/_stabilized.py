r"""A step of an explicit method with as many stages as stability asks for: Runge-Kutta-Chebyshev.

The Jacobian −λ − Σ F² Θ H has real eigenvalues, for it is self-adjoint in the product of Θ. The polynomial

.. math:: R_s(z) = 1 - b_s T_s(w_0) + b_s T_s(w_0 + w_1 z), \qquad b_j = T_j''(w_0)/T_j'(w_0)^2

agrees with e^z to order 2 and is stable down to z ≈ −0.65 s² (Sommeijer, Shampine & Verwer 1998): the stages, one
product with the kernels each, grow as the root of the step's length, and no matrix is formed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay.predict._steps import STAGES, Step

DAMPING = 2 / 13
REACH = 0.653  # of s² − 1, up to which s stages are stable
# the cubic through y and y' at both ends, of the increments hF(0), hF(1) and y(1) − y(0)
WEIGHTS = np.zeros((STAGES, 4))
WEIGHTS[:3, :3] = [[1, -2, 1], [0, -1, 1], [0, 3, -2]]


class Chebyshev(NamedTuple):
    """T_j, T_j' and T_j'' at w_0 = 1 + x, and what each is above that of j − 1: sums of positive numbers."""

    now: Array  # (3,)
    up: Array

    @classmethod
    def first(cls, x: Array) -> "Chebyshev":
        one, zero = jnp.ones_like(x), jnp.zeros_like(x)
        return cls(jnp.stack([1 + x, one, zero]), jnp.stack([x, one, zero]))

    def following(self, x: Array) -> "Chebyshev":
        below = jnp.stack([0 * x, 2 * self.now[0], 4 * self.now[1]])
        up = self.up + 2 * x * self.now + below
        return Chebyshev(self.now + up, up)

    @property
    def value(self) -> Array:
        return self.now[0]

    @property
    def slope(self) -> Array:
        return self.now[1]

    @property
    def bend(self) -> Array:
        return self.now[2]


def most_stages(relative: Array) -> Array:
    """How many stages may follow each other before rounding, which grows with their square, is seen."""
    return jnp.sqrt(relative / (10 * jnp.finfo(relative.dtype).eps)).astype(int).clip(3)


def reach(stages: Array, rate: Array) -> Array:
    """The longest stable step."""
    return REACH * (stages**2 - 1) / rate


def stabilized_step(
    slope: Callable[[Array, Array], Array], t: Array, y: Array, first: Array, h: Array, rate: Array
) -> Step:
    """A step from (t, y), where F = `first`, with `rate` at least the fastest rate of F."""
    stages = (1 + jnp.sqrt(1 + h * rate / REACH)).astype(int).clip(2)
    x = DAMPING / stages.astype(y.dtype) ** 2
    one = Chebyshev.first(x)
    end = jax.lax.fori_loop(1, stages, lambda _, at: at.following(x), one)
    w = end.slope / end.bend
    b = 1 / (2 * one.value) ** 2  # b_2, and so are b_0 and b_1

    def stage(_: Array, state: tuple) -> tuple:
        before, now, _, b_before, b, at, time = state
        force = slope(time, now)
        at_next = at.following(x)
        b_next = at_next.bend / at_next.slope**2
        share, back, push = 2 * one.value * b_next / b, -b_next / b_before, 2 * w * b_next / b
        pull = force - (1 - b * at.value) * first
        new = (1 - share - back) * y + share * now + back * before + push * h * pull
        return now, new, force, b, b_next, at_next, t + h * w * at_next.bend / at_next.slope

    # one more than there are: it finds F at the end
    state = (y, y + b * w * h * first, first, b, b, one, t + b * w * h)
    found, _, last, *_ = jax.lax.fori_loop(1, stages + 1, stage, state)
    increments = jnp.zeros((STAGES, *y.shape), y.dtype)
    increments = increments.at[:3].set(jnp.stack([h * first, h * last, found - y]))
    return Step(increments, found, last, 0.8 * (y - found) + 0.4 * h * (first + last))
