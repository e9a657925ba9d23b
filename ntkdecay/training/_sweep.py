r"""A grid of runs as one computation.

.. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s; B_s) + \lambda\theta_s\right)
          \quad \text{for each } (\eta, \lambda, \text{seed}, \dots) \text{ of the grid}
"""

import importlib.metadata
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.training import _engine, _store
from ntkdecay.training._distributed import gathered, share
from ntkdecay.training._metrics import METRICS, Snapshot
from ntkdecay.training._problem import Data, Problem, named, start
from ntkdecay.training._run import DIVERGED, DONE, Outcome, Plan, from_tables, run, tables

STATUS = {DONE: "done", DIVERGED: "diverged"}
DEFAULT = ("loss", "total_loss", "accuracy", "norm2")

Metrics = Sequence[str] | Mapping[str, str | Callable[[Snapshot], Array]]


def sweep(
    init: Callable[..., Any],
    apply_fn: Callable[..., Array],
    loss: Callable[..., Array],
    optimizer: Callable[..., optax.GradientTransformation],
    grid: Mapping[str, Sequence[float] | np.ndarray],
    x: ArrayLike,
    y: ArrayLike,
    *,
    steps: int | Callable[..., ArrayLike],
    record: int | Sequence[int] | np.ndarray = 100,
    x_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    batch_size: int | None = None,
    augment: Callable[[Array, Array, Array], tuple[Array, Array]] | None = None,
    metrics: Metrics | None = None,
    eval_batch_size: int | None = None,
    members_per_batch: int | None = None,
    devices: Sequence[Any] | None = None,
    store: str | Path | None = None,
    save_seconds: float = 10.0,
    return_params: bool = False,
    progress: str | None = None,
) -> Any:
    r"""Train every member of a grid in one compiled program.

    .. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s; B_s) + \lambda\theta_s\right)

    Members run side by side in blocks (vmap) and the blocks one after another; the size of a block is measured unless
    `members_per_batch` says it. A member that has made its steps, or whose parameters are no longer finite,
    costs nothing from then on. Under `jax.distributed` the processes share the grid and each returns all of it.

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
        record: the steps to measure at, ascending; or a number of them, spaced geometrically from 1 and with 0. The last
            step of every member is added.
        x_test, y_test: for `test_loss` and `test_accuracy`, which are recorded by default when given.
        batch_size: samples of a step, in a fresh order each epoch (what is left of an epoch is dropped); all when None.
        augment: ``augment(key, x, y) -> (x, y)`` of each batch.
        metrics: names of `METRICS`, or a mapping of names to those or to functions of a `Snapshot`.
        eval_batch_size: measure outputs in batches of this size.
        members_per_batch: members of a block. With it given, the same seed gives the same bits on the same device.
        devices: the local devices to share the members; all by default. A CPU is one, whose threads share what is large;
            ``jax.config.update("jax_num_cpu_devices", n)`` before all else makes it n, for small networks on n cores.
        store: folder of finished runs, found again by the hash of the compiled program, the data and the grid, and of unfinished ones,
            which go on where they stopped.
        save_seconds: time between two savings of an unfinished run.
        return_params: also return the parameters at the end, a tree with leaves of shape (*grid, …).
        progress: name of the progress bar; no bar when None.

    Returns:
        xarray.Dataset with a variable for each metric over (*grid, step, …), NaN past a member's last step; `status`
        ("done" or "diverged") and `last_step` over the grid. With `return_params`, that and the parameters.

    Raises:
        ValueError: if the grid, the steps or a metric's name is not usable.
        MemoryError: if the members of a block do not fit the device; says how many do.
    """
    cells, axes = _cells(grid, (init, 1), (apply_fn, 2), (loss, 2), (optimizer, 0), steps)
    test = (None if a is None else jnp.asarray(a) for a in (x_test, y_test))
    data = Data(jnp.asarray(x), jnp.asarray(y), *test)
    _check_data(data, batch_size)
    budget = _budget(steps, cells)
    points = _points(record, budget)
    chosen = _metrics(metrics, data)
    taken = chosen.keys() & {*axes, "step", "status", "last_step"}
    if taken:
        raise ValueError(
            f"The metric {min(taken)!r} has a name that the result uses: choose another."
        )
    problem = Problem(
        init, apply_fn, loss, optimizer, augment, tuple(chosen.items()), batch_size, eval_batch_size
    )
    if members_per_batch is not None and members_per_batch < 1:
        raise ValueError(f"`members_per_batch` must be 1 or more, not {members_per_batch}.")
    mine = share(len(budget))
    plan = Plan({name: values[mine] for name, values in cells.items()}, points, budget[mine])

    key = path = None
    if store is not None:
        key = _key(problem, data, Plan(cells, points, budget), members_per_batch, return_params)
        path = Path(store) / f"{key}.npz"
    outcome = _found(path, problem, data, cells, return_params)
    if outcome is None:
        unfinished = path and path.with_suffix(f".{jax.process_index()}of{jax.process_count()}.npz")
        outcome = run(
            problem,
            data,
            plan,
            devices=tuple(devices or jax.local_devices())[: max(1, len(mine))],
            members_per_batch=members_per_batch,
            progress=progress if jax.process_index() == 0 else None,
            checkpoint=unfinished or None,
            save_seconds=save_seconds,
        )
        outcome = gathered(outcome if return_params else outcome._replace(params=None), len(budget))
        if path is not None and jax.process_index() == 0:
            _keep(path, outcome)
        if unfinished:
            unfinished.unlink(missing_ok=True)
    found = _dataset(outcome, axes, points, key)
    if not return_params:
        return found
    sizes = tuple(len(values) for values in axes.values())
    return found, jax.tree.map(lambda leaf: leaf.reshape(*sizes, *leaf.shape[1:]), outcome.params)


