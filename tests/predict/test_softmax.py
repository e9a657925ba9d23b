"""Softmax cross-entropy with L2, 10 classes of 500 digits, against Theorem 1 solved on f itself."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import softmax

from ntkdecay import datasets, kernels, stax
from ntkdecay.predict import gradient_descent

N, N_TEST, CLASSES, DEGREE, L2 = 500, 50, 10, 2, 1e-3
T = np.array([1.0, 10.0, 100.0])


def cross_entropy(fx, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))


def test_softmax_on_500_digits_is_theorem_1_on_training_and_test_points():
    """ḟ = −e^{−2(k−1)λt} Θ_0 (softmax(f) − y)/N − kλf by scipy's DOP853, its slope written out."""
    data = datasets.load("digits")
    x = data.x_train[: N + N_TEST].reshape(N + N_TEST, -1).astype(float)
    y = np.eye(CLASSES)[data.y_train[:N]]
    start = 0.3 * np.random.default_rng(0).normal(size=(N + N_TEST, CLASSES))
    network = stax.serial(stax.Dense(1, b_std=None), stax.Relu(), stax.Dense(1, b_std=None))
    k = np.asarray(kernels.analytic_kernel(network[2], x))
    k = 20 * k / np.diagonal(k).mean()

    def velocity(t, f):
        f = f.reshape(start.shape)
        pull = k[:, :N] @ (softmax(f[:N], axis=-1) - y) / N
        return -(np.exp(-2 * (DEGREE - 1) * L2 * t) * pull + DEGREE * L2 * f).ravel()

    solution = solve_ivp(velocity, (0, T[-1]), start.ravel(), "DOP853", T, rtol=1e-9, atol=1e-11)
    expected = solution.y.T.reshape(len(T), *start.shape)
    predict_fn = gradient_descent(
        cross_entropy, k[:N, :N], y, l2=L2, degree=DEGREE, rtol=1e-9, atol=1e-12
    )
    train, test = predict_fn(T, start[:N], start[N:], k[N:, :N])
    np.testing.assert_allclose(train, expected[:, :N], rtol=0, atol=1e-6)
    np.testing.assert_allclose(test, expected[:, N:], rtol=0, atol=1e-6)
    assert np.mean(np.argmax(test[-1], -1) == data.y_train[N : N + N_TEST]) > 0.8
