"""What the public surface asks of its arguments: one rule for each, one sentence where it is broken.

``@checked(t=array(low=0), degree=number(low=0), tile=optional(integer(low=1)))`` stands over a public
function. A rule looks at a value before the function runs and raises ValueError or TypeError with the
argument's name. Traced values are asked for their shape and dtype only: no rule puts anything into a
program. What two arguments ask of each other stays in the function.
"""

import functools
import inspect
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

Scalar = Array | float  # traced or not

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Rule:
    """Raises where `value` is not what it asks for; `refuses` names what a test throws at it."""

    refuses: frozenset[str] = frozenset()

    def __call__(self, name: str, value: Any) -> None:
        raise NotImplementedError

    @property
    def asks(self) -> str:
        """The end of "it must be …"."""
        raise NotImplementedError


def checked(**rules: Rule) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """The function, its arguments held to one rule each; `*args` and `**kwargs` hold each of theirs to the one rule."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        unknown = [name for name in rules if name not in signature.parameters]
        if unknown:
            raise TypeError(f"{function.__qualname__} has no parameter {unknown[0]!r}.")
        several = {
            name: parameter.kind
            for name, parameter in signature.parameters.items()
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

        @functools.wraps(function)
        def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                arguments = signature.bind(*args, **kwargs).arguments
            except TypeError:  # Python's own sentence names the function
                return function(*args, **kwargs)
            for name, value in arguments.items():
                if name not in rules:
                    continue
                if name not in several:
                    rules[name](name, value)
                elif several[name] is inspect.Parameter.VAR_KEYWORD:
                    for key, one in value.items():
                        rules[name](key, one)
                else:
                    for one in value:
                        rules[name](name, one)
            return function(*args, **kwargs)

        guarded.__rules__ = rules  # pyright: ignore[reportAttributeAccessIssue]
        return guarded

    return decorate


class array(Rule):
    """Real numbers of any shape: what NumPy makes an array of.

    Args:
        low, high: least and largest value allowed.
        above, below: bounds that are not allowed themselves.
        inf, nan, empty: allow these.
        integers: whole numbers only.
        ndim: the number of axes, or several allowed.
        why: the reason, appended to the sentence.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        above: float | None = None,
        below: float | None = None,
        inf: bool = False,
        nan: bool = False,
        empty: bool = False,
        integers: bool = False,
        ndim: int | tuple[int, ...] | None = None,
        why: str = "",
    ) -> None:
        self.low, self.high, self.above, self.below = low, high, above, below
        self.inf, self.nan, self.empty, self.integers, self.why = inf, nan, empty, integers, why
        self.ndim = (ndim,) if isinstance(ndim, int) else ndim
        least = above if low is None else low
        refuses = {"text", "none", "mapping", "object", "complex"}
        refuses |= set() if nan else {"nan"}
        refuses |= set() if inf else {"inf"}
        refuses |= set() if empty else {"empty"}
        refuses |= {"negative"} if least is not None and least >= 0 else set()
        refuses |= {"zero"} if (above is not None and above >= 0) or (low or 0) > 0 else set()
        refuses |= {"fraction"} if integers else set()
        refuses |= {"many"} if self.ndim == (0,) else set()
        self.refuses = frozenset(refuses)

    @property
    def asks(self) -> str:
        one = self.ndim == (0,)
        nouns = ("an array of integers", "an integer") if self.integers else None
        what = (nouns or ("an array of numbers", "a number"))[one]
        signs = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        bounds = [f"{sign} {bound:g}" for sign, bound in signs if bound is not None]
        if bounds:
            what += " " + " and ".join(bounds)
        if not self.inf and not self.integers:
            what += ", finite" if bounds else " that is finite" if one else " that are finite"
        if self.ndim is not None and not one:
            what += f" with {' or '.join(map(str, self.ndim))} axes"
        return what + (f": {self.why}" if self.why else "")

    def __call__(self, name: str, value: Any) -> None:
        known = self._numbers(name, value)
        if self.ndim is not None and known.ndim not in self.ndim:
            raise ValueError(f"`{name}` has shape {known.shape}; it must be {self.asks}.")
        if not known.size:
            if not self.empty:
                raise ValueError(
                    f"`{name}` is empty (shape {known.shape}); it must be {self.asks}."
                )
        elif not isinstance(known, jax.core.Tracer):
            self._in_range(name, value, known)

    def _numbers(self, name: str, value: Any) -> Any:
        """The value as something with dtype, shape and size."""
        given = value
        if isinstance(value, bool):
            raise TypeError(f"`{name}` is {value}; it must be {self.asks}.")
        if not isinstance(value, (Array, np.ndarray)):
            try:
                value = _plain(value)
                value = jnp.asarray(value) if is_traced(value) else np.asarray(value)
            except (TypeError, ValueError):
                raise TypeError(f"`{name}` is {shown(given)}; it must be {self.asks}.") from None
            except OverflowError:
                raise ValueError(f"`{name}` is {shown(given)}; it must be {self.asks}.") from None
        kinds = (
            (jnp.integer, jnp.bool_) if self.integers else (jnp.floating, jnp.integer, jnp.bool_)
        )
        if not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
            raise TypeError(f"`{name}` is {shown(given)}; it must be {self.asks}.")
        return value

    def _in_range(self, name: str, value: Any, known: Any) -> None:
        least, most = _extent(known)
        wrong = (
            (np.isnan(least) and not self.nan)
            or (np.isinf([least, most]).any() and not self.inf)
            or (self.low is not None and least < self.low)
            or (self.above is not None and least <= self.above)
            or (self.high is not None and most > self.high)
            or (self.below is not None and most >= self.below)
        )
        if wrong:
            entries = "" if not known.ndim else f" with entries from {least:g} to {most:g}"
            if known.ndim and np.isnan(least):
                entries = " with NaN entries"
            raise ValueError(f"`{name}` is {shown(value)}{entries}; it must be {self.asks}.")


