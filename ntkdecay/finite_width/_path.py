r"""The path of the weights under given residuals, and what the residuals should have been.

.. math:: \dot\varphi = -J(\varphi)^T \dot R, \qquad \dot R = a^{k-2}\, \ell'(a^k f(\varphi))

are gradient flow with L2 of the weights φ = θ/a, a = e^{−λt}. With R given the first equation is not stiff; that R does
not fit the f that it leads to, by :math:`\rho`, is mended with the kernel at initialization:

.. math:: \delta\dot R = \rho + a^{2k-2}\, \ell''\, \delta f, \qquad \delta f = -\Theta\, \delta R
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay._host import run
from ntkdecay._host_rules import NoRule
from ntkdecay._program import Program
from ntkdecay.finite_width._leading import RADAU, SIZE, Kernel, Leading, Numbers, slopes
from ntkdecay.finite_width._problem import Problem
from ntkdecay.kernels._checks import exact


class Path(NamedTuple):
    """What is seen along the path, at the stages of every step.

    Args:
        fx: (steps, 3, outputs), f(φ) on the training points.
        push: (steps, 3), ‖J(φ)ᵀ Ṙ‖².
        fx_test: (steps, outputs), f(φ) on the test points at the end of each step; of none without test points.
    """

    fx: Numbers
    push: Numbers
    fx_test: Numbers
    first: Numbers  # (outputs,), f on the test points at the start
    params: Any  # φ at the end


def path(task: Problem, leading: Leading, speed: Numbers, test: tuple[Program, Any] | None) -> Path:
    """The path under Ṙ = `speed`, (steps, 3, outputs)."""
    count, shape = len(speed), task.f.out.shape
    size = SIZE * math.ceil(count / SIZE)
    dtype = task.x.dtype
    h, v = np.zeros(size, dtype), np.zeros((size, 3, *shape), dtype)
    h[:count], v[:count] = leading.steps, speed.reshape(count, 3, *shape)
    with exact():
        start, params, *found = _path(task, test, h, v, count)
    fx, push, fx_test = (np.asarray(part, float)[:count] for part in found)
    first = np.asarray(start, float).ravel()
    return Path(fx.reshape(count, 3, -1), push, fx_test.reshape(count, -1), first, params)


@jax.jit
def _path(task: Problem, test: Any, h: Any, v: Any, count: Any) -> Any:
    weights = jnp.asarray(RADAU, task.x.dtype)

    def stages(params: Any, h: Any, pulls: list[Any]) -> list[Any]:
        def stage(row: Any) -> Any:
            return jax.tree.map(
                lambda p, *g: p - h * sum(w * one for w, one in zip(row, g, strict=True)),
                params,
                *pulls,
            )

        return [stage(row) for row in weights]

    def pull(params: Any, v: Any) -> Any:
        return jax.vjp(task.outputs, params)[1](v)[0]

    def step(i: Any, state: Any) -> Any:
        params, fx, push, fx_test = state
        back = jax.vjp(task.outputs, params)[1]
        first = stages(params, h[i], [back(one)[0] for one in v[i]])
        pulls = [pull(p, one) for p, one in zip(first, v[i], strict=True)]
        after = stages(params, h[i], pulls)
        fx = fx.at[i].set(jnp.stack([task.outputs(p) for p in after]))
        push = push.at[i].set(
            jnp.stack([sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)) for g in pulls])
        )
        if test is not None:
            fx_test = fx_test.at[i].set(test[0](after[-1], test[1]))
        return after[-1], fx, push, fx_test

    start = jnp.zeros((), v.dtype) if test is None else test[0](task.params, test[1])
    tests = jnp.zeros((len(v), *start.shape), v.dtype)
    empty = (jnp.zeros_like(v), jnp.zeros(v.shape[:2], v.dtype), tests)
    return start, *jax.lax.fori_loop(0, count, step, (task.params, *empty))


class Mended(NamedTuple):
    """δf and δṘ at the stages, (steps, 3, outputs), and δR at the end of each step, (steps, outputs)."""

    fx: Numbers
    speed: Numbers
    r: Numbers


def mended(
    task: Problem,
    kernel: Kernel,
    leading: Leading,
    speed: Numbers,
    fx: Numbers,
    curvature: float | None,
) -> Mended:
    """What is missing in Ṙ = `speed`, whose path has f = `fx`, both (steps, 3, outputs).

    Args:
        curvature: ∂²L/∂f² where it is one number; None: the loss's own matrix.
    """
    k, a = float(task.degree), leading.a[..., None]
    outputs = a**k * fx
    missing = a ** (k - 2) * slopes(task, outputs) - speed
    weight = leading.a ** (2 * k - 2)
    solve = _in_modes(kernel, curvature) if curvature is not None else _whole(task, kernel, outputs)
    r, found = np.zeros(fx.shape[-1]), []
    with np.errstate(all="ignore"):  # a path that has run away is refused by its user
        for i, h in enumerate(leading.steps):
            b = h * RADAU
            right = -(r + b @ missing[i]) @ kernel.matrix
            change, bent = solve(i, right, b * weight[i])
            faster = missing[i] + weight[i][:, None] * bent
            r = r + b[-1] @ faster
            found.append((change, faster, r))
    return Mended(*map(np.stack, zip(*found, strict=True)))


Solve = Callable[[int, Numbers, Numbers], tuple[Numbers, Numbers]]


def _in_modes(kernel: Kernel, curvature: float) -> Solve:
    """Y of Y + b Θℓ''Y = right, and ℓ''Y, mode by mode."""

    def solve(step: int, right: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
        matrices = np.eye(3) + curvature * kernel.values[:, None, None] * b
        stages = np.linalg.solve(matrices, (right @ kernel.vectors).T[..., None])[..., 0].T
        stages = stages @ kernel.vectors.T
        return stages, curvature * stages

    return solve


def _whole(task: Problem, kernel: Kernel, outputs: Numbers) -> Solve:
    """The same by a factorization of all stages together."""
    shape, size = task.f.out.shape, kernel.matrix.shape[0]
    outputs = outputs.astype(task.x.dtype)
    hessian = jax.vmap(jax.hessian(lambda f: task.loss(f.reshape(shape), task.y)))
    program = jax.make_jaxpr(hessian)(outputs[0])

    def solve(step: int, right: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
        try:
            curvatures = run(program, [outputs[step]])[0]
        except NoRule:
            curvatures = _compiled(task, outputs[step])
        curvatures = np.asarray(curvatures, float)
        blocks = np.einsum("st,xy,tyz->sxtz", b, kernel.matrix, curvatures)
        matrix = np.eye(3 * size) + blocks.reshape(3 * size, 3 * size)
        stages = np.linalg.solve(matrix, right.ravel()).reshape(right.shape)
        return stages, np.einsum("tyz,tz->ty", curvatures, stages)

    return solve


@jax.jit
def _compiled(task: Problem, outputs: Any) -> Any:
    """∂²L/∂f² as matrices, at each row of flat outputs."""
    return jax.vmap(jax.hessian(lambda f: task.loss(f.reshape(task.f.out.shape), task.y)))(outputs)
