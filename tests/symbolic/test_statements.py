"""Every registered statement holds; what is put wrong in its claim is refuted."""

import jax.numpy as jnp
import numpy as np
import pytest
import sympy as sp

from ntkdecay.symbolic import PAPERS, STATEMENTS, Claim, nonnegative, positive, statement
from ntkdecay.symbolic.__main__ import ENOUGH, main
from ntkdecay.symbolic.registry import Kind

EACH = pytest.mark.parametrize("entry", STATEMENTS, ids=lambda entry: entry.name)


@EACH
def test_statement_holds_and_what_the_papers_misprint_is_refuted(entry):
    verdict = entry.run()
    assert verdict.holds, f"{entry.name}: residual {verdict.residual:.1e}"
    for name, claim in entry.refuted.items():
        assert entry.refutes(claim), f"{entry.name} stands although altered: {name}"


@EACH
def test_a_drawn_alteration_of_the_claim_is_refuted(entry):
    (label, *_) = entry.mutate(sample=1).standing or (None,)
    assert label is None or label in entry.survivors, f"{entry.name} stands although {label}"


@pytest.mark.slow  # 2250 alterations, about 6 minutes of one core
def test_all_alterations_are_refuted_but_for_those_explained():
    total = standing = 0
    for entry in STATEMENTS:
        mutation = entry.mutate()
        assert set(mutation.standing) == set(entry.survivors), entry.name
        total += mutation.total
        standing += len(mutation.standing)
    assert 1 - standing / total >= ENOUGH


def test_names_are_unique_and_every_paper_is_there():
    names = [entry.name for entry in STATEMENTS]
    assert len(set(names)) == len(names)
    assert {entry.paper for entry in STATEMENTS} == set(PAPERS)


@pytest.fixture
def register(monkeypatch):
    """The register, empty for a test's own statements."""
    own = []
    monkeypatch.setattr("ntkdecay.symbolic.registry.STATEMENTS", own)
    monkeypatch.setattr("ntkdecay.symbolic.__main__.STATEMENTS", own)
    return own


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "prove"}, "`kind` is 'prove'; it must be one of"),
        ({"kind": "identity"}, "`tolerance` is 0.0; .* needs one"),
        ({"tolerance": 1e-3}, "a proof is exact"),
        ({"claim": "a = 1"}, "no relation: write =="),
        ({"claim": "a == 2 b"}, "is not Python's syntax"),
        ({"claim": "a; a == b"}, "no definition and no relation"),
    ],
)
def test_a_statement_that_could_not_be_checked_is_not_registered(register, changes, reason):
    arguments = {"paper": "l2", "number": "1", "title": "", "claim": "a == b", "kind": "proof"}
    with pytest.raises(ValueError, match=reason):
        statement(**arguments | changes)(lambda claim: claim(a=1, b=1))
    assert register == []


def test_a_number_is_taken_once_but_a_cell_may_be_run_again(register):
    def cell():
        @statement("mine", "Lemma 1", "two", "a == 2", kind="proof")
        def first(claim):
            return claim(a=sp.Integer(2))

        return first

    cell()
    again = cell()
    assert register == [again]
    with pytest.raises(ValueError, match=r"mine Lemma 1 is already checked, by .*first"):
        statement("mine", "Lemma 1", "three", "a == 3", kind="proof")(lambda claim: 0)


OWN = """
import sympy as sp
from ntkdecay.symbolic import statement

@statement("mine", "Lemma 1", "the norm decays", "n_t == exp(-2*λ*t)*n_0", kind="proof")
def norm_decays(claim):
    λ, t, n_0 = sp.symbols("λ t n_0", positive=True)
    (n,) = claim.sides(λ, t, n_0)
    return [sp.diff(n, t) + 2 * λ * n, n.subs(t, 0) - n_0]
"""


