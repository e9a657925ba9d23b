"""What a run must have recorded: arrays, a dataset of `ntkdecay.training`, or the toy's trajectory."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ntkdecay._checks import Rule, array, shown

Record = Any  # Mapping[str, ArrayLike] | xarray.Dataset | a NamedTuple of arrays


class _Record(Rule):
    """A rule: something with named series."""

    refuses = frozenset(
        {"text", "none", "mapping", "object", "complex", "nan", "inf", "negative", "fraction", "many", "empty"}
    )  # fmt: skip

    @property
    def asks(self) -> str:
        return "a mapping, an xarray.Dataset or a NamedTuple of recorded series"

    def __call__(self, name: str, value: Any) -> None:
        if not isinstance(value, Mapping) and not hasattr(value, "_asdict"):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


RECORD = _Record()
ONE_EACH = (
    "one for each recorded step, so choose one member of a grid, and cut the run where it diverged"
)
STEP = array(ndim=1, why=ONE_EACH)
SQUARE = array(above=0, ndim=1, why=ONE_EACH)
LEVEL = array(low=0, ndim=1, why=ONE_EACH)


def read(record: Record, *names: str) -> list[np.ndarray]:
    """The named series, one number for each recorded step.

    `effective_gradient_norm` is g̃ = ‖w‖·‖∇L(w)‖: with `norm2` it may be recorded as `gradient_norm`,
    and `effective_learning_rate`, η/‖w‖², may be replaced by 1/`norm2`.

    Raises:
        ValueError: for a record without them, with others' lengths, or with values that are not finite.
    """
    known = series(record)
    found = {name: _find(known, name) for name in names}
    sizes = {name: values.size for name, values in found.items()}
    sizes |= {"step": steps(record, 0).size} if "step" in known else {}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"The series of `record` must be of one length, but have {listed}.")
    return list(found.values())


def steps(record: Record, size: int) -> np.ndarray:
    """The step of each measurement: `step` of the record, or 0, 1, 2, …"""
    known = series(record)
    return _series(known, "step", STEP) if "step" in known else np.arange(size)


def series(record: Record) -> Mapping[str, Any]:
    """The record by names."""
    return record._asdict() if hasattr(record, "_asdict") else record


def _find(known: Mapping[str, Any], name: str) -> np.ndarray:
    if name in known:
        rules = {"norm2": SQUARE, "cosine_distance": STEP}
        return _series(known, name, rules.get(name, LEVEL))
    if name == "effective_gradient_norm" and "gradient_norm" in known and "norm2" in known:
        return np.sqrt(_find(known, "norm2")) * _find(known, "gradient_norm")
    if name == "effective_learning_rate" and "norm2" in known:
        return 1 / _find(known, "norm2")
    raise ValueError(f"`record` has no {name}; it has {', '.join(map(str, known)) or 'nothing'}.")


def _series(known: Mapping[str, Any], name: str, rule: Rule) -> np.ndarray:
    rule(f"record[{name!r}]", known[name])
    return np.asarray(known[name])
