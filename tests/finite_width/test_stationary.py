import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trained import DEGREE, LINEAR, NETWORKS, RELU, SQUARED, descend, draw

from ntkdecay import finite_width, kernels

RNG = np.random.default_rng(1)
X, X_TEST = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3))
Y = {"MSE": RNG.normal(size=(5, 2)), "cross entropy": np.eye(2)[[0, 1, 1, 0, 1]]}
L2 = 0.05


def cross_entropy(fx, y):
    return -jnp.sum(jax.nn.log_softmax(fx) * y)


def squares(fx, y):
    return 0.5 * jnp.sum((fx - y) ** 2)


LOSSES = {"MSE": squares, "cross entropy": cross_entropy}


def trained(kind, loss, steps):
    return descend(kind, LOSSES[loss], draw(7, outputs=2), X, Y[loss], L2, 0.05, steps)


def asked(kind, loss):
    given = {"loss": None if loss == "MSE" else LOSSES[loss], "reduction": "sum", "l2": L2}
    return (NETWORKS[kind], X, Y[loss]), given


@pytest.mark.parametrize("kind", [LINEAR, SQUARED])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_trained_smooth_network_is_the_sum_of_its_samples_shares(kind, loss):
    (apply_fn, x, y), given = asked(kind, loss)
    params = trained(kind, loss, 20_000)
    found = finite_width.stationarity(apply_fn, params, x, y, **given)
    assert max(found) < 1e-11
    shares, rest = finite_width.attributions(apply_fn, params, x, y, X_TEST, **given, tile=3)
    fx = apply_fn(params, X_TEST)
    assert shares.shape == (4, 2, 5) and np.abs(fx).max() > 0.1
    np.testing.assert_allclose(shares.sum(-1), fx, atol=1e-10)
    assert np.abs(rest).max() < 1e-10


def test_mse_at_rest_is_ridge_regression_with_the_trained_kernel():
    (apply_fn, x, y), _ = asked(LINEAR, "MSE")
    params = trained(LINEAR, "MSE", 20_000)
    k = np.asarray(kernels.empirical_ntk(apply_fn, params, x, trace_axes=()))
    k = k.transpose(0, 2, 1, 3).reshape(10, 10)
    ridge = k @ np.linalg.solve(k + DEGREE[LINEAR] * L2 * np.eye(10), y.reshape(10))
    np.testing.assert_allclose(apply_fn(params, x).reshape(10), ridge, atol=1e-10)


@pytest.mark.parametrize("steps", [0, 300])
def test_a_relu_network_is_that_sum_up_to_the_residual_of_its_gradient(steps):
    (apply_fn, x, y), given = asked(RELU, "MSE")
    params = trained(RELU, "MSE", steps)
    shares, rest = finite_width.attributions(apply_fn, params, x, y, **given)
    fx = apply_fn(params, x)
    np.testing.assert_allclose(shares.sum(-1) + rest, fx, atol=1e-12)
    found = finite_width.stationarity(apply_fn, params, x, y, **given)
    slope = np.asarray(fx) - y
    pull = np.linalg.norm(DEGREE[RELU] * L2 * np.asarray(shares).sum(-1))
    decay = np.linalg.norm(DEGREE[RELU] * L2 * np.asarray(fx))
    left = np.linalg.norm(DEGREE[RELU] * L2 * np.asarray(rest))
    assert np.isclose(found.function, left / max(pull, decay), rtol=1e-10)
    gradient = jax.grad(lambda p: jnp.sum(jnp.asarray(slope) * apply_fn(p, x)))(params)
    flat = [np.concatenate([np.ravel(p) for p in t]) for t in (gradient, params)]
    whole, part = np.linalg.norm(flat[0] + L2 * flat[1]), np.linalg.norm(flat[0])
    assert np.isclose(found.gradient, whole / max(part, L2 * np.linalg.norm(flat[1])), rtol=1e-10)


def test_the_mean_over_outputs_is_the_sum_over_them_at_another_l2():
    (apply_fn, x, y), given = asked(RELU, "MSE")
    params = draw(7, outputs=2)
    one = finite_width.attributions(apply_fn, params, x, y, **given)
    given |= {"reduction": "mean", "l2": L2 / 10}
    other = finite_width.attributions(apply_fn, params, x, y, **given)
    np.testing.assert_allclose(other.shares, one.shares, atol=1e-12)
    np.testing.assert_allclose(other.rest, one.rest, atol=1e-12)


def with_bias(params, x):
    return NETWORKS[RELU](params[:2], x) + params[2][None]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"degree": 3}, "`degree` is 3, but Euler's identity gives 2"),
        ({"apply_fn": with_bias, "params": [*draw(7, 2), np.ones(2)]}, "is not homogeneous"),
        ({"x_train": X.astype(np.float32)}, "convert one of them"),
        ({"y_train": Y["MSE"][:, 0]}, "`y_train` has shape"),
        ({"loss": lambda fx, y: fx}, "`loss` gives .* one number"),
        ({"x_test": X_TEST[:, :2]}, "`x_test` holds"),
    ],
)
def test_what_does_not_fit_is_refused(changes, reason):
    arguments = {
        "apply_fn": NETWORKS[RELU], "params": draw(7, 2), "x_train": X, "y_train": Y["MSE"], "l2": L2,
    }  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=reason):
        finite_width.attributions(**arguments | changes)
