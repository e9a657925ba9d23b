"""Products with the kernel give what its eigendecomposition gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay import kernels, stax
from ntkdecay.predict import (
    gradient_descent_mse,
    gradient_descent_mse_matrix_free,
    kernel_vector_product,
)

RELU = stax.serial(
    *(stax.Dense(1, b_std=None), stax.Relu()) * 2,
    stax.Dense(1, b_std=None),
)
N, N_TEST, OUTPUTS = 40, 5, 2
T = np.array([[0.0, 0.1], [3.0, 50.0], [1e3, np.inf]])


def normal(key: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(key).normal(size=shape)


def psd(key: int, n: int, power: float = 2.0) -> np.ndarray:
    """Eigenvalues that fall as a power, as a kernel's do."""
    q = np.linalg.qr(normal(key, n, n))[0]
    return (q * (10 * np.arange(1.0, n + 1) ** -power)) @ q.T


K = psd(0, N + N_TEST)
Y, START, START_TEST = normal(1, N, OUTPUTS), normal(2, N, OUTPUTS), normal(3, N_TEST, OUTPUTS)


def product(v):
    return jnp.asarray(K[:N, :N]) @ v


def product_test(v):
    return jnp.asarray(K[N:, :N]) @ v


@pytest.mark.parametrize(
    ("degree", "reduction", "l2_from"),
    [(1, "sum", "origin"), (3.5, "mean", "origin"), (2, "sum", "init")],
)
def test_it_is_eigh(degree, reduction, l2_from):
    options = {"l2": 0.02, "degree": degree, "reduction": reduction, "learning_rate": 0.5}
    options["l2_from"] = l2_from
    exact = gradient_descent_mse(K[:N, :N], Y, **options)
    found = gradient_descent_mse_matrix_free(product, Y, tolerance=1e-12, **options)
    for a, b in zip(
        exact(T, START, START_TEST, K[N:, :N]),
        found(T, START, START_TEST, product_test),
        strict=True,
    ):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10)


def test_it_is_eigh_where_nothing_or_test_points_alone_are_asked():
    options = {"l2": 0.02, "degree": 1, "reduction": "sum"}
    exact = gradient_descent_mse(K[:N, :N], Y, **options)
    found = gradient_descent_mse_matrix_free(product, Y, tolerance=1e-12, **options)
    for a, b in (
        (exact(), found()),
        (exact(2.0), found(2.0)),
        (exact(2.0, None, 0.0, K[N:, :N]), found(2.0, None, 0.0, product_test)),
    ):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10)


SPECTRA = {
    "a mode apart": lambda n: np.append(np.linspace(0.01, 1, n - 1), 1e-6),
    "power": lambda n: 10 * np.arange(1.0, n + 1) ** -2,
    "steep": lambda n: 10 * np.arange(1.0, n + 1) ** -4,
    "geometric": lambda n: np.geomspace(1e-8, 1, n),
    "rank": lambda n: np.append(np.linspace(0.1, 1, n // 3), np.zeros(n - n // 3)),
}


def at_hand(seed: int, spectrum: str, n: int = 60, n_test: int = 20):
    """A kernel of this spectrum, that of test points, and labels and a start with something in every mode."""
    q = np.linalg.qr(normal(seed, n, n))[0]
    root = (q * np.sqrt(SPECTRA[spectrum](n))) @ q.T
    return root @ root.T, normal(seed + 1, n_test, n) / n**0.5 @ root, normal(seed, 2, n, 1)


def as_product(k):
    return partial(jnp.matmul, jnp.asarray(k))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 2),
    spectrum=st.sampled_from(list(SPECTRA)),
    l2=st.sampled_from([0.0, 1e-3, 1.0]),
    degree=st.sampled_from([1, 3.5]),
    t=st.floats(-2, 4).map(lambda power: 10.0**power),
    tolerance=st.sampled_from([1e-2, 1e-5, 1e-8]),
)
def test_the_error_is_within_the_tolerance(seed, spectrum, l2, degree, t, tolerance):
    k, k_test, (y, start) = at_hand(seed, spectrum)
    options = {"l2": l2, "degree": degree, "reduction": "sum"}
    exact = gradient_descent_mse(k, y, **options)(t, start, 0.0, k_test)
    found = gradient_descent_mse_matrix_free(as_product(k), y, tolerance=tolerance, **options)(
        t, start, 0.0, as_product(k_test)
    )
    size = np.sqrt(np.mean(y**2) + np.mean(start**2))
    for a, b in zip(found, exact, strict=True):
        assert np.sqrt(np.mean((a - b) ** 2)) <= tolerance * size


