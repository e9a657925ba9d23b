"""A figure, its numbers, its claims and where they came from, saved together.

A script under ``examples/`` describes an experiment; this module gives it a command line, and
writes what it found: ``<out>/<paper>/<figure>.png`` and ``.json``. Each claim of the paper stands
there with what was measured and whether it holds. A claim that fails is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np

from ntkdecay import _options
from ntkdecay._checks import (
    Rule,
    checked,
    flag,
    function,
    instance,
    integer,
    mapping,
    optional,
    sequence,
    shown,
    text,
)
from ntkdecay._commit import DIRTY, source
from ntkdecay._extras import extra
from ntkdecay._options import (
    Ascending,
    Count,
    Exponent,
    NonNegative,
    Odd,
    Positive,
    Seed,
    Share,
    Unlimited,
    Whole,
)

__all__ = [
    "PLACES",
    "PRESETS",
    "VERDICTS",
    "Ascending",
    "Claim",
    "Count",
    "Exponent",
    "NonNegative",
    "Odd",
    "Options",
    "Positive",
    "Preset",
    "Report",
    "Seed",
    "Share",
    "Unlimited",
    "Whole",
    "cli",
    "colors",
    "every",
    "tally",
]

Preset = Literal["quick", "desk", "paper"]
PRESETS: tuple[Preset, ...] = ("quick", "desk", "paper")
"""From the smallest to the largest: the gallery shows the last that there is."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What every figure script can be told; a script's own have the types `Count`, `Whole`, `Positive`, …, which say what they may be."""

    preset: Preset = "quick"
    """quick: minutes on two cores; desk: real images, hours on two cores; paper: the paper's own sizes, for an accelerator."""
    out: Path = Path("figures")
    """Folder for the picture and its JSON."""
    data_dir: Path | None = None
    """Folder of the standard data files; $NTKDECAY_DATA when not given."""
    store: Path | None = None
    """Folder where finished runs are kept and found again."""


PLACES = ("out", "data_dir", "store")
"""Options that say where things are: they change no number, and stay out of the provenance."""


VERDICTS = {True: "holds", False: "FAILS", None: "not decidable"}


class Claim(NamedTuple):
    """One statement: what it expects, what was measured, whether it holds."""

    claim: str
    expected: str
    measured: str
    holds: bool | None
    """None: this run cannot decide it."""
    ours: bool = False
    """A hypothesis of this project's own, not of the paper."""
    revised: str = ""
    """Why the criterion was changed after a look at the numbers."""

    def plain(self) -> dict[str, Any]:
        """As the JSON has it, without what is not said."""
        default = self._field_defaults
        return {
            name: value
            for name, value in self._asdict().items()
            if name not in default or value != default[name]
        }


@checked(claims=sequence(instance(Claim, "a Claim"), empty=True))
def tally(claims: list[Claim]) -> str:
    """How many hold, of those that can be decided: the paper's, then the project's own.

    >>> from ntkdecay import report
    >>> claims = [report.Claim("λ decays", expected="1/2", measured="0.4", holds=None)]
    >>> report.tally(claims)
    "0 of 0 of the paper's claims hold, 1 not decidable"
    """
    parts = []
    for whose, ours in (("the paper's", False), ("ntkdecay's own", True)):
        verdicts = [claim.holds for claim in claims if claim.ours == ours]
        decided = [holds for holds in verdicts if holds is not None]
        if verdicts:
            open_ones = len(verdicts) - len(decided)
            parts.append(
                f"{sum(decided)} of {len(decided)} of {whose} claims hold"
                + (f", {open_ones} not decidable" if open_ones else "")
            )
    return "; ".join(parts) or "no claims"


_Options = TypeVar("_Options", bound=Options)
ESTIMATE = "--estimate [DEVICE] trains nothing and says what the networks would take, here or on an H100, A100, TPU v5e, …"
OPTIONS = instance(Options, "Options")


@checked(main=function("of the options"), quick=OPTIONS, paper=OPTIONS, desk=optional(OPTIONS))
def cli(
    main: Callable[[_Options], Any],
    quick: _Options,
    paper: _Options,
    *,
    desk: _Options | None = None,
) -> None:
    """Run `main` with the options of the command line; ``--preset`` chooses their defaults.

    A script without `desk` has no such preset. What is wrong with an option is said, in one sentence that names it,
    before `main` runs; a wrong value that only shows there ends in one sentence too. On a CPU each core becomes a device of JAX's, so that a grid's members train side by side.
    """
    with extra("examples"):
        import tyro

    given = {"quick": quick, "desk": desk, "paper": paper}
    presets = {
        name: dataclasses.replace(options, preset=name)
        for name, options in given.items()
        if options is not None
    }
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=presets, default="quick")
    preset = first.parse_known_args()[0].preset
    asked = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    asked.add_argument("--estimate", nargs="?", const="here")
    estimate, others = asked.parse_known_args()
    described = f"{main.__doc__}\n\n{ESTIMATE}"
    options = tyro.cli(type(quick), default=presets[preset], description=described, args=others)
    try:
        _check(options)
        _prepare()
        if estimate.estimate is None:
            main(options)
        else:
            _estimate(main, options, estimate.estimate)
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        raise SystemExit(f"{Path(sys.argv[0]).name}: {sentence}") from error