def _cells(grid, *functions) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The members' values, (members,) each, and the grid's axes."""
    axes = {name: np.atleast_1d(np.asarray(values)) for name, values in grid.items()}
    for name, values in axes.items():
        if values.ndim != 1 or not values.size:
            raise ValueError(
                f"The grid's `{name}` must be a list of values, not of shape {values.shape}."
            )
        if values.dtype.kind not in "iufb":
            raise ValueError(f"The grid's `{name}` must hold numbers, not {values.dtype}.")
        if name == "l2" and np.any(values < 0):
            raise ValueError("The grid's `l2` must be >= 0: it multiplies ‖θ‖²/2 in the loss.")
    read = {"seed", "l2", "learning_rate"}.union(
        *(named(*f) if isinstance(f, tuple) else named(f) if callable(f) else () for f in functions)
    )
    unread = axes.keys() - read
    if unread:
        raise ValueError(
            f"Nothing reads the grid's {', '.join(f'`{name}`' for name in sorted(unread))}: name it in the signature of "
            "`init`, `apply_fn`, `loss` or `optimizer`."
        )
    meshes = np.meshgrid(*axes.values(), indexing="ij") if axes else []
    cells = {name: mesh.ravel() for name, mesh in zip(axes, meshes, strict=True)}
    members = math.prod(len(values) for values in axes.values())
    cells.setdefault("seed", np.zeros(members, int))
    return cells, axes


def _check_data(data: Data, batch_size: int | None) -> None:
    for name, a, b in (("", data.x, data.y), ("_test", data.x_test, data.y_test)):
        if (a is None) != (b is None):
            raise ValueError("Give both `x_test` and `y_test`, or neither.")
        if a is not None and b is not None and len(a) != len(b):
            raise ValueError(f"`x{name}` has {len(a)} samples and `y{name}` {len(b)}.")
    if batch_size is not None and not 0 < batch_size <= len(data.x):
        raise ValueError(
            f"`batch_size` must be from 1 to the {len(data.x)} samples, not {batch_size}."
        )


def _budget(steps: int | Callable[..., ArrayLike], cells: dict[str, np.ndarray]) -> np.ndarray:
    members = len(cells["seed"])
    if callable(steps):
        wanted = named(steps) & cells.keys()
        each = [steps(**{n: cells[n][i].item() for n in wanted}) for i in range(members)]
        budget = np.array(each)
    else:
        budget = np.full(members, steps)
    if not np.all(np.isfinite(budget)) or np.any(budget < 0) or np.any(budget > 2**31 - 2):
        raise ValueError("`steps` must be between 0 and 2³¹ − 2 for every member.")
    return np.ceil(budget).astype(np.int64)


def _points(record: int | Iterable[int], budget: np.ndarray) -> np.ndarray:
    last = int(budget.max())
    if isinstance(record, (int, np.integer)):
        if record < 1:
            raise ValueError(f"`record` must be 1 or more points, not {record}.")
        points = np.concatenate([[0], np.round(np.geomspace(1, max(last, 1), int(record)))])
    else:
        points = np.asarray(list(record))
        if points.ndim != 1 or np.any(points < 0) or np.any(np.diff(points) <= 0):
            raise ValueError("`record` must be ascending numbers of steps, from 0 or later.")
    return np.unique(np.concatenate([points[points <= last], budget])).astype(np.int64)


def _metrics(metrics: Metrics | None, data: Data) -> dict[str, Callable[[Snapshot], Array]]:
    if metrics is None:
        metrics = DEFAULT if data.x_test is None else (*DEFAULT, "test_loss", "test_accuracy")
    if not isinstance(metrics, Mapping):
        metrics = {name: name for name in metrics}
    unknown = [m for m in metrics.values() if isinstance(m, str) and m not in METRICS]
    if unknown:
        raise ValueError(f"There is no metric {unknown[0]!r}; there are {', '.join(METRICS)}.")
    return {name: METRICS[m] if isinstance(m, str) else m for name, m in metrics.items()}


def _key(
    problem: Problem, data: Data, plan: Plan, members_per_batch: int | None, return_params: bool
) -> str:
    """The hash of one member's program as the compiler gets it, the data, the grid and the versions."""
    cell = {name: jnp.asarray(values[0]) for name, values in plan.cells.items()}

    def member(cell, data, span):
        state = start(problem, data, cell)
        return _engine.one_member(problem, data, cell, state, span)

    text = jax.jit(member).lower(cell, data, _engine.interval(0, np.array([0]), True)).as_text()
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "ntkdecay")]
    return _store.digest(
        [text, str(versions), str((sorted(plan.cells), members_per_batch, return_params))],
        [
            *jax.tree.leaves(data),
            *(plan.cells[n] for n in sorted(plan.cells)),
            plan.record,
            plan.budget,
        ],
    )


