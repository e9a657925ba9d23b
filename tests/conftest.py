"""Theory is checked in float64, broadcasting is always written out, and drawn cases are always the same."""

import gc
import os
import sys
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

gc.set_threshold(100_000, 10, 10)  # traces are many small objects: a twelfth of the time went here


def pytest_configure(config):
    """What is not slow is mostly compiled once and run once: XLA and LLVM spend less on it. The slow tests run as users do."""
    quick, flags = config.option.markexpr == "not slow", [os.environ.get("XLA_FLAGS", "")]
    if jax.__version_info__ < (
        0,
        11,
    ):  # a later XLA has other flags, and ends a process that gives it one of these
        flags.append(
            "--xla_cpu_max_isa=AVX2"
        )  # with AVX-512 it crashes at times: docs/sharp_edges.md
        flags += ["--xla_cpu_use_fusion_emitters=false"] * quick
    # read when the first device is made; processes that a test starts inherit both
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    if quick:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
    jax.devices()  # made here: a script's command line asks for one for each core, if there are none yet


hypothesis.settings.register_profile("ntkdecay", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ntkdecay")


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def _few_programs_stay(request):
    """Each compiled program holds six of the 65,530 memory maps that Linux allows a process: XLA crashes beyond them."""
    yield
    slow = request.config.option.markexpr != "not slow"
    if slow and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    """A script that a test runs in its own process leaves its figures to the end of that process."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
