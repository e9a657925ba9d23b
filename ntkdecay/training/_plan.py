"""What is asked of a grid: its members, how far each goes and where it is measured."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay.training._metrics import METRICS, Snapshot
from ntkdecay.training._problem import Data, named, required

DEFAULT = ("loss", "total_loss", "accuracy", "norm2")
RESULTS = ("step", "status", "last_step", "members_per_batch", "key", "member")

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
    axes: dict[str, np.ndarray], steps: int | Callable[..., Any], record: int | Iterable[int]
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
    """The grid's values, each axis of the kind in which members are told of it."""
    if not isinstance(grid, Mapping):
        raise TypeError(
            f"`grid` must map names to lists of numbers; it is a {type(grid).__name__}."
        )
    return {name: _axis(name, values) for name, values in grid.items()}


def _axis(name: str, given: Any) -> np.ndarray:
    if not isinstance(name, str) or name in (*RESULTS, "params_0"):
        raise ValueError(
            f"`grid` has an axis {name!r}, a name that the result uses: choose another."
        )
    try:
        values = np.atleast_1d(np.asarray(given))
    except ValueError:
        values = np.zeros((0, 0))
    what = f"The `grid`'s `{name}`"
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{what} must be a list of values, not of shape {values.shape}.")
    if values.dtype.kind not in "iufb":
        raise ValueError(f"{what} must hold numbers, not {values.dtype}.")
    if name in ("l2", "learning_rate"):
        values = values.astype(np.result_type(values.dtype, np.float32))
    if np.isnan(values).any():
        raise ValueError(f"{what} holds NaN.")
    if name == "seed" and values.dtype.kind not in "iu":
        raise ValueError(f"{what} must hold whole numbers, not {values.dtype}.")
    if name == "l2" and not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"{what} must be >= 0 and finite: it multiplies ‖θ‖²/2 in the loss.")
    kind = jax.dtypes.canonicalize_dtype(values.dtype)
    with np.errstate(over="ignore"):
        cast = values.astype(kind)
    fits = cast == values if values.dtype.kind in "iu" else np.isfinite(cast) == np.isfinite(values)
    if not fits.all():
        raise ValueError(
            f"{what} holds {values[~fits][0]}, which {kind} does not: choose another, or set jax_enable_x64."
        )
    return values


def check_functions(
    axes: Mapping[str, Any],
    functions: Mapping[str, tuple[Any, int]],
    steps: Any,
    metrics: Iterable[Any],
) -> None:
    """Each function takes its arguments and finds in the cell what else it names, and something reads each axis."""
    cell = {"seed", *axes}
    read = {"seed", "l2"} | (set(named(steps)) if callable(steps) else set())
    if METRICS["effective_learning_rate"] in metrics:
        read |= {"learning_rate"}
    for name, (function, positional) in functions.items():
        if not callable(function):
            advice = (
                ": write `lambda: optax.sgd(0.1)`, not `optax.sgd(0.1)`"
                if isinstance(function, optax.GradientTransformation)
                else ""
            )
            raise TypeError(
                f"`{name}` must be a function, not a {type(function).__name__}{advice}."
            )
        known = cell | ({"params_0"} if name in ("apply_fn", "loss") else set())
        wants = required(function, positional)
        if wants is None:
            raise TypeError(
                f"`{name}` must take {positional} argument{'s' * (positional != 1)} by position."
            )
        if lacking := sorted(wants - known):
            raise ValueError(
                f"`{name}` asks for `{lacking[0]}`, which `grid` lacks: add it there, or give it a default."
            )
        read |= named(function, positional)
    if unread := axes.keys() - read:
        raise ValueError(
            f"Nothing reads the `grid`'s {', '.join(f'`{name}`' for name in sorted(unread))}: name it in the signature of "
            "`init`, `apply_fn`, `loss` or `optimizer`."
        )


def _budget(steps: int | Callable[..., Any], cells: dict[str, np.ndarray]) -> np.ndarray:
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
        raise TypeError(
            f"`steps` must be a number or give one for each member, not {each[0]!r:.40}."
        )
    if not np.all(np.isfinite(budget)) or np.any(budget < 0) or np.any(budget > 2**31 - 2):
        raise ValueError("`steps` must be between 0 and 2³¹ − 2 for every member.")
    return np.ceil(budget).astype(np.int64)


def _asked(record: int | Iterable[int], last: int) -> np.ndarray:
    """The steps to measure at, up to `last`."""
    if isinstance(record, (int, np.integer)) and not isinstance(record, bool):
        if record < 1:
            raise ValueError(f"`record` must be 1 or more points, not {record}.")
        return _spaced(int(record), last)
    try:
        points = np.asarray(record if hasattr(record, "__len__") else list(record))  # pyright: ignore
    except (TypeError, ValueError):
        points = np.asarray("")
    if points.dtype.kind not in "iuf" or points.ndim != 1 or not np.all(points == np.floor(points)):
        raise TypeError(
            f"`record` must be a number of points or whole numbers of steps, not {record!r:.60}."
        )
    if np.any(points < 0) or np.any(np.diff(points) <= 0):
        raise ValueError("`record` must be ascending numbers of steps, from 0 or later.")
    return points[points <= last].astype(np.int64)


