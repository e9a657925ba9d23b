import functools
import tempfile
from pathlib import Path

import matplotlib.figure

from ntkdecay import report
from surface import EXEMPT, RESULT, Call, call

TYPE = "a type"


@functools.cache
def options() -> report.Options:
    return report.Options(out=Path(tempfile.mkdtemp()))


def made(other: bool) -> report.Report:
    return report.Report("l2", f"fig{int(other)}", options())


@call("report.tally")
def tally(other=False):
    return Call(report.tally, {"claims": [report.Claim("a", "1", "2", other)]})


@call("report.colors")
def colors(other=False):
    return Call(report.colors, {"count": 3 + other})


@call("report.Report")
def a_report(other=False):
    data = "digits" if other else "none"
    arguments = {"paper": "l2", "figure": "fig1", "options": options(), "data": data, "dtype": ""}
    return Call(report.Report, arguments)


@call("report.Report().claim")
def claim(other=False):
    arguments = {"claim": "a", "expected": "1", "measured": "2", "holds": other, "ours": other}
    return Call(made(other).claim, arguments | {"revised": ""})


@call("report.Report().explain")
def explain(other=False):
    return Call(made(other).explain, {"why": {"a": "size" if other else "criterion"}})


@call("report.every")
def every(other=False):
    return Call(report.every, {"verdicts": [True, None, other]})


@call("report.Report().save")
def save(other=False):
    figure = matplotlib.figure.Figure((1 + other, 1))
    return Call(made(other).save, {"figure": figure})


EXEMPT["report.cli"] = "it reads the command line: tests/test_report.py"
EXEMPT["report.Claim"] = RESULT
EXEMPT["report.Options"] = "held to its types by `cli`: tests/test_options.py"
for name in ("Preset", "Ascending", "Count", "Whole", "Odd", "Seed", "Positive", "Unlimited", "NonNegative", "Exponent", "Share"):  # fmt: skip
    EXEMPT[f"report.{name}"] = TYPE
