"""`risk.best` and `risk.best_schedule` against fine grids, known optima and the schedules that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import predict, risk

MODES = np.arange(1.0, 201)
EIGENVALUES, N, NOISE = MODES**-1.5, np.array([40.0, 160.0]), 0.3
ROUGH, PRIOR = MODES**0.3, np.ones(200)
TIMES = np.geomspace(0.3, 1e5, 120)


def error(coefficients, t, l2, degree, n=N):
    return np.asarray(
        risk.learning_curve(EIGENVALUES, coefficients, n, t=t, l2=l2, degree=degree, noise=NOISE)
    )


def test_ridge_of_the_noise_is_best_where_the_target_is_drawn_as_the_kernel_has_it():
    """c_i of one size: a Gaussian process's own draws, of which nλ = σ² is the best predictor."""
    found = risk.best(EIGENVALUES, PRIOR, N, degree=1, noise=NOISE)
    assert np.isinf(found.t).all()
    np.testing.assert_allclose(found.l2, NOISE**2 / N, rtol=2e-2)
    least = error(PRIOR, np.inf, NOISE**2 / N, 1)
    np.testing.assert_allclose(found.error, least.diagonal(), rtol=1e-6)
    for n, ridge in zip(N, found.error, strict=True):
        best = risk.best_schedule(EIGENVALUES, PRIOR, n, noise=NOISE, stopping=TIMES)
        np.testing.assert_allclose(best.error, ridge, rtol=1e-3)


@pytest.mark.slow
def test_it_is_the_least_of_a_fine_grid():
    t, l2 = (
        x.reshape(-1) for x in np.meshgrid(np.geomspace(1, 1e5, 25), np.geomspace(1e-5, 1, 25))
    )
    found = risk.best(EIGENVALUES, ROUGH, N, degree=2, noise=NOISE)
    grid = error(ROUGH, t, l2, 2).min(1)
    assert (np.asarray(found.error) < grid).all() and (np.asarray(found.error) > 0.98 * grid).all()
    again = [
        float(error(ROUGH, t, rate, 2, n)) for t, rate, n in zip(found.t, found.l2, N, strict=True)
    ]
    np.testing.assert_allclose(again, found.error, rtol=1e-6)
    stopped = risk.best(EIGENVALUES, ROUGH, N, degree=2, noise=NOISE, l2=0.0)
    assert (np.asarray(stopped.error) > found.error).all() and not np.asarray(stopped.l2).any()
    for degree in (1, 2, 3):
        constant = risk.best(EIGENVALUES, ROUGH, 40.0, degree=degree, noise=NOISE)
        any_schedule = risk.best_schedule(EIGENVALUES, ROUGH, 40.0, noise=NOISE, stopping=TIMES)
        assert any_schedule.error < constant.error < 1.03 * any_schedule.error  # of degree 3, 2.2 %


SLOWER = pytest.param(3, marks=pytest.mark.slow)


@pytest.mark.parametrize("degree", [1, 2, SLOWER])
def test_the_best_schedule_is_instants_at_which_weights_shrink(degree):
    """The mixture as λ(t): strong L2 for instants, none between; of every degree the same error, below all constant λ."""
    n = 40.0
    best = risk.best_schedule(EIGENVALUES, ROUGH, n, noise=NOISE, stopping=TIMES)
    assert best.error < 0.98 * best.early_stopping.min()
    kept = np.asarray(best.weights) > 1e-5
    stopping, weights = np.asarray(best.stopping)[kept], np.asarray(best.weights)[kept]
    left = np.cumsum(weights[::-1])[::-1] / weights.sum()
    # from the longest τ down: driven for a while, then f shrinks by W_{j+1}/W_j; the kernel by its power 2(k−1)/k
    edges, values, t, scale, brief = [], [], 0.0, 1.0, 1e-6
    for j in range(len(stopping) - 1, 0, -1):
        t += (stopping[j] - stopping[j - 1]) / scale
        shrunk = left[j] / left[j - 1]
        edges += [t, t + brief]
        values += [0.0, -np.log(shrunk) / (degree * brief)]
        t, scale = t + brief, scale * shrunk ** (2 * (degree - 1) / degree)
    schedule = predict.PiecewiseConstant([*values, 0.0], edges)
    found = error(ROUGH, t + stopping[0] / scale, schedule, degree, n)
    np.testing.assert_allclose(found, best.error, rtol=1e-4)


@pytest.mark.parametrize("degree", [1, 1.5, SLOWER])
def test_l2_in_pieces(degree):
    """Of many samples each mode is learned alone, as the closed form has it; equal pieces are one."""
    l2 = predict.PiecewiseConstant([0.1, 0.0, 0.02], [2.0, 30.0])
    t = np.array([0.0, 1.0, 2.0, 10.0, 300.0])
    predict_fn = predict.gradient_descent_mse(np.diag(EIGENVALUES), np.eye(200), l2=l2, degree=degree, reduction="sum")  # fmt: skip
    learned = np.asarray(predict_fn(t, np.zeros((200, 200))))[:, range(200), range(200)]
    expected = ((PRIOR * (1 - learned)) ** 2 * EIGENVALUES).sum(1)
    found = risk.learning_curve(EIGENVALUES, PRIOR, 1e12, t=t, l2=l2, degree=degree)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    same = predict.PiecewiseConstant([0.1, 0.1], [5.0])
    np.testing.assert_allclose(
        error(ROUGH, t, same, degree), error(ROUGH, t, 0.1, degree), rtol=1e-9
    )
    slope = jax.grad(
        lambda x: risk.learning_curve(
            EIGENVALUES, PRIOR, 40.0, t=50.0, l2=predict.PiecewiseConstant(jnp.array([0.1, x]), [5.0]), degree=degree
        )
    )(0.02)  # fmt: skip
    above, below = (error_at(x, degree) for x in (0.02 + 1e-6, 0.02 - 1e-6))
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-4)


def error_at(x, degree):
    l2 = predict.PiecewiseConstant([0.1, x], [5.0])
    return float(risk.learning_curve(EIGENVALUES, PRIOR, 40.0, t=50.0, l2=l2, degree=degree))


def test_what_they_cannot_do():
    with pytest.raises(ValueError, match="`t` is inf where `l2` is 0"):
        risk.best(EIGENVALUES, PRIOR, N, degree=1, t=np.inf, l2=0.0)
    with pytest.raises(ValueError, match="`stopping` is not ascending"):
        risk.best_schedule(EIGENVALUES, PRIOR, 40, stopping=[2.0, 1.0])