def _estimate(main: Callable[[_Options], Any], options: _Options, device: str) -> None:
    """What the networks of a script will take, training none of them."""
    with extra("examples"):
        from ntkdecay.training._cost import DEVICES, saying, total
    if device != "here" and device not in DEVICES:
        raise ValueError(
            f"`--estimate` is {device!r}; it must be one of {', '.join(DEVICES)}, or nothing: here."
        )
    token = _estimating.set(True)
    named = None if device == "here" else device
    say = functools.partial(print, flush=True)
    with saying(named, 0.4, say) as found, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are no numbers
        try:
            main(options)
        except _Estimated:
            pass
        except Exception:
            if not found:
                raise
            print("The script asks for results here; what it trains later is not in this.")
        finally:
            _estimating.reset(token)
    print(total(found))


class _Estimated(Exception):
    """Instead of a figure."""


_estimating: ContextVar[bool] = ContextVar("estimating", default=False)


def _check(options: Options) -> None:
    _options.check(options)
    if options.data_dir is not None:
        _options.check_folder("--data-dir", options.data_dir)
    _options.check_writable("--out", options.out)
    if options.store is not None:
        _options.check_writable("--store", options.store)


def _prepare() -> None:
    _use_all_cores()
    commit = source()
    if commit.endswith(DIRTY):
        print(f"warning: the code is not committed; the figure will say {commit}", file=sys.stderr)


def _sentence(error: Exception) -> str | None:
    """What to say of an error that is not the script's own; None of one that is, and needs its traceback."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return f"these sizes do not fit the memory ({str(error).splitlines()[0]})"
    return str(error) if isinstance(error, (OSError, ValueError, FloatingPointError)) else None


def _use_all_cores() -> None:
    """To a single device, most operations of a small network are too small to be shared by its threads."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # too late: JAX has its devices
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


class _Verdict(Rule):
    """None, or one truth value of any package."""

    @property
    def asks(self) -> str:
        return "True, False or None"

    refuses = frozenset(
        {"text", "mapping", "object", "complex", "nan", "negative", "fraction", "many", "empty"}
    )

    def __call__(self, name: str, value: Any) -> None:
        truth = np.asarray(value)
        if value is not None and (truth.shape or truth.dtype != bool):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


@checked(verdicts=sequence(_Verdict(), empty=True))
def every(verdicts: Sequence[bool | None]) -> bool | None:
    """Whether all hold: False where one does not, None where none fails but one, or all, cannot be decided.

    >>> from ntkdecay import report
    >>> report.every([True, None]), report.every([False, None]), report.every([True, True])
    (None, False, True)
    """
    if any(one is not None and not one for one in verdicts):
        return False
    return None if None in list(verdicts) or not len(verdicts) else True


class _Figure(Rule):
    refuses = frozenset({"text", "none", "mapping", "object", "complex", "nan", "many"})

    def __call__(self, name: str, value: Any) -> None:
        if not hasattr(value, "savefig"):
            raise TypeError(f"`{name}` is {shown(value)}; it must be a figure of matplotlib.")


