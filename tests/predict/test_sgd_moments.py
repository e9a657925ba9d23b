"""`predict.sgd_moments` against draws of `predict.sgd`, and trained networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import kernels, predict

RNG = np.random.default_rng(0)
N, OUTPUTS, BATCH, DRAWS = 12, 2, 4, 2000
POINTS = RNG.normal(size=(N + 2, 5))
THETA = POINTS @ POINTS.T / 5 + 0.1 * np.eye(N + 2)
K, K_TEST = THETA[:N, :N], THETA[N:, :N]
Y, START = RNG.normal(size=(N, OUTPUTS)), 0.5 * RNG.normal(size=(N + 2, OUTPUTS))
STEPS = np.array([1, 5, 40, 120])
LOSSES = {
    "mean": lambda fx, y: 0.5 * jnp.mean((fx - y) ** 2),
    "sum": lambda fx, y: 0.5 * jnp.sum((fx - y) ** 2),
}


def drawn(replace, draws, steps):
    """Minibatches, (draws, steps, BATCH)."""
    rng = np.random.default_rng(1)
    if replace:
        return rng.integers(0, N, (draws, steps, BATCH))
    return np.argsort(rng.random((draws, steps, N)), -1)[..., :BATCH]


CASES = [(2, False, "mean"), (1, True, "mean"), (3, True, "sum"), (3, False, "sum")]


@pytest.mark.parametrize(("degree", "replace", "reduction"), CASES)
def test_mean_and_covariance_are_those_of_2000_runs(degree, replace, reduction):
    """The mean, and the variances summed over points and outputs, within 3 standard errors (4 of many means)."""
    eta, l2 = (
        (2.0, 0.004) if reduction == "mean" else (2.0 / BATCH / OUTPUTS, 0.004 * BATCH * OUTPUTS)
    )
    predict_fn = predict.sgd_moments(
        K, Y, eta, l2=l2, degree=degree, batch_size=BATCH, replace=replace, reduction=reduction
    )
    expected = predict_fn(STEPS, START[:N], START[N:], K_TEST)

    def run(batches):
        predict_fn = predict.sgd(
            LOSSES[reduction], K, Y, eta, l2=l2, degree=degree, batches=batches
        )
        return predict_fn(STEPS, START[:N], START[N:], K_TEST)

    runs = jax.jit(jax.vmap(run))(drawn(replace, DRAWS, STEPS[-1]))
    for (mean, covariance), f in zip(expected, runs, strict=True):
        f = np.asarray(f)
        error = f.std(0) / DRAWS**0.5
        assert (np.abs(f.mean(0) - mean) < 4 * error).all()
        squares = ((f - np.asarray(mean)) ** 2).sum((2, 3))
        total = np.einsum("tioio->t", np.asarray(covariance))
        assert (np.abs(squares.mean(0) - total) < 3 * squares.std(0) / DRAWS**0.5).all()
        across = f[..., 0, 0] * f[..., 1, 1]  # of two points and outputs
        pair = np.asarray(covariance[:, 0, 0, 1, 1] + mean[:, 0, 0] * mean[:, 1, 1])
        assert (np.abs(across.mean(0) - pair) < 3.5 * across.std(0) / DRAWS**0.5).all()


def test_all_samples_at_once_have_no_noise_and_are_sgd():
    mean, covariance = predict.sgd_moments(K, Y, 1.0, l2=0.01, degree=2, batch_size=N)(STEPS)
    step = predict.sgd(LOSSES["mean"], K, Y, 1.0, l2=0.01, degree=2)
    np.testing.assert_allclose(mean, step(STEPS), rtol=1e-10, atol=1e-13)
    assert not np.asarray(covariance).any()


def test_it_is_the_noise_of_trained_networks():
    """200 trainings of one wide ReLU network: variances summed over points within 3 standard errors and 5 %."""
    width, eta, l2, steps, draws = 4096, 0.5, 0.01, 60, 200
    rng = np.random.default_rng(3)
    x, y = jnp.asarray(POINTS[:N]), jnp.asarray(Y[:, :1])
    params = [jnp.asarray(rng.normal(size=s)) for s in ((5, width), (width, 1))]

    def apply_fn(params, x):
        return jnp.maximum(x @ params[0], 0) @ params[1] * (2 / 5 / width) ** 0.5

    theta, start = kernels.empirical_ntk(apply_fn, params, x), apply_fn(params, x)
    _, covariance = predict.sgd_moments(theta, y, eta, l2=l2, degree=2, batch_size=BATCH)(steps, start)  # fmt: skip

    def train(batches):
        def step(params, rows):
            gradient = jax.grad(lambda p: LOSSES["mean"](apply_fn(p, x[rows]), y[rows]))(params)
            return [p - eta * (g + l2 * p) for p, g in zip(params, gradient, strict=True)], None

        return apply_fn(jax.lax.scan(step, params, batches)[0], x)

    f = np.asarray(jax.lax.map(train, jnp.asarray(drawn(False, draws, steps))))
    squares = ((f - f.mean(0)) ** 2).sum((1, 2)) * draws / (draws - 1)
    total = np.trace(np.asarray(covariance)[:, 0, :, 0])
    assert abs(squares.mean() - total) < 3 * squares.std() / draws**0.5 + 0.05 * total


def test_what_it_cannot_do():
    with pytest.raises(ValueError, match="without `replace` a minibatch has each once"):
        predict.sgd_moments(K, Y, 1.0, l2=0.01, degree=2, batch_size=N + 1)
    with pytest.raises(ValueError, match="must be \\(n, n\\) and \\(n, outputs\\)"):
        predict.sgd_moments(K, Y[1:], 1.0, l2=0.01, degree=2, batch_size=2)
