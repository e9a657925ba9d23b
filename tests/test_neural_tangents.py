"""The door: what neural-tangents computes through it, against values computed without it."""

import subprocess
import sys

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from ntkdecay import _neural_tangents as nt
from ntkdecay._neural_tangents import NtkImplementation, stax


@pytest.fixture(autouse=True)
def _rank_promotion():
    with jax.numpy_rank_promotion("allow"):  # neural-tangents promotes
        yield


def relu_net(width, outputs=1):
    return stax.serial(stax.Dense(width, W_std=1.3), stax.Relu(), stax.Dense(outputs, W_std=1.1))


INIT, APPLY, KERNEL = relu_net(16, outputs=2)
X1 = np.random.default_rng(0).normal(size=(6, 5))
X2 = np.random.default_rng(1).normal(size=(4, 5))
Y = np.random.default_rng(2).normal(size=(6, 2))
PARAMS = INIT(jax.random.key(3), X1.shape)[1]


def arc_cosine(x1, x2):
    """NNGP and NTK of relu_net: Cho & Saul's arc-cosine formulas."""
    variance = 1.3**2 / x1.shape[1]
    k = variance * x1 @ x2.T
    norms = np.sqrt(variance * np.outer((x1**2).sum(1), variance * (x2**2).sum(1)))
    cos = np.clip(k / norms, -1, 1)
    angle = np.arccos(cos)
    nngp = 1.1**2 * norms * (np.sin(angle) + (np.pi - angle) * cos) / (2 * np.pi)
    return nngp, nngp + 1.1**2 * k * (np.pi - angle) / (2 * np.pi)


def explicit_ntk(f, params, x1, x2):
    """(n1, n2, O, O) from the whole Jacobians."""

    def jacobian(x):
        leaves = jax.tree.leaves(jax.jit(jax.jacobian(f))(params, x))
        return np.concatenate([j.reshape(*j.shape[:2], -1) for j in leaves], axis=-1)

    return np.einsum("aop,bqp->aboq", jacobian(x1), jacobian(x2))


def test_analytic_kernels_are_the_arc_cosine_formulas():
    k = KERNEL(X1, X2, ("nngp", "ntk"))
    nngp, ntk = arc_cosine(X1, X2)
    assert k.ntk.dtype == jnp.float64
    np.testing.assert_allclose(k.nngp, nngp, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(k.ntk, ntk, rtol=1e-13, atol=1e-14)


def test_batch_gives_the_arc_cosine_formula():
    k = nt.batch(KERNEL, batch_size=2)(X1, X2, "ntk")
    np.testing.assert_allclose(k, arc_cosine(X1, X2)[1], rtol=1e-13, atol=1e-14)


def test_monte_carlo_kernel_approaches_the_arc_cosine_formula():
    init, apply, _ = relu_net(64)
    kernel_fn = nt.monte_carlo_kernel_fn(init, apply, jax.random.key(0), n_samples=200, vmap_axes=0)
    nngp, ntk = arc_cosine(X1, X2)
    k = kernel_fn(X1, X2, ("nngp", "ntk"))
    assert abs(k.ntk - ntk).max() < 0.05 * abs(ntk).max()
    assert abs(k.nngp - nngp).max() < 0.3 * abs(nngp).max()  # 200 products of two outputs


@pytest.mark.parametrize(
    ("implementation", "vmap_axes"),
    [*((i, 0) for i in NtkImplementation), (NtkImplementation.STRUCTURED_DERIVATIVES, None)],
)
def test_empirical_ntk_is_the_product_of_jacobians(implementation, vmap_axes):
    ntk_fn = nt.empirical_ntk_fn(APPLY, (), (), vmap_axes, implementation)
    expected = explicit_ntk(APPLY, PARAMS, X1, X2)
    np.testing.assert_allclose(jax.jit(ntk_fn)(X1, X2, PARAMS), expected, rtol=1e-12, atol=1e-13)


def conv(params, x):
    x = jax.nn.relu(jax.lax.conv(x.reshape(-1, 1, 5, 1), params[0], (1, 1), "SAME"))
    return x.reshape(-1, 15) @ params[1]


def sliced(params, x):
    return jnp.tanh(x @ params[0])[:, :2] + x @ params[0][:, :2]


def checkpointed(params, x):
    return jax.checkpoint(lambda p: jnp.tanh(x @ p))(params[0])[:, :2]


def scanned(params, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, jnp.stack(params))[0][:, :2]


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (conv, [(3, 1, 3, 1), (15, 2)]),
        (sliced, [(5, 3)]),
        (checkpointed, [(5, 3)]),
        (scanned, [(5, 5), (5, 5)]),
    ],
)
@pytest.mark.filterwarnings("ignore:No Jacobian rule found")
def test_structured_derivatives_read_any_primitive(f, shapes):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    ntk_fn = nt.empirical_ntk_fn(f, (), (), 0, NtkImplementation.STRUCTURED_DERIVATIVES)
    expected = explicit_ntk(f, params, X1, X2)
    np.testing.assert_allclose(jax.jit(ntk_fn)(X1, X2, params), expected, rtol=1e-12, atol=1e-12)


