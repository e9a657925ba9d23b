"""AutoL2, Algorithm 1 in SM E of Lewkowycz & Gur-Ari (2020), against `optimizers.auto_l2`."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay import optimizers
from ntkdecay.symbolic.registry import statement

_MINIMA = "L_min_next == Min(L_k, L_min); E_min_next == Min(E_k, E_min)"
_CHANGES = f"λ_next == λ/10; t_min_next == t + 0.1/λ_next; {_MINIMA}"

START = (
    0.08  # λ: its pauses, 12.5, 125 and 1250 steps, are no whole numbers that rounding could tie
)


@statement(
    "l2",
    "SM E, Algorithm 1",
    "when λ falls, with loss L and error E now (t) and one measurement ago (k); if it does not, "
    "the minima are renewed",
    "falls = t > t_min and (L_t > L_min and L_k > L_min or E_t > E_min and E_k > E_min); "
    + _CHANGES,
    kind="identity",
    tolerance=1e-12,
    refuted={
        "printed: ERROR_t > ERROR": "falls = t > t_min and "
        f"(L_t > L_min and L_k > L_min or E_t > E_t and E_k > E_t); {_CHANGES}"
    },
    scope="every λ of `optimizers.auto_l2`, run on 24 drawn sequences of 300 losses and errors in "
    "which either, both or neither rise, measured at every step and at every fifth",
)
def auto_l2_steps(claim):
    residuals = []
    for every in (1, 5):
        losses, errors, coefficients = _optimizer_runs(every)
        for loss, error, measured in zip(losses, errors, coefficients, strict=True):
            stated = _by_the_claim(claim, loss, error, every)
            residuals.append(np.max(np.abs(stated / measured - 1)))
    return residuals


def _by_the_claim(claim, losses, errors, every):
    l2, t_min, least_loss, least_error = START, 0.0, np.inf, np.inf
    last_loss = last_error = np.inf
    path = np.empty(len(losses))
    for t in range(len(losses)):
        if t % every == 0:
            now = {"t": t, "t_min": t_min, "λ": l2, "L_min": least_loss, "E_min": least_error}
            now |= {"L_t": losses[t], "L_k": last_loss, "E_t": errors[t], "E_k": last_error}
            falls = claim.value("falls", **now)
            fallen = [float(value) for value in claim.sides(**now)]
            if falls:
                l2, t_min = fallen[:2]
            else:
                least_loss, least_error = fallen[2:]
            last_loss, last_error = losses[t], errors[t]
        path[t] = l2
    return path


@functools.cache
def _optimizer_runs(every, sequences=12, steps=300):
    """Drawn losses and errors, and λ as `optimizers.auto_l2` adds it to a zero gradient."""
    rng = np.random.default_rng(23 + every)
    # Walks on a grid, so that ties occur; a third of them falls, a third rises late or soon.
    drift = np.repeat(rng.choice([-0.2, 0.0, 0.2], (2, sequences, 3)), steps // 3, axis=-1)
    walks = 20.0 + np.cumsum(np.round(rng.normal(drift, 1.0)), axis=-1)
    losses, errors = walks
    transform, params = optimizers.auto_l2(START, every=every), jnp.ones((), jnp.float64)

    @jax.jit
    @jax.vmap
    def run(loss, error):
        def step(state, measured):
            value, error = measured
            update, state = transform.update(
                jnp.zeros_like(params), state, params, value=value, error=error
            )
            return state, update

        return jax.lax.scan(step, transform.init(params), (loss, error))[1]

    return losses, errors, np.asarray(run(jnp.asarray(losses), jnp.asarray(errors)))
