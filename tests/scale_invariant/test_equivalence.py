"""Hyperparameters that give the same directions at every step, on trained trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import scale_invariant as si

STEPS = 60


def loss(w):
    """Scale-invariant, in four dimensions, with a generic gradient."""
    return (w[0] ** 2 + 0.3 * w[0] * w[1] - 0.2 * w[1] * w[2] - w[3] * w[2]) / (w @ w)


W_0 = jnp.array([1.0, -0.7, 0.4, 0.2])


def train(optimizer, w_0=W_0):
    """The weights at each step."""

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    return np.asarray(jax.lax.scan(step, (w_0, optimizer.init(w_0)), length=STEPS)[1])


def sgd(learning_rate, l2, **options):
    return optax.chain(optax.add_decayed_weights(l2), optax.sgd(learning_rate, **options))


def directions(w):
    return w / np.linalg.norm(w, axis=1, keepdims=True)


def test_weight_decay_is_an_exponential_schedule():
    """Appendix B, with the exponent −2t − 1; the weights are those with decay over (1 − ηλ)^t."""
    decayed = train(sgd(0.2, 0.1))
    growing = train(optax.sgd(si.exponential_schedule(0.2, 0.1)))
    t = np.arange(1, STEPS + 1)[:, None]
    np.testing.assert_allclose(growing * 0.98**t, decayed, rtol=1e-11, atol=1e-13)
    assert np.max(abs(np.diff(directions(decayed), axis=0))) > 1e-3


def test_schedules_of_both_hyperparameters_are_one_schedule_without_decay():
    t = jnp.arange(STEPS)
    learning_rate, l2 = 0.2 / (1 + 0.1 * t), 0.1 + 0.3 * jnp.sin(t) ** 2
    decayed = train(sgd(lambda count: learning_rate[count], lambda count: l2[count]))
    schedule = si.schedule_without_decay(learning_rate, l2)
    plain = train(optax.sgd(lambda count: schedule[count]))
    np.testing.assert_allclose(directions(plain), directions(decayed), rtol=1e-11, atol=1e-13)
    constant = si.schedule_without_decay(jnp.full(5, 0.2), 0.1)
    np.testing.assert_allclose(constant, si.exponential_schedule(0.2, 0.1)(jnp.arange(5)))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}])
def test_proposition_4_the_scale_of_the_weights_is_a_learning_rate(options):
    other = si.rescaled({"w": W_0}, 0.2, 0.1, 3.7)
    np.testing.assert_allclose(other.learning_rate * other.l2, 0.02, rtol=1e-14)
    moved = train(sgd(other.learning_rate, other.l2, **options), other.params["w"])
    np.testing.assert_allclose(moved, 3.7 * train(sgd(0.2, 0.1, **options)), rtol=1e-10)


@pytest.mark.parametrize("eps", [0.0, 1e-2])
def test_theorem_c_2_for_adamw(eps):
    """With ε = 0 as stated, and with an ε that is divided by C, which the theorem leaves out."""
    here = optax.adamw(0.02, b2=0.99, eps=eps, weight_decay=0.5)
    other = si.rescaled_adamw(W_0, 0.02, 0.5, 3.7, eps)
    there = optax.adamw(
        other.learning_rate, b2=0.99, eps=other.eps, weight_decay=other.weight_decay
    )
    path = train(there, other.params)
    np.testing.assert_allclose(path, 3.7 * train(here), rtol=1e-9)
    if eps:
        unscaled = optax.adamw(
            other.learning_rate, b2=0.99, eps=eps, weight_decay=other.weight_decay
        )
        assert np.max(abs(train(unscaled, other.params) / path - 1)) > 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: si.exponential_schedule(2.0, 0.5), "below 1"),
        (lambda: si.schedule_without_decay(0.1, 0.1), "exponential_schedule"),
        (lambda: si.schedule_without_decay(jnp.array([0.1, 2.0]), 0.6), "below 1"),
        (lambda: si.rescaled(W_0, 0.1, 0.1, 0.0), "scale"),
        (lambda: si.rescaled_adamw(W_0, 0.1, 0.1, -1.0), "scale"),
    ],
)
def test_bad_numbers_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
