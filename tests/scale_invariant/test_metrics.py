"""What a run of a scale-invariant network records is what it did."""

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


def run(optimizer, **options):
    """A run with the weights of every step among its metrics."""
    wanted = si.metrics(body, turns=True, **options) | {"body": lambda s: s.params["body"].ravel()}
    return training.train(
        apply_fn, W, loss, X, Y, si.turning(optimizer, body), l2=L2, steps=STEPS, record=range(STEPS + 1), metrics=wanted
    ).data  # fmt: skip


@pytest.fixture(scope="module")
def descent():
    return run(optax.sgd(RATE))


def turns_of(data):
    w = data["body"].to_numpy()
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    return 1 - np.sum(w[1:] * w[:-1], axis=1)


def test_norms_and_turns_are_of_the_selected_weights(descent):
    np.testing.assert_allclose(
        descent["norm2"], np.sum(descent["body"].to_numpy() ** 2, axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(descent["cosine_distance"][1:], turns_of(descent), atol=1e-14)
    assert descent["cosine_distance"][0] == 0 and turns_of(descent).min() > 1e-6


def test_the_record_obeys_equation_3(descent):
    slopes = descent["effective_gradient_norm"].to_numpy()[:-1]
    path = si.norm2_path(float(descent["norm2"][0]), slopes, RATE, L2)
    np.testing.assert_allclose(descent["norm2"], path, rtol=1e-12)


def test_the_turns_obey_equation_8_and_lie_in_their_bounds(descent):
    record = descent.assign(cosine_distance=descent["cosine_distance"].shift(step=-1))
    record = record.isel(step=slice(-1))
    expected = si.cosine_distance(
        record["norm2"].to_numpy(), record["effective_gradient_norm"].to_numpy(), RATE, L2
    )
    np.testing.assert_allclose(record["cosine_distance"], expected, rtol=1e-10)
    assert si.bounds(record, RATE, L2, window=3).attrs["share_inside"] == 1


def test_turns_of_momentum_are_those_of_its_steps():
    data = run(optax.sgd(RATE, 0.9))
    np.testing.assert_allclose(data["cosine_distance"][1:], turns_of(data), atol=1e-14)


def test_small_turns_keep_their_digits_in_single_precision():
    w, across = jnp.array([3.0, 4.0], jnp.float32), jnp.array([-4.0, 3.0], jnp.float32)
    optimizer = si.turning(optax.sgd(1.0))
    for size in (1e-6, 1e-3, 1.0):
        _, state = optimizer.update(size * across, optimizer.init(w), w)
        assert state.cosine_distance.dtype == jnp.float32
        exact = -np.expm1(-0.5 * np.log1p(size**2))
        np.testing.assert_allclose(state.cosine_distance, exact, rtol=1e-5)
    _, state = optimizer.update(2 * w, optimizer.init(w), w)  # a step to −w
    np.testing.assert_allclose(state.cosine_distance, 2, rtol=1e-6)


def test_a_batched_slope_is_the_mean_over_batches(descent):
    data = run(optax.sgd(RATE), batch_size=10)

    def slope(params, rows):
        gradient = jax.grad(lambda p: loss(apply_fn(p, X[rows]), Y[rows]))(params)
        return np.linalg.norm(gradient["body"]) * np.linalg.norm(params["body"])

    each = [slope(W, slice(0, 10)), slope(W, slice(10, 20))]  # four samples are left over
    np.testing.assert_allclose(data["effective_gradient_norm"][0], np.mean(each), rtol=1e-12)
    np.testing.assert_allclose(
        descent["effective_gradient_norm"][0], slope(W, slice(None)), rtol=1e-12
    )


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match="at least 1"):
        si.metrics(batch_size=0)
    with pytest.raises(ValueError, match="above the 24 samples"):
        run(optax.sgd(RATE), batch_size=25)
    with pytest.raises(ValueError, match="wrap it in `turning`"):
        training.train(
            apply_fn, W, loss, X, Y, optax.sgd(RATE), steps=1, metrics=si.metrics(turns=True)
        )
    with pytest.raises(ValueError, match="give them"):
        optimizer = si.turning(optax.sgd(RATE))
        optimizer.update(W, optimizer.init(W))
