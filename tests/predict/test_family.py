"""Laws that every predictor obeys, on drawn kernels, labels and starts; each is compiled once, for one shape."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay import predict

N, N_TEST, OUTPUTS, DEGREE, RATE = 5, 2, 2, 2, 0.02
drawn = given(seed=st.integers(0, 2**32 - 1), l2=st.floats(0.02, 1))
few = settings(max_examples=6)


def squared_error(fx, y):
    return 0.5 * jnp.sum((fx - y) ** 2)


def cross_entropy(fx, y):
    return -jnp.sum(jax.nn.log_softmax(fx) * y)


def gradient_descent(loss):
    def flow(k, y, start, l2, t):
        predict_fn = predict.gradient_descent(
            loss, k[:N, :N], y, l2=l2, degree=DEGREE, solver=diffrax.Dopri8(), rtol=1e-12, atol=1e-14
        )  # fmt: skip
        return predict_fn(t, start[:N], start[N:], k[N:, :N])

    return flow


def sgd(loss):
    def steps(k, y, start, l2, t, rate=RATE):
        predict_fn = predict.sgd(loss, k[:N, :N], y, l2=l2, degree=DEGREE, learning_rate=rate)
        return predict_fn(t, start[:N], start[N:], k[N:, :N])

    return steps


def closed_form(k, y, start, l2, t):
    predict_fn = predict.gradient_descent_mse(k[:N, :N], y, l2=l2, degree=DEGREE, reduction="sum")
    return predict_fn(t, start[:N], start[N:], k[N:, :N])


def matrix_free(k, y, start, l2, t):
    predict_fn = predict.gradient_descent_mse_matrix_free(
        lambda v: k[:N, :N] @ v, y, l2=l2, degree=DEGREE, reduction="sum"
    )
    return predict_fn(t, start[:N], start[N:], lambda v: k[N:, :N] @ v)


class Kernels(NamedTuple):
    nngp: jax.Array
    ntk: jax.Array


def ensemble_mean(k, y, start, l2, t):
    """Of starts of mean 0: the start does not enter. The inputs are features whose products are k."""
    x = jnp.linalg.cholesky(k)

    def kernel_fn(x1, x2, get):
        product = x1 @ (x1 if x2 is None else x2).T
        return Kernels(product, product)

    predict_fn = predict.gradient_descent_mse_ensemble(
        kernel_fn, x[:N], y, l2=l2, degree=DEGREE, reduction="sum"
    )
    return predict_fn(t, None, "ntk"), predict_fn(t, x[N:], "ntk")


CONTINUOUS = {
    "gradient_descent": gradient_descent(squared_error),
    "gradient_descent_mse": closed_form,
    "matrix-free": matrix_free,
    "ensemble": ensemble_mean,
}
SGD, SOFTMAX = {"sgd": sgd(squared_error)}, {"softmax": gradient_descent(cross_entropy)}
MEMBERS = {name: jax.jit(one) for name, one in (CONTINUOUS | SGD | SOFTMAX).items()}
LINEAR = [*CONTINUOUS, *SGD]


def f(name, *arguments):
    """f on training and test points together, (times, N + N_TEST, OUTPUTS)."""
    return np.concatenate(MEMBERS[name](*arguments), axis=1)


def problem(seed):
    """A kernel between all points, labels (probabilities), starts, and three times."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(N + N_TEST, 12))
    y = rng.dirichlet(np.ones(OUTPUTS), N)
    return a @ a.T / 12, y, rng.normal(size=(N + N_TEST, OUTPUTS)), np.sort(rng.uniform(0.1, 5, 3))


def in_units_of(name, t):
    """Times of gradient flow, steps of sgd."""
    return np.round(50 * t) if name == "sgd" else t


@pytest.mark.parametrize("name", MEMBERS)
@few
@drawn
def test_the_order_of_samples_does_not_matter(name, seed, l2):
    k, y, start, t = problem(seed)
    order = np.random.default_rng(seed).permutation(N)
    every = np.concatenate([order, N + np.arange(N_TEST)])
    t = in_units_of(name, t)
    found = f(name, k[np.ix_(every, every)], y[order], start[every], l2, t)
    np.testing.assert_allclose(found, f(name, k, y, start, l2, t)[:, every], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", LINEAR)
@few
@drawn
def test_on_mse_f_is_linear_in_start_and_labels(name, seed, l2):
    k, y, start, t = problem(seed)
    _, y2, start2, _ = problem(seed + 1)
    t = in_units_of(name, t)
    one, other = f(name, k, y, start, l2, t), f(name, k, y2, start2, l2, t)
    both = f(name, k, 2 * y - 3 * y2, 2 * start - 3 * start2, l2, t)
    np.testing.assert_allclose(both, 2 * one - 3 * other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MEMBERS)
@few
@drawn
def test_l2_makes_a_deep_network_forget_everything(name, seed, l2):
    k, y, start, _ = problem(seed)
    first, last = f(name, k, y, start, l2, in_units_of(name, np.array([0.1, 1.0, 20 / l2])))[::2]
    assert np.abs(first).max() > 1e-3
    assert np.abs(last).max() < 1e-12


@pytest.mark.parametrize("name", [*CONTINUOUS, *SOFTMAX])
@few
@drawn
def test_theorem_1_holds_by_finite_differences_of_the_trajectory(name, seed, l2):
    k, y, start, t = problem(seed)
    h = 1e-4
    before, now, after = f(name, k, y, start, l2, t[0] + np.array([-h, 0.0, h]))
    outputs = np.asarray(jax.nn.softmax(now[:N])) if name == "softmax" else now[:N]
    pull = np.exp(-2 * (DEGREE - 1) * l2 * t[0]) * k[:, :N] @ (outputs - y)
    rate = (after - before) / (2 * h)
    np.testing.assert_allclose(rate, -pull - DEGREE * l2 * now, rtol=0, atol=2e-6)


@few
@drawn
def test_sgd_obeys_its_recursion(seed, l2):
    """f ← α^k f − η α^{k−1} a^{2(k−1)} Θ_0 ∂L/∂f with α = 1 − ηλ, on training and test points."""
    k, y, start, _ = problem(seed)
    _, now, after = f("sgd", k, y, start, l2, np.array([0.0, 30.0, 31.0]))
    alpha = 1 - RATE * l2
    pull = alpha ** (DEGREE - 1) * alpha ** (60 * (DEGREE - 1)) * k[:, :N] @ (now[:N] - y)
    np.testing.assert_allclose(after, alpha**DEGREE * now - RATE * pull, rtol=0, atol=1e-12)


@few
@drawn
def test_all_members_agree_and_sgd_tends_to_them(seed, l2):
    k, y, start, t = problem(seed)
    exact = f("gradient_descent_mse", k, y, start, l2, t)
    for name in ("gradient_descent", "matrix-free"):
        np.testing.assert_allclose(f(name, k, y, start, l2, t), exact, rtol=0, atol=1e-9)
    mean = f("gradient_descent_mse", k, y, 0 * start, l2, t)
    np.testing.assert_allclose(f("ensemble", k, y, start, l2, t), mean, rtol=0, atol=1e-9)
    steps = np.array([0.0, 50.0, 100.0])
    exact = f("gradient_descent_mse", k, y, start, l2, RATE * steps)
    coarse, fine = (
        f("sgd", k, y, start, l2, steps * n, RATE / n) for n in (4, 8)
    )  # an error in η, then in η²
    first, second = np.abs(fine - exact).max(), np.abs(2 * fine - coarse - exact).max()
    assert second < 0.1 * first < 1e-3
