import jax
import pytest


@pytest.fixture(scope="module")
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def medians(request):
    """Median seconds by name; the ratios of the module's RATIOS, (slow, fast), are printed when it ends."""
    found = {}
    yield found
    for slow, fast in request.module.RATIOS:
        if slow in found and fast in found:
            print(f"\n{slow} / {fast}: {found[slow] / found[fast]:.2f}")
