"""One run: a grid of a single member."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.training._sweep import Given, sweep


class Run(NamedTuple):
    """What a run leaves: its parameters at the end, and what was measured on the way."""

    params: Any
    data: xr.Dataset


def train(
    apply_fn: Callable[..., Array],
    params: Any,
    loss: Callable[..., Array],
    x: ArrayLike,
    y: ArrayLike,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    l2: float = 0.0,
    seed: int = 0,
    record: int | Sequence[int] | np.ndarray = 100,
    **options: Any,
) -> Run:
    r"""Train one network from given parameters.

    .. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s; B_s) + \lambda\theta_s\right)

    Args:
        apply_fn: ``apply_fn(params, x)``, the network; it may name `params_0` too.
        params: where it starts.
        loss: ``loss(fx, y)``, without the L2 term.
        x, y: training samples.
        optimizer: receives ∇L + λθ.
        steps: how many.
        l2: λ of L_tot = L + λ/2 ‖θ‖².
        seed: of the batches.
        record: the steps to measure at, or how many, as in `sweep`.
        options: the other options of `sweep`: `x_test`, `y_test`, `batch_size`, `augment`, `metrics`, `store`, `progress`, …

    Returns:
        `Run`, its data as those of `sweep` over `step` alone. A run that diverges ends there with `status` "diverged".

    Raises:
        ValueError, MemoryError: as `sweep`.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"`optimizer` must be an optax optimizer such as `optax.sgd(0.1)`, not a {type(optimizer).__name__}."
        )
    data, end = sweep(
        Given(params),
        apply_fn,
        loss,
        lambda: optimizer,
        {"seed": [seed], "l2": [l2]},
        x,
        y,
        steps=steps,
        record=record,
        members_per_batch=1,
        return_params=True,
        **options,
    )
    return Run(jax.tree.map(lambda leaf: leaf[0, 0], end), data.isel(seed=0, l2=0, drop=True))
