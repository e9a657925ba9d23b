"""`python -m ntkdecay.symbolic [--paper l2]`: the table of statements, verdicts and times."""

from __future__ import annotations

import argparse
import sys

import jax
from tqdm import tqdm

from ntkdecay.symbolic import PAPERS, STATEMENTS, Statement


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ntkdecay.symbolic", description=__doc__)
    parser.add_argument("--paper", choices=PAPERS, help="only this paper's statements")
    parser.add_argument("--no-mutants", action="store_true", help="only the true statements")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    chosen = [s for s in STATEMENTS if options.paper in (None, s.paper)]
    rows, failures, seconds = [], 0, 0.0
    for entry in (progress := tqdm(chosen, leave=False, disable=None)):
        progress.set_description(entry.name)
        row, good, took = _row(entry, mutants=not options.no_mutants)
        rows.append(row)
        failures += not good
        seconds += took
    header = ("paper", "number", "kind", "verdict", "mutants", "seconds", "statement")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(6)]
    for row in (header, *rows):
        print("  ".join([*map(str.ljust, row[:6], widths), row[6]]).rstrip())
    print(f"{len(rows)} statements, {failures} failures, {seconds:.0f} s")
    return 1 if failures else 0


def _row(entry: Statement, mutants: bool) -> tuple[tuple[str, ...], bool, float]:
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
    row = (entry.paper, entry.number, entry.kind, word, refuted, f"{verdict.seconds:.2f}")
    if standing:
        refuted += f" (stands: {', '.join(standing)})"
    good = verdict.holds and not standing
    return (*row, entry.content), good, verdict.seconds


if __name__ == "__main__":
    sys.exit(main())
