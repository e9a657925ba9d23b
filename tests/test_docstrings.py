"""Examples in the docstrings of public names give what they say."""

import doctest
import importlib
import inspect

import pytest
import surface

import ntkdecay
from ntkdecay.symbolic import registry

WITHOUT = {"report.cli"}  # it reads the command line


def documented() -> dict[str, object]:
    """Each public name, and what it is."""
    found = {"citation": ntkdecay.citation}
    for name in surface.public():
        package, _, last = name.rpartition(".")
        found[name] = getattr(importlib.import_module(f"ntkdecay.{package}"), last)
    return found


DOCUMENTED = documented()
WITH_EXAMPLE = [name for name, item in DOCUMENTED.items() if ">>>" in (inspect.getdoc(item) or "")]


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_the_example_gives_what_it_says(name, monkeypatch):
    monkeypatch.setattr(registry, "STATEMENTS", registry.STATEMENTS.copy())
    item = DOCUMENTED[name]
    tests = doctest.DocTestFinder(recurse=False).find(inspect.unwrap(item), name, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.tries and not runner.failures, "".join(report)


def test_every_function_has_an_example_at_its_end():
    lacking = []
    for name in (name for name, item in DOCUMENTED.items() if inspect.isroutine(item)):
        last = (inspect.getdoc(DOCUMENTED[name]) or "").split("\n\n")[-1]
        if ">>>" not in last and name not in WITHOUT:
            lacking.append(name)
    assert not lacking
