"""What a figure's JSON says of its run."""

import dataclasses
import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ntkdecay import _commit, report


@dataclasses.dataclass(frozen=True)
class Options(report.Options):
    width: report.Count = 3
    """Units."""


def test_the_provenance_has_what_was_run_but_not_where(monkeypatch, tmp_path):
    places = ["--store", str(tmp_path / "runs"), f"--data-dir={tmp_path}", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["fig.py", "--width", "5", *places])
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


@pytest.mark.parametrize("preset", ["quick", "desk"])
def test_why_a_claim_fails_is_said_of_the_preset_that_was_looked_at(tmp_path, preset):
    out = report.Report("l2", "none", report.Options(preset=preset, out=tmp_path))
    for name, holds in (("a", False), ("b", True), ("c", None), ("d", False)):
        out.claim(name, expected="1", measured="2", holds=holds)
    out.explain({"a": "Size: small", "b": "Size: small", "c": "Size: small"})
    said = "2. Size: small" if preset == "desk" else "2"
    assert [claim.measured for claim in out.claims] == [said, "2", "2", "2"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--width", "0"), "`--width` is 0; it must be an integer >= 1."),
        (("--out", "FILE"), r"`--out` is .*; no file can be written there \(File exists\)."),
        (("--store", "FILE/runs"), r"`--store` is .*; no file can be written there \(Not a directory\)."),
        (("--data-dir", "FILE/data"), "`--data-dir` is .*; it must be a folder that is there."),
    ],
)  # fmt: skip
def test_a_bad_option_is_one_line_before_anything_runs(arguments, sentence, monkeypatch, tmp_path):
    def main(options: Options) -> None:
        """A figure."""
        pytest.fail("it ran")

    (tmp_path / "file").write_text("")
    option, value = arguments
    given = ["--out", str(tmp_path), option, value.replace("FILE", str(tmp_path / "file"))]
    monkeypatch.setattr("sys.argv", ["fig.py", *given])
    with pytest.raises(SystemExit, match=rf"^fig\.py: {sentence}$"):
        report.cli(main, Options(), Options())


def test_a_folder_of_the_paper_that_takes_no_file_is_told_before_the_work(tmp_path):
    (tmp_path / "l2").write_text("")
    with pytest.raises(ValueError, match=r"`--out` is .*l2; no file can be written there"):
        report.Report("l2", "fig", Options(out=tmp_path))


def test_a_damaged_json_of_the_figure_counts_as_none(tmp_path):
    best = save(tmp_path, "paper")
    best.write_text(best.read_text()[:-20])
    assert save(tmp_path, "quick") == best and presets_at(tmp_path) == {"l2/fig.json": "quick"}