def test_a_theorem_of_ones_own_is_checked_from_the_command_line(register, tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    arguments = ["--load", str(tmp_path / "own.py"), "--only", "mine Lemma 1"]
    assert main(arguments) == 0
    assert "n_t = e^{−2λt}n_0" in capsys.readouterr().out
    register.clear()
    assert main([*arguments, "--mutate"]) == 0
    assert "100.00% of 8 alterations refuted" in capsys.readouterr().out
    register.clear()
    assert main([*arguments, "--markdown"]) == 0
    assert "`own.norm_decays`" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--only", "Lemma 99"])


def test_a_claim_without_a_value_for_a_name_says_which():
    with pytest.raises(ValueError, match="needs a value for `γ`"):
        Claim("f == γ*t")(sp.Symbol("t"), f=1)


def test_a_claim_is_printed_from_what_is_evaluated():
    claim = Claim("c = 2*(k - 1)*λ; x_bar_a <= sqrt(x)/(2*y) - (a - b)**2*Θ_t", show={"Θ_t": "Θ"})
    assert claim.text == "c := 2(k − 1)λ; x\u0304_a ≤ √x/(2y) − (a − b)²Θ"
    assert Claim("-k*λ*t == a/(b/c)").text == "−kλt = a/(b/c)"
    assert Claim("a*(b/c) == (a*b)/c").text == "a(b/c) = ab/c"


def test_every_number_sign_exponent_and_relation_is_altered_once():
    altered = dict(Claim("f == 3*x**2 - sqrt(y)").alterations())
    assert [claim.text for claim in altered.values()] == [
        "f = −(3x² − √y)",
        "f = 1.05(3x² − √y)",
        "f = 3x² + √y",
        "f = 4x² − √y",
        "f = 3.15x² − √y",
        "f = 3x^{−2} − √y",
        "f = 3(2x)² − √y",
        "f = 3x³ − √y",
        "f = 3x^{2.1} − √y",
        "f = 3x² − y",
        "f = 3x² − √(2y)",
    ]
    relations = [claim.text for _, claim in Claim("a <= b < c").alterations()]
    assert relations[:2] == ["a ≥ b < c", "a ≤ b > c"]
    logic = [claim.text for _, claim in Claim("p = a and b; p == 0").alterations()]
    assert logic[0] == "p := a or b; p = 0"


def _entry(register, residual, kind: Kind = "proof", tolerance=0.0):
    """A statement whose check returns `residual`."""
    number = str(len(register))
    return statement("own", number, "", "a == 0", kind=kind, tolerance=tolerance)(
        lambda claim: residual
    )


def test_verdicts_on_expressions_floats_and_truth_values(register):
    x = sp.Symbol("x", positive=True)
    f = sp.Function("f")(x)

    def holds(*arguments):
        register.clear()
        return _entry(register, *arguments).run().holds

    assert holds((x + 1) ** 2 - x**2 - 2 * x - 1)
    assert holds(sp.exp(sp.log(x)) - x)
    assert not holds(sp.sin(x) - x)
    assert not holds(f - sp.diff(f, x))
    assert not holds([0, [True, x - x, False]])
    assert not holds(sp.Matrix([0, x]))
    assert not holds(sp.nan)
    assert holds(1e-3, "identity", 1e-2)
    assert not holds(jnp.asarray(0.1), "identity", 1e-2)
    assert not holds(np.nan, "identity", 1e-2)


def test_an_alteration_near_the_tolerance_does_not_count_as_refuted(register):
    entry = statement("own", "1", "", "a == 0.0", kind="identity", tolerance=1e-2)(
        lambda claim: [float(r) for r in claim(a=0.02)]
    )
    assert not entry.refutes(Claim("a == 0.0"))
    assert entry.refutes(Claim("a == 2.0"))


def test_signs_are_proved_or_refuted_and_never_guessed(register):
    x, y = sp.symbols("x y", positive=True)
    assert positive(x**2 + y) is True
    assert positive(x - 2 * x - y) is False
    assert nonnegative(x - x) is True
    undecided = positive(x**2 - x * y + y**2)
    assert not undecided
    entry = _entry(register, undecided)
    assert not entry.run().holds
    assert not entry.refutes(entry.claim)


def test_the_table_names_failures_and_sets_the_exit_code(capsys, register):
    _entry(register, sp.Integer(0))
    assert main([]) == 0
    _entry(register, sp.Symbol("x"))
    assert main(["--paper", "own"]) == 1
    printed = capsys.readouterr().out
    assert "FAILS" in printed
    assert "2 statements, 1 failures" in printed
    assert main(["--mutate"]) == 1
    assert "NOT EXPLAINED" in capsys.readouterr().out
