r"""A grid of runs as one computation.

.. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s; B_s) + \lambda\theta_s\right)
          \quad \text{for each } (\eta, \lambda, \text{seed}, \dots) \text{ of the grid}
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.typing import ArrayLike
from tqdm import tqdm

from ntkdecay._bar import title
from ntkdecay._checks import checked, flag
from ntkdecay.training import _rules
from ntkdecay.training._cost import instead, is_estimating
from ntkdecay.training._dataset import dataset
from ntkdecay.training._how import How
from ntkdecay.training._members import commit, versions
from ntkdecay.training._places import Places, Shard
from ntkdecay.training._plan import (
    Metrics,
    axes_of,
    check_batch,
    check_functions,
    check_shard,
    chosen_metrics,
    data_of,
    planned,
)
from ntkdecay.training._problem import Problem
from ntkdecay.training._trained import trained


class Given(NamedTuple):
    """An `init` whose parameters are there already, and no constants of a program."""

    params: Any

    def __call__(self, key: Array) -> Any:
        del key
        return self.params


Function = Callable[..., Any]
Optimizer = Callable[..., optax.GradientTransformation]
Grid = Mapping[str, Sequence[float] | np.ndarray]
Augment = Callable[[Array, Array, Array], tuple[Array, Array]]
Folder = str | os.PathLike[str]
Steps = int | Sequence[int] | np.ndarray


@overload
def sweep(
    init: Function, apply_fn: Function, loss: Function, optimizer: Optimizer, grid: Grid, x: ArrayLike, y: ArrayLike, *,
    steps: float | Function, record: Steps = 100, x_test: ArrayLike | None = None, y_test: ArrayLike | None = None,
    batch_size: int | None = None, augment: Augment | None = None, metrics: Metrics | None = None,
    eval_batch_size: int | None = None, members_per_batch: int | None = None, devices: Sequence[Any] | None = None,
    shard: Shard | None = None, compute_dtype: Any = None, store: Folder | None = None, save_seconds: float = 10.0, return_params: Literal[False] = False,
    progress: str | bool | None = None,
) -> xr.Dataset: ...  # fmt: skip
@overload
def sweep(
    init: Function, apply_fn: Function, loss: Function, optimizer: Optimizer, grid: Grid, x: ArrayLike, y: ArrayLike, *,
    steps: float | Function, record: Steps = 100, x_test: ArrayLike | None = None, y_test: ArrayLike | None = None,
    batch_size: int | None = None, augment: Augment | None = None, metrics: Metrics | None = None,
    eval_batch_size: int | None = None, members_per_batch: int | None = None, devices: Sequence[Any] | None = None,
    shard: Shard | None = None, compute_dtype: Any = None, store: Folder | None = None, save_seconds: float = 10.0, return_params: Literal[True],
    progress: str | bool | None = None,
) -> tuple[xr.Dataset, Any]: ...  # fmt: skip
@checked(
    **_rules.GRID,
    return_params=flag(),
    **_rules.OPTIONS,
)
def sweep(
    init: Function,
    apply_fn: Function,
    loss: Function,
    optimizer: Optimizer,
    grid: Grid,
    x: ArrayLike,
    y: ArrayLike,
    *,
    steps: float | Function,
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
    store: Folder | None = None,
    save_seconds: float = 10.0,
    return_params: bool = False,
    progress: str | bool | None = None,
) -> xr.Dataset | tuple[xr.Dataset, Any]:
    r"""Train every member of a grid in one compiled program.

    .. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s; B_s) + \lambda\theta_s\right)

    Members run side by side in blocks (vmap) and the blocks one after another; unless `members_per_batch` says the size of a
    block, others than the first are tried on the way where the run is long enough to gain from it. A member that has made its steps, or whose parameters are no longer finite,
    costs nothing from then on; nor does one that the store holds. Under `jax.distributed` the processes share the grid and each returns all of it.

    A function is told those values of its cell that its signature names after the arguments below. So
    ``optimizer=lambda learning_rate: optax.sgd(learning_rate)`` reads the grid's `learning_rate`, and
    ``init=lambda key, w_std: network.init(key, x, w_std)`` its `w_std`. `apply_fn` and `loss` may name
    `params_0`, the member's initialization, too.

    Args:
        init: ``init(key, …)``, the parameters at the start.
        apply_fn: ``apply_fn(params, x, …)``, the network.
        loss: ``loss(fx, y, …)``, without the L2 term.
        optimizer: ``optimizer(…)``, any optax optimizer. It is given ``value=`` the loss and ``error=`` the share of wrong
            answers on the batch, should it take them.
        grid: named values; the members are their product, in this order. `seed` (0 where the grid has none) makes the keys; `l2`
            is λ of L_tot = L + λ/2 ‖θ‖², whose gradient λθ is added before the optimizer unless that names `l2` itself.
        x, y: training samples: inputs, and labels in whatever form the loss takes.
        steps: how many steps; or ``steps(…)`` of a cell's values (numbers, not traced).
        record: the steps to measure at, ascending; or about how many, spaced geometrically from 1 and with 0. The last
            step of every member is added.
        x_test, y_test: for `test_loss` and `test_accuracy`, which are recorded by default when given.
        batch_size: samples of a step, in a fresh order each epoch (what is left of an epoch is dropped); all when None.
        augment: ``augment(key, x, y) -> (x, y)`` of each batch.
        metrics: names of `METRICS`, or a mapping of names to those or to functions of a `Snapshot`.
        eval_batch_size: measure outputs in batches of this size.
        members_per_batch: members of a block. With it given, a member's bits depend on nothing else of the grid, on the same
            kind of device, but that XLA may round a division (as Adam's) otherwise for one device than for several; where it is chosen on the way, by the clock, results agree to rounding.
        devices: the local devices to share the members; all by default. A CPU is one, whose threads share what is large;
            ``jax.config.update("jax_num_cpu_devices", n)`` before all else makes it n, for small networks on n cores.
        shard: what of one member all devices share: "batch", the samples that it is shown, which must divide among them, with the
            parameters on each; or "width", each array's longest axis that divides, for a network too large for one. Members then
            run one after another. Sums are in another order than on one device: results agree to rounding.
        compute_dtype: of the network's own numbers, as jnp.bfloat16: parameters and inputs are rounded to it in front of `apply_fn`,
            outputs leave it behind. Parameters, their gradient, λθ, the optimizer and the loss keep the parameters' precision.
        store: folder that keeps members, each under the hash of its program with all constants, the data, its cell's values, the
            versions and the kind of device. One that is done is never trained again, whatever grid, order, devices or blocks it is
            asked for in; one that is unfinished, or asked to make more steps, goes on from its last state in blocks of the size
            that it began with, if it was measured where `record` asks for. `training.load` gives all of it back.
        save_seconds: time between two savings of an unfinished run.
        return_params: also return the parameters at the end, a tree with leaves of shape (*grid, …).
        progress: a bar of this name, or with True one without; none when False or None.

    Returns:
        xarray.Dataset with a variable for each metric over (*grid, step, …), NaN where a member was not measured: past its last
        step, or, if it comes from the store, at the last step of another; over the grid `status` ("done", or "diverged" if a
        parameter or a recorded training loss is not finite), `last_step` (−1 where not even the start is finite) and
        `members_per_batch`; with a store, `key`. With `return_params`, that and the parameters, NaN where diverged.

    Raises:
        ValueError, TypeError: if an argument is not usable, or the program calls back into Python and there is a store.
        MemoryError: if the members of a block do not fit the device; says how many do.

    >>> import jax.numpy as jnp
    >>> import optax
    >>> from ntkdecay import training
    >>> def apply_fn(w, x):
    ...     return x @ w
    ...
    >>> def loss(fx, y):
    ...     return ((fx - y) ** 2).mean()
    ...
    >>> runs = training.sweep(
    ...     lambda key: jnp.zeros((1, 1)), apply_fn, loss, lambda: optax.sgd(0.1), {"l2": [0.0, 0.5]}, jnp.ones((4, 1)),
    ...     jnp.ones((4, 1)), steps=50)
    >>> runs.sel(step=50).norm2.values.round(3).tolist()  # (2/(2 + λ))²
    [1.0, 0.64]
    """
    given = init.params if isinstance(init, Given) else None
    axes = axes_of(grid)
    data = data_of(x, y, x_test, y_test, given)
    chosen = chosen_metrics(metrics, axes, data)
    functions = {
        "init": (init, 1),
        "apply_fn": (apply_fn, 2),
        "loss": (loss, 2),
        "optimizer": (optimizer, 0),
    }
    check_functions(axes, functions, steps, chosen.values())
    check_batch(batch_size, len(data.x))
    on = Places(tuple(jax.local_devices() if devices is None else devices), shard)
    check_shard(on, len(data.x) if batch_size is None else batch_size)
    plan = planned(axes, steps, record)
    problem = Problem(
        None if isinstance(init, Given) else init,
        apply_fn,
        loss,
        optimizer,
        augment,
        tuple(chosen.items()),
        batch_size,
        eval_batch_size,
        None if compute_dtype is None else jnp.dtype(compute_dtype),
        None if shard is None else on,
    )
    width = 1 if shard else members_per_batch
    name = title(progress)
    silent = name is None or jax.process_index() > 0 or is_estimating()
    with tqdm(
        total=int(plan.budget.sum()), desc=name, unit="step", unit_scale=True, disable=silent
    ) as bar:
        how = How(on, width, store, save_seconds, return_params, name, bar)
        found, params, keys = (instead() or trained)(problem, data, plan, how)
    attributes = {
        "title": name or "", "commit": commit(), "versions": ", ".join(f"{n} {v}" for n, v in versions().items())
    }  # fmt: skip
    result = dataset(axes, found, attributes, keys)
    if not return_params:
        return result
    sizes = tuple(len(values) for values in axes.values())
    return result, jax.tree.map(lambda leaf: leaf.reshape(*sizes, *leaf.shape[1:]), params)