@pytest.mark.parametrize("error", [MemoryError("for an array"), FileNotFoundError("of data")])
def test_what_only_shows_later_is_one_line_too(error, monkeypatch, tmp_path):
    def main(options: Options) -> None:
        """A figure."""
        raise error

    monkeypatch.setattr("sys.argv", ["fig.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=rf"^fig\.py: .*{error}"):
        report.cli(main, Options(), Options())


def test_a_mistake_in_a_script_keeps_its_traceback(monkeypatch, tmp_path):
    def main(options: Options) -> None:
        """A figure."""
        raise KeyError("a name")

    monkeypatch.setattr("sys.argv", ["fig.py", "--out", str(tmp_path)])
    with pytest.raises(KeyError):
        report.cli(main, Options(), Options())


def reproduce():
    path = Path(__file__).parent.parent / "examples" / "reproduce.py"
    spec = importlib.util.spec_from_file_location("reproduce", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(folder: Path, preset: report.Preset, **claim) -> Path:
    out = report.Report("l2", "fig", Options(preset=preset, out=folder), data=f"{preset} data")
    claim = {"expected": "1", "measured": "2", "holds": True} | claim
    out.claim(f"of {preset}", **claim)
    return out.save(plt.figure())


def presets_at(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): json.loads(path.read_text())["preset"]
        for path in folder.rglob("*.json")
        if path.with_suffix(".png").exists()
    }


@pytest.mark.parametrize("order", [("quick", "desk", "paper"), ("paper", "quick", "desk")])
def test_the_largest_preset_stands_in_front_whatever_the_order(tmp_path, order):
    for preset in (*order, "quick"):
        save(tmp_path, preset)
    expected = {"l2/fig.json": "paper", "l2/desk/fig.json": "desk", "l2/quick/fig.json": "quick"}
    assert presets_at(tmp_path) == expected
    text = reproduce().gallery(tmp_path)
    assert text.count("\n## ") == 1 and "## l2/fig, preset paper: 1 of 1" in text
    for preset in ("quick", "desk"):
        assert f"<summary>Preset {preset}: 1 of 1" in text and f"(l2/{preset}/fig.png)" in text


def test_a_claim_can_be_undecided_our_own_or_revised(tmp_path, capsys):
    out = report.Report("l2", "fig", Options(out=tmp_path))
    verdicts = {"a": True, "b": False, "c": None}
    for name, holds in verdicts.items():
        out.claim(name, expected="1", measured="2", holds=holds)
    out.claim("d", expected="1", measured="2", holds=True, ours=True, revised="a plateau")
    claims = json.loads(out.save(plt.figure()).read_text())["claims"]
    assert [claim["holds"] for claim in claims] == [True, False, None, True]
    assert claims[2].keys() == {"claim", "expected", "measured", "holds"}
    assert claims[3]["ours"] is True and claims[3]["revised"] == "a plateau"
    counted = (
        "1 of 2 of the paper's claims hold, 1 not decidable; 1 of 1 of ntkdecay's own claims hold"
    )
    text = reproduce().gallery(tmp_path)
    assert f"preset quick: {counted}" in text and f"In all, {counted}." in text
    assert "| c | 1 | 2 | not decidable |" in text
    assert "| ntkdecay asks: d | 1 | 2 | yes (criterion revised: a plateau) |" in text
    printed = capsys.readouterr().out
    assert counted in printed and "not decidable  c" in printed and "FAILS  b" in printed


def test_a_desk_preset_is_offered_by_the_scripts_that_have_one(monkeypatch, tmp_path, capsys):
    def main(options: Options) -> None:
        """A figure."""
        raise ValueError(f"width is {options.width} at {options.preset}")

    monkeypatch.setattr("sys.argv", ["fig.py", "--preset", "desk"])
    with pytest.raises(SystemExit, match=r"^fig\.py: width is 50 at desk$"):
        report.cli(main, Options(), Options(width=1000), desk=Options(width=50))
    with pytest.raises(SystemExit):
        report.cli(main, Options(), Options(width=1000))
    assert "invalid choice: 'desk'" in capsys.readouterr().err
    offers = reproduce().offers
    with_desk, without = tmp_path / "a.py", tmp_path / "b.py"
    with_desk.write_text("report.cli(main, Options(), PAPER, desk=DESK)")
    without.write_text("report.cli(main, Options(), PAPER)  # desk=DESK")
    assert offers(with_desk, "desk") and not offers(without, "desk")
    assert offers(without, "quick") and offers(without, "paper")


def repository(folder: Path) -> Path:
    """A clone with a package, an example and a figure, all committed; returns the package's file."""
    for place in ("ntkdecay/_commit.py", "examples/l2/fig.py", "figures/README.md"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_text("")
    for arguments in (
        ("init", "-q"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "c"),
    ):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)
    return folder / "ntkdecay" / "_commit.py"


def test_only_changed_code_makes_a_figure_dirty_and_the_script_says_so_first(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(_commit, "__file__", str(repository(tmp_path)))
    monkeypatch.setattr("sys.argv", ["fig.py"])
    clean = _commit.source()
    assert len(clean) == 12
    (tmp_path / "figures" / "README.md").write_text("made anew")
    assert _commit.source() == clean
    seen = []

    def main(options: Options) -> None:
        """A figure."""
        seen.append(capsys.readouterr().err)

    report.cli(main, Options(), Options())
    (tmp_path / "examples" / "l2" / "new.py").write_text("")
    assert _commit.source() == f"{clean}-dirty"
    report.cli(main, Options(), Options())
    assert seen[0] == "" and seen[1].startswith("warning: the code is not committed")


def test_an_installed_copy_names_its_release_or_commit_and_keeps_the_scripts_folder(
    monkeypatch, tmp_path
):
    repository(tmp_path)
    copy = (
        tmp_path / "site-packages" / "ntkdecay" / "_commit.py"
    )  # inside a clone of something else
    copy.parent.mkdir(parents=True)
    copy.write_text("")
    monkeypatch.setattr(_commit, "__file__", str(copy))
    installed = SimpleNamespace(version="1.2", read_text=lambda name: None)
    monkeypatch.setattr(_commit.importlib.metadata, "distribution", lambda name: installed)
    assert _commit.source() == "release 1.2"
    origin = json.dumps({"url": "u", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}})
    installed.read_text = lambda name: origin
    assert _commit.source() == "0123456789ab"
    monkeypatch.setattr("sys.argv", [str(tmp_path / "examples/l2/fig.py"), "--width", "5"])
    assert report._command() == ["examples/l2/fig.py", "--width", "5"]


def test_a_script_is_done_when_any_figure_says_it_made_it(tmp_path):
    command = "python examples/l2/fig2_10.py --preset quick"
    content = {"preset": "quick", "claims": [], "provenance": {"command": command}}
    (tmp_path / "l2").mkdir()
    (tmp_path / "l2" / "fig10.json").write_text(json.dumps(content))
    assert reproduce().done(tmp_path, "l2/fig2_10", "quick")
    assert not reproduce().done(tmp_path, "l2/fig2_10", "paper")
    assert not reproduce().done(tmp_path, "l2/fig2", "quick")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"preset": "quick"}'])
def test_a_damaged_json_is_left_out_with_a_line_and_its_script_is_not_done(
    content, tmp_path, capsys
):
    save(tmp_path, "quick")
    (tmp_path / "l2" / "other.json").write_text(content)
    assert reproduce().gallery(tmp_path).count("\n## ") == 1
    assert "other.json cannot be read" in capsys.readouterr().err
    assert not reproduce().done(tmp_path, "l2/other", "quick")


def test_reproduce_says_where_it_cannot_write(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["reproduce.py", "l2/fig5", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit):
        reproduce().main()
    assert "`--out` is" in capsys.readouterr().err
