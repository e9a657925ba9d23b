"""A figure, its numbers, its claims and where they came from, saved together.

A script under ``examples/`` describes an experiment; this module gives it a command line, and
writes what it found: ``<out>/<paper>/<figure>.png`` and ``.json``. Each claim of the paper stands
there with what was measured and whether it holds. A claim that fails is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np

from ntkdecay._extras import extra

Preset = Literal["quick", "paper"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What every figure script can be told."""

    preset: Preset = "quick"
    """quick: minutes on two cores; paper: the paper's own sizes, for an accelerator."""
    out: Path = Path("figures")
    """Folder for the picture and its JSON."""
    data_dir: Path | None = None
    """Folder of the standard data files; $NTKDECAY_DATA when not given."""
    store: Path | None = None
    """Folder where finished runs are kept and found again."""


PLACES = ("out", "data_dir", "store")
"""Options that say where things are: they change no number, and stay out of the provenance."""


class Claim(NamedTuple):
    """One statement of a paper: what it expects, what was measured, whether it holds."""

    claim: str
    expected: str
    measured: str
    holds: bool


_Options = TypeVar("_Options", bound=Options)


def cli(main: Callable[[_Options], Any], quick: _Options, paper: _Options) -> None:
    """Run `main` with the options of the command line; ``--preset`` chooses their defaults.

    On a CPU each core becomes a device of JAX's, so that a grid's members train side by side.
    """
    with extra("examples"):
        import tyro

    presets = {"quick": quick, "paper": dataclasses.replace(paper, preset="paper")}
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=presets, default="quick")
    preset = first.parse_known_args()[0].preset
    options = tyro.cli(type(quick), default=presets[preset], description=main.__doc__)
    _use_all_cores()
    try:
        main(options)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error


def _use_all_cores() -> None:
    """To a single device, most operations of a small network are too small to be shared by its threads."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # too late: JAX has its devices
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


class Report:
    """Collects the numbers and claims of one figure, and saves them beside its picture.

    Args:
        paper: the paper's short name, also the folder: ``l2``, ``periodic``, …
        figure: the file's name without its ending.
        options: the options that the script ran with.
        data: which data, in words.
        dtype: of the computation, in words, where it is not JAX's default alone.
    """

    def __init__(
        self, paper: str, figure: str, options: Options, data: str = "none", dtype: str = ""
    ) -> None:
        self.paper, self.figure, self.options, self.data = paper, figure, options, data
        self.dtype = dtype or ("float64" if jax.config.jax_enable_x64 else "float32")  # pyright: ignore
        self.claims: list[Claim] = []
        self.numbers: dict[str, Any] = {}
        self._started = time.perf_counter()

    def claim(self, claim: str, *, expected: str, measured: str, holds: bool | np.bool_) -> None:
        """Record a claim with its verdict."""
        self.claims.append(Claim(claim, expected, measured, bool(holds)))

    def save(self, figure: Any) -> Path:
        """Write the picture (a matplotlib figure) and the JSON; print the claims. Returns the JSON's path."""
        folder = self.options.out / self.paper
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.figure}.json"
        figure.savefig(path.with_suffix(".png"), dpi=150, bbox_inches="tight")
        content = {
            "figure": self.figure,
            "paper": self.paper,
            "preset": self.options.preset,
            "claims": [claim._asdict() for claim in self.claims],
            "numbers": _plain(self.numbers),
            "provenance": self.provenance(),
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        print(self.table())
        print(f"{path.with_suffix('.png')} and {path.name} written")
        return path

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
            "commit": _commit(),
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in names},
            "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
            "dtype": self.dtype,
            "seconds": round(time.perf_counter() - self._started, 1),
            "data": self.data,
        }

    def table(self) -> str:
        """The claims as text: verdict, claim, expectation and measurement."""
        lines = [f"{self.paper}/{self.figure}"]
        for claim in self.claims:
            lines.append(f"  {'holds' if claim.holds else 'FAILS'}  {claim.claim}")
            lines.append(f"         expected {claim.expected}; measured {claim.measured}")
        return "\n".join(lines)


def colors(count: int) -> np.ndarray:
    """As many colours, from dark to light, (count, 4)."""
    with extra("examples"):
        import matplotlib.pyplot as plt

    return plt.get_cmap("viridis")(np.linspace(0, 0.85, count))


def _command() -> list[str]:
    """The command line without its places, its script relative to the source tree."""
    script, tree = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parent.parent
    name = script.relative_to(tree) if script.is_relative_to(tree) else script.name
    places = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for place in PLACES:
        places.add_argument(f"--{place.replace('_', '-')}")
    return [str(name), *places.parse_known_args(sys.argv[1:])[1]]


def _commit() -> str:
    """The commit of the source tree that this package was imported from, marked when modified."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


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
