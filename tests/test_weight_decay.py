"""Constants of weight decay against simulated steps of optax, to 1 %."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import scale_invariant, weight_decay

SIZE = 512


def walked(optimizer, norm, steps, gradient):
    """Mean of ‖w‖² and of the squared angle of a step, over `steps` steps from weights of this norm."""

    def step(state, key):
        w, moments = state
        change, moments = optimizer.update(gradient(jax.random.normal(key, (SIZE,)), w), moments, w)
        moved = w + change
        cosine = w @ moved / jnp.linalg.norm(w) / jnp.linalg.norm(moved)
        return (moved, moments), (moved @ moved, 2 * (1 - cosine))

    w = jax.random.normal(jax.random.key(0), (SIZE,))
    w *= norm / jnp.linalg.norm(w)
    start, late = (w, optimizer.init(w)), steps // 5
    _, found = jax.lax.scan(step, start, jax.random.split(jax.random.key(1), steps))
    return [float(one[late:].mean()) for one in found]


def noise(g, w):
    return 3.0 * g


def orthogonal(g, w):
    """Of a scale-invariant loss: across the weights, of norm 1/‖w‖."""
    norm = jnp.linalg.norm(w)
    across = g - (g @ w) * w / norm**2
    return across / jnp.sqrt(SIZE - 1) / norm


@pytest.mark.slow
@pytest.mark.parametrize("b1", [0.0, 0.9])
@pytest.mark.parametrize("gradient", [noise, orthogonal])
def test_adamw_ends_where_it_is_said_to(b1, gradient):
    rate, decay = 1e-3, 0.5
    found = weight_decay.adamw_equilibrium(rate, decay, SIZE, b1=b1)
    optimizer = optax.adamw(rate, b1=b1, b2=0.9999, eps=1e-12, weight_decay=decay)
    norm2, turned2 = walked(optimizer, found.norm, 60_000, gradient)
    assert norm2 == pytest.approx(float(found.norm) ** 2, rel=0.02)  # 1 % in the norm
    assert turned2 == pytest.approx(float(found.rotation) ** 2, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_with_l2_ends_where_it_is_said_to(momentum):
    rate, l2 = 0.05, 2e-3
    found = weight_decay.sgd_equilibrium(rate, l2, 1.0, momentum=momentum)
    optimizer = optax.chain(optax.add_decayed_weights(l2), optax.sgd(rate, momentum))
    norm2, turned2 = walked(optimizer, found.norm, 60_000, orthogonal)
    assert norm2 == pytest.approx(float(found.norm) ** 2, rel=0.02)
    assert turned2 == pytest.approx(float(found.rotation) ** 2, rel=0.02)


def test_without_momentum_it_is_the_equilibrium_of_the_papers():
    found = weight_decay.sgd_equilibrium(0.1, 0.02, 3.0)
    low, high = scale_invariant.equilibrium_norm2(3.0, 3.0, 0.1, 0.02)
    np.testing.assert_allclose([low, high], found.norm**2, rtol=1e-12)
    assert found.steps == pytest.approx(1 / (4 * 0.1 * 0.02))


def test_a_deviation_of_the_norm_falls_in_the_steps_that_are_named():
    """Without noise in the norm: AdamW's ‖w‖² by a fifth above its mean, in units of e."""
    rate, decay, size = 1e-3, 0.5, SIZE
    found = weight_decay.adamw_equilibrium(rate, decay, size, b1=0.0)
    norm2 = 1.2 * float(found.norm) ** 2
    steps = round(float(found.steps))
    for _ in range(steps):
        norm2 = (1 - rate * decay) ** 2 * norm2 + rate**2 * size
    left = (norm2 / float(found.norm) ** 2 - 1) / 0.2
    assert left == pytest.approx(np.exp(-1), rel=0.01)


def test_weights_average_their_updates_over_the_timescale():
    rate, decay = 1e-3, 0.5
    tau = weight_decay.timescale(rate, decay, batch_size=4.0, dataset_size=1000.0)
    w, late = 1.0, round(float(tau.steps))
    for _ in range(late):  # without updates
        w *= 1 - rate * decay
    assert w == pytest.approx(np.exp(-1), rel=0.01)
    assert [float(one) for one in tau] == pytest.approx([2000, 8000, 8])
    assert weight_decay.timescale(rate, decay).epochs is None


def test_a_transferred_decay_remembers_the_same_share():
    def share(rate, decay, batch, samples):
        tau = weight_decay.timescale(rate, decay, batch_size=batch)
        return float(tau.samples) / samples

    before = share(1e-3, 0.1, 64, 1e5)
    decay = weight_decay.transferred(0.1, learning_rate=3, batch_size=8, samples=5, width=4)
    assert share(3e-3 / 4, decay, 8 * 64, 5e5) == pytest.approx(before, rel=1e-6)
