"""Whatever is wrong with an argument of a public function, one sentence says so and names it.

A rule of `ntkdecay._checks` says for each parameter which rows of a fixed table it refuses; every such
row is thrown at every parameter of every public function (`surface.CALLS`), and what comes back must be a
ValueError or TypeError of at most two lines that names the parameter.
"""

import functools
import inspect
from typing import Any

import jax
import numpy as np
import pytest
import surface

from ntkdecay import _checks

OBJECT = object()
CONSTANTS: dict[str, Any] = {
    "text": "no such thing",
    "none": None,
    "mapping": {"no": "such thing"},
    "object": OBJECT,
    "complex": 1j,
    "nan": float("nan"),
    "inf": float("inf"),
    "negative": -1.0,
    "zero": 0.0,
    "fraction": 0.5,
    "many": np.ones(2),
    "empty": np.zeros(0),
}


def bad_value(label: str, valid: Any) -> Any:
    """A row of the table, made from what works where that is an array or a tree of arrays."""
    leaves = jax.tree.leaves(valid) if isinstance(valid, (dict, list, tuple)) else []
    if leaves and not any(callable(leaf) or isinstance(leaf, str) for leaf in leaves):
        if label not in ("complex", "nan", "inf", "negative", "zero"):
            return [] if label == "empty" else CONSTANTS[label]
        return jax.tree.map(lambda leaf: bad_value(label, leaf), valid)
    array = isinstance(valid, (jax.Array, np.ndarray))
    numeric = array and getattr(valid.dtype, "kind", "key") in "fiub"
    if not numeric or not valid.ndim:
        whole = label in ("negative", "zero") and isinstance(valid, int)
        return int(CONSTANTS[label]) if whole else CONSTANTS[label]
    if label == "complex":
        return np.asarray(valid) + 1j
    if label == "fraction":
        return np.asarray(valid) + 0.5
    if label == "empty":
        return np.asarray(valid)[:0]
    if label in ("nan", "inf", "negative", "zero"):
        changed = np.array(valid, float if label in ("nan", "inf") else None)
        changed.flat[0] = CONSTANTS[label]
        return changed
    return CONSTANTS[label]


@functools.cache
def made(name: str) -> surface.Call:
    return surface.CALLS[name]()


def rules_of(function: Any) -> dict[str, _checks.Rule]:
    """Those of a function, of what makes an object, or of an object that is called."""
    target = function.__init__ if inspect.isclass(function) else function
    return getattr(target, "__rules__", None) or getattr(type(target).__call__, "__rules__", {})


def sentence_of(error: BaseException, name: str, parameter: str) -> None:
    text = str(error)
    assert len(text.splitlines()) <= 2, f"{name}: {parameter}: {text}"
    assert f"`{parameter}" in text, f"{name}: the sentence does not name {parameter}: {text}"


def test_every_public_name_has_an_ordinary_call():
    missing = [n for n in surface.public() if n not in surface.CALLS and n not in surface.EXEMPT]
    assert not missing, f"no entry in tests/surface for {missing}"
    stale = [n for n in surface.EXEMPT if n not in surface.public()]
    assert not stale, f"tests/surface says of {stale} what is no longer so"


@pytest.mark.parametrize("name", surface.CALLS)
def test_every_argument_has_a_rule(name):
    function = made(name).function
    parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    missing = [p for p in parameters if p not in rules_of(function)]
    assert not missing, f"{name}: no rule for {missing}"


@pytest.mark.parametrize("name", surface.CALLS)
def test_each_bad_value_is_answered_by_one_sentence_that_names_it(name):
    call = made(name)
    function, arguments = call.function, call.arguments
    signature = inspect.signature(function)
    for parameter, rule in rules_of(function).items():
        kind = signature.parameters[parameter].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            continue
        valid = arguments.get(parameter, signature.parameters[parameter].default)
        for label in sorted(rule.refuses):
            kind_alone = isinstance(rule, _checks._Instance)  # of its content nothing is asked
            bad = CONSTANTS[label] if kind_alone else bad_value(label, valid)
            try:
                call(**{parameter: (bad,) if kind is inspect.Parameter.VAR_POSITIONAL else bad})
            except (ValueError, TypeError) as error:
                sentence_of(error, name, parameter)
            else:
                pytest.fail(f"{name}: {parameter} = {label} passed without a word")


@pytest.mark.parametrize("name", surface.CALLS)
def test_arrays_that_do_not_suit_each_other_are_refused(name):
    call = made(name)
    arguments = call.arguments
    for parameter in call.agree:
        with pytest.raises((ValueError, TypeError)) as caught:
            call(**{parameter: arguments[parameter][:-1]})
        text = str(caught.value)
        assert len(text.splitlines()) <= 2, text
        assert any(f"`{one}" in text for one in arguments), f"{name}: {text}"