def test_a_mode_that_no_product_has_shown_yet_is_not_taken_for_learned():
    """Spaces of 12 and of 16 products agree to ten digits here, and neither knows of the mode with γ = 1e-6."""
    n = 300
    q = np.linalg.qr(normal(0, n, n))[0]
    parts = normal(1, n)
    parts[-1] = 0.03 * np.linalg.norm(parts[:-1])
    k, y = (q * SPECTRA["a mode apart"](n)) @ q.T, (q @ parts)[:, None]
    options = {"l2": 0.0, "degree": 2, "reduction": "sum"}
    exact = gradient_descent_mse(k, y, **options)(2000.0)
    product = as_product(k)
    found = gradient_descent_mse_matrix_free(product, y, tolerance=1e-6, **options)(2000.0)
    assert np.linalg.norm(found - exact) <= 1e-6 * np.linalg.norm(y)
    for max_depth in (1, 16):
        with pytest.raises(ValueError, match=f"at `max_depth` = {max_depth}: raise"):
            gradient_descent_mse_matrix_free(
                product, y, tolerance=1e-6, max_depth=max_depth, **options
            )(2000.0)


def test_what_rounding_spoils_is_refused():
    """In float32 the kernel does not know its eigenvalues below 1e-6: neither training nor test points may need them."""
    k, k_test, (y, start) = (np.asarray(a, np.float32) for a in at_hand(0, "steep"))
    y, start = np.float32(y), np.float32(start)
    predict_fn = gradient_descent_mse_matrix_free(
        as_product(k), y, l2=np.float32(0.0), degree=1, reduction="sum"
    )
    assert predict_fn(0.01).dtype == np.float32
    with pytest.raises(ValueError, match="or compute in float64"):
        predict_fn(2000.0, start, 0.0, as_product(k_test))
    with pytest.raises(ValueError, match="in float32 it must be at least 1e-06"):
        gradient_descent_mse_matrix_free(as_product(k), y, l2=0.0, degree=1, tolerance=1e-7)


def test_spaces_grow_as_asked_and_are_kept():
    """An early time needs few products; a later one goes on from there; a repeated call needs none."""
    k, y = jnp.asarray(psd(5, 200, 1.0)), normal(6, 200, 1)
    products = []

    def counted(v):
        jax.debug.callback(lambda: products.append(1))
        return k @ v

    predict_fn = gradient_descent_mse_matrix_free(
        counted, y, l2=1e-4, degree=1, reduction="sum", tolerance=1e-6
    )
    counts = []
    for t in (0.1, 30.0, 30.0, 0.1):
        predict_fn(t).block_until_ready()
        jax.effects_barrier()
        counts.append(len(products))
    assert counts[0] == 16 < counts[1] < 200 and counts[1] == counts[2] == counts[3]


