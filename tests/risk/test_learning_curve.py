"""`risk.learning_curve` against ridge regression's closed form, infinite n, random features and digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import datasets, kernels, predict, risk, stax
from ntkdecay.predict._response import response

MODES = np.arange(1.0, 301)
EIGENVALUES, COEFFICIENTS = MODES**-1.5, MODES**-0.3


def ridge(n, l2, noise):
    """The closed form of kernel ridge regression (Simon et al. 2023, "eigenlearning"), κ by bisection."""
    low, high = l2, l2 + EIGENVALUES.sum() / n
    for _ in range(200):
        kappa = (low + high) / 2
        above = kappa * (1 - (EIGENVALUES / (EIGENVALUES + kappa)).sum() / n) > l2
        low, high = (low, kappa) if above else (kappa, high)
    share = EIGENVALUES / (EIGENVALUES + kappa)
    bias = (COEFFICIENTS**2 * EIGENVALUES * (1 - share) ** 2).sum()
    return (bias + noise**2 * (share**2).sum() / n) / (1 - (share**2).sum() / n)


def test_degree_one_at_the_end_is_ridge_regression():
    n, l2 = np.array([10.0, 120.0, 2000.0]), np.array([1e-4, 1e-2, 1.0])
    found = risk.learning_curve(EIGENVALUES, COEFFICIENTS, n, t=np.inf, l2=l2, degree=1, noise=0.4)
    expected = [[ridge(one, other, 0.4) for other in l2] for one in n]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("degree", [1, 1.5, 3])
def test_of_many_samples_each_mode_is_learned_alone(degree):
    t, l2 = np.array([0.0, 3.0, 200.0, 1e4]), np.array([0.3, 0.0, 1e-2, 1e-3])
    found = risk.learning_curve(
        EIGENVALUES, COEFFICIENTS, 1e12, t=t, l2=l2, degree=degree, noise=0.4
    )
    grid = np.broadcast_arrays(t[:, None], EIGENVALUES, l2[:, None])
    unlearned = np.asarray(response(*grid, float(degree)).unlearned)
    expected = ((COEFFICIENTS * unlearned) ** 2 * EIGENVALUES).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
    if degree == 3:  # without L2 all degrees are one
        other = risk.learning_curve(EIGENVALUES, COEFFICIENTS, 50, t=t, l2=0.0, degree=1)
        same = risk.learning_curve(EIGENVALUES, COEFFICIENTS, 50, t=t, l2=0.0, degree=3)
        np.testing.assert_allclose(same, other, rtol=1e-9)


@pytest.fixture(scope="module")
def draws():
    """100 times 120 samples of Gaussian features: rates and vectors of their kernel, and what learns from labels."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 120, len(MODES))) * np.sqrt(EIGENVALUES)
    y = features @ COEFFICIENTS + 0.3 * rng.normal(size=(100, 120))
    rates, vectors = np.linalg.eigh(features @ features.mT / 120)
    return np.maximum(rates, 1e-14), features.mT @ vectors / 120, vectors.mT @ y[..., None]