def number(low: float | None = None, high: float | None = None, **options: Any) -> array:
    """One real number, traced or not."""
    return array(low, high, ndim=0, **options)


class integer(Rule):
    """A Python or NumPy integer, known at trace time."""

    refuses = frozenset(
        {"text", "none", "mapping", "object", "complex", "nan", "inf", "fraction", "many"}
    )

    def __init__(self, low: int | None = None, high: int | None = 2**63 - 1, why: str = "") -> None:
        self.low, self.high, self.why = low, high, why
        if low is not None and low >= 0:
            self.refuses = self.refuses | {"negative"} | ({"zero"} if low else set())

    @property
    def asks(self) -> str:
        bounds = [] if self.low is None else [f">= {self.low}"]
        bounds += [] if self.high in (None, 2**63 - 1) else [f"<= {self.high}"]
        what = " ".join(["an integer", " and ".join(bounds)]) if bounds else "an integer"
        return what + (f": {self.why}" if self.why else "")

    def __call__(self, name: str, value: Any) -> None:
        if isinstance(value, (Array, np.ndarray)) and value.ndim == 0 and not is_traced(value):
            value = np.asarray(value)[()]
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            traced = ", which is traced" if is_traced(value) else ""
            raise TypeError(f"`{name}` is {shown(value)}{traced}; it must be {self.asks}.")
        whole = int(value)
        if (self.low is not None and whole < self.low) or (
            self.high is not None and whole > self.high
        ):
            raise ValueError(f"`{name}` is {value}; it must be {self.asks}.")


class _Instance(Rule):
    """An object of some kind."""

    def __init__(self, asks: str, accepts: Callable[[Any], bool], refuses: Iterable[str]) -> None:
        self._asks, self._accepts, self.refuses = asks, accepts, frozenset(refuses)

    @property
    def asks(self) -> str:
        return self._asks

    def __call__(self, name: str, value: Any) -> None:
        if not self._accepts(value):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


_NUMBERS = ("complex", "nan", "inf", "negative", "fraction", "many", "empty")


def flag() -> Rule:
    """True or False."""
    return _Instance(
        "True or False",
        lambda value: isinstance(value, (bool, np.bool_)),
        ("text", "none", "mapping", "object", *_NUMBERS),
    )