def _keep(path: Path, outcome: Outcome) -> None:
    arrays = tables(outcome) | _store.flat(outcome.params, "params")
    _store.write(path, arrays, {"members_per_batch": outcome.members_per_batch})


def _found(
    path: Path | None, problem: Problem, data: Data, cells: dict[str, np.ndarray], with_params: bool
) -> Outcome | None:
    stored = _store.read(path) if path else None
    if stored is None:
        return None
    arrays, meta = stored
    params = None
    if with_params:
        one = {name: jnp.asarray(values[0]) for name, values in cells.items()}
        like = jax.eval_shape(lambda: start(problem, data, one).params)
        params = _store.unflat(arrays, "params", like)
    return Outcome(*from_tables(arrays), params, meta["members_per_batch"])


def _dataset(
    outcome: Outcome, axes: dict[str, np.ndarray], points: np.ndarray, key: str | None
) -> xr.Dataset:
    dims, sizes = tuple(axes), tuple(len(values) for values in axes.values())
    variables: dict[str, Any] = {
        name: (
            (*dims, "step", *(f"{name}_{i}" for i in range(values.ndim - 2))),
            values.reshape(*sizes, *values.shape[1:]),
        )
        for name, values in outcome.records.items()
    }
    status = np.array([STATUS[code] for code in outcome.status.tolist()])
    variables["status"] = dims, status.reshape(sizes)
    variables["last_step"] = dims, outcome.reached.reshape(sizes)
    attributes = {"members_per_batch": outcome.members_per_batch} | ({"key": key} if key else {})
    return xr.Dataset(variables, axes | {"step": points}, attributes)
