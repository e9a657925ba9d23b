"""The next order from given weights on, as far as their kernel serves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._arrays import own
from ntkdecay._host import on_host
from ntkdecay._program import Program
from ntkdecay.finite_width._leading import Kernel, Leading, Numbers, leading_order
from ntkdecay.finite_width._path import Mended, Path, mended, path
from ntkdecay.finite_width._problem import Loss, Problem
from ntkdecay.kernels._checks import ApplyFn, exact
from ntkdecay.kernels._empirical import empirical_ntk
from ntkdecay.predict._checks import as_matrix

_LARGEST = 0.3  # of errors, relative to f
_FAR = 1.5  # of kernels, relative to that of the start

Test = tuple[Program, Any] | None


class Settings(NamedTuple):
    """How a network is predicted."""

    apply_fn: ApplyFn
    loss: Loss
    curvature: float | None  # ∂²L/∂f² where it is one number
    sweeps: int


class Walk(NamedTuple):
    """A sweep: the residuals' Ṙ = `speed`, the path that it gives and what is missing in it."""

    leading: Leading
    speed: Numbers
    path: Path
    missing: Mended
    kernel: Kernel

    def strength(self) -> Numbers:
        """The kernel on the path relative to Θ, in the direction in which it moves f: ‖J(φ)ᵀṘ‖²/‖J_0ᵀṘ‖², (steps, 3)."""
        flat = np.einsum("tsx,xy,tsy->ts", self.speed, self.kernel.matrix, self.speed)
        return self.path.push / np.maximum(flat, np.finfo(float).tiny)

    def kept(self) -> int:
        """How many steps, at least one, end before the kernel is far from Θ."""
        with np.errstate(all="ignore"):
            far = ~(np.abs(np.log(self.strength()[:, -1])) < np.log(_FAR))
        return max(int(np.argmax(far)), 1) if far.any() else len(far)


class Leg(NamedTuple):
    """A network at the time `since`, from which on it is predicted."""

    settings: Settings
    since: float
    task: Problem
    kernel: Numbers  # Θ as it was given
    flat: Kernel
    start: Array

    def walk(self, asked: Numbers, test: Test = None) -> Walk:
        """The last sweep, to the last of ascending times after `since`, each of which ends a step."""
        task, settings = self.task, self.settings
        leading = leading_order(task, settings.loss, self.kernel, self.flat, self.start, asked)
        speed = leading.speed
        for left in reversed(range(settings.sweeps)):
            seen = path(task, leading, speed, None if left else test)
            missing = mended(task, self.flat, leading, speed, seen.fx, settings.curvature)
            if left:
                speed = speed + missing.speed
        return Walk(leading, speed, seen, missing, self.flat)

    def outputs(self, walk: Walk, ends: Numbers, test: Test) -> Numbers:
        """f at the ends of these steps, (times, outputs)."""
        kernel, there = self.flat.matrix, walk.path.fx[:, -1]
        if test is not None:
            apply_fn, (_, x) = self.settings.apply_fn, test
            between = empirical_ntk(apply_fn, self.task.params, x, self.task.x, trace_axes=())
            kernel, there = _matrix(between), walk.path.fx_test
        shrunk = walk.leading.a[ends, -1][:, None] ** float(self.task.degree)
        return shrunk * (there[ends] - walk.missing.r[ends] @ kernel.T)

    def refuse(self, walk: Walk, ends: Numbers) -> None:
        """No answer where the last sweep's change, by a kernel that is no longer Θ, may be as wrong as f is large."""
        strength = walk.strength()[:, -1]
        shrunk = walk.leading.a[:, -1] ** float(self.task.degree)
        change = walk.missing.fx[:, -1]
        with np.errstate(all="ignore"):
            size = shrunk * np.sqrt(np.mean((walk.path.fx[:, -1] + change) ** 2, 1))
            error = shrunk * np.sqrt(np.mean(change**2, 1)) * np.abs(strength - 1)
            wrong = ~(error < _LARGEST * size)
        if wrong[ends].any():
            first, times = int(np.argmax(wrong)), self.since + walk.leading.ends
            raise ValueError(
                f"`t` is {times[ends[-1]]:.3g}; from {times[first]:.3g} on, where the kernel is {strength[first]:.2g} times "
                f"the one that decays, the estimated error is above {100 * _LARGEST:.0f} % of f: ask for earlier times, "
                "near `departure_time`, or allow more `restarts`."
            )

    def after(self, walk: Walk, steps: int) -> "Leg":
        """The network after so many steps, with the kernel that it has there."""
        leading = Leading(*(part[:steps] for part in walk.leading))
        end = path(self.task, leading, walk.speed[:steps], None).params
        a, r = leading.a[-1, -1], walk.missing.r[steps - 1].reshape(self.task.f.out.shape)
        dtype = self.task.x.dtype
        with exact():
            params = _shrunk(self.task, end, np.asarray(r, dtype), np.asarray(a, dtype))
        since = self.since + float(leading.ends[-1])
        return leg_from(self.settings, self.task._replace(params=params), since)


def leg_from(settings: Settings, task: Problem, since: float = 0.0) -> Leg:
    """The network with the weights of `task`, its kernel and its outputs."""
    kernel = np.asarray(empirical_ntk(settings.apply_fn, task.params, task.x, trace_axes=()))
    matrix = _matrix(kernel)
    values, vectors = np.linalg.eigh(matrix)
    flat = Kernel(matrix, np.maximum(values, 0.0), vectors)
    with exact():
        start = own(on_host(_outputs, task.f, task.params, task.x, compiled=compiled))
    return Leg(settings, since, task, kernel, flat, start)


def _matrix(kernel: Any) -> Numbers:
    numbers: Any = np.asarray(kernel, float)
    return np.asarray(as_matrix(numbers))


@jax.jit
def _shrunk(task: Problem, params: Any, r: Any, a: Any) -> Any:
    """θ = a (φ − J_0ᵀ δR)."""
    pull = jax.vjp(task.outputs, task.params)[1](r)[0]
    return jax.tree.map(lambda p, g: a * (p - g), params, pull)


def _outputs(f: Program, params: Any, x: Any) -> Array:
    return jnp.asarray(f(params, x))


compiled = jax.jit(_outputs)