def function(of: str = "") -> Rule:
    """Something to call; `of` says with what."""
    return _Instance(
        f"a function{of and ' ' + of}", callable, ("text", "none", "mapping", "object", *_NUMBERS)
    )


def instance(kind: type | tuple[type, ...], what: str) -> Rule:
    """An instance of a class; `what` ends "it must be …"."""
    return _Instance(
        what,
        lambda value: isinstance(value, kind),
        ("text", "none", "mapping", "object", *_NUMBERS),
    )


def text() -> Rule:
    """Any string."""
    return _Instance(
        "a string", lambda value: isinstance(value, str), ("none", "mapping", "object", *_NUMBERS)
    )


def path() -> Rule:
    """A place in the file system."""
    return _Instance(
        "a path",
        lambda value: isinstance(value, (str, os.PathLike)),
        ("none", "mapping", "object", *_NUMBERS),
    )


def anything() -> Rule:
    """No rule: the function itself says what it asks."""
    return _Instance("anything", lambda value: True, ())


class choice(Rule):
    """One of several names."""

    refuses = frozenset({"text", "none", "mapping", "object", *_NUMBERS})

    def __init__(self, *options: Any) -> None:
        self.options = options
        if None in options:
            self.refuses = self.refuses - {"none"}

    @property
    def asks(self) -> str:
        return ("one of " if len(self.options) > 1 else "") + ", ".join(map(repr, self.options))

    def __call__(self, name: str, value: Any) -> None:
        hashable = value is None or isinstance(value, (str, int, float))
        same = (value == o and isinstance(value, bool) == isinstance(o, bool) for o in self.options)
        if not hashable or not any(same):  # False is no 0
            raise ValueError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