def _spaced(points: int, last: int) -> np.ndarray:
    """0 and about so many steps at powers of 2^(2⁻ⁿ), with the whole n that comes nearest.

    A longer run has the same n or a smaller one: where it is measured, a shorter one was.
    """
    octaves = math.log2(max(last, 2))
    exponents = np.arange(0, octaves + 1e-9, 0.5 ** round(math.log2(points / octaves)))
    steps = np.unique(np.round(2.0**exponents)).astype(np.int64)
    return np.concatenate([[0], steps[steps <= last]])


def chosen_metrics(metrics: Metrics | None, data: Data) -> dict[str, Callable[[Snapshot], Any]]:
    """Functions by name."""
    if metrics is None:
        metrics = DEFAULT if data.x_test is None else (*DEFAULT, "test_loss", "test_accuracy")
    if not isinstance(metrics, Mapping):
        if isinstance(metrics, str) or not isinstance(metrics, Iterable):
            raise TypeError(f"`metrics` must be a list of names or a mapping, not {metrics!r:.40}.")
        metrics = {name: name for name in metrics}
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise TypeError(
                "`metrics` holds a function without a name: give a mapping, as `metrics={'mine': function}`."
                if callable(name)
                else f"`metrics` must hold names, not {name!r:.40}."
            )
        if not callable(metric) and not (isinstance(metric, str) and metric in METRICS):
            raise ValueError(
                f"`metrics`: there is no metric {metric!r:.40}; there are {', '.join(METRICS)}."
            )
        if name in RESULTS:
            raise ValueError(
                f"`metrics` has {name!r}, a name that the result uses: choose another."
            )
    return {name: METRICS[m] if isinstance(m, str) else m for name, m in metrics.items()}


def data_of(x: Any, y: Any, x_test: Any, y_test: Any, params: Any = None) -> Data:
    """Checked samples."""
    pairs: list[tuple[str, Any, Any, Any]] = [("", x, y, None), ("_test", x_test, y_test, x)]
    for name, a, b, x_like in pairs:
        if a is None and b is None and name:
            continue
        if name and (a is None or b is None):
            raise ValueError("Give both `x_test` and `y_test`, or neither.")
        of_a, of_b = _samples(f"x{name}", a), _samples(f"y{name}", b)
        if of_a[0] != of_b[0]:
            raise ValueError(f"`x{name}` has {of_a[0]} samples and `y{name}` {of_b[0]}.")
        if x_like is not None and of_a[1:] != np.shape(x_like)[1:]:
            raise ValueError(
                f"`x_test`'s samples are of shape {of_a[1:]} and `x`'s of {np.shape(x_like)[1:]}."
            )
    x_test, y_test = (None if a is None else jnp.asarray(a) for a in (x_test, y_test))
    return Data(jnp.asarray(x), jnp.asarray(y), x_test, y_test, params)


def _samples(name: str, given: Any) -> tuple[int, ...]:
    """The shape of usable ones."""
    try:
        values = np.asarray(given)
    except ValueError:
        values = np.asarray(None)
    if not (values.dtype.kind in "iufb" or jnp.issubdtype(values.dtype, jnp.floating)):
        raise TypeError(f"`{name}` must be an array of real numbers, not {given!r:.40}.")
    if values.ndim == 0 or values.size == 0:
        raise ValueError(f"`{name}` must hold samples; it is of shape {values.shape}.")
    if values.dtype.kind not in "iub" and not np.isfinite(values).all():
        raise ValueError(f"`{name}` holds NaN or infinity.")
    return values.shape


def local_devices(devices: Sequence[Any] | None) -> tuple[Any, ...]:
    """Those given, or all of this process."""
    if devices is None:
        return tuple(jax.local_devices())
    if (
        not isinstance(devices, Sequence)
        or not devices
        or not all(d in jax.local_devices() for d in devices)
    ):
        raise TypeError(f"`devices` must be some of `jax.local_devices()`, not {devices!r:.60}.")
    return tuple(devices)


def check_options(samples: int, **options: Any) -> None:
    """One sentence for an option that is not usable."""
    for name in ("batch_size", "eval_batch_size", "members_per_batch"):
        value = options[name]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"`{name}` must be a whole number or None, not {value!r:.40}.")
        if value < 1:
            raise ValueError(f"`{name}` must be 1 or more, not {value}.")
    size = options["batch_size"]
    if size is not None and size > samples:
        raise ValueError(f"`batch_size` must be from 1 to the {samples} samples, not {size}.")
    seconds = options["save_seconds"]
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, (int, float, np.number))
        or not seconds >= 0
    ):
        raise (ValueError if isinstance(seconds, float) else TypeError)(
            f"`save_seconds` must be a number of seconds >= 0, not {seconds!r:.40}."
        )
    for name, kinds, what in (
        ("store", (str, Path), "a folder's name or None"),
        ("progress", (str,), "the name of the bar or None"),
        ("return_params", (bool, np.bool_), "True or False"),
    ):
        value = options[name]
        if not (isinstance(value, kinds) or (value is None and name != "return_params")):
            raise TypeError(f"`{name}` must be {what}, not {value!r:.40}.")
    if options["augment"] is not None and not callable(options["augment"]):
        raise TypeError(f"`augment` must be a function or None, not {options['augment']!r:.40}.")
