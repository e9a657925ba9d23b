"""What is asked of a grid: its members, how far each goes and where it is measured."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ntkdecay._arrays import own
from ntkdecay._checks import shown
from ntkdecay.training._metrics import METRICS, Snapshot
from ntkdecay.training._places import Places
from ntkdecay.training._problem import Data
from ntkdecay.training._signatures import named, required

DEFAULT = ("loss", "total_loss", "accuracy", "norm2")

Metrics = Sequence[str] | Mapping[str, str | Callable[[Snapshot], Any]]


class Plan(NamedTuple):
    """A grid's members, in its order."""

    axes: dict[str, np.ndarray]
    cells: dict[str, np.ndarray]  # (members,) each
    budget: np.ndarray  # (members,): the last step of each
    steps: np.ndarray  # ascending: the steps asked for and the last ones
    asked: np.ndarray  # which of them are asked for

    @property
    def wanted(self) -> np.ndarray:
        """(members, steps): where each must be measured. At the ends of others it may be."""
        last = self.steps == self.budget[:, None]
        return last | (self.asked & (self.steps <= self.budget[:, None]))


def planned(
    axes: dict[str, np.ndarray],
    steps: float | Callable[..., Any],
    record: int | Sequence[int] | np.ndarray,
) -> Plan:
    meshes = np.meshgrid(*axes.values(), indexing="ij") if axes else []
    cells = {name: mesh.ravel() for name, mesh in zip(axes, meshes, strict=True)}
    members = math.prod(len(values) for values in axes.values())
    cells.setdefault("seed", np.zeros(members, np.int64))
    budget = _budget(steps, cells)
    asked = _asked(record, int(budget.max()))
    every = np.unique(np.concatenate([asked, budget]))
    return Plan(axes, cells, budget, every, np.isin(every, asked))


def axes_of(grid: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The grid's values; λ and η, which whole numbers may stand for, as floats."""
    axes = {name: np.atleast_1d(np.asarray(values)) for name, values in grid.items()}
    for name in {"l2", "learning_rate"} & axes.keys():
        axes[name] = axes[name].astype(np.result_type(axes[name].dtype, np.float32))
    return axes


def check_functions(
    axes: Mapping[str, Any],
    functions: Mapping[str, tuple[Any, int]],
    steps: Any,
    metrics: Iterable[Any],
) -> None:
    """Each function finds in the cell what it names beyond its arguments, and something reads each axis."""
    cell = {"seed", *axes}
    read = {"seed", "l2"} | (set(named(steps)) if callable(steps) else set())
    if METRICS["effective_learning_rate"] in metrics:
        read |= {"learning_rate"}
    for name, (function, positional) in functions.items():
        known = cell | ({"params_0"} if name in ("apply_fn", "loss") else set())
        if lacking := sorted((required(function, positional) or frozenset()) - known):
            raise ValueError(
                f"`{name}` asks for `{lacking[0]}`, which `grid` lacks: add it there, or give it a default."
            )
        read |= named(function, positional)
    if unread := axes.keys() - read:
        raise ValueError(
            f"Nothing reads the `grid`'s {', '.join(f'`{name}`' for name in sorted(unread))}: name it in the signature of "
            "`init`, `apply_fn`, `loss` or `optimizer`."
        )


def _budget(steps: float | Callable[..., Any], cells: dict[str, np.ndarray]) -> np.ndarray:
    members = len(cells["seed"])
    if callable(steps):
        wanted = named(steps) & cells.keys()
        if lacking := (required(steps, 0) or frozenset()) - cells.keys():
            raise ValueError(
                f"`steps` asks for `{min(lacking)}`, which `grid` lacks: add it there, or give it a default."
            )
        each = [steps(**{n: cells[n][i].item() for n in wanted}) for i in range(members)]
    else:
        each = [steps] * members
    try:
        budget = np.array(each)
        usable = budget.dtype.kind in "iuf" and budget.shape == (members,)
    except ValueError:
        usable = False
    if not usable:
        raise TypeError(f"`steps` gives {shown(each[0])}; it must give a number for each member.")
    if not np.all(np.isfinite(budget)) or np.any(budget < 0) or np.any(budget > 2**31 - 2):
        raise ValueError(
            f"`steps` gives from {budget.min():g} to {budget.max():g}; it must give from 0 to 2³¹ − 2 for every member."
        )
    return np.ceil(budget).astype(np.int64)


def _asked(record: int | Sequence[int] | np.ndarray, last: int) -> np.ndarray:
    """The steps to measure at, up to `last`."""
    points = np.asarray(record)
    if not points.ndim:
        return _spaced(int(points), last)
    return points[points <= last].astype(np.int64)


def _spaced(points: int, last: int) -> np.ndarray:
    """0 and about so many steps at powers of 2^(2⁻ⁿ), with the whole n that comes nearest.

    A longer run has the same n or a smaller one: where it is measured, a shorter one was.
    """
    octaves = math.log2(max(last, 2))
    exponents = np.arange(0, octaves + 1e-9, 0.5 ** round(math.log2(points / octaves)))
    steps = np.unique(np.round(2.0**exponents)).astype(np.int64)
    return np.concatenate([[0], steps[steps <= last]])


def chosen_metrics(
    metrics: Metrics | None, axes: Mapping[str, Any], data: Data
) -> dict[str, Callable[[Snapshot], Any]]:
    """Functions by name."""
    if metrics is None:
        metrics = DEFAULT if data.x_test is None else (*DEFAULT, "test_loss", "test_accuracy")
    if not isinstance(metrics, Mapping):
        metrics = {name: name for name in metrics}
    if both := sorted(metrics.keys() & axes.keys()):
        raise ValueError(
            f"`metrics` has {both[0]!r}, which is an axis of `grid` too: give it another name, as {{'mine': …}}."
        )
    return {name: METRICS[m] if isinstance(m, str) else m for name, m in metrics.items()}


def data_of(x: Any, y: Any, x_test: Any, y_test: Any, params: Any = None) -> Data:
    """Samples that suit each other."""
    for a, b, name in ((x, y, ""), (x_test, y_test, "_test")):
        if a is None and b is None:
            continue
        if a is None or b is None:
            raise ValueError("Give both `x_test` and `y_test`, or neither.")
        if len(a) != len(b):
            raise ValueError(f"`x{name}` has {len(a)} samples and `y{name}` {len(b)}.")
    if x_test is not None and np.shape(x_test)[1:] != np.shape(x)[1:]:
        raise ValueError(
            f"`x_test`'s samples are of shape {np.shape(x_test)[1:]} and `x`'s of {np.shape(x)[1:]}."
        )
    x_test, y_test = (None if a is None else own(a) for a in (x_test, y_test))
    return Data(own(x), own(y), x_test, y_test, params)


def check_batch(batch_size: int | None, samples: int) -> None:
    if batch_size is not None and batch_size > samples:
        raise ValueError(
            f"`batch_size` is {batch_size}; it must be from 1 to the {samples} samples."
        )


def check_shard(places: Places, batch: int) -> None:
    if places.shard == "batch" and batch % len(places.devices):
        raise ValueError(
            f"`shard` is 'batch', but a step's {batch} samples do not divide among {len(places.devices)} devices: "
            "take another `batch_size`, or some of the `devices`."
        )
