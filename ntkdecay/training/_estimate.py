"""What `sweep` will take, before it is called."""

from collections.abc import Sequence
from typing import Any

from jax.typing import ArrayLike

from ntkdecay._checks import checked, choice, number, optional
from ntkdecay.training import _rules
from ntkdecay.training._cost import DEVICES, Estimate, estimating
from ntkdecay.training._places import Shard
from ntkdecay.training._plan import Metrics
from ntkdecay.training._sweep import Augment, Function, Grid, Optimizer, Steps, sweep


@checked(
    **_rules.GRID,
    device=optional(choice(*DEVICES)),
    share=number(above=0, high=1),
    **{
        name: rule
        for name, rule in _rules.OPTIONS.items()
        if name not in ("store", "save_seconds", "progress")
    },
)
def estimate(
    init: Function,
    apply_fn: Function,
    loss: Function,
    optimizer: Optimizer,
    grid: Grid,
    x: ArrayLike,
    y: ArrayLike,
    *,
    steps: float | Function,
    device: str | None = None,
    share: float = 0.4,
    record: Steps = 100,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    metrics: Metrics | None = None,
    eval_batch_size: int | None = None,
    members_per_batch: int | None = None,
    devices: Sequence[Any] | None = None,
    shard: Shard | None = None,
    compute_dtype: Any = None,
) -> Estimate:
    r"""What `sweep` of the same arguments will take: operations, bytes, memory and time.

    .. math:: \text{seconds} = \frac{\text{operations}}{\text{share} \times \text{peak} \times \text{devices}}

    of a `device` by name; without one a block of the members makes a few steps here, and their time is multiplied. `sweep` may
    find wider or narrower blocks that are faster, and members that diverge cost less.

    Args:
        init, apply_fn, loss, optimizer, grid, x, y, steps: as in `sweep`.
        device: "H100", "A100", "TPU v5e", …: one of `training.DEVICES`. None: the devices here.
        share: the fraction of that device's peak that the network reaches: large convolutions and matrices 0.3 to 0.6,
            small networks 0.01 to 0.1.
        record, x_test, y_test, batch_size, augment, metrics, eval_batch_size, members_per_batch, devices, shard, compute_dtype: as in
            `sweep`.

    Returns:
        `Estimate`, whose text says it in a line, and what to change where it does not fit.

    Raises:
        ValueError, TypeError: as `sweep`; for a `device` without the network's dtype.

    >>> import jax.numpy as jnp
    >>> import optax
    >>> from ntkdecay import training
    >>> def apply_fn(w, x):
    ...     return x @ w
    ...
    >>> def loss(fx, y):
    ...     return ((fx - y) ** 2).mean()
    ...
    >>> found = training.estimate(
    ...     lambda key: jnp.zeros((100, 1)), apply_fn, loss, lambda: optax.sgd(0.1), {"seed": [0, 1]}, jnp.ones((4, 100)),
    ...     jnp.ones((4, 1)), steps=1000, device="H100")
    >>> found.members, found.steps, found.flops > 2 * 1000 * 4 * 4 * 100
    (2, 2000, True)
    """
    with estimating(device, share) as found:
        sweep(
            init, apply_fn, loss, optimizer, grid, x, y, steps=steps, record=record, x_test=x_test, y_test=y_test,
            batch_size=batch_size, augment=augment, metrics=metrics, eval_batch_size=eval_batch_size,
            members_per_batch=members_per_batch, devices=devices, shard=shard, compute_dtype=compute_dtype,
        )  # fmt: skip
    return found[0]