@pytest.mark.parametrize(
    ("k", "y"),
    [
        (np.eye(6), normal(0, 6, 2)),
        (np.ones((6, 6)), np.ones((6, 2))),
        (np.ones((6, 6)), normal(0, 6, 2)),
        (np.zeros((6, 6)), normal(0, 6, 2)),
        (psd(7, 6), np.stack([np.zeros(6), np.arange(6.0)], 1)),
        (np.diag([3.0, 3.0, 2.0, 2.0, 1.0, 0.0]), np.eye(6)[:, ::3]),
    ],
    ids=["identity", "rank 1", "rank 1, any y", "zero", "zero column", "degenerate"],
)
def test_exhausted_spaces_are_exact(k, y):
    exact = gradient_descent_mse(k, y, l2=0.1, degree=2, reduction="sum")(T, 1.0)
    found = gradient_descent_mse_matrix_free(
        lambda v: jnp.asarray(k) @ v, y, l2=0.1, degree=2, reduction="sum"
    )(T, 1.0)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_transformations_and_dtypes():
    options = {"degree": 2, "max_depth": 32, "tolerance": 1e-6}

    def matrix_free(l2, t, y=Y):
        predict_fn = gradient_descent_mse_matrix_free(product, y, l2=l2, **options)
        return jnp.stack([jnp.sum(f**2) for f in predict_fn(t, START, START_TEST, product_test)])

    def exact(l2, t):
        predict_fn = gradient_descent_mse(K[:N, :N], Y, l2=l2, degree=2)
        return jnp.stack([jnp.sum(f**2) for f in predict_fn(t, START, START_TEST, K[N:, :N])])

    l2 = jnp.array([0.0, 0.01, 0.3])
    expected = jax.jit(jax.vmap(exact, (0, None)))(l2, 5.0)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(matrix_free, (0, None)))(l2, 5.0), expected, rtol=1e-9
    )
    np.testing.assert_allclose(jax.jit(matrix_free)(l2[1], 5.0), expected[1], rtol=1e-9)
    np.testing.assert_allclose(jax.jit(matrix_free)(l2[1], 5.0, Y), expected[1], rtol=1e-9)

    def slope(function):
        return jax.jit(lambda l2: jax.jvp(lambda l2: function(l2, 5.0), (l2,), (1.0,)))(0.01)[1]

    np.testing.assert_allclose(slope(matrix_free), slope(exact), rtol=1e-8)

    k = jnp.asarray(K[:N, :N], jnp.float32)
    single = gradient_descent_mse_matrix_free(
        lambda v: k @ v, Y.astype(np.float32), l2=np.float32(0.1), degree=2
    )(np.float32(5.0))
    assert single.dtype == np.float32
    np.testing.assert_allclose(
        single, gradient_descent_mse(K[:N, :N], Y, l2=0.1, degree=2)(5.0), atol=1e-5
    )


@pytest.mark.parametrize("tile", [1, 7, 20, 64])
def test_kernel_vector_product_is_the_kernel_times_the_vector(tile):
    x, x_test, v = normal(0, 20, 6), normal(1, 9, 6), normal(2, 3, 20)
    for get in ("ntk", "nngp"):
        k = kernels.analytic_kernel(RELU[2], x, get=get)
        found = jax.vmap(kernel_vector_product(RELU[2], x, get=get, tile=tile))(v)
        np.testing.assert_allclose(found, v @ k, atol=1e-6)  # the diagonal: see analytic_kernel
        k = kernels.analytic_kernel(RELU[2], x_test, x, get=get)
        found = kernel_vector_product(RELU[2], x_test, x, get=get, tile=tile)(v[0])
        np.testing.assert_allclose(found, k @ v[0], atol=1e-12)


