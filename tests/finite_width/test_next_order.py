import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from trained import (
    CUBED,
    DEGREE,
    LINEAR,
    NETWORKS,
    RECORDS,
    RELU,
    SQUARE,
    SQUARED,
    X_TEST,
    X,
    Y,
    descend,
    draw,
    flow,
    squares,
)

from ntkdecay import datasets, finite_width, predict

TIMES = np.array([0.3, 1.0, 3.0])


def logistic(fx, y):
    return jnp.sum(jnp.logaddexp(0, -jnp.sign(y) * fx))


def slope(loss, f, y):
    """ℓ' and ℓ'' of one output."""
    if loss is squares:
        return f - y, np.ones_like(f)
    sign, sigmoid = np.sign(y), 1 / (1 + np.exp(np.sign(y) * f))
    return -sign * sigmoid, sigmoid * (1 - sigmoid)


@functools.partial(jax.jit, static_argnums=0)
def kernels_of(kind, params):
    """f at X and X_TEST, Θ, K⁽³⁾ and K⁽⁴⁾, the last axes those of X."""
    theta, unravel = jax.flatten_util.ravel_pytree(params)
    points = jnp.concatenate([X, X_TEST])

    def f(p):
        return NETWORKS[kind](unravel(p), points)[:, 0]

    def driven(function):
        """The derivative of a function along each training sample's ∇f, on a last axis."""

        def derivative(p):
            along = jax.jacrev(f)(p)[: len(X)]
            return jax.vmap(lambda v: jax.jvp(function, (p,), (v,))[1], out_axes=-1)(along)

        return derivative

    second = driven(f)
    return f(theta), second(theta), driven(second)(theta), driven(driven(second))(theta)


def hierarchy(kind, loss, params, l2, times):
    """f_0 + f_1 at X and X_TEST by the hierarchy's equations as they stand, cut after K⁽⁴⁾."""
    f0, second, third, fourth = map(np.asarray, kernels_of(kind, params))
    k, (m, n) = DEGREE[kind], second.shape

    def rates(t, state):
        f0, f1 = state[:m], state[m : 2 * m]
        theta1 = state[2 * m : 2 * m + m * n].reshape(m, n)
        third = state[2 * m + m * n :].reshape(m, n, n)
        theta0 = np.exp(-2 * (k - 1) * l2 * t) * second
        first, curvature = slope(loss, f0[:n], Y[:, 0])
        return np.concatenate(
            [
                -theta0 @ first - k * l2 * f0,
                -theta0 @ (curvature * f1[:n]) - theta1 @ first - k * l2 * f1,
                (-2 * (k - 1) * l2 * theta1 - third @ first).ravel(),
                (
                    -(3 * k - 4) * l2 * third - np.exp(-(4 * k - 6) * l2 * t) * fourth @ first
                ).ravel(),
            ]
        )

    start = np.concatenate([f0, np.zeros(m), np.zeros(m * n), third.ravel()])
    found = solve_ivp(rates, (0, times[-1]), start, "DOP853", times, rtol=1e-9, atol=1e-11)
    return found.y[:m].T, (found.y[:m] + found.y[m : 2 * m]).T


@pytest.mark.parametrize(
    ("kind", "loss"),
    [pytest.param(LINEAR, squares, marks=pytest.mark.slow), (SQUARE, logistic)],
)
def test_it_has_the_hierarchy_with_decay_to_k4(kind, loss):
    given = {"loss": loss} if loss is not squares else {"reduction": "sum"}
    apart, moved = [], []
    for width in (256, 2048):
        params = draw(width)
        predict_fn = finite_width.next_order(
            NETWORKS[kind], params, X, Y, l2=0.2, degree=DEGREE[kind], **given
        )
        found = np.concatenate([predict_fn(TIMES), predict_fn(TIMES, X_TEST)], axis=1)[..., 0]
        leading, following = hierarchy(kind, loss, params, 0.2, TIMES)
        apart.append(np.abs(found - following).max())
        moved.append(np.abs(following - leading).max())
    assert apart[1] < 0.05 * moved[1]
    assert np.log(apart[1] / apart[0]) / np.log(8) < -1.7


