"""docs/errata.md and docs/statements.md say what the register says."""

from pathlib import Path

import pytest

from ntkdecay.symbolic import PAPERS, STATEMENTS
from ntkdecay.symbolic.__main__ import markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_every_refuted_printed_statement_is_in_the_errata():
    errata = (DOCS / "errata.md").read_text()
    for entry in STATEMENTS:
        if any(name.startswith("printed") for name in entry.refuted):
            assert f"`{entry.name}`" in errata.replace("\\*", "*"), entry.name


def test_every_statement_that_the_errata_cites_exists():
    names = {entry.name for entry in STATEMENTS}
    cited = [
        cell
        for cell in (DOCS / "errata.md").read_text().split("`")[1::2]
        if cell.split(" ")[0] in PAPERS and " " in cell
    ]
    assert len(cited) > 20
    assert set(cited) <= names


@pytest.mark.parametrize("paper", PAPERS)
def test_the_list_of_statements_is_up_to_date(paper):
    table = markdown([entry for entry in STATEMENTS if entry.paper == paper])
    command = f"python -m ntkdecay.symbolic --markdown --paper {paper}"
    assert table in (DOCS / "statements.md").read_text(), f"paste the output of {command}"
