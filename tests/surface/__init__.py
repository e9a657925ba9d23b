"""One ordinary call of every public function, for the tests that hold of all of them.

`CALLS` maps "package.name" to a function that gives `Call(function, arguments)`, and, with `other=True`, the
same call with other numbers: equal shapes, dtypes, options and function objects. A closure that a function gives
has an entry of its own, "package.name()". A package's file is `tests/surface/<package>.py`; names that are no
functions of a user's arguments (results, protocols, constants) stand in `EXEMPT` with the reason.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import ntkdecay


class Call(NamedTuple):
    """`function(**arguments)` works; the bad-input test puts something else in place of one argument.

    `agree` names array arguments whose shape must suit another's: one sample fewer is refused.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    agree: tuple[str, ...] = ()

    def __call__(self, **changes: Any) -> Any:
        """The call, with other values for some of its arguments."""
        named = self.arguments | changes
        starred = any(
            p.kind is p.VAR_POSITIONAL for p in inspect.signature(self.function).parameters.values()
        )
        positional: list[Any] = []
        for name, parameter in inspect.signature(self.function).parameters.items():
            before = starred and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if (before or parameter.kind is parameter.POSITIONAL_ONLY) and name in named:
                positional.append(named.pop(name))
            elif parameter.kind is parameter.VAR_POSITIONAL:
                positional += named.pop(name, ())
        return self.function(*positional, **named)


Maker = Callable[..., Call]  # maker(other: bool = False) -> Call

CALLS: dict[str, Maker] = {}
HARDER: dict[str, Maker] = {}  # more calls of some functions, larger ones
EXEMPT: dict[str, str] = {}  # public name: why it has no call
RESULT = "a result, made by the package alone"


def call(name: str) -> Callable[[Maker], Maker]:
    """Register the ordinary call of a public name."""

    def register(maker: Maker) -> Maker:
        assert name not in CALLS, name
        CALLS[name] = maker
        return maker

    return register


def harder(name: str) -> Callable[[Maker], Maker]:
    """Register one more call, "package.name of what"."""
    return lambda maker: HARDER.setdefault(name, maker)


for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")

PACKAGES = (
    "datasets",
    "deep_linear",
    "finite_width",
    "homogeneity",
    "kernels",
    "networks",
    "optimizers",
    "output_scale",
    "power_counting",
    "predict",
    "report",
    "risk",
    "scale_invariant",
    "scale_invariant.networks",
    "symbolic",
    "training",
)


def public() -> list[str]:
    """Every public function and class of these packages, as "package.name"."""
    names = []
    for package in PACKAGES:
        module = importlib.import_module(f"{ntkdecay.__name__}.{package}")
        own = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        names += [
            f"{package}.{name}"
            for name in getattr(module, "__all__", own)
            if callable(getattr(module, name)) and not inspect.ismodule(getattr(module, name))
        ]
    return names
