"""The same paths by a solver of diffrax, or along a Brownian path that is the same for every step size."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._refuse import refuse


def path_by(
    solver: diffrax.AbstractSolver | None,
    equation: Callable[..., Any],
    functions: Any,
    rates: tuple[Array, ...],
    start: tuple[Array, ...],
    times: np.ndarray,
    counts: np.ndarray,
    key: Array,
    tol: float | None,
) -> Any:
    """The state at `times`, with so many steps between them, by Euler's method where `solver` is None."""
    stretches = zip(times[:-1], times[1:], counts, strict=True)
    grid = np.concatenate([*(np.linspace(a, b, n, endpoint=False) for a, b, n in stretches), times[-1:]])  # fmt: skip
    path, ended = _path(
        equation,
        functions,
        diffrax.Euler() if solver is None else solver,
        rates,
        start,
        times,
        grid,
        key,
        None if tol is None else np.asarray(tol),
    )
    return refuse(
        path,
        jnp.logical_not(ended),
        "`solver` gave up before the last of `ts`; take a smaller `dt`.",
    )


@eqx.filter_jit
def _path(
    equation: Callable[..., Any],
    functions: Any,
    solver: diffrax.AbstractSolver,
    rates: tuple[Array, ...],
    start: tuple[Array, ...],
    times: Any,
    grid: Any,
    key: Array,
    tol: Any,
) -> Any:
    """One program for all numbers: functions and the solver alone are its constants."""
    drift, diffusion, parts = equation(functions)
    state = jnp.hstack(start)
    shape = jax.eval_shape(lambda: diffusion(0.0, state, rates)[0])
    # A tree gives the same path to every step size, for a dozen draws in each step instead of one.
    brownian = (
        diffrax.UnsafeBrownianPath(shape, key)
        if tol is None
        else diffrax.VirtualBrownianTree(times[0], times[-1], tol, shape, key)
    )
    solution = diffrax.diffeqsolve(
        diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, brownian)),
        solver,
        grid[0],
        grid[-1],
        None,
        state,
        rates,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.StepTo(grid),
        max_steps=len(grid),
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    return parts(solution.ys), solution.result == diffrax.RESULTS.successful
