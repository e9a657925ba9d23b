"""Theory is checked in float64, broadcasting is always written out, and drawn cases are always the same."""

import os

import hypothesis
import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """What is not slow is mostly compiled once and run once: XLA and LLVM spend less on it. The slow tests run as users do."""
    if config.option.markexpr == "not slow":
        # read when the first device is made; processes that a test starts inherit both
        # a later XLA has no such choice, and ends a process that makes it
        if jax.__version_info__ < (0, 11):
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
    jax.devices()  # made here: a script's command line asks for one for each core, if there are none yet


hypothesis.settings.register_profile("ntkdecay", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ntkdecay")
