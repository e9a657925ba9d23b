"""What a run of a scale-invariant network records is what it did."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import scale_invariant as si
from ntkdecay import training

RATE, L2, STEPS = 0.5, 0.02, 12
X = np.random.default_rng(0).normal(size=(24, 6))
Y = np.eye(3)[np.arange(24) % 3]
W = {"body": np.random.default_rng(1).normal(size=(6, 4)), "head": np.ones((4, 3))}


def apply_fn(params, x):
    """Invariant to the scale of the body, not to that of the head."""
    head = jnp.sin(jnp.arange(12.0)).reshape(4, 3) * params["head"]
    return jax.nn.relu(jax.nn.standardize(x @ params["body"], 0, epsilon=0.0)) @ head


def loss(fx, y):
    return optax.softmax_cross_entropy(fx, y).mean()


def body(params):
    return params["body"]


def run(optimizer, wanted):
    """A run of these metrics with the weights of every step among them."""
    wanted = wanted | {"body": lambda s: s.params["body"].ravel()}
    return training.train(
        apply_fn, W, loss, X, Y, optimizer, l2=L2, steps=STEPS, record=range(STEPS + 1), metrics=wanted
    ).data  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    """Gradient descent, measured on all samples."""
    return run(optax.sgd(RATE), si.metrics(body))


@pytest.fixture(scope="module")
def steps():
    """The same run, measured by its steps."""
    return run(si.measured(optax.sgd(RATE), body), si.step_metrics())


def turns_of(data):
    w = data["body"].to_numpy()
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    return 1 - np.sum(w[1:] * w[:-1], axis=1)


def test_norms_are_of_the_selected_weights_and_obey_equation_3(whole):
    norm2 = np.sum(whole["body"].to_numpy() ** 2, axis=1)
    np.testing.assert_allclose(whole["norm2"], norm2, rtol=1e-12)
    slopes = whole["effective_gradient_norm"].to_numpy()[:-1]
    np.testing.assert_allclose(norm2, si.norm2_path(norm2[0], slopes, RATE, L2), rtol=1e-12)


def test_a_step_measures_what_a_pass_through_all_samples_does(whole, steps):
    """At full batch, one record later, and without the L2 term in its gradient."""
    for name in {name for name in whole if "step" in whole[name].dims} - {"body"}:
        np.testing.assert_allclose(steps[name][1:], whole[name][:-1], rtol=1e-12)
        assert np.isnan(steps[name][0])


def test_the_turns_are_those_of_the_weights_and_obey_equation_8(steps):
    np.testing.assert_allclose(steps["cosine_distance"][1:], turns_of(steps), atol=1e-14)
    assert turns_of(steps).min() > 1e-6
    record = steps.isel(step=slice(1, None))
    slopes = record["effective_gradient_norm"].to_numpy()
    expected = si.cosine_distance(record["norm2"].to_numpy(), slopes, RATE, L2)
    np.testing.assert_allclose(record["cosine_distance"], expected, rtol=1e-10)
    assert si.bounds(record, RATE, L2, window=3).attrs["share_inside"] == 1


def test_turns_of_momentum_are_those_of_its_steps():
    data = run(si.measured(optax.sgd(RATE, 0.9), body), si.step_metrics())
    np.testing.assert_allclose(data["cosine_distance"][1:], turns_of(data), atol=1e-14)


def test_small_turns_keep_their_digits_in_single_precision():
    w, across = jnp.array([3.0, 4.0], jnp.float32), jnp.array([-4.0, 3.0], jnp.float32)
    optimizer = si.measured(optax.sgd(1.0))
    for size in (1e-6, 1e-3, 1.0):
        state: Any = optimizer.update(size * across, optimizer.init(w), w)[1]
        assert state.cosine_distance.dtype == jnp.float32
        exact = -np.expm1(-0.5 * np.log1p(size**2))
        np.testing.assert_allclose(state.cosine_distance, exact, rtol=1e-5)
    state: Any = optimizer.update(2 * w, optimizer.init(w), w)[1]  # a step to −w
    np.testing.assert_allclose(state.cosine_distance, 2, rtol=1e-6)


def test_a_batched_slope_is_the_mean_over_batches(whole):
    data = run(optax.sgd(RATE), si.metrics(body, batch_size=10))

    @jax.jit
    def slope(x, y):
        gradient = jax.grad(lambda p: loss(apply_fn(p, x), y))(W)
        return jnp.linalg.norm(gradient["body"]) * jnp.linalg.norm(W["body"])

    each = [slope(X[:10], Y[:10]), slope(X[10:20], Y[10:20])]  # four samples are left over
    np.testing.assert_allclose(data["effective_gradient_norm"][0], np.mean(each), rtol=1e-12)
    np.testing.assert_allclose(whole["effective_gradient_norm"][0], slope(X, Y), rtol=1e-12)


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match=">= 1"):
        si.metrics(batch_size=0)
    with pytest.raises(ValueError, match="above the 24 samples"):
        run(optax.sgd(RATE), si.metrics(batch_size=25))
    with pytest.raises(ValueError, match="wrap it in `measured`"):
        run(optax.sgd(RATE), si.step_metrics())
    with pytest.raises(ValueError, match="give them"):
        optimizer = si.measured(optax.sgd(RATE))
        optimizer.update(W, optimizer.init(W))
