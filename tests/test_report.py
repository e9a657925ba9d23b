"""What a figure's JSON says of its run."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntkdecay import report


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    width: int = 3
    """Units."""


PLACES = ["--store", "/somewhere/runs", "--data-dir=/somewhere/data"]


def test_the_provenance_has_what_was_run_but_not_where(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["fig.py", "--width", "5", *PLACES, "--out", str(tmp_path)])
    made = []

    def main(options: Options) -> None:
        """A figure."""
        out = report.Report("l2", "fig", options, data="made")
        out.numbers["values"] = {"x": np.array([1.0, np.nan]), "n": np.int64(2)}
        out.claim("c", expected="1", measured="2", holds=np.bool_(False))
        made.append(out.save(plt.figure()))

    report.cli(main, Options(), Options(width=1000))
    content = json.loads(made[0].read_text())
    assert content["provenance"]["command"] == "python fig.py --width 5"
    assert content["provenance"]["options"] == {"preset": "quick", "width": 5}
    assert content["numbers"] == {"values": {"x": [1.0, "nan"], "n": 2}}
    assert content["claims"] == [{"claim": "c", "expected": "1", "measured": "2", "holds": False}]


def test_paper_sizes_are_those_of_the_preset_and_an_error_is_one_line(monkeypatch):
    def main(options: Options) -> None:
        """A figure."""
        raise ValueError(f"width is {options.width} at {options.preset}")

    monkeypatch.setattr("sys.argv", ["fig.py", "--preset", "paper"])
    with pytest.raises(SystemExit, match=r"^fig\.py: width is 1000 at paper$"):
        report.cli(main, Options(), Options(width=1000))


def test_a_script_is_done_when_any_figure_says_it_made_it(tmp_path):
    path = Path(__file__).parent.parent / "examples" / "reproduce.py"
    spec = importlib.util.spec_from_file_location("reproduce", path)
    assert spec and spec.loader
    reproduce = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reproduce)
    command = "python examples/l2/fig2_10.py --preset quick"
    content = {"preset": "quick", "provenance": {"command": command}}
    (tmp_path / "l2").mkdir()
    (tmp_path / "l2" / "fig10.json").write_text(json.dumps(content))
    assert reproduce.done(tmp_path, "l2/fig2_10", "quick")
    assert not reproduce.done(tmp_path, "l2/fig2_10", "paper")
    assert not reproduce.done(tmp_path, "l2/fig2", "quick")
