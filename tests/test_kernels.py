import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay._neural_tangents import NtkImplementation, stax
from ntkdecay.kernels import analytic_kernel, empirical_ntk

X1 = np.random.default_rng(0).normal(size=(7, 5))
X2 = np.random.default_rng(1).normal(size=(4, 5))
_, STAX, KERNEL = stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(3))
FLAX = nn.Sequential([nn.Dense(6, param_dtype=float), nn.LayerNorm(), jnp.tanh, nn.Dense(3)])


def plain(params, x):
    return jnp.maximum(x @ params["in"], 0) @ params["out"]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


PLAIN = {"in": normal(0, 5, 6), "out": normal(1, 6, 3)}


def stax_params():
    with jax.numpy_rank_promotion("allow"):
        return stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(3))[0](jax.random.key(0), (7, 5))


NETWORKS = {
    "plain": (plain, PLAIN),
    "stax": (STAX, stax_params()[1]),
}
with jax.numpy_rank_promotion("allow"):
    NETWORKS["flax"] = (
        FLAX.apply,
        jax.tree.map(lambda p: p.astype(float), FLAX.init(jax.random.key(0), X1)),
    )


def explicit_ntk(f, params, x1, x2):
    """(n1, n2, O, O) from the whole Jacobians."""

    def jacobian(x):
        with jax.numpy_rank_promotion("allow"):
            leaves = jax.tree.leaves(jax.jit(jax.jacobian(f))(params, x))
        return np.concatenate([j.reshape(*j.shape[:2], -1) for j in leaves], axis=-1)

    return np.einsum("aop,bqp->aboq", jacobian(x1), jacobian(x2))


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


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tile", [None, 3])
def test_empirical_ntk_is_the_product_of_jacobians(name, tile):
    f, params = NETWORKS[name]
    for x2 in (None, X2) if name == "plain" else (None,):
        k = empirical_ntk(f, params, X1, x2, trace_axes=(), tile=tile)
        expected = explicit_ntk(f, params, X1, X1 if x2 is None else x2)
        assert k.dtype == jnp.float64
        np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)
        if x2 is None:
            assert (k == k.transpose(1, 0, 3, 2)).all()


@pytest.mark.parametrize("tile", [None, 3, 100])
def test_trace_and_diagonal_axes(tile):
    full = explicit_ntk(plain, PLAIN, X1, X1)

    def check(expected, **axes):
        k = empirical_ntk(plain, PLAIN, X1, tile=tile, **axes)
        np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)

    check(np.einsum("aboo->ab", full) / 3)
    check(np.einsum("aboo->abo", full), trace_axes=(), diagonal_axes=(1,))
    check(np.einsum("aaoo->a", full) / 3, diagonal_axes=(0,))
    check(np.einsum("aaoq->aoq", full), trace_axes=(), diagonal_axes=0)


def test_diagonal_of_two_batches_by_tiles():
    expected = np.einsum("aaoo->a", explicit_ntk(plain, PLAIN, X1[:4], X2)) / 3
    k = empirical_ntk(plain, PLAIN, X1[:4], X2, diagonal_axes=0, tile=3)
    np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)


def test_trace_over_the_samples():
    expected = np.einsum("aaoo->", explicit_ntk(plain, PLAIN, X1, X1)) / 21
    np.testing.assert_allclose(empirical_ntk(plain, PLAIN, X1, trace_axes=(0, 1)), expected)


@pytest.mark.parametrize("implementation", [1, NtkImplementation.NTK_VECTOR_PRODUCTS])
def test_other_implementations(implementation):
    k = empirical_ntk(plain, PLAIN, X1, trace_axes=(), tile=5, implementation=implementation)
    np.testing.assert_allclose(k, explicit_ntk(plain, PLAIN, X1, X1), rtol=1e-12, atol=1e-13)


def test_float32_stays_float32():
    params = jax.tree.map(lambda p: p.astype(jnp.float32), PLAIN)
    k = empirical_ntk(plain, params, X1.astype(np.float32))
    assert k.dtype == jnp.float32
    expected = np.einsum("aboo->ab", explicit_ntk(plain, PLAIN, X1, X1)) / 3
    np.testing.assert_allclose(k, expected, rtol=1e-5, atol=1e-5)


