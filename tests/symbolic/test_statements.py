"""Every registered statement holds, and every mutant of it is refuted."""

import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from ntkdecay.symbolic import PAPERS, STATEMENTS, statement
from ntkdecay.symbolic.__main__ import main
from ntkdecay.symbolic.registry import positive


@pytest.mark.parametrize("entry", STATEMENTS, ids=lambda entry: entry.name)
def test_statement_holds_and_its_mutants_are_refuted(entry):
    verdict = entry.run()
    assert verdict.holds, f"{entry.name}: residual {verdict.residual:.1e}"
    for mutant in entry.mutants:
        assert entry.refutes(mutant), f"{entry.name} stands although altered: {mutant}"


def test_names_are_unique_and_every_paper_is_there():
    names = [entry.name for entry in STATEMENTS]
    assert len(set(names)) == len(names)
    assert {entry.paper for entry in STATEMENTS} == set(PAPERS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "proof", "mutants": {}}, "no mutant"),
        ({"kind": "identity", "mutants": {"m": {"factor": 2}}}, "tolerance"),
        ({"kind": "proof", "mutants": {"m": {"sign": 2}}}, "unknown"),
    ],
)
def test_a_statement_that_could_not_fail_is_not_registered(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        statement("l2", "none", "nothing", **arguments)(lambda factor=1: 0.0)


def _entry(residual, kind="proof", tolerance=0.0):
    """A statement outside the register whose check returns `residual`."""
    register = statement(
        "l2", "none", "a test's own", kind=kind, tolerance=tolerance, mutants={"m": {"value": 1}}
    )
    register(lambda value=residual: value)
    return STATEMENTS.pop()


def test_verdicts_on_expressions_floats_and_truth_values():
    x = sp.Symbol("x", positive=True)
    f = sp.Function("f")(x)
    assert _entry((x + 1) ** 2 - x**2 - 2 * x - 1).run().holds
    assert _entry(sp.exp(sp.log(x)) - x).run().holds
    assert not _entry(sp.sin(x) - x).run().holds
    assert not _entry(f - sp.diff(f, x)).run().holds
    assert not _entry([0, [True, x - x, False]]).run().holds
    assert not _entry(sp.Matrix([0, x])).run().holds
    assert _entry(1e-3, "identity", 1e-2).run().holds
    assert not _entry(jnp.asarray(0.1), "identity", 1e-2).run().holds
    assert not _entry(np.nan, "identity", 1e-2).run().holds


def test_a_mutant_near_the_tolerance_does_not_count_as_refuted():
    register = statement(
        "l2", "none", "", kind="identity", tolerance=1e-2, mutants={"m": {"value": 0.02}}
    )
    register(lambda value=0.0: value)
    assert not STATEMENTS.pop().refutes("m")


def test_signs_are_proved_or_refuted_and_never_guessed():
    x, y = sp.symbols("x y", positive=True)
    assert positive(x**2 + y) is True
    assert positive(x - 2 * x - y) is False
    with pytest.raises(ValueError, match="not decided"):
        positive(x**2 - x * y + y**2)


def test_the_table_names_failures_and_sets_the_exit_code(capsys, monkeypatch):
    good, bad = _entry(sp.Integer(0)), _entry(sp.Symbol("x"))
    monkeypatch.setattr("ntkdecay.symbolic.__main__.STATEMENTS", [good])
    assert main([]) == 0
    monkeypatch.setattr("ntkdecay.symbolic.__main__.STATEMENTS", [good, bad])
    assert main(["--paper", "l2"]) == 1
    printed = capsys.readouterr().out
    assert "1/1 refuted" in printed
    assert "FAILS" in printed
    assert "2 statements, 1 failures" in printed
