"""What a run must have recorded: arrays, a dataset of `ntkdecay.training`, or the toy's trajectory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ntkdecay._checks import Rule, shown

Record = Any  # Mapping[str, ArrayLike] | xarray.Dataset | a NamedTuple of arrays


class _Record(Rule):
    """A rule: something with named series."""

    refuses = frozenset({"text", "none", "object", "complex", "nan", "inf", "negative", "empty"})
    asks = "a mapping, an xarray.Dataset or a NamedTuple of recorded series"

    def __call__(self, name: str, value: Any) -> None:
        if not isinstance(value, Mapping) and not hasattr(value, "_asdict"):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


RECORD = _Record()


def read(record: Record, *names: str) -> list[np.ndarray]:
    """The named series, one number for each recorded step.

    `effective_gradient_norm` is g̃ = ‖w‖·‖∇L(w)‖: with `norm2` it may be recorded as `gradient_norm`,
    and `effective_learning_rate`, η/‖w‖², may be replaced by 1/`norm2`.

    Raises:
        ValueError: for a record without them, with others' lengths, or with values that are not finite.
    """
    found = [_find(series(record), name) for name in names]
    for name, values in zip(names, found, strict=True):
        if values.ndim != 1 or values.shape != found[0].shape:
            raise ValueError(
                f"`{name}` of the record has shape {values.shape} and `{names[0]}` {found[0].shape}; "
                "each must be one number for each recorded step: choose one member of a grid"
            )
        if not np.all(np.isfinite(values)):
            raise ValueError(f"`{name}` of the record is not finite: cut the run where it diverged")
    return found


def steps(record: Record, size: int) -> np.ndarray:
    """The step of each measurement: `step` of the record, or 0, 1, 2, …"""
    known = series(record)
    return np.asarray(known["step"]) if "step" in known else np.arange(size)


def series(record: Record) -> Mapping[str, Any]:
    """The record by names."""
    return record._asdict() if hasattr(record, "_asdict") else record


def _find(known: Mapping[str, Any], name: str) -> np.ndarray:
    if name in known:
        return np.asarray(known[name])
    if name == "effective_gradient_norm" and "gradient_norm" in known and "norm2" in known:
        return np.sqrt(np.asarray(known["norm2"])) * np.asarray(known["gradient_norm"])
    if name == "effective_learning_rate" and "norm2" in known:
        return 1 / np.asarray(known["norm2"])
    raise ValueError(f"the record has no `{name}`; it has {', '.join(map(str, known))}")
