"""No option of any script takes a value that cannot be meant: it is said before anything is computed."""

import contextlib
import dataclasses
import functools
import math
import re
import runpy
import sys
from pathlib import Path

import matplotlib
import pytest

from ntkdecay import _options, report

matplotlib.use("Agg")
EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(
    path.relative_to(EXAMPLES).with_suffix("").as_posix()
    for path in EXAMPLES.glob("*/*.py")
    if not path.stem.startswith("_")
)


@contextlib.contextmanager
def as_run_from(folder: Path):
    """The folder on the path, and its own helpers imported, whatever others of their names there are."""

    def helpers():
        return [
            name
            for name, module in sys.modules.items()
            if EXAMPLES in Path(getattr(module, "__file__", None) or "/").parents
        ]

    others = {name: sys.modules.pop(name) for name in helpers()}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in helpers():
            del sys.modules[name]
        sys.modules.update(others)


@functools.cache
def presets(script: str) -> tuple[report.Options, ...]:
    """What a script hands to `report.cli`."""
    given: list[report.Options] = []

    def cli(main, *options, **more):
        assert callable(main)
        given.extend([*options, *more.values()])

    with pytest.MonkeyPatch.context() as patch, as_run_from((EXAMPLES / script).parent):
        patch.setattr(report, "cli", cli)
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    return tuple(given)


def alterations(name: str, value):
    """What an option could be given by mistake."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.name in report.PLACES:
                continue
            below = f"{name and name + '.'}{field.name}".replace("_", "-")
            for label, bad in alterations(below, getattr(value, field.name)):
                yield label, dataclasses.replace(value, **{field.name: bad})
    elif isinstance(value, tuple):
        yield name, ()
        for i, one in enumerate(value):
            for label, bad in alterations(f"{name}[{i}]", one):
                yield label, (*value[:i], bad, *value[i + 1 :])
    elif isinstance(value, float):
        yield from [(name, -1.0), (name, math.nan)]
    elif value is None or (isinstance(value, int) and not isinstance(value, bool)):
        yield name, -1


def test_what_is_said_to_ascend_must():
    field = re.compile(r"^    (\w+: .*?)(?: = .*)?\n    \"\"\".*ascending", re.MULTILINE)
    said = [one for path in EXAMPLES.glob("*/*.py") for one in field.findall(path.read_text())]
    assert len(said) >= 20 and all("report.Ascending[" in one for one in said)
    rule = _options.Ascending[_options.Count].__metadata__[0]
    rule("--widths", (1, 2, 5))
    for bad in ((2, 1), (1, 1), (1, 3, 2)):
        with pytest.raises(ValueError, match=r"`--widths` is .*; it must ascend"):
            rule("--widths", bad)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_is_held_to_a_rule_and_named(script):
    for options in presets(script):
        _options.check(options)
    quick = presets(script)[0]
    for label, bad in alterations("", quick):
        with pytest.raises((ValueError, TypeError)) as caught:
            _options.check(bad)
        sentence = str(caught.value)
        assert sentence.startswith(f"`--{label}"), (label, sentence)
        assert len(sentence.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "rate", "grid"),
    [("l2/s5", "rate", "fc"), ("l2/fig2", "fc_rate", "fc"), ("l2/fig2", "wrn_rate", "wrn")],
)
def test_the_rate_of_a_panel_is_one_of_the_grid(script, rate, grid):
    for options in presets(script):
        getattr(options, grid).check_rate("--rate", getattr(options, rate))
    with pytest.raises(ValueError, match=r"`--rate` is 0\.123; it must be an η of the grid: "):
        getattr(options, grid).check_rate("--rate", 0.123)
