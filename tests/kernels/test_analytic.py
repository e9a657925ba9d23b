import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import stax
from ntkdecay.kernels import analytic_kernel

X1 = np.random.default_rng(0).normal(size=(7, 5))
X2 = np.random.default_rng(1).normal(size=(4, 5))
_, _, KERNEL = stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(3))


def relu_formula(x1, x2):
    """NNGP and NTK of Dense, Relu, Dense with unit weight variance, inputs over √d."""
    k = x1 @ x2.T / 5
    norms = np.sqrt(np.outer((x1**2).sum(1), (x2**2).sum(1))) / 5
    cos = np.clip(k / norms, -1, 1)
    angle = np.arccos(cos)
    nngp = norms * (np.sin(angle) + (np.pi - angle) * cos) / (2 * np.pi)
    return {"nngp": nngp, "ntk": nngp + k * (np.pi - angle) / (2 * np.pi)}


@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize("tile", [None, 3])
def test_analytic_kernel_is_the_arc_cosine_formula(get, tile):
    for x2 in (None, X2):
        k = analytic_kernel(KERNEL, X1, x2, get, tile=tile)
        expected = relu_formula(X1, X1 if x2 is None else x2)[get]
        assert k.dtype == jnp.float64
        distinct = ~np.eye(*k.shape, dtype=bool) if x2 is None else slice(None)
        np.testing.assert_allclose(k[distinct], expected[distinct], rtol=1e-13, atol=1e-14)
        if x2 is None:
            assert (k == k.T).all()
            exact = (X1**2).sum(1) / (5 if get == "ntk" else 10)
            np.testing.assert_allclose(k.diagonal(), exact, rtol=1e-8)  # arccos near 1


def test_rounding_to_32_bits_is_refused():
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match="`x1` is float64, which JAX would silently round"),
    ):
        analytic_kernel(KERNEL, X1)


def test_what_the_analytic_kernel_refuses():
    with pytest.raises(ValueError, match="`get` is 'cov'; it must be"):
        analytic_kernel(KERNEL, X1, get="cov")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`x1` holds int64"):
        analytic_kernel(KERNEL, np.ones((3, 5), int))
    with pytest.raises(TypeError, match="`x2` is float32 but `x1` is float64"):
        analytic_kernel(KERNEL, X1, X2.astype(np.float32))
    _, _, spatial = stax.serial(stax.Conv(4, (2,)), stax.Relu())
    with pytest.raises(ValueError, match="end the network with Flatten"):
        analytic_kernel(spatial, X1[..., None])
