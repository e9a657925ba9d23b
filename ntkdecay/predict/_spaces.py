r"""What Krylov spaces of labels and of a start give: f at any time, and how far off it may be.

.. math:: \|f(t) - f_d(t)\| \le \beta_d\, |e_d^\top w_d(t)|

Of what is left of labels and starts, 1 − X_t and e^{−x_t} of `ntkdecay.predict._response`, each is a mixture of
e^{−sγ} over s >= 0 with weights >= 0. The error ε of Lanczos' e^{−sT}e_1 obeys ε' = −Θε + β_d (e_d·e^{−sT}e_1) q, so
that ‖ε(s)‖ is at most β_d ∫|e_d·e^{−s'T}e_1| ds' over s' from 0 to s. T's couplings are positive, hence e_d·e^{−sT}e_1 has the
sign (−1)^{d−1} at all s, the integral is that without |·|, and its mixture is β_d |e_d·w_d|, the norm of what f_d lacks of Θ_0 w_d.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay._program import Program
from ntkdecay.predict._krylov import Krylov, Modes, Ritz, begin, deepened
from ntkdecay.predict._mse import everywhere
from ntkdecay.predict._request import Task


class Asked(NamedTuple):
    """What a predictor is asked."""

    task: Task
    t: Array
    start: Any  # on the training points; None: f there is not asked
    k_test: Program | None

    def coefficients(self, ritz: Ritz, is_start: Any) -> tuple[Array, Array, Array, Array]:
        """What modes make of their space's b, in its own coordinates, (o, times, p).

        f; w; w without the modes that the kernel does not reach; and what is left of f_0 far away, (times, 1).
        """
        task = self.task
        decay, time = task.pieces(), task.time(self.t)

        def one(rates: Array, vectors: Array, b: Array) -> tuple[Array, ...]:
            f0, y = jnp.where(is_start, b, 0.0), jnp.where(is_start, 0.0, b)
            f0, y = (jnp.zeros_like(f0), y - f0) if task.still else (f0, y)
            all_of_them = jnp.ones_like(rates, bool)
            f, far, w = everywhere(
                time, rates, decay, f0[:, None], y[:, None], task.degree, all_of_them
            )
            reached = jnp.where(rates > 0, w[..., 0], 0.0)
            return *(each @ vectors.T for each in (f[..., 0], w[..., 0], reached)), far

        f, w, reached, far = jax.vmap(one)(ritz.rates, ritz.vectors, ritz.start)
        return f, w, reached, far[0]

    def on_test_points(self, w: Array, basis: Array) -> Array:
        """K_* Qᵀw for each time and column, (times, points, o)."""
        product: Any = jax.vmap(self.k_test)  # pyright: ignore[reportArgumentType]
        if w.shape[1] < basis.shape[1]:
            seen = jax.vmap(product)(jnp.einsum("otd,odm->otm", w, basis))
        else:
            seen = jnp.einsum("otd,odn->otn", w, jax.vmap(product)(basis))
        return jnp.moveaxis(seen, 0, 2)


class Found(NamedTuple):
    """What a space is worth for what is asked."""

    error: Array  # in RMS, the largest over the times, relative to labels and start together
    finite: Array
    indefinite: Array

    @property
    def sound(self) -> bool:
        return bool(self.finite) and not bool(self.indefinite)


class Part(NamedTuple):
    """What a space adds to f."""

    basis: Array
    f: Array  # on the training points, in the coordinates of the basis, (o, times, p)
    w: Array  # what K_* multiplies, likewise
    far: Array  # what is left of f_0 far away, (times, 1)


def found(
    space: Krylov, modes: Modes, asked: Asked, is_start: Any, allowed: Any
) -> tuple[Found, Part]:
    """The bound on the training points and, where it is met, the estimate on test points if that is larger.

    To each comes what changes where the kernel is another by rounding.
    """
    task = asked.task
    start = 0.0 if asked.start is None else asked.start
    size = jnp.sqrt(jnp.mean(task.y**2) + jnp.mean(jnp.square(start)))

    def relative(error: Array) -> Array:
        return jnp.where(size > 0, error.max(initial=0.0) / jnp.where(size > 0, size, 1.0), 0.0)

    together: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *modes)
    f, w, told, far = jax.vmap(lambda ritz: asked.coefficients(ritz, is_start))(together)
    lacks = (space.left_out[:, None] * jnp.abs(w[0])).sum(2)
    moved = jnp.square(f[1] - f[0]).sum((0, 2))
    error = relative(jnp.sqrt((jnp.square(lacks).sum(0) + moved) / task.y.size))
    if asked.k_test is not None:

        def estimate() -> Array:
            most = jnp.where(space.beta[:, None, None] > 0, w[2], w[0])
            parts = jnp.concatenate([most - told[0], told[1] - told[0]], 1)
            seen = jnp.square(asked.on_test_points(parts, space.basis)).mean((1, 2))
            return relative(jnp.sqrt(seen.reshape(2, -1).sum(0)))

        error = jax.lax.cond(
            error <= allowed, lambda: jnp.maximum(error, estimate()), lambda: error
        )
    verdict = Found(error, jnp.isfinite(space.diagonal).all(), modes.ritz.indefinite)
    return verdict, Part(space.basis, f[0], told[0], far[0])


@partial(jax.jit, static_argnums=2)
def begun(task: Task, f: Array, room: int) -> Krylov:
    return begin(task.flat(f, task.shape), room)


@partial(jax.jit, static_argnums=6)
def explored(
    product: Program,
    space: Krylov,
    asked: Asked,
    is_start: Any,
    allowed: Any,
    depth: Any,
    room: int,
) -> tuple[Krylov, Found, Part]:
    space, modes = deepened(product, space, depth, room)
    return space, *found(space, modes, asked, is_start, allowed)


@partial(jax.jit, static_argnums=3)
def answer(
    asked: Asked, start_test: Array | None, parts: list[Part], shape: tuple[int, ...]
) -> Any:
    task, t = asked.task, asked.t
    train: Any = sum(jnp.einsum("otd,odm->tmo", part.f, part.basis) for part in parts)
    test: Any = 0.0
    if asked.k_test is not None:
        test = sum(asked.on_test_points(part.w, part.basis) for part in parts)
    answers = []
    if asked.start is not None:
        if task.still:
            train = train + task.flat(asked.start, task.shape)[None]
        answers.append(task.restore(train, t, task.shape))
    if start_test is not None:
        far = jnp.ones_like(parts[0].far) if task.still else parts[0].far
        test = far[..., None] * task.flat(start_test, shape)[None] + test
        answers.append(task.restore(test, t, shape))
    return answers[0] if len(answers) == 1 else tuple(answers)
