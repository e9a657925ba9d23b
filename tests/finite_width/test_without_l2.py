import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trained import DEGREE, LINEAR, NETWORKS, RELU, SQUARED, draw

from ntkdecay import finite_width, optimizers, scale_invariant

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 1))
STEPS = 60
BATCHES = RNG.integers(0, 6, (STEPS, 4))
RATES = 0.1 * 0.5 ** (np.arange(STEPS) // 20)
L2 = np.where(np.arange(STEPS) < 30, 0.3, 0.1)


def softplus(fx, y):
    return jnp.mean(jnp.logaddexp(0, -jnp.sign(y) * fx)) + jnp.mean((fx - y) ** 2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def path(kind, momentum, params, learning_rate, l2, output):
    """θ after every step of SGD with L2 on minibatches, the output multiplied by a number at each step."""
    optimizer = optimizers.sgd(
        lambda step: learning_rate[step], l2=lambda step: l2[step], momentum=momentum
    )

    def step(carry, now):
        params, state = carry
        batch, scale = now

        def loss(p):
            return softplus(scale * NETWORKS[kind](p, jnp.asarray(X)[batch]), jnp.asarray(Y)[batch])

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), (BATCHES, output))[1]


@pytest.mark.parametrize("momentum", [None, 0.5])
@pytest.mark.parametrize("kind", [LINEAR, RELU, SQUARED])
def test_training_without_l2_is_training_with_it(kind, momentum):
    twin = finite_width.without_l2(RATES, L2, degree=DEGREE[kind], momentum=momentum)
    params = draw(16)
    with_l2 = path(kind, momentum, params, RATES, L2, np.ones(STEPS))
    without = path(kind, momentum, params, twin.learning_rate, 0 * L2, twin.output[:-1])
    assert twin.scale[-1] < 0.5
    for theta, phi in zip(with_l2, without, strict=True):
        np.testing.assert_allclose(theta, twin.scale[1:, None, None] * phi, rtol=1e-10, atol=1e-12)


def test_without_momentum_at_degree_0_it_is_the_schedule_without_decay():
    twin = finite_width.without_l2(RATES, L2, degree=0)
    expected = scale_invariant.schedule_without_decay(RATES, L2)
    np.testing.assert_allclose(twin.learning_rate, expected, rtol=1e-13)
    np.testing.assert_array_equal(twin.output, np.ones(STEPS + 1))


def test_gradient_flow_is_the_limit_of_its_steps():
    t, steps = 2.0, 20_000
    twin = finite_width.without_l2(np.full(steps, t / steps), 0.3, degree=3)
    a = np.exp(-0.3 * t)
    np.testing.assert_allclose(twin.scale[-1], a, rtol=1e-4)
    np.testing.assert_allclose(
        twin.output[-1] * twin.learning_rate[-1] * steps / t, a ** (3 - 2), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([0.1], 20.0, None), "the scale of the weights to -1 in 1 steps"),
        ((np.full(99, 0.1), 5.0, 0.9), "the scale of the weights to -"),
        ((np.full(2000, 0.1), 5.0, None), r"to 1\.\d*e-154 in 511 steps"),
        ((0.1, 0.5, None), "one value for each step"),
    ],
)
def test_a_scale_that_l2_takes_away_is_refused(arguments, reason):
    rate, l2, momentum = arguments
    with pytest.raises(ValueError, match=reason):
        finite_width.without_l2(rate, l2, degree=2, momentum=momentum)
