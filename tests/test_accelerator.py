"""`make accelerator` on a CPU, at sizes that say nothing of it: every stage runs, is kept and is not made twice."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "accelerator.py"


@pytest.fixture(scope="module")
def accelerator():
    spec = importlib.util.spec_from_file_location("accelerator", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accelerator"] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    yield module
    del sys.modules["accelerator"]


def test_a_stage_that_is_kept_is_not_made_again(accelerator, tmp_path, capsys):
    tiny, made = accelerator.SIZES["tiny"], []

    def first(sizes, so_far):
        """One that works."""
        made.append(dict(so_far))
        return {"paths a second": 3.0}

    def broken(sizes, so_far):
        """One that does not."""
        raise RuntimeError("out of memory")

    path = accelerator.measure(tiny, tmp_path, (first, broken))
    accelerator.measure(tiny, tmp_path, (first, broken))
    found = json.loads(path.read_text())
    assert made == [{}] and found["stages"]["broken"]["failed"] == "RuntimeError: out of memory"
    accelerator.measure(accelerator.SIZES["cpu"], tmp_path, (first,))
    assert len(made) == 2  # other sizes
    assert "paths a second: 3" in capsys.readouterr().out
    assert "| first | paths a second | 3 |" in accelerator.table(found)


@pytest.mark.slow
def test_every_stage_runs(accelerator, tmp_path):
    found = json.loads(accelerator.measure(accelerator.SIZES["tiny"], tmp_path).read_text())
    assert set(found["stages"]) == {stage.__name__ for stage in accelerator.STAGES}
    assert not [name for name, result in found["stages"].items() if "failed" in result]
    assert found["stages"]["agreement"]["holds"]
    goals = [result for result in found["stages"].values() if "goal" in result]
    assert len(goals) == 3 and all(result["holds"] is None for result in goals)