class optional(Rule):
    """None, or what another rule asks."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.refuses = rule, rule.refuses - {"none"}

    @property
    def asks(self) -> str:
        return f"None or {self.rule.asks}"

    def __call__(self, name: str, value: Any) -> None:
        if value is not None:
            self.rule(name, value)


class either(Rule):
    """What one of several rules asks."""

    def __init__(self, *rules: Rule) -> None:
        self.rules, self.refuses = rules, frozenset.intersection(*(rule.refuses for rule in rules))

    @property
    def asks(self) -> str:
        return ", or ".join(rule.asks for rule in self.rules)

    def __call__(self, name: str, value: Any) -> None:
        kinds: list[type[Exception]] = []
        for rule in self.rules:
            try:
                return rule(name, value)
            except (TypeError, ValueError) as error:
                kinds.append(type(error))
        raise (ValueError if ValueError in kinds else TypeError)(
            f"`{name}` is {shown(value)}; it must be {self.asks}."
        )


class mapping(Rule):
    """A mapping from names to what another rule asks of each value."""

    refuses = frozenset({"text", "none", "object", *_NUMBERS})

    def __init__(self, rule: Rule, what: str = "a mapping from names") -> None:
        self.rule, self.what = rule, what

    @property
    def asks(self) -> str:
        return f"{self.what} to {self.rule.asks}"

    def __call__(self, name: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        for key, one in value.items():
            self.rule(f"{name}[{key!r}]", one)


class sequence(Rule):
    """A sequence of what another rule asks of each item."""

    refuses = frozenset({"text", "none", "mapping", "object", "fraction"})

    def __init__(self, rule: Rule, length: int | None = None, *, empty: bool = False) -> None:
        self.rule, self.length = rule, length
        self.refuses = self.refuses | (rule.refuses & {"complex", "nan", "inf", "negative", "zero"})
        self.least = 0 if empty else 1
        if not empty:
            self.refuses = self.refuses | {"empty"}

    @property
    def asks(self) -> str:
        count = "" if self.length is None else f" of {self.length}"
        return f"a sequence{count}, each {self.rule.asks}"

    def __call__(self, name: str, value: Any) -> None:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        if isinstance(value, (np.ndarray, Array)) and not value.ndim:
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        items = list(value)
        if len(items) < self.least or (self.length is not None and len(items) != self.length):
            raise ValueError(f"`{name}` has {len(items)} items; it must be {self.asks}.")
        for i, one in enumerate(items):
            self.rule(f"{name}[{i}]", one)


class tree(Rule):
    """A pytree of floating arrays: a network's parameters.

    Args:
        nan: allow NaN and infinite entries.
        empty: allow trees without arrays, but None.
        low: least entry allowed.
    """

    def __init__(
        self,
        *,
        nan: bool = False,
        empty: bool = False,
        low: float | None = None,
        what: str = "a tree of arrays of a floating dtype",
    ) -> None:
        self.nan, self.empty, self.low, self.what = nan, empty, low, what
        self.refuses = frozenset(
            {"text", "none", "object", "complex"}
            | (set() if nan else {"nan", "inf"})
            | (set() if low is None else {"negative"})
        )

    @property
    def asks(self) -> str:
        bounds = "" if self.low is None else f", all >= {self.low:g}"
        return self.what + bounds + ("" if self.nan else ", all finite")

    def __call__(self, name: str, value: Any) -> None:
        leaves = jax.tree.leaves_with_path(value)
        if value is None or not (leaves or self.empty):
            raise TypeError(f"`{name}` is {shown(value)}, without arrays; it must be {self.asks}.")
        for where, leaf in leaves:
            place = f"{name}{jax.tree_util.keystr(where)}"
            floating = isinstance(leaf, float) or jnp.issubdtype(
                getattr(leaf, "dtype", np.dtype(object)), jnp.floating
            )
            if not floating:
                raise TypeError(f"`{place}` is {shown(leaf)}; `{name}` must be {self.asks}.")
            strict = not self.nan and not is_traced(leaf) and np.size(leaf)
            extent = _extent(leaf) if strict else (0.0, 0.0)
            if not np.isfinite(extent).all():
                raise ValueError(
                    f"`{place}` has NaN or infinite entries; `{name}` must be {self.asks}."
                )
            if self.low is not None and extent[0] < self.low:
                raise ValueError(
                    f"`{place}` has entries from {extent[0]:g}; `{name}` must be {self.asks}."
                )


def diffrax_solver() -> Rule:
    """A solver of diffrax, known by what it does: diffrax is imported for those alone who use it."""
    return _Instance(
        "a solver of diffrax, as diffrax.Tsit5()",
        lambda value: not isinstance(value, type) and hasattr(value, "term_structure"),
        function().refuses,
    )


def prng_key() -> Rule:
    """A key of `jax.random`, of the new kind or the old."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, Array):
            return False
        raw = value.dtype == np.uint32 and value.shape[-1:] in ((2,), (4,))
        return raw or jnp.issubdtype(value.dtype, jax.dtypes.prng_key)

    return _Instance(
        "a key of jax.random, as jax.random.key(0)",
        accepts,
        ("text", "none", "mapping", "object", *_NUMBERS),
    )


def is_traced(*values: Any) -> bool:
    """Whether any array in `values` is known only when the program runs."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def shown(value: Any) -> str:
    """A value in a few words."""
    if is_traced(value):
        return (
            f"traced ({value})"
            if not hasattr(value, "shape")
            else f"{value.dtype}{list(value.shape)}"
        )
    if isinstance(value, (Array, np.ndarray)) and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, (Array, np.ndarray)):
        return str(np.asarray(value)) if value.dtype.kind in "biufc" else str(value.dtype)
    text = repr(value) if isinstance(value, (str, int, float, complex, type(None))) else ""
    if not text and isinstance(value, (list, tuple)):
        text = repr(value)
    if text and len(text) <= 60 and "\n" not in text:
        return text
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _plain(value: Any) -> Any:
    """What NumPy would make an array of objects or of text is refused."""
    if isinstance(value, (str, bytes, Mapping)) or value is None:
        raise TypeError
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _extent(value: Any) -> tuple[float, float]:
    """Least and largest entry, NaN where there is one; on the device that holds it."""
    if isinstance(value, Array) and not all(d.platform == "cpu" for d in value.devices()):
        return float(jnp.min(value)), float(jnp.max(value))
    entries = np.asarray(value)
    return float(entries.min()), float(entries.max())