@pytest.mark.parametrize(
    ("degree", "t", "l2"), [(1.0, 50.0, 1e-2), (2.0, 50.0, 1e-2), (3.0, 200.0, 3e-3)]
)
def test_random_features(degree, t, l2, draws):
    """Against the closed form of each draw's kernel."""
    rates, towards, labels = draws
    per_rate = np.asarray(response(t, rates, l2, degree).learned_per_rate)
    learned = (towards @ (per_rate[..., None] * labels))[..., 0]
    errors = (EIGENVALUES * (COEFFICIENTS - learned) ** 2).sum(1)
    mean, error = errors.mean(), errors.std() / 10
    found = risk.learning_curve(
        EIGENVALUES, COEFFICIENTS, 120, t=t, l2=l2, degree=degree, noise=0.3
    )
    assert abs(float(found) - mean) < 3 * error
    assert error < 0.02 * mean


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize(("time", "l2"), [(100.0, 1e-3), (3000.0, 1e-4)])
def test_digits_drawn_from_all_of_them(degree, time, l2):
    """The parity of digits of norm 1, the kernel of a ReLU network, n of 1,797 with replacement: within 5 %."""
    digits = datasets.load("digits")
    x = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, -1).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = datasets.parity(np.concatenate([digits.y_train, digits.y_test]))[:, 0]
    y = y - y.mean()
    layers = [stax.Dense(1, b_std=None), stax.Relu(), stax.Dense(1, b_std=None)]
    theta = np.asarray(kernels.analytic_kernel(stax.serial(*layers)[2], x))
    size = theta.diagonal().mean()
    t, l2, n = time / size, l2 * size, np.array([50, 200, 800])
    found = risk.learning_curve(*risk.spectrum(theta, y), n, t=t, l2=l2, degree=degree)
    for count, expected in zip(n, found, strict=True):
        errors = []
        for seed in range(20):
            rows = np.random.default_rng(seed).integers(0, 1797, count)
            train = theta[np.ix_(rows, rows)]
            predict_fn = predict.gradient_descent_mse(train, y[rows, None], l2=l2, degree=degree)
            test = predict_fn(t, None, 0.0, theta[:, rows])
            errors.append(np.mean((test[:, 0] - y) ** 2))
        away = np.mean(errors) / float(expected) - 1
        assert abs(away) < 0.05 + 2 * np.std(errors) / np.sqrt(20) / np.mean(errors)


def test_it_is_differentiable_and_says_what_it_cannot_do():
    def total(l2):
        return risk.learning_curve(
            EIGENVALUES, COEFFICIENTS, [20, 90], t=[5.0, 60.0], l2=l2, degree=2, noise=0.2
        ).sum()

    slope = (total(0.02 + 1e-6) - total(0.02 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(total)(0.02), slope, rtol=1e-6)
    with pytest.raises(ValueError, match="`t` is inf where `l2` is 0"):
        risk.learning_curve(EIGENVALUES, COEFFICIENTS, 10, t=np.inf, l2=0.0, degree=2)
    with pytest.raises(ValueError, match="one of each mode"):
        risk.learning_curve(EIGENVALUES, COEFFICIENTS[1:], 10, t=1.0, l2=0.0, degree=2)
    several = risk.learning_curve(
        EIGENVALUES,
        np.stack([COEFFICIENTS, 0 * MODES, 2 * COEFFICIENTS], 1),
        10,
        t=1.0,
        l2=0.1,
        degree=2,
    )
    one = risk.learning_curve(EIGENVALUES, COEFFICIENTS, 10, t=1.0, l2=0.1, degree=2)
    np.testing.assert_allclose(several, 5 * one, rtol=1e-12)


def test_the_spectrum_of_a_sample_gives_its_kernel_and_target_back():
    root = np.random.default_rng(0).normal(size=(7, 4))
    theta, y = root @ root.T, root @ np.ones((4, 2))
    values, coefficients = risk.spectrum(theta, y)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(theta / 7)[::-1], atol=1e-13)
    power = (np.asarray(coefficients) ** 2 * np.asarray(values)[:, None]).sum(0)
    np.testing.assert_allclose(power, (y**2).mean(0), rtol=1e-12)
    with pytest.raises(ValueError, match="not symmetric"):
        risk.spectrum(theta + np.triu(theta, 1), y)
    with jax.enable_x64(False):
        single = risk.learning_curve(
            jnp.float32(EIGENVALUES), jnp.float32(COEFFICIENTS), 120, t=50.0, l2=0.01, degree=2
        )
    double = risk.learning_curve(EIGENVALUES, COEFFICIENTS, 120, t=50.0, l2=0.01, degree=2)
    np.testing.assert_allclose(single, double, rtol=1e-3)