def test_under_jit_grad_and_vmap():
    def trace(scale, tile=None):
        params = {**PLAIN, "in": scale * PLAIN["in"]}
        return jnp.trace(empirical_ntk(plain, params, X1, tile=tile))

    full = explicit_ntk(plain, PLAIN, X1, X1)
    value = np.einsum("aaoo->", full) / 3
    np.testing.assert_allclose(jax.jit(trace)(1.0), value, rtol=1e-12)
    # the kernel is the output layer's part, of degree 2 in `scale`, and the input layer's, of 0
    h = np.maximum(X1 @ PLAIN["in"], 0)
    np.testing.assert_allclose(jax.grad(trace)(1.0), 2 * (h**2).sum(), rtol=1e-12)
    tiled = jax.grad(lambda s: trace(s, tile=3))(1.0)
    np.testing.assert_allclose(tiled, 2 * (h**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(
        jax.vmap(trace)(jnp.array([1.0, 2.0])), [value, value + 3 * (h**2).sum()], rtol=1e-12
    )


def batch_normalized(params, x):
    h = x @ params["in"]
    h = (h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True)
    return jnp.tanh(h) @ params["out"]


def test_samples_that_meet_are_noticed():
    with pytest.raises(ValueError, match="batch statistics: pass vmap_axes=None"):
        empirical_ntk(batch_normalized, PLAIN, X1)
    k = empirical_ntk(batch_normalized, PLAIN, X1, trace_axes=(), vmap_axes=None)
    expected = explicit_ntk(batch_normalized, PLAIN, X1, X1)
    np.testing.assert_allclose(k, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (TypeError, "x1 is float32 but params is float64", {"x1": X1.astype(np.float32)}),
        (TypeError, "x2 is float32 but params is float64", {"x2": X2.astype(np.float32)}),
        (TypeError, "x1 holds int64; .* floating", {"x1": np.ones((7, 5), int)}),
        (TypeError, "params holds float; .* arrays", {"params": {**PLAIN, "scale": 1.0}}),
        (TypeError, "gives float32 for float64 inputs", {"apply_fn": lambda p, x: x.astype("f4")}),
        (ValueError, r"one array whose axis 0", {"apply_fn": lambda p, x: plain(p, x).sum()}),
        (ValueError, r"one array whose axis 0", {"apply_fn": lambda p, x: (x, x)}),
        (ValueError, r"trace_axes=\(2,\) does not fit .* 2 axes", {"trace_axes": 2}),
        (ValueError, r"diagonal_axes=\(-3,\) does not fit", {"diagonal_axes": (-3,)}),
        (ValueError, "x1 has 7 and x2 has 4", {"x2": X2, "diagonal_axes": 0}),
        (ValueError, "tile is 0; allowed", {"tile": 0}),
        (ValueError, "tile=2 needs vmap_axes=0", {"tile": 2, "vmap_axes": None}),
        (ValueError, "tile=2 needs vmap_axes=0", {"tile": 2, "trace_axes": (0, 1)}),
        (ValueError, "vmap_axes is 1; allowed", {"vmap_axes": 1}),
        (ValueError, "7 is not a valid NtkImpl", {"implementation": 7}),
    ],
)
def test_what_is_refused(error, match, change):
    with pytest.raises(error, match=match):
        empirical_ntk(**{"apply_fn": plain, "params": PLAIN, "x1": X1, **change})


def test_rounding_to_32_bits_is_refused():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="x1 is float64, which JAX would silently round"):
            analytic_kernel(KERNEL, X1)
        with pytest.raises(ValueError, match="params is float64, which JAX would silently round"):
            empirical_ntk(plain, jax.tree.map(np.asarray, PLAIN), X1)
        params = jax.tree.map(lambda p: p.astype(jnp.float32), PLAIN)
        with pytest.raises(TypeError, match="x1 is float64 but params is float32"):
            empirical_ntk(plain, params, X1)


def test_what_the_analytic_kernel_refuses():
    with pytest.raises(ValueError, match="get is 'cov'; allowed"):
        analytic_kernel(KERNEL, X1, get="cov")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="x1 holds int64"):
        analytic_kernel(KERNEL, np.ones((3, 5), int))
    with pytest.raises(TypeError, match="x2 is float32 but x1 is float64"):
        analytic_kernel(KERNEL, X1, X2.astype(np.float32))
    _, _, spatial = stax.serial(stax.Conv(4, (2,)), stax.Relu())
    with pytest.raises(ValueError, match="end the network with Flatten"):
        analytic_kernel(spatial, X1[..., None])
