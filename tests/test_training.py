"""The training loop against the same steps written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay.training import train

X = np.random.default_rng(0).normal(size=(6, 3))
Y = np.random.default_rng(1).normal(size=(6, 1))


def apply_fn(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["v"]


def loss(fx, y):
    return 0.5 * jnp.sum((fx - y) ** 2)


@pytest.fixture
def params():
    rng = np.random.default_rng(2)
    return {"w": jnp.asarray(rng.normal(size=(3, 4))), "v": jnp.asarray(rng.normal(size=(4, 1)))}


def test_gradient_descent_with_coupled_l2_step_by_step(params):
    run = train(apply_fn, params, loss, X, Y, optax.sgd(0.01), [0, 1, 7], l2=0.3)
    expected, p = [apply_fn(params, X)], params
    for step in range(1, 8):
        gradient = jax.grad(
            lambda p: loss(apply_fn(p, X), Y) + 0.15 * sum(jnp.sum(w**2) for w in p.values())
        )(p)
        p = jax.tree.map(lambda w, g: w - 0.01 * g, p, gradient)
        if step in (1, 7):
            expected.append(apply_fn(p, X))
    np.testing.assert_allclose(run.records, np.stack(expected), rtol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), run.params, p)


def test_what_is_recorded_is_the_callers(params):
    run = train(apply_fn, params, loss, X, Y, optax.sgd(0.01), [0, 5], record=jnp.mean)
    assert run.records.shape == (2,)


def test_divergence_and_bad_steps_are_said(params):
    with pytest.raises(FloatingPointError, match="diverged before step 400"):
        train(apply_fn, params, loss, X, Y, optax.sgd(10.0), [0, 400])
    for steps in ([], [3, 2], [-1, 2]):
        with pytest.raises(ValueError, match="ascending"):
            train(apply_fn, params, loss, X, Y, optax.sgd(0.01), steps)