def test_empirical_nngp_and_kernel_vector_product():
    f1, f2 = APPLY(PARAMS, X1), APPLY(PARAMS, X2)
    nngp = nt.empirical_nngp_fn(APPLY)(X1, X2, PARAMS)
    np.testing.assert_allclose(nngp, f1 @ f2.T / 2, rtol=1e-12)
    kernels = nt.empirical_kernel_fn(APPLY)(X1, X2, "nngp", PARAMS)
    np.testing.assert_allclose(kernels, f1 @ f2.T / 2, rtol=1e-12)
    product = jax.jit(nt.empirical_ntk_vp_fn(APPLY, X1, X1, PARAMS))(jnp.asarray(Y))
    expected = np.einsum("aboq,bq->ao", explicit_ntk(APPLY, PARAMS, X1, X1), Y)
    np.testing.assert_allclose(product, expected, rtol=1e-11)


def test_linearize_and_taylor_expand():
    moved = jax.tree.map(lambda p: p + 0.1, PARAMS)
    step = jax.tree.map(lambda p: jnp.full_like(p, 0.1), PARAMS)
    f, df = jax.jvp(lambda p: APPLY(p, X1), (PARAMS,), (step,))
    np.testing.assert_allclose(nt.linearize(APPLY, PARAMS)(moved, X1), f + df, rtol=1e-12)
    square = nt.taylor_expand(lambda p, x: x * p**3, jnp.array(2.0), degree=2)
    np.testing.assert_allclose(square(jnp.array(3.0), jnp.array(1.0)), 8 + 12 + 6, rtol=1e-12)


def test_predict_gives_the_matrix_exponential():
    k, k_test = arc_cosine(X1, X1)[1], arc_cosine(X2, X1)[1]
    predict_fn = nt.predict.gradient_descent_mse(k, Y)
    train, test = predict_fn(7.0, np.zeros_like(Y), np.zeros((4, 2)), k_test)
    moved = Y - scipy.linalg.expm(-7.0 * k / Y.size) @ Y
    np.testing.assert_allclose(train, moved, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(test, k_test @ np.linalg.solve(k, moved), rtol=1e-9, atol=1e-11)


def test_predict_ensemble_ends_at_the_gaussian_process():
    predict_fn = nt.predict.gradient_descent_mse_ensemble(KERNEL, X1, Y)
    mean = predict_fn(None, X2, "nngp")
    expected = arc_cosine(X2, X1)[0] @ np.linalg.solve(arc_cosine(X1, X1)[0], Y)
    np.testing.assert_allclose(mean, expected, rtol=1e-8)


def test_max_learning_rate_is_two_over_the_sharpness():
    k = arc_cosine(X1, X1)[1]
    rate = nt.predict.max_learning_rate(jnp.asarray(k), y_train_size=Y.size)
    np.testing.assert_allclose(rate, 2 * Y.size / np.linalg.eigvalsh(k)[-1], rtol=1e-10)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_import_leaves_jax_as_it_was_and_takes_nothing_heavy():
    run("""
import sys, types
import jax, jax.core, jax.extend.core
from jax.interpreters import ad
before = {m: dict(vars(m)) for m in (jax, jax.core, jax.extend.core, ad)}
import ntkdecay._neural_tangents as door
for module in (jax.core, jax.extend.core, ad):
    assert dict(vars(module)) == before[module], module
for name, value in vars(jax).items():  # submodules that JAX itself has set, nothing else
    if before[jax].get(name) is not value:
        assert name not in before[jax] and value is sys.modules["jax." + name], name
        assert value.__spec__ is not None, name
assert all(m.__spec__ for n, m in sys.modules.items() if n.startswith(("jax.", "neural_tangents")))
heavy = {"tensorflow", "tf2jax", "matplotlib", "flax", "sympy"} & set(sys.modules)
assert not heavy, heavy
import neural_tangents
assert neural_tangents.stax is door.stax and not hasattr(neural_tangents, "experimental")
""")


def test_neural_tangents_may_have_been_tried_before():
    run("""
try:
    import neural_tangents
except Exception:  # on the versions tested it fails: TensorFlow, jax.util
    pass
import ntkdecay._neural_tangents as door
import neural_tangents
from neural_tangents import stax
assert neural_tangents.stax is stax is door.stax
import jax.numpy as jnp
_, apply, kernel = stax.serial(stax.Dense(2), stax.Relu())
assert kernel(jnp.ones((2, 3)), None, "ntk").shape == (2, 2)
ntk = neural_tangents.empirical_ntk_fn(lambda p, x: x * p, implementation=3)
assert ntk(jnp.ones((2, 1)), None, jnp.ones(())).tolist() == [[1.0, 1.0], [1.0, 1.0]]
""")


def test_a_name_that_jax_has_is_never_replaced(monkeypatch):
    own = object()
    monkeypatch.setattr(jax.core, "Var", own, raising=False)
    with nt._lent_names():
        assert jax.core.Var is own
        assert jax.core.Literal is jax.extend.core.Literal
    assert jax.core.Var is own
    assert not hasattr(jax.core, "Literal")


def test_lent_names_go_back_when_the_import_fails():
    with pytest.raises(RuntimeError), nt._lent_names():
        assert "jax.util" in sys.modules
        raise RuntimeError
    assert "jax.util" not in sys.modules and not hasattr(jax, "util")


def test_an_unknown_jax_gets_an_error_that_names_the_versions_tested(monkeypatch):
    monkeypatch.delattr(jax.extend.core, "Jaxpr")
    with pytest.raises(ImportError, match=rf"JAX {jax.__version__}.*Jaxpr.*tested with JAX 0.10.2"):
        nt._open()
