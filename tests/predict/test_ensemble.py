"""The ensemble: neural-tangents' numbers at l2 = 0, drawn initializations above."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay import kernels, stax
from ntkdecay._neural_tangents import predict as nt_predict
from ntkdecay.predict import (
    PiecewiseConstant,
    gradient_descent_mse,
    gradient_descent_mse_ensemble,
)

KERNEL_FN = stax.serial(stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1))[2]
# between equal inputs a ReLU kernel is exact to 1e-8 only: how it is compiled shows there
SMOOTH = stax.serial(stax.Dense(1, b_std=0.1), stax.Erf(), stax.Dense(1))[2]
RNG = np.random.default_rng(0)
X, X_TEST, Y = RNG.normal(size=(8, 5)), RNG.normal(size=(4, 5)), RNG.normal(size=(8, 2))
SLOW = pytest.param(3.0, marks=pytest.mark.slow)
TIMES = (None, np.inf, 0.0, SLOW, np.array([[1.0, 20.0], [1e2, 1e4], [0.0, 1e5]]))
BOTH = ("ntk", "nngp")


@pytest.fixture(scope="module")
def predictors():
    """neural-tangents' and ours, which compute their kernels once."""
    with jax.numpy_rank_promotion("allow"):
        theirs = nt_predict.gradient_descent_mse_ensemble(SMOOTH, X, Y, 0.3)
    return theirs, gradient_descent_mse_ensemble(SMOOTH, X, Y, 0.3, l2=0.0, degree=2)


@pytest.mark.parametrize("t", TIMES, ids=["None", "inf", "0", "scalar", "array"])
@pytest.mark.parametrize("x_test", [None, X_TEST], ids=["train", "test"])
def test_l2_0_is_neural_tangents(predictors, t, x_test):
    theirs, ours = predictors
    for compute_cov in (False, True):
        with jax.numpy_rank_promotion("allow"):
            # neural-tangents fails on get="ntk" alone with a covariance at t = None
            both = theirs(t, x_test, BOTH, compute_cov)
        for get in ("ntk", "nngp", BOTH):
            expected = getattr(both, get) if isinstance(get, str) else both
            found = ours(t, x_test, get, compute_cov)
            if not isinstance(get, str):
                assert type(found).__name__ == "Gaussians" and found._fields == BOTH
            for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
                assert a.shape == b.shape
                np.testing.assert_allclose(b, a, rtol=0, atol=1e-10)


def test_l2_0_is_neural_tangents_where_outputs_are_not_traced():
    """An empirical-like kernel over two outputs, its parameters passed as arguments of `kernel_fn`."""

    def kernel_fn(x1, x2, get, scale, mixing):
        def mixed(k):
            return scale * k[:, :, None, None] * mixing[None, None]

        return jax.tree.map(mixed, SMOOTH(x1, x2, get))

    mixing = np.array([[2.0, 0.5], [0.5, 1.0]])
    options = {"trace_axes": (), "scale": 0.7, "mixing": mixing}
    with jax.numpy_rank_promotion("allow"):
        theirs = nt_predict.gradient_descent_mse_ensemble(kernel_fn, X, Y, **options)
        expected = theirs(TIMES[-1], X_TEST, BOTH, True, mixing=mixing)
    ours = gradient_descent_mse_ensemble(kernel_fn, X, Y, l2=0.0, degree=3, **options)
    found = ours(TIMES[-1], X_TEST, BOTH, True, mixing=mixing)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("get", "degree"), [("nngp", 2), ("ntk", 1), ("ntk", 2), ("ntk", 3.5)])
def test_drawn_initializations_have_this_mean_and_covariance(get, degree, draws=20_000):
    """Each draw is one output of `gradient_descent_mse`, with the same label."""
    x, n, l2 = np.concatenate([X, X_TEST]), len(X), 0.1
    nngp = kernels.analytic_kernel(KERNEL_FN, x, get="nngp")
    k = kernels.analytic_kernel(KERNEL_FN, x, get=get)
    start = np.linalg.cholesky(nngp) @ np.random.default_rng(1).normal(size=(len(x), draws))
    t, y = np.array([0.3, 4.0, 30.0]), Y[:, :1]
    predict_fn = gradient_descent_mse(
        k[:n, :n],
        np.tile(y, (1, draws)),
        l2=l2,
        degree=1 if get == "nngp" else degree,
        reduction="sum",
    )
    drawn = predict_fn(t, start[:n], start[n:], k[n:, :n])
    ensemble = gradient_descent_mse_ensemble(KERNEL_FN, X, y, l2=l2, degree=degree, reduction="sum")
    for x_test, f in zip((None, X_TEST), drawn, strict=True):
        mean, cov = ensemble(t, x_test, get, True)
        variance = np.diagonal(cov, axis1=1, axis2=2)
        error = np.abs(f.mean(-1) - mean[..., 0])
        assert np.all(error < 4 * np.sqrt(variance / draws))
        sampled = np.stack([np.cov(one) for one in f])
        product = variance[:, :, None] * variance[:, None, :]
        assert np.all(np.abs(sampled - cov) < 4 * np.sqrt((product + cov**2) / draws))


@settings(max_examples=20)
@given(l2=st.floats(0, 3), t=st.floats(0, 1e3), degree=st.sampled_from([0, 1, 2, 3.5]))
def test_training_points_given_as_test_points_agree_and_variances_are_not_negative(l2, t, degree):
    predict_fn = gradient_descent_mse_ensemble(KERNEL_FN, X, Y, l2=l2, degree=degree)
    train, same = predict_fn(t, None, BOTH, True), predict_fn(t, X, BOTH, True)
    for a, b in zip(jax.tree.leaves(train), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-7)  # two equal inputs: see analytic_kernel
    for gaussian in train:
        assert np.linalg.eigvalsh(gaussian.covariance).min() > -1e-14


