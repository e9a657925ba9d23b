import subprocess
import sys

import numpy as np
import pytest

import ntkdecay
from ntkdecay import scale_invariant


def test_a_function_cites_the_papers_behind_it():
    entries = ntkdecay.citation(scale_invariant.periods)
    assert "li2020reconciling" in entries and "lobacheva2021periodic" in entries
    assert "kanoh2021unintended" not in entries
    assert ntkdecay.__version__ in entries
    assert "kanoh2021unintended" in ntkdecay.citation("output_scale")


def test_every_part_says_what_it_cites():
    from ntkdecay._citation import BEHIND

    assert set(BEHIND) == {
        name for name in ntkdecay.__all__ if name not in ("__version__", "citation")
    }


@pytest.mark.parametrize("what", [print, "no part", None, 1j, {}, np.ones((9, 9)), object()])
def test_what_is_no_part_is_named(what):
    with pytest.raises(ValueError, match=r"`used` must name parts of ntkdecay .*") as caught:
        ntkdecay.citation(what)
    assert len(str(caught.value).splitlines()) == 1


MISSING = """
import sys
sys.modules[{module!r}] = None
try:
    from ntkdecay import {part}
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "part", "remedy"),
    [
        ("flax", "networks", "needs flax: pip install 'ntkdecay[examples]'"),
        ("sympy", "symbolic", "needs sympy: pip install 'ntkdecay[symbolic]'"),
        ("neural_tangents", "stax", "pip install --no-deps neural-tangents==0.6.5"),
    ],
)
def test_a_missing_extra_is_named(module, part, remedy):
    script = MISSING.format(module=module, part=part)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert remedy in run.stdout