def distances(kind, width, seeds, scale=1.0, span=3.0, steps=8, sweeps=1):
    """Mean over seeds of log RMS distance to the trained network, of infinite width and of the next order, (2, times)."""
    rows, l2 = [], 0.3
    end, x = span / l2, scale * X
    times = end * np.arange(1, 13) / 12
    for seed in range(seeds):
        params = draw(width, seed=seed)
        path = flow(kind, squares, params, x, Y, l2, end / RECORDS / steps, steps)
        path = [p[RECORDS // 12 - 1 :: RECORDS // 12] for p in path]
        trained, start, kernel = looked_at(kind, params, path, x)
        given = {"l2": l2, "degree": DEGREE[kind], "reduction": "sum"}
        leading = predict.gradient_descent_mse(kernel, Y, **given)
        following = finite_width.next_order(NETWORKS[kind], params, x, Y, **given, sweeps=sweeps)
        found = np.stack([leading(times, start), following(times)])
        rows.append(np.sqrt(np.mean((found - np.asarray(trained)) ** 2, (2, 3))))
    return np.log(rows).mean(0)


@functools.partial(jax.jit, static_argnums=0)
def looked_at(kind, params, path, x):
    """f along the path and at its start, and the kernel there."""
    f = functools.partial(NETWORKS[kind], x=x)
    jacobians = jax.tree.leaves(jax.jacrev(lambda p: f(p)[:, 0])(params))
    flat = [j.reshape(len(x), -1) for j in jacobians]
    return jax.vmap(f)(path), f(params), sum(j @ j.T for j in flat)


def slopes(kind, widths, seeds, **more):
    """The exponents of the width in the largest distance."""
    narrow, wide = (distances(kind, n, seeds, **more).max(1) for n in widths)
    return (wide - narrow) / np.log(widths[1] / widths[0])


CASES = [
    pytest.param(LINEAR, (256, 2048), 2, {}, marks=pytest.mark.slow),
    pytest.param(SQUARED, (1024, 8192), 4, {"span": 1.0}, marks=pytest.mark.slow),
    pytest.param(SQUARE, (256, 1024), 2, {"span": 1.0}, marks=pytest.mark.slow),
    (RELU, (256, 1024), 2, {}),
]


@pytest.mark.parametrize(("kind", "widths", "seeds", "more"), CASES)
def test_what_is_left_falls_like_the_width_squared(kind, widths, seeds, more):
    leading, following = slopes(kind, widths, seeds, **more)
    assert -1.6 < leading < -0.5
    assert following < -1.8


@pytest.mark.slow
def test_what_is_left_falls_like_the_width_squared_at_degree_4():
    leading, following = slopes(CUBED, (1024, 8192), 4, scale=0.5, span=1.0, steps=30)
    assert -1.5 < leading < -0.6
    assert following < -1.8


def test_sweeps_end_at_the_network_itself():
    one, four = (distances(LINEAR, 64, 1, span=1.0, sweeps=n)[1].max() for n in (1, 4))
    assert four < np.log(2e-5)  # the steps' own error
    assert one > np.log(1e-4)


def test_any_times_in_any_order():
    predict_fn = finite_width.next_order(NETWORKS[LINEAR], draw(64), X, Y, l2=0.1, reduction="sum")
    times = np.array([[3.0, 0.0], [0.5, 3.0]])
    found = predict_fn(times)
    assert found.shape == (2, 2, 5, 1)
    np.testing.assert_allclose(found[0, 1], NETWORKS[LINEAR](draw(64), X), rtol=1e-13)
    np.testing.assert_array_equal(found[0, 0], found[1, 1])
    np.testing.assert_allclose(predict_fn(0.5), found[1, 0], rtol=1e-5)
    np.testing.assert_allclose(predict_fn(times, X)[1], found[1], rtol=1e-10)


def classes(fx, y):
    return -jnp.sum(jax.nn.one_hot(y, 2) * jax.nn.log_softmax(fx))


def test_class_numbers_and_several_outputs():
    params, y = draw(256, outputs=2), np.array([0, 1, 1, 0, 1])
    path = flow(RELU, classes, params, X, y, 0.3, 0.01, 5)
    predict_fn = finite_width.next_order(NETWORKS[RELU], params, X, y, l2=0.3, loss=classes)
    trained = NETWORKS[RELU]([p[-1] for p in path], X)
    start = NETWORKS[RELU](params, X)
    assert np.abs(predict_fn(3.0) - trained).max() < 0.01 * np.abs(start - trained).max()


def test_without_l2_it_is_the_network_without_l2():
    params = draw(512)
    path = flow(SQUARED, squares, params, X, Y, 0.0, 0.01, 5)
    found = finite_width.next_order(NETWORKS[SQUARED], params, X, Y, l2=0.0, reduction="sum")(3.0)
    trained = NETWORKS[SQUARED]([p[-1] for p in path], X)
    assert np.abs(found - trained).max() < 1e-3


def test_restarts_reach_beyond_the_departure():
    params, end = draw(256), 3 / 0.05
    path = flow(RELU, squares, params, X, Y, 0.05, end / RECORDS / 20, 20)
    path = [p[RECORDS // 4 - 1 :: RECORDS // 4] for p in path]
    trained, *_ = looked_at(RELU, params, path, X)
    given = {"l2": 0.05, "degree": 2, "reduction": "sum"}
    times = end * np.arange(1, 5) / 4
    predict_fn = finite_width.next_order(NETWORKS[RELU], params, X, Y, **given, restarts=20)
    np.testing.assert_allclose(predict_fn(times), trained, atol=0.02)
    np.testing.assert_allclose(predict_fn(times[::-1], X)[0], predict_fn(times)[-1], atol=1e-6)
    with pytest.raises(ValueError, match="more `restarts`"):
        finite_width.next_order(NETWORKS[RELU], params, X, Y, **given)(times)


@pytest.mark.slow
def test_the_late_loss_of_figure_5c():
    """64 even/odd digits, width 2048, λ = 0.01, steps of 0.1 until t = 150: within 25 %, where infinite width is 2 times off."""
    digits = datasets.load("digits")
    x = digits.x_train[:64].reshape(64, -1).astype(float)
    y, params = datasets.parity(digits.y_train[:64]).astype(float), draw(2048, inputs=64)
    given = {"l2": 0.01, "degree": 2, "reduction": "sum"}
    end = descend(RELU, squares, params, x, y, 0.01, 0.1, 1500)
    trained = squares(NETWORKS[RELU](end, x), y)
    predict_fn = finite_width.next_order(NETWORKS[RELU], params, x, y, **given, restarts=20)
    assert squares(predict_fn(150.0), y) == pytest.approx(trained, rel=0.25)
    *_, start, kernel = looked_at(RELU, params, [p[None] for p in params], x)
    leading = predict.gradient_descent_mse(kernel, y, **given)(150.0, start)
    assert squares(leading, y) > 1.5 * trained


def test_times_at_which_the_network_has_left_are_refused():
    predict_fn = finite_width.next_order(NETWORKS[SQUARED], draw(32), X, Y, l2=0.3, reduction="sum")
    with pytest.raises(ValueError, match=r"`t` is 20; from .* times the one that decays"):
        predict_fn([0.1, 20.0])
