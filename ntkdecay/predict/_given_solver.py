"""The same walk by a solver of diffrax that the caller chose."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay.predict._dynamics import Dynamics, products
from ntkdecay.predict._integrate import GOING, LATE, STUCK
from ntkdecay.predict._trajectory import Marks, Seen


def trajectory_by(
    solver: Any, dynamics: Dynamics, y: Array, marks: Marks, tolerance: Array, max_steps: int
) -> tuple[Seen, Array]:
    """`_integrate.trajectory` by `solver`, on w alone, for a λ that does not change."""
    import diffrax  # a second, for those alone who ask for it

    last, unbounded = marks.t[-1], jnp.isinf(marks.t[-1])
    standstill = diffrax.steady_state_event(tolerance[0], tolerance[1])  # pyright: ignore

    def flow(t: Array, w: Array, _: Any) -> Array:
        pair = jnp.stack([jnp.stack([one, products(dynamics.net.kernels, one)]) for one in w])
        return dynamics(t, pair)[:, 0]

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(flow),  # pyright: ignore
        solver,
        t0=jnp.zeros((), y.dtype),
        t1=last,
        dt0=None,
        y0=y[:, 0],
        saveat=diffrax.SaveAt(
            subs=[diffrax.SubSaveAt(ts=marks.t), diffrax.SubSaveAt(t1=True)]  # pyright: ignore
        ),
        stepsize_controller=diffrax.PIDController(tolerance[0], tolerance[1]),
        event=diffrax.Event(lambda *args, **kw: unbounded & standstill(*args, **kw)),
        max_steps=max_steps,
        throw=False,
    )
    saved, end = solution.ys  # pyright: ignore
    # A time that was not reached is one after everything stood still.
    saved = jnp.where(jnp.isfinite(saved), saved, end)
    a, velocity = jax.vmap(dynamics.scale)(jnp.minimum(marks.t, solution.ts[1][-1]))  # pyright: ignore
    result = solution.result
    status = jnp.where(result == diffrax.RESULTS.max_steps_reached, LATE, STUCK)
    fine = (result == diffrax.RESULTS.successful) | (result == diffrax.RESULTS.event_occurred)
    return Seen(saved[:, :, None], a, velocity), jnp.where(fine, GOING, status)
