"""Examples in the docstrings of public names give what they say."""

import doctest
import importlib
import inspect

import pytest
import surface

import ntkdecay

COMPLETE = ("deep_linear", "optimizers")  # each function here has an example


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
def test_the_example_gives_what_it_says(name):
    item = DOCUMENTED[name]
    tests = doctest.DocTestFinder(recurse=False).find(inspect.unwrap(item), name, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert runner.tries and not runner.failures, "".join(report)


@pytest.mark.parametrize("package", COMPLETE)
def test_every_function_has_an_example(package):
    names = [
        name
        for name, item in DOCUMENTED.items()
        if name.startswith(f"{package}.") and inspect.isroutine(item)
    ]
    assert names and set(names) <= set(WITH_EXAMPLE)
