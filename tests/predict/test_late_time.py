"""`predict.late_time` against the flow itself, from the time that it states on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from ntkdecay import predict

RNG = np.random.default_rng(0)
N, OUTPUTS = 5, 3
POINTS = RNG.normal(size=(N + 3, 4))
THETA = POINTS @ POINTS.T + 0.3 * np.eye(N + 3)
K, K_TEST = THETA[:N, :N], THETA[N:, :N]
Y = np.eye(OUTPUTS)[RNG.integers(0, OUTPUTS, N)]


def cross_entropy(fx, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))


@pytest.mark.parametrize(
    ("degree", "l2"), [(2, 1e-6), pytest.param(3, 1e-8, marks=pytest.mark.slow), (1.5, 1e-6)]
)
def test_it_is_within_2_percent_of_the_flow_between_its_stated_times(degree, l2):
    late = predict.late_time(cross_entropy, K, Y, l2=l2, degree=degree)
    start, end = (float(t) for t in late.valid)
    assert start < 0.5 * end and end < late.collapse
    t = np.linspace(start, end, 7)
    predict_fn = predict.gradient_descent(cross_entropy, K, Y, l2=l2, degree=degree, rtol=1e-8, atol=1e-10)  # fmt: skip
    expected = predict_fn(t, np.zeros_like(Y), np.zeros((3, OUTPUTS)), K_TEST)
    for f, flow in zip(late(t, K_TEST), expected, strict=True):
        away = np.linalg.norm(f - flow, axis=(1, 2)) / np.linalg.norm(flow, axis=(1, 2))
        assert away.max() < 0.02
    np.testing.assert_allclose(late(t, K_TEST)[0], late(t), rtol=1e-8)


def test_one_logit_balances_its_label_and_collapses_when_the_kernel_is_spent():
    gamma, l2, degree = 4.0, 1e-5, 2.0
    late = predict.late_time(
        lambda fx, y: jnp.sum(jnp.logaddexp(0.0, -fx * y)), np.array([[gamma]]), np.ones((1, 1)), l2=l2, degree=degree
    )  # fmt: skip
    fall, decay = 2 * (degree - 1) * l2, degree * l2
    t = np.array([1e4, 1e5, 3e5])

    def balanced(t):
        return brentq(lambda f: gamma * np.exp(-fall * t - np.logaddexp(0, f)) - decay * f, 0, 50)

    balance = np.array([balanced(one) for one in t])
    held = gamma * np.exp(-fall * t) * np.exp(balance) / (1 + np.exp(balance)) ** 2 + decay
    np.testing.assert_allclose(late(t)[:, 0, 0], balance * (1 + fall * decay / held**2), rtol=1e-7)
    np.testing.assert_allclose(late.collapse, np.log(gamma / 4 / decay) / fall, rtol=1e-10)
    faster = predict.late_time(
        lambda fx, y: jnp.sum(jnp.logaddexp(0.0, -fx * y)), np.array([[gamma]]), np.ones((1, 1)), 2.0, l2=l2, degree=degree
    )  # fmt: skip
    np.testing.assert_allclose(faster(t / 2), late(t), rtol=1e-12)
    np.testing.assert_allclose(faster.valid, np.array(late.valid) / 2, rtol=1e-12)


def test_what_it_cannot_do():
    with pytest.raises(ValueError, match="`degree` is 1, whose kernel does not fall"):
        predict.late_time(cross_entropy, K, Y, l2=1e-3, degree=1)
    with pytest.raises(ValueError, match="`k_test_train` has shape"):
        predict.late_time(cross_entropy, K, Y, l2=1e-3, degree=2)(1.0, np.ones((2, N + 1)))
    short = predict.late_time(cross_entropy, K, Y, l2=10.0, degree=2)
    assert np.isnan(short.valid).all() and short.collapse == 0
