"""`python -m ntkdecay.symbolic [--paper l2]`: the table of statements, verdicts and times."""

from __future__ import annotations

import argparse
import sys
import time

import jax
from tqdm import tqdm

from ntkdecay.symbolic import PAPERS, STATEMENTS, Statement


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ntkdecay.symbolic", description=__doc__)
    parser.add_argument("--paper", choices=PAPERS, help="only this paper's statements")
    parser.add_argument("--no-mutants", action="store_true", help="only the true statements")
    parser.add_argument("--markdown", action="store_true", help="list them as docs/theory.md does")
    options = parser.parse_args(arguments)
    chosen = [s for s in STATEMENTS if options.paper in (None, s.paper)]
    chosen.sort(key=lambda entry: PAPERS.index(entry.paper))
    if options.markdown:
        print(markdown(chosen))
        return 0
    jax.config.update("jax_enable_x64", True)
    rows, failures, seconds = [], 0, time.perf_counter()
    for entry in (progress := tqdm(chosen, leave=False, disable=None)):
        progress.set_description(entry.name)
        row, good = _row(entry, mutants=not options.no_mutants)
        rows.append(row)
        failures += not good
    header = ("paper", "number", "kind", "verdict", "mutants", "seconds", "statement")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(6)]
    for row in (header, *rows):
        print("  ".join([*map(str.ljust, row[:6], widths), row[6]]).rstrip())
    seconds = time.perf_counter() - seconds
    print(f"{len(rows)} statements, {failures} failures, {seconds:.0f} s with their mutants")
    return 1 if failures else 0


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


def _row(entry: Statement, mutants: bool) -> tuple[tuple[str, ...], bool]:
    verdict = entry.run()
    standing = [name for name in entry.mutants if mutants and not entry.refutes(name)]
    if not verdict.holds:
        word = "FAILS" if entry.kind == "proof" else f"FAILS: {verdict.residual:.1e}"
    elif entry.kind == "proof":
        word = "proved"
    else:
        word = f"{verdict.residual:.0e} <= {entry.tolerance:.0e}"
    total = len(entry.mutants)
    refuted = f"{total - len(standing)}/{total} refuted" if mutants else "not run"
    if standing:
        refuted += f" (stands: {', '.join(standing)})"
    row = (entry.paper, entry.number, entry.kind, word, refuted, f"{verdict.seconds:.2f}")
    return (*row, entry.content), verdict.holds and not standing


if __name__ == "__main__":
    sys.exit(main())
