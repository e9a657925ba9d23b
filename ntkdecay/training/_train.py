"""One run: a grid of a single member."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._arrays import own
from ntkdecay._checks import checked, number, tree
from ntkdecay.training import _rules
from ntkdecay.training._places import Shard
from ntkdecay.training._plan import Metrics
from ntkdecay.training._sweep import Given, sweep


class Run(NamedTuple):
    """What a run leaves: its parameters at the end, and what was measured on the way."""

    params: Any
    data: xr.Dataset


@checked(
    apply_fn=_rules.APPLY_FN,
    params=_rules.known(tree()),
    loss=_rules.LOSS,
    x=_rules.SAMPLES,
    y=_rules.SAMPLES,
    optimizer=_rules.optimizer(
        "an optax optimizer, as `optax.sgd(0.1)`, not a function that gives one"
    ),
    steps=_rules.STEPS,
    l2=_rules.known(
        number(low=0, why="a schedule of λ belongs into the optimizer, as `optimizers.sgd(l2=…)`")
    ),
    seed=_rules.SEED,
    **_rules.OPTIONS,
)
def train(
    apply_fn: Callable[..., Any],
    params: Any,
    loss: Callable[..., Array],
    x: ArrayLike,
    y: ArrayLike,
    optimizer: optax.GradientTransformation,
    *,
    steps: float,
    l2: float = 0.0,
    seed: int = 0,
    record: int | Sequence[int] | np.ndarray = 100,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    batch_size: int | None = None,
    augment: Callable[[Array, Array, Array], tuple[Array, Array]] | None = None,
    metrics: Metrics | None = None,
    eval_batch_size: int | None = None,
    devices: Sequence[Any] | None = None,
    shard: Shard | None = None,
    compute_dtype: Any = None,
    store: str | os.PathLike[str] | None = None,
    save_seconds: float = 10.0,
    progress: str | bool | None = None,
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
        record, x_test, y_test, batch_size, augment, metrics, eval_batch_size, devices, shard, compute_dtype, store, save_seconds, progress: as in `sweep`.

    Returns:
        `Run`, its data as those of `sweep` over `step` alone. A run that diverges ends there with `status` "diverged".

    Raises:
        ValueError, TypeError, MemoryError: as `sweep`.

    >>> import jax.numpy as jnp
    >>> import optax
    >>> from ntkdecay import training
    >>> def apply_fn(w, x):
    ...     return x @ w
    ...
    >>> def loss(fx, y):
    ...     return ((fx - y) ** 2).mean()
    ...
    >>> run = training.train(
    ...     apply_fn, jnp.zeros((1, 1)), loss, jnp.ones((4, 1)), jnp.ones((4, 1)), optax.sgd(0.1), steps=50, l2=0.5)
    >>> run.params.round(3).tolist()  # 2/(2 + λ)
    [[0.8]]
    """
    data, end = sweep(
        Given(jax.tree.map(own, params)), apply_fn, loss, lambda: optimizer, {"seed": [seed], "l2": [l2]}, x, y,
        steps=steps, record=record, x_test=x_test, y_test=y_test, batch_size=batch_size, augment=augment, metrics=metrics,
        eval_batch_size=eval_batch_size, members_per_batch=1, devices=devices, shard=shard, compute_dtype=compute_dtype, store=store, save_seconds=save_seconds,
        return_params=True, progress=progress,
    )  # fmt: skip
    return Run(jax.tree.map(lambda leaf: leaf[0, 0], end), data.isel(seed=0, l2=0, drop=True))
