"""What is refused only when a program runs: NaN, no call of Python back, and the sentence for those who ask `checkify`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from ntkdecay import predict

A = np.random.default_rng(0).normal(size=(5, 12))
K, Y = A @ A.T / 12, np.random.default_rng(1).normal(size=(5, 2))
OPTIONS = {"l2": 0.01, "degree": 2}


def changed(value, at=(0, 1)):
    kernel = K.copy()
    kernel[at] = value
    return kernel


BROKEN, SKEW, NEGATIVE = changed(np.nan), changed(3.0), K - 2 * np.eye(5)


def loss(fx, y):
    return ((fx - y) ** 2).mean() / 2


def mse(k=K, t=3.0, **changes):
    return predict.gradient_descent_mse(k, Y, **OPTIONS | changes)(t)


def flow(k=K, t=3.0, **changes):
    return predict.gradient_descent(loss, k, Y, **OPTIONS | changes)(t)


def sgd(t=3, learning_rate=0.1, **changes):
    return predict.sgd(loss, K, Y, learning_rate, **OPTIONS | changes)(t)


def matrix_free(k=K, t=3.0, **changes):
    return predict.gradient_descent_mse_matrix_free(lambda v: k @ v, Y, **OPTIONS | changes)(t)


def pieces(edges):
    return mse(l2=predict.PiecewiseConstant([0.1, 0.2, 0.3], edges))


SHORT = {"max_depth": 2, "l2": 0.0, "tolerance": 1e-12}
CASES = {
    "mode, t": (lambda t: predict.mode(t, 1.0, 0.1, 2), 1.0, -1.0, "`t` must be >= 0"),
    "mode, l2": (lambda l2: predict.mode(1.0, 1.0, l2, 2), 1.0, -1.0, "`l2` must be >= 0"),
    "quasi_static": (lambda u: predict.quasi_static(u, 2), 1.0, -1.0, "`u` must be >= 0"),
    "mse, NaN": (mse, K, BROKEN, "has NaN or infinite entries"),
    "mse, skew": (mse, K, SKEW, "is not symmetric"),
    "mse, negative": (mse, K, NEGATIVE, "is not positive semi-definite"),
    "mse, t": (lambda t: mse(t=t), 1.0, -1.0, "`t` must be >= 0"),
    "mse, learning rate": (lambda x: mse(learning_rate=x), 1.0, -1.0, "`learning_rate` must be"),
    "mse, l2": (lambda l2: mse(l2=l2), 1.0, -1.0, "`l2` must be >= 0"),
    "mse, λ(t)": (pieces, np.array([1.0, 2.0]), np.array([2.0, 1.0]), "must be ascending"),
    "peak_time": (lambda k: predict.peak_time(k, Y, **OPTIONS), K, BROKEN, "has NaN or infinite"),
    "flow, NaN": (flow, K, BROKEN, "has NaN or infinite entries"),
    "flow, t": (lambda t: flow(t=t), np.array([1.0, 2.0]), np.array([2.0, 1.0]), "must be ascend"),
    "flow, steps": (lambda t: flow(t=t, max_steps=40), 0.1, 1e4, "`max_steps` are over"),
    "sgd, part of a step": (sgd, 2.0, 2.5, "must be whole numbers"),
    "sgd, t": (sgd, 2, -2, "`t` must be from 0 to"),
    "sgd, order": (sgd, np.array([1, 2]), np.array([2, 1]), "must be ascending"),
    "sgd, batches": (lambda b: sgd(batches=b), np.array([[0, 1]]), np.array([[0, 5]]), "from 0 to 4"),
    "sgd, diverged": (lambda x: sgd(2000, x), 0.1, 1e4, "is above what is stable"),
    "matrix-free, NaN": (matrix_free, K, BROKEN, "`matvec` gives NaN or infinite"),
    "matrix-free, negative": (matrix_free, K, NEGATIVE, "positive semi-definite matrix"),
    "matrix-free, depth": (lambda t: matrix_free(t=t, **SHORT), 0.0, 1e3, "at `max_depth` = 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_nan_and_the_sentence(case):
    function, good, bad, sentence = CASES[case]
    program = jax.jit(function)
    assert "callback" not in program.lower(good).as_text()
    assert np.isfinite(program(good)).all()
    assert np.isnan(program(bad)).any()
    checked = jax.jit(checkify.checkify(function))
    assert checked(good)[0].get() is None
    assert sentence in (checked(bad)[0].get() or "")


def test_each_of_a_batch_for_itself():
    """NaN where λ is refused, and there alone."""
    found = jax.jit(jax.vmap(lambda l2: predict.mode(1.0, 1.0, l2, 2)))(jnp.array([0.1, -0.1]))
    np.testing.assert_array_equal(np.isnan(found), [False, True])
    assert found[0] == predict.mode(1.0, 1.0, 0.1, 2)


def test_derivatives_are_those_without_the_question():
    ours = jax.grad(lambda l2: predict.mode(1.0, 1.0, l2, 2))(0.1)
    step = 1e-6
    apart = predict.mode(1.0, 1.0, 0.1 + step, 2) - predict.mode(1.0, 1.0, 0.1 - step, 2)
    np.testing.assert_allclose(ours, apart / (2 * step), rtol=1e-8)
