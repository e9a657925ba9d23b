r"""One network trained by full-batch gradient descent with any optax optimizer.

.. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s) + \lambda \theta_s\right)

L2 is coupled: λθ joins the gradient before the optimizer sees it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm


class Run(NamedTuple):
    """What a run leaves: its parameters at the end, and what was recorded on the way."""

    params: Any
    steps: np.ndarray
    records: np.ndarray  # (steps, …)


def train(
    apply_fn: Callable[[Any, Array], Array],
    params: Any,
    loss: Callable[[Array, Array], Array],
    x: Array,
    y: Array,
    optimizer: optax.GradientTransformation,
    record_steps: Sequence[int] | np.ndarray,
    *,
    l2: float = 0.0,
    record: Callable[[Array], Array] = lambda fx: fx,
    progress: str | None = None,
) -> Run:
    """Train on all samples at once and record at the given steps; the loop between them is compiled.

    Args:
        apply_fn: `apply_fn(params, x)`, the network.
        params: where it starts.
        loss: `loss(fx, y)`, without the L2 term.
        x, y: inputs and labels.
        optimizer: receives ∇L + λθ.
        record_steps: ascending numbers of steps; 0 is the initialization. The last one ends the run.
        l2: λ of L_tot = L + λ/2 ‖θ‖².
        record: what to keep of the outputs on `x`; everything by default.
        progress: name of the progress bar; no bar when None.

    Returns:
        `Run`, its records of shape (len(record_steps), …).

    Raises:
        ValueError: if `record_steps` is not ascending from 0 or later.
        FloatingPointError: if the network diverges.
    """
    steps = np.asarray(record_steps)
    if steps.ndim != 1 or not steps.size or steps[0] < 0 or np.any(np.diff(steps) <= 0):
        raise ValueError("`record_steps` must be ascending numbers of steps, from 0 or later.")
    advance = partial(_advance, apply_fn=apply_fn, loss=loss, optimizer=optimizer)
    state, done, records = (params, optimizer.init(params)), 0, []
    with tqdm(
        total=int(steps[-1]), desc=progress, unit="step", unit_scale=True, disable=progress is None
    ) as bar:
        for step in steps:
            state, fx = advance(state, step - done, x, y, l2)
            bar.update(int(step) - done)
            done = int(step)
            if not jnp.isfinite(fx).all():
                raise FloatingPointError(
                    f"The network diverged before step {done}; lower the learning rate or `l2`."
                )
            records.append(np.asarray(record(fx)))
    return Run(state[0], steps, np.stack(records))


@partial(jax.jit, static_argnames=("apply_fn", "loss", "optimizer"))
def _advance(state, steps, x, y, l2, *, apply_fn, loss, optimizer):
    """`steps` updates, and the outputs after them."""

    def update(_, state):
        params, momentum = state
        gradient = jax.grad(lambda p: loss(apply_fn(p, x), y))(params)
        gradient = jax.tree.map(lambda g, p: g + l2 * p, gradient, params)
        change, momentum = optimizer.update(gradient, momentum, params)
        return optax.apply_updates(params, change), momentum

    state = jax.lax.fori_loop(0, steps, update, state)
    return state, apply_fn(state[0], x)
