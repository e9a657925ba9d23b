import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="module")
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def medians(request):
    """Median seconds by name; the ratios of the module's RATIOS, (slow, fast), are printed when it ends.

    Where $BENCHMARK_RESULTS names a folder, as `make bench` does, they are kept there with machine and versions.
    """
    found = {}
    yield found
    ratios = {
        f"{slow} / {fast}": found[slow] / found[fast]
        for slow, fast in request.module.RATIOS
        if slow in found and fast in found
    }
    for name, ratio in ratios.items():
        print(f"\n{name}: {ratio:.2f}")
    folder = os.environ.get("BENCHMARK_RESULTS")
    if folder and found:
        name = request.module.__name__.removeprefix("bench_")
        Path(folder).mkdir(parents=True, exist_ok=True)
        result = {"machine": machine(), "versions": versions(), "date": today()}
        result |= {"seconds": found, "ratios": ratios}
        Path(folder, f"{name}.json").write_text(
            json.dumps(result, indent=1, ensure_ascii=False) + "\n"
        )


def machine() -> str:
    """Where this runs, in words."""
    device = jax.devices()[0]
    return f"{os.cpu_count()} × {platform.machine()}, {jax.device_count()} × {device.device_kind}"


def versions() -> str:
    names = ("ntkdecay", "jax", "numpy", "optax", "diffrax")
    packages = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([f"Python {platform.python_version()}", *packages])


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
