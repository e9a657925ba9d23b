"""What `training` asks of its arguments beyond the rules of `_checks`, one rule for each kind of argument."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay._bar import PROGRESS
from ntkdecay._checks import (
    Rule,
    array,
    choice,
    either,
    function,
    integer,
    is_traced,
    number,
    optional,
    path,
    shown,
)
from ntkdecay.training._metrics import METRICS
from ntkdecay.training._signatures import required

RESULTS = ("step", "status", "last_step", "members_per_batch", "key", "member")
"""Names that a result uses itself."""

TABLE = function().refuses  # every kind of bad value


class known(Rule):
    """What another rule asks, of values that are no part of a traced program and that JAX's types hold."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.refuses = rule, rule.refuses

    @property
    def asks(self) -> str:
        return self.rule.asks

    def __call__(self, name: str, value: Any) -> None:
        if is_traced(value):
            raise TypeError(
                f"`{name}` is traced; it must be known, as training compiles its own programs: call it outside of jit, grad and vmap."
            )
        self.rule(name, value)
        for leaf in jax.tree.leaves(value):
            _check_held(name, leaf)


def _check_held(name: str, value: Any) -> None:
    """A sentence for numbers that JAX's types, of 32 bits unless told otherwise, would change."""
    values = value if hasattr(value, "dtype") else np.asarray(value)
    kind = jax.dtypes.canonicalize_dtype(values.dtype)
    if kind == values.dtype:
        return
    with np.errstate(over="ignore"):
        cast = values.astype(kind)
    fits = cast == values if values.dtype.kind in "iu" else np.isfinite(cast) == np.isfinite(values)
    if not fits.all():
        raise ValueError(
            f"`{name}` holds {values[~fits].ravel()[0]}, which {kind} does not: choose another, or set jax_enable_x64."
        )


class samples(array):
    """An entry for each sample."""

    @property
    def asks(self) -> str:
        return "an array of finite numbers with a sample in each row"

    def __call__(self, name: str, value: Any) -> None:
        super().__call__(name, value)
        if not np.ndim(value):
            raise ValueError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


class takes(Rule):
    """A function that can be called with some arguments by position, and names any others."""

    refuses = TABLE

    def __init__(self, *names: str, gives: str = "") -> None:
        self.names, self.gives = names, gives

    @property
    def asks(self) -> str:
        arguments = f" of ({', '.join(self.names)})" if self.names else ""
        return f"a function{arguments}{self.gives and ' ' + self.gives}"

    def __call__(self, name: str, value: Any) -> None:
        if not callable(value):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        if required(value, len(self.names)) is None:
            raise TypeError(f"`{name}` does not take these arguments; it must be {self.asks}.")


class optimizer(Rule):
    """An optimizer as optax has them."""

    refuses = TABLE

    def __init__(self, what: str) -> None:
        self.what = what

    @property
    def asks(self) -> str:
        return self.what

    def __call__(self, name: str, value: Any) -> None:
        usable = isinstance(value, optax.GradientTransformation)
        if not usable or not callable(value.init) or not callable(value.update):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


AXIS = known(array(ndim=(0, 1), inf=True))
AXES = {
    "seed": known(array(ndim=(0, 1), integers=True)),
    "l2": known(
        array(
            low=0,
            ndim=(0, 1),
            why="for a schedule of λ the optimizer takes it, as `optimizers.sgd(l2=…)`",
        )
    ),
}