@pytest.mark.slow
def test_analytic_kernels_and_finite_networks_as_products():
    x, x_test, y = normal(0, 30, 6), normal(1, 4, 6), normal(2, 30, 2)
    init, apply_fn, kernel_fn = stax.serial(stax.Dense(16), stax.Relu(), stax.Dense(2))
    _, params = init(jax.random.key(0), x.shape)
    analytic = gradient_descent_mse_matrix_free(
        kernel_vector_product(kernel_fn, x, tile=8), y, l2=0.01, degree=2, tolerance=1e-9
    )(T, 0.0, 0.0, kernel_vector_product(kernel_fn, x_test, x, tile=8))
    empirical = gradient_descent_mse_matrix_free(
        kernels.ntk_vector_product(apply_fn, params, x),
        y,
        l2=0.01,
        degree=2,
        tolerance=1e-9,
        trace_axes=(),
    )(T, 0.0, 0.0, kernels.ntk_vector_product(apply_fn, params, x_test, x))
    for found, k, k_test, axes in (
        (
            analytic,
            kernels.analytic_kernel(kernel_fn, x),
            kernels.analytic_kernel(kernel_fn, x_test, x),
            (-1,),
        ),
        (
            empirical,
            kernels.empirical_ntk(apply_fn, params, x, trace_axes=()),
            kernels.empirical_ntk(apply_fn, params, x_test, x, trace_axes=()),
            (),
        ),
    ):
        exact = gradient_descent_mse(k, y, l2=0.01, degree=2, trace_axes=axes)(T, 0.0, 0.0, k_test)
        for a, b in zip(exact, found, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_4000_samples_agree_with_eigh_to_1e_6():
    n, n_test = 4000, 50
    x, y = normal(0, n + n_test, 784), normal(1, n, 1)
    k = kernels.analytic_kernel(RELU[2], x, tile=1000)
    t = np.array([1.0, 1e2, 1e4, np.inf]) * n
    options = {"l2": 1e-4, "degree": 2}
    exact = gradient_descent_mse(k[:n, :n], y, **options)(t, 0.0, 0.0, k[n:, :n])
    found = gradient_descent_mse_matrix_free(
        kernel_vector_product(RELU[2], x[:n], tile=1000), y, tolerance=1e-7, **options
    )(t, 0.0, 0.0, kernel_vector_product(RELU[2], x[n:], x[:n], tile=1000))
    for a, b in zip(exact, found, strict=True):
        assert np.linalg.norm(b - a) < 1e-6 * np.linalg.norm(a)


def test_a_space_that_is_too_small_names_the_remedy():
    k, y = psd(5, 100, 1.0), normal(6, 100, 1)

    def matrix_free(t, **options):
        return gradient_descent_mse_matrix_free(
            lambda v: jnp.asarray(k) @ v, y, l2=0.0, degree=2, reduction="sum", **options
        )(t)

    with pytest.raises(ValueError, match=r"above `tolerance` = 1e-09 at `max_depth` = 16: raise"):
        matrix_free(100.0, tolerance=1e-9, max_depth=16)


@pytest.mark.parametrize(
    ("change", "call", "message"),
    [
        ({"l2": -1.0}, {}, "`l2` is -1.0; it must be"),
        ({"l2": [0.1, 0.2]}, {}, "vmap over it"),
        ({"degree": 0.5}, {}, "`degree` is 0.5"),
        ({"learning_rate": -1.0}, {}, "`learning_rate` is -1.0; it must be a number >= 0"),
        ({"reduction": "max"}, {}, "`reduction` is 'max'"),
        ({"l2_from": "end"}, {}, "`l2_from` is 'end'"),
        ({"trace_axes": (0,)}, {}, "not their samples"),
        ({"tolerance": 0.0}, {}, "`tolerance` is 0.0"),
        ({"max_depth": 0}, {}, "`max_depth` is 0"),
        ({"matvec": lambda v: v[:-1]}, {}, r"`matvec` gives float64\[39\] for float64\[40\]"),
        ({"matvec": lambda v: np.nan * v}, {}, "NaN or infinite"),
        ({"matvec": lambda v: -v}, {}, "positive semi-definite"),
        ({}, {"t": -1.0}, "`t` is -1.0; it must be an array of numbers >= 0"),
        ({}, {"fx_train_0": None}, "nothing to predict"),
        ({}, {"fx_train_0": np.ones(3)}, "`fx_train_0` has shape"),
        ({}, {"fx_test_0": 0.0}, "`fx_test_0` needs it"),
        ({}, {"fx_test_0": np.ones(3), "k_test_train": product_test}, "`fx_test_0` has shape"),
        ({}, {"fx_test_0": 0.0, "k_test_train": lambda v: v[None]}, r"must give \(n_test, …\)"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, call, message):
    arguments = {"matvec": product, "y_train": Y, "l2": 0.1, "degree": 2} | change
    with pytest.raises(ValueError, match=message) as caught:
        gradient_descent_mse_matrix_free(**arguments)(**call)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"tile": 0}, "`tile` is 0"), ({"tile": 4, "get": "gp"}, "`get` is 'gp'")],
)
def test_bad_input_of_the_kernel_product_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kernel_vector_product(RELU[2], Y, **arguments)
    with pytest.raises(ValueError, match=r"`v` has shape \(3,\); it must be \(40,\)"):
        kernel_vector_product(RELU[2], Y, tile=4)(np.ones(3))


def test_whole_numbers_do_not_make_the_kernel_whole():
    x, v = normal(0, 6, 3), np.arange(6)
    found = kernel_vector_product(RELU[2], x, tile=4)(v)
    np.testing.assert_allclose(found, kernels.analytic_kernel(RELU[2], x) @ v, rtol=1e-6)
    with pytest.raises(TypeError, match=r"`v` is an array of shape .* complex128"):
        kernel_vector_product(RELU[2], x, tile=4)(1j * v)
