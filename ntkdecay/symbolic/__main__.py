"""Check the papers' statements: a table of statements, verdicts and times."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import jax
from tqdm import tqdm

from ntkdecay.symbolic import PAPERS, STATEMENTS, Statement

ENOUGH = 0.95  # the share of a claim's alterations that has to be refuted


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ntkdecay.symbolic", description=__doc__)
    parser.add_argument("--load", metavar="FILE", help="a Python file that registers statements")
    parser.add_argument("--paper", help=f"only this paper's: {', '.join(PAPERS)} or your own")
    parser.add_argument("--only", metavar="NAME", help='only those named so: "l2 (S4)", "Lemma 2"')
    parser.add_argument("--no-mutants", action="store_true", help="only the true statements")
    parser.add_argument(
        "--mutate",
        action="store_true",
        help="alter each number, sign, exponent and relation of each claim; print the share refuted",
    )
    parser.add_argument("--sample", type=_count, metavar="N", help="with --mutate: N of each claim")
    parser.add_argument("--markdown", action="store_true", help="the tables of docs/statements.md")
    options = parser.parse_args(arguments)
    if options.load:
        _load(Path(options.load))
    chosen = _chosen(options.paper, options.only)
    if not chosen:
        papers = sorted({entry.paper for entry in STATEMENTS})
        parser.error(f"no statement has this name and paper; the papers are {', '.join(papers)}")
    if options.markdown:
        print(markdown(chosen))
        return 0
    jax.config.update("jax_enable_x64", True)
    if options.mutate:
        return _mutate(chosen, options.sample)
    return _check(chosen, mutants=not options.no_mutants)


def _count(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"it is {given}; it must be an integer >= 1")
    return int(given)


def _load(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise SystemExit(f"--load {path}: no such Python file")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _chosen(paper: str | None, name: str | None) -> list[Statement]:
    entries = [entry for entry in STATEMENTS if paper in (None, entry.paper)]
    if name is not None:
        exact = [entry for entry in entries if name in (entry.name, entry.number)]
        entries = exact or [entry for entry in entries if name in entry.name]
    own = [*PAPERS, *sorted({entry.paper for entry in entries} - set(PAPERS))]
    return sorted(entries, key=lambda entry: own.index(entry.paper))


def _check(chosen: list[Statement], mutants: bool) -> int:
    rows, failures, seconds = [], 0, time.perf_counter()
    for entry in (progress := tqdm(chosen, leave=False, disable=None)):
        progress.set_description(entry.name)
        row, good = _row(entry, mutants)
        rows.append(row)
        failures += not good
    _table(("paper", "number", "kind", "verdict", "printed", "seconds", "statement"), rows)
    seconds = time.perf_counter() - seconds
    print(f"{len(rows)} statements, {failures} failures, {seconds:.0f} s")
    return 1 if failures else 0


def _row(entry: Statement, mutants: bool) -> tuple[tuple[str, ...], bool]:
    verdict = entry.run()
    standing = [
        name for name, claim in entry.refuted.items() if mutants and not entry.refutes(claim)
    ]
    if not verdict.holds:
        word = "FAILS" if entry.kind == "proof" else f"FAILS: {verdict.residual:.1e}"
    elif entry.kind == "proof":
        word = "proved"
    else:
        word = f"{verdict.residual:.0e} <= {entry.tolerance:.0e}"
    total = len(entry.refuted)
    refuted = f"{total - len(standing)}/{total} refuted" if mutants and total else "-"
    if standing:
        refuted += f" (stands: {', '.join(standing)})"
    row = (entry.paper, entry.number, entry.kind, word, refuted, f"{verdict.seconds:.2f}")
    return (*row, entry.content), verdict.holds and not standing


def _mutate(chosen: list[Statement], sample: int | None) -> int:
    rows, survivors, total, standing, unexplained = [], [], 0, 0, 0
    for entry in (progress := tqdm(chosen, leave=False, disable=None)):
        progress.set_description(entry.name)
        mutation = entry.mutate(sample)
        total += mutation.total
        standing += len(mutation.standing)
        refuted = f"{mutation.total - len(mutation.standing)}/{mutation.total}"
        rows.append((entry.paper, entry.number, refuted, f"{mutation.seconds:.1f}", entry.content))
        for label in mutation.standing:
            why = entry.survivors.get(label, "NOT EXPLAINED")
            unexplained += label not in entry.survivors
            survivors.append((entry.name, label, why))
    _table(("paper", "number", "refuted", "seconds", "statement"), rows)
    if survivors:
        print()
        _table(("survives in", "alteration", "because"), survivors)
    share = 1 - standing / total
    print(
        f"\n{share:.2%} of {total} alterations refuted, {standing} survive, "
        f"{unexplained} of them not explained"
    )
    return 1 if share < ENOUGH or unexplained else 0


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    last = len(header) - 1
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(last)]
    for row in (header, *rows):
        print("  ".join([*map(str.ljust, row[:last], widths), row[last]]).rstrip())


def markdown(entries: list[Statement]) -> str:
    """One table row for each statement: what it says, how it is checked, by which function."""
    lines = ["| number | statement | checked by | what exactly | in `ntkdecay.symbolic` |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for entry in entries:
        function = f"{entry.check.__module__.rpartition('.')[2]}.{entry.check.__name__}"
        cells = (entry.number, entry.content, entry.kind, entry.scope or "as stated")
        escaped = [cell.replace("|", "\\|").replace("*", "\\*") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} | `{function}` |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