class grid(Rule):
    """A mapping from names to the values of an axis."""

    refuses = (TABLE - {"fraction", "negative", "inf"}) | {"mapping"}

    @property
    def asks(self) -> str:
        return "a mapping from names to lists of numbers"

    def __call__(self, name: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        for axis, values in value.items():
            if not isinstance(axis, str) or axis in (*RESULTS, "params_0"):
                raise ValueError(
                    f"`{name}` has an axis {axis!r:.40}; it must be a name that the result does not use itself."
                )
            AXES.get(axis, AXIS)(f"{name}[{axis!r}]", values)


class steps_to_measure(either):
    """How many, or which."""

    def __init__(self) -> None:
        super().__init__(integer(low=1), array(low=0, ndim=1, empty=True))
        self.refuses |= {"fraction"}

    @property
    def asks(self) -> str:
        return "a number of points >= 1, or ascending whole numbers of steps >= 0"

    def __call__(self, name: str, value: Any) -> None:
        super().__call__(name, value)
        points = np.atleast_1d(np.asarray(value))
        if np.any(points != np.floor(points)) or np.any(np.diff(points) <= 0):
            raise ValueError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


class named_metrics(Rule):
    """Metrics by name."""

    refuses = TABLE - {"empty"}

    @property
    def asks(self) -> str:
        return "a list of names of METRICS, or a mapping from names to these or to functions of a Snapshot"

    def __call__(self, name: str, value: Any) -> None:
        try:
            keys = [value] if isinstance(value, str) else list(value)
        except TypeError:
            keys = [value]
        if isinstance(value, str) or not all(isinstance(key, str) for key in keys):
            wrong = next((key for key in keys if not isinstance(key, str)), value)
            raise TypeError(f"`{name}` has {shown(wrong)}; it must be {self.asks}.")
        for key in keys:
            metric = value[key] if isinstance(value, Mapping) else key
            if not callable(metric) and not (isinstance(metric, str) and metric in METRICS):
                raise ValueError(
                    f"`{name}` asks for {shown(metric)}; there are {', '.join(METRICS)}, and your own functions in a mapping."
                )
            if key in RESULTS:
                raise ValueError(
                    f"`{name}` has {key!r}, a name that the result uses itself: choose another."
                )


class folder(Rule):
    """A folder, or where one can be made."""

    refuses = path().refuses

    @property
    def asks(self) -> str:
        return "a folder's path"

    def __call__(self, name: str, value: Any) -> None:
        path()(name, value)
        what = "empty" if not os.fspath(value) else ""
        try:
            os.stat(value)
            what = what or ("" if os.path.isdir(value) else "a file")
        except (FileNotFoundError, NotADirectoryError):
            pass  # it is made, or the file above it named, when it is written to
        except (OSError, ValueError) as error:  # too long a name, a null byte
            what = f"of no use, {getattr(error, 'strerror', None) or error}"
        if what:
            raise ValueError(f"`{name}` is {what} ({value!s:.60}); it must be {self.asks}.")


class local_devices(Rule):
    """Devices of this process."""

    refuses = TABLE

    @property
    def asks(self) -> str:
        return "some of jax.local_devices()"

    def __call__(self, name: str, value: Any) -> None:
        several = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        if not several or not all(device in jax.local_devices() for device in set(value)):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


class compute_dtype(Rule):
    """A precision that needs no scaling of the loss."""

    refuses = frozenset({"text", "mapping", "object", "nan", "inf", "negative", "fraction"})
    _known = (jnp.bfloat16, jnp.float32, jnp.float64)

    @property
    def asks(self) -> str:
        return "jnp.bfloat16, jnp.float32 or jnp.float64 (float16 would need a scaling of the loss)"

    def __call__(self, name: str, value: Any) -> None:
        try:
            known = jnp.dtype(value) in [jnp.dtype(one) for one in self._known]
        except (TypeError, ValueError):
            known = False
        if not known:
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        if jnp.dtype(value) != jax.dtypes.canonicalize_dtype(value):
            raise ValueError(
                f'`{name}` is float64: `jax.config.update("jax_enable_x64", True)` first.'
            )


SIZE = optional(integer(low=1))
OPTIONS = {
    "record": steps_to_measure(),
    "x_test": optional(known(samples())),
    "y_test": optional(known(samples())),
    "batch_size": SIZE,
    "augment": optional(takes("key", "x", "y")),
    "metrics": optional(named_metrics()),
    "eval_batch_size": SIZE,
    "devices": optional(local_devices()),
    "shard": optional(choice("batch", "width")),
    "compute_dtype": optional(compute_dtype()),
    "store": optional(folder()),
    "save_seconds": number(low=0, inf=True),
    "progress": PROGRESS,
}
"""Of what `sweep` and `train` share."""

APPLY_FN, LOSS = takes("params", "x"), takes("fx", "y")
STEPS = known(number(low=0, high=2**31 - 2))
SEED = known(integer())
SAMPLES = known(samples())
GRID = {
    "init": takes("key"),
    "apply_fn": APPLY_FN,
    "loss": LOSS,
    "optimizer": takes(
        gives="that gives an optax optimizer: `lambda: optax.sgd(0.1)`, not `optax.sgd(0.1)`"
    ),
    "grid": known(grid()),
    "x": SAMPLES,
    "y": SAMPLES,
    "steps": either(STEPS, takes(gives="of a member's values")),
    "members_per_batch": SIZE,
}