def test_pieces_of_l2_are_those_of_the_closed_form_for_every_start():
    """f(t) is affine in f(0): the columns of a closed form that starts from each unit vector."""
    t, l2, n = np.array([0.5, 3.0, 9.0]), PiecewiseConstant([0.3, 0.0, 0.1], [1.0, 4.0]), len(X)
    x = np.concatenate([X, X_TEST])
    nngp, k = (np.asarray(kernels.analytic_kernel(KERNEL_FN, x, get=get)) for get in BOTH[::-1])
    one, units = Y[:, :1], np.eye(len(x))
    options = {"l2": l2, "degree": 2, "reduction": "sum"}
    closed = gradient_descent_mse(k[:n, :n], np.tile(0 * one, len(x)), **options)
    on = np.concatenate(closed(t, units[:n], units[n:], k[n:, :n]), axis=1)
    mean, cov = gradient_descent_mse_ensemble(KERNEL_FN, X, one, **options)(t, X_TEST, "ntk", True)
    expected = gradient_descent_mse(k[:n, :n], one, **options)(t, 0.0, 0.0, k[n:, :n])[1]
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(cov, (on @ nngp @ on.swapaxes(1, 2))[:, n:, n:], rtol=0, atol=1e-8)


def test_last_layer_alone_ends_at_ridge_regression_with_no_memory_of_its_start():
    nngp = np.asarray(kernels.analytic_kernel(KERNEL_FN, X, get="nngp"))
    between = np.asarray(kernels.analytic_kernel(KERNEL_FN, X_TEST, X, get="nngp"))
    predict_fn = gradient_descent_mse_ensemble(KERNEL_FN, X, Y, l2=0.2, degree=2, reduction="sum")
    mean, cov = predict_fn(None, X_TEST, "nngp", True)
    ridge = between @ np.linalg.solve(nngp + 0.2 * np.eye(len(X)), Y)
    np.testing.assert_allclose(mean, ridge, atol=1e-12)
    assert not np.any(cov)
    mean, cov = predict_fn(None, X_TEST, "ntk", True)  # k = 2: all is forgotten
    assert not np.any(mean) and not np.any(cov)


def test_transformations_and_dtypes():
    def total(l2, t):
        predict_fn = gradient_descent_mse_ensemble(KERNEL_FN, X, Y, l2=l2, degree=2)
        mean, cov = predict_fn(t, X_TEST, "ntk", True)
        return jnp.sum(mean**2) + jnp.trace(cov)

    jitted, step = jax.jit(total), 1e-6
    l2 = jnp.array([0.0, 0.01, 0.01 + step, 0.01 - step])
    path = np.array([jitted(one, 5.0) for one in l2])
    np.testing.assert_allclose(jax.jit(jax.vmap(total, (0, None)))(l2, 5.0), path, rtol=1e-12)
    slope = (path[2] - path[3]) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(l2[1], 5.0), slope, rtol=1e-6)


def test_what_jit_sees_first_is_what_eager_calls_see_and_float32_stays_float32():
    predict_fn = gradient_descent_mse_ensemble(KERNEL_FN, X, Y, l2=0.1, degree=2)
    jitted = jax.jit(lambda t: predict_fn(t, X_TEST, "ntk", True))(5.0)
    x, y, x_test = (np.asarray(a, np.float32) for a in (X, Y, X_TEST))
    single = gradient_descent_mse_ensemble(KERNEL_FN, x, y, l2=0.1, degree=2)
    eager = predict_fn(5.0, X_TEST, "ntk", True)
    for a, b, c in zip(jitted, eager, single(5.0, x_test, "ntk", True), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
        assert c.dtype == np.float32
        np.testing.assert_allclose(c, b, atol=1e-4)


def test_traced_inputs():
    def mean(x):
        return gradient_descent_mse_ensemble(KERNEL_FN, x, Y, l2=0.1, degree=2)(3.0, X_TEST, "ntk")

    np.testing.assert_allclose(jax.jit(mean)(X), mean(X), atol=1e-8)  # see analytic_kernel


def test_bad_input_is_refused_in_one_sentence():
    good = {"kernel_fn": KERNEL_FN, "x_train": X, "y_train": Y, "l2": 0.1, "degree": 2}
    for change, call, message in (
        ({"l2": -1.0}, {}, "`l2` is -1.0; it must be"),
        ({"l2": [0.1, 0.2]}, {}, "vmap over it"),
        ({"trace_axes": (0,)}, {}, "not their samples"),
        ({"degree": 0.5}, {}, "`degree` is 0.5"),
        ({"learning_rate": -1.0}, {}, "`learning_rate` is -1.0; it must be"),
        ({"reduction": "max"}, {}, "`reduction` is 'max'"),
        ({"y_train": Y[:5]}, {}, "`x_train` has 8 samples and `y_train` 5"),
        ({}, {"t": -1.0}, "`t` is -1.0; it must be"),
        ({}, {"get": "gp"}, "`get` is 'gp'"),
        ({}, {"get": ("ntk", "ntk")}, "without repetition"),
        ({}, {"get": ()}, r"`get` is \(\)"),
        ({}, {"x_test": X_TEST, "pattern": 1}, "`pattern` of `kernel_fn` was not given"),
        ({"pattern": 0}, {"x_test": X_TEST, "pattern": 1}, "`pattern` of `kernel_fn` is 1"),
    ):

        def kernel_fn(x1, x2, get, pattern=None):
            return KERNEL_FN(x1, x2, get)

        with pytest.raises(ValueError, match=message) as caught:
            gradient_descent_mse_ensemble(**(good | {"kernel_fn": kernel_fn} | change))(**call)
        assert "\n" not in str(caught.value)