class Report:
    """Collects the numbers and claims of one figure, and saves them beside its picture.

    Args:
        paper: the paper's short name, also the folder: ``l2``, ``periodic``, …
        figure: the file's name without its ending.
        options: the options that the script ran with.
        data: which data, in words.
        dtype: of the computation, in words, where it is not JAX's default alone.

    Raises:
        ValueError: if nothing can be written to the paper's folder.
    """

    @checked(paper=text(), figure=text(), options=OPTIONS, data=text(), dtype=text())
    def __init__(
        self, paper: str, figure: str, options: Options, data: str = "none", dtype: str = ""
    ) -> None:
        self.paper, self.figure, self.options, self.data = paper, figure, options, data
        _options.check_writable("--out", options.out / paper)  # before the work, not after it
        self.dtype = dtype or ("float64" if jax.config.jax_enable_x64 else "float32")  # pyright: ignore
        self.claims: list[Claim] = []
        self.numbers: dict[str, Any] = {}
        self._source = source()  # as it is now: it may be edited while the figure is made
        self._started = time.perf_counter()

    @checked(
        claim=text(),
        expected=text(),
        measured=text(),
        holds=_Verdict(),
        ours=flag(),
        revised=text(),
    )
    def claim(
        self,
        claim: str,
        *,
        expected: str,
        measured: str,
        holds: bool | np.bool_ | None,
        ours: bool = False,
        revised: str = "",
    ) -> None:
        """Record a claim with its verdict; `holds` is None where this run cannot decide it.

        `ours` marks what this project asks beside the paper's claims; `revised` says why a criterion was changed
        after a look at the numbers.
        """
        verdict = None if holds is None else bool(holds)
        self.claims.append(Claim(claim, expected, measured, verdict, ours, revised))

    @checked(why=mapping(text(), "a mapping from claims' words"))
    def explain(self, why: Mapping[str, str]) -> None:
        """Say why claims fail, in one sentence each: size, criterion or the paper. Of the preset desk alone, whose numbers were looked at.

        Args:
            why: by the claim's words; those of claims that hold, or that there are none of, are not used.
        """
        if self.options.preset != "desk":
            return
        for i, claim in enumerate(self.claims):
            if claim.holds is False and claim.claim in why:
                told = f"{claim.measured}. {why[claim.claim]}"
                self.claims[i] = claim._replace(measured=told)

    @checked(figure=_Figure())
    def save(self, figure: Any) -> Path:
        """Write the picture (a matplotlib figure) and the JSON; print the claims. Returns the JSON's path.

        ``<paper>/<figure>`` is the largest preset that there is; smaller ones are kept in ``<paper>/<preset>/``.
        """
        if _estimating.get():
            raise _Estimated
        path = self._place()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path.with_suffix(".png"), dpi=150, bbox_inches="tight")
        content = {
            "figure": self.figure,
            "paper": self.paper,
            "preset": self.options.preset,
            "claims": [claim.plain() for claim in self.claims],
            "numbers": _plain(self.numbers),
            "provenance": self.provenance(),
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        print(self.table())
        print(f"{path.with_suffix('.png')} and {path.name} written")
        return path

    def _place(self) -> Path:
        """Where this preset's JSON goes; what a smaller preset left in the first place is moved aside."""
        best = self.options.out / self.paper / f"{self.figure}.json"
        there = _preset_of(best)
        if there is None:
            return best
        mine, theirs = PRESETS.index(self.options.preset), PRESETS.index(there)
        if mine < theirs:
            return best.parent / self.options.preset / best.name
        if mine > theirs:
            aside = best.parent / there
            aside.mkdir(exist_ok=True)
            for path in (best.with_suffix(".png"), best):
                if path.exists():
                    path.replace(aside / path.name)
        return best

    def provenance(self) -> dict[str, Any]:
        """Command, commit, versions, device, dtype, seconds and data of this run."""
        names = ("ntkdecay", "jax", "jaxlib", "neural-tangents", "diffrax", "optax", "numpy")
        return {
            "command": shlex.join(["python", *_command()]),
            "options": {
                name: value
                for name, value in _plain(dataclasses.asdict(self.options)).items()
                if name not in PLACES
            },
            "commit": self._source,
            "versions": {"python": platform.python_version()}
            | {name: _version(name) for name in names},
            "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
            "dtype": self.dtype,
            "seconds": round(time.perf_counter() - self._started, 1),
            "data": self.data,
        }

    def table(self) -> str:
        """The claims as text: verdict, claim, expectation and measurement."""
        lines = [f"{self.paper}/{self.figure}: {tally(self.claims)}"]
        for claim in self.claims:
            asks = "ntkdecay asks: " if claim.ours else ""
            lines.append(f"  {VERDICTS[claim.holds]}  {asks}{claim.claim}")
            lines.append(f"         expected {claim.expected}; measured {claim.measured}")
            if claim.revised:
                lines.append(f"         criterion revised: {claim.revised}")
        return "\n".join(lines)


def _preset_of(path: Path) -> Preset | None:
    """Of a figure's JSON; None where there is none that can be read."""
    try:
        preset = json.loads(path.read_text())["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return preset if preset in PRESETS else None


@checked(count=integer(low=1))
def colors(count: int) -> np.ndarray:
    """As many colours, from dark to light, (count, 4).

    >>> from ntkdecay import report
    >>> len(report.colors(3))
    3
    """
    with extra("examples"):
        import matplotlib.pyplot as plt

    return plt.get_cmap("viridis")(np.linspace(0, 0.85, count))


def _command() -> list[str]:
    """The command line without its places, its script as the source tree names it."""
    script = Path(sys.argv[0]).resolve()
    name = script.name
    if (
        "examples" in script.parts
    ):  # from wherever the examples lie, beside an installed package too
        last = len(script.parts) - 1 - script.parts[::-1].index("examples")
        name = str(Path(*script.parts[last:]))
    places = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for place in PLACES:
        places.add_argument(f"--{place.replace('_', '-')}")
    return [name, *places.parse_known_args(sys.argv[1:])[1]]


def _plain(value: Any) -> Any:
    """Numbers, arrays, paths and tuples as JSON has them; a number that is not finite as its name."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    return value


def _version(name: str) -> str:
    """Of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
