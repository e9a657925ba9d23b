"""What a script's options ask of their values, by their types, before anything is computed.

``samples: Count = 200`` in a dataclass of options says to the command line that it is an integer, and to
`check` which ones it may be.
"""

import dataclasses
import inspect
import itertools
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ntkdecay._checks import Rule, anything, integer, number, sequence


class _Odd(integer):
    def __call__(self, name: str, value: Any) -> None:
        super().__call__(name, value)
        if value % 2 == 0:
            raise ValueError(f"`{name}` is {value}; it must be odd: as many before as after.")


class _Ascending(Rule):
    """Numbers each above the last."""

    def __call__(self, name: str, value: Any) -> None:
        if any(one >= after for one, after in itertools.pairwise(value)):
            raise ValueError(f"`{name}` is {' '.join(map(str, value))}; it must ascend.")


Number = TypeVar("Number")
Ascending = Annotated[tuple[Number, ...], _Ascending()]
Count = Annotated[int, integer(low=1)]
Whole = Annotated[int, integer(low=0)]
Odd = Annotated[int, _Odd(low=1)]
Seed = Annotated[int, integer(low=0, high=2**32 - 1)]
Positive = Annotated[float, number(above=0)]
Exponent = Annotated[float, number(low=-0.5)]
Unlimited = Annotated[float, number(above=0, inf=True)]
NonNegative = Annotated[float, number(low=0)]
Share = Annotated[float, number(low=0, below=1)]

_SOME = sequence(anything())


def rules(options: Any) -> Iterator[tuple[str, Any, Rule | None]]:
    """Each number among the options, and each sequence: its name on the command line, its value and its rule."""
    for name, kind in get_type_hints(type(options), include_extras=True).items():
        yield from _rules(f"--{name.replace('_', '-')}", kind, getattr(options, name))


def _rules(name: str, kind: Any, value: Any) -> Iterator[tuple[str, Any, Rule | None]]:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        if get_origin(inner[0]) is tuple:
            yield from _rules(name, inner[0], value)
        yield name, value, next((one for one in inner[1:] if isinstance(one, Rule)), None)
    elif origin in (Union, types.UnionType):
        if value is not None:
            yield from _rules(name, next(one for one in inner if one is not type(None)), value)
    elif origin is tuple and inner[-1] is ...:
        yield name, value, _SOME
        for i, one in enumerate(value):
            yield from _rules(f"{name}[{i}]", inner[0], one)
    elif origin is tuple:
        yield name, value, sequence(anything(), len(inner))
        for i, (one, item) in enumerate(zip(inner, value, strict=False)):
            yield from _rules(f"{name}[{i}]", one, item)
    elif inspect.isclass(kind) and dataclasses.is_dataclass(kind):
        for below, one, rule in rules(value):
            yield f"{name}.{below.removeprefix('--')}", one, rule
    elif kind in (int, float):
        yield name, value, None


def check(options: Any) -> None:
    """Hold each option to the rule of its type.

    Raises:
        ValueError, TypeError: in one sentence that names the option.
    """
    for name, value, rule in rules(options):
        if rule is not None:
            rule(name, value)


def check_writable(name: str, folder: Path) -> None:
    """A folder that is there, or can be made, and takes a file.

    Raises:
        ValueError: if it is not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`{name}` is {folder}; no file can be written there ({error.strerror})."
        ) from None


def check_folder(name: str, folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"`{name}` is {folder}; it must be a folder that is there.")
