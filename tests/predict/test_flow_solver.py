"""The default solver of a flow: its stabilized steps, and its errors where the flow is stiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay.predict import State, gradient_descent, gradient_descent_mse
from ntkdecay.predict._stabilized import REACH, WEIGHTS, stabilized_step

RNG = np.random.default_rng(0)


def relaxation(t, y):
    """Rates of 1 to 1000, a force that changes in time, and a nonlinear one."""
    return -jnp.array([1.0, 10.0, 300.0, 1000.0]) * (y - jnp.cos(t)) - 0.1 * y**3


@jax.jit
def stabilized(t, y, h, rate=1010.0):
    return stabilized_step(relaxation, t, y, relaxation(t, y), h, rate)


def test_a_stabilized_step_is_of_second_order_and_knows_its_error():
    y = jnp.array([0.0, 0.5, 1.0, 1.0])
    for _ in range(50):  # onto the slow solution
        y = stabilized(0.0, y, 0.01).y
    fine = y
    for i in range(64):
        fine = stabilized(i / 640, fine, 1 / 640).y
    errors, said = [], []
    for n in (2, 4, 8):
        end = y
        for i in range(n):
            step = stabilized(i * 0.1 / n, end, 0.1 / n)
            end = step.y
        errors.append(np.abs(end - fine).max())
        said.append(np.abs(step.error).max())
    assert np.log2(errors[0] / errors[2]) / 2 == pytest.approx(2, abs=0.3)
    assert np.log2(said[0] / said[2]) / 2 == pytest.approx(3, abs=0.5)
    middle = y + np.tensordot(
        WEIGHTS @ 0.5 ** np.arange(1, 5), stabilized(0.0, y, 1e-4).increments, 1
    )
    np.testing.assert_allclose(middle, stabilized(0.0, y, 5e-5).y, atol=1e-7)


@pytest.mark.parametrize("stages", [2, 3, 10, 200])
def test_a_stabilized_step_is_stable_as_far_as_it_says(stages):
    rate = np.linspace(0, 1, 2001)
    h = REACH * (stages**2 - 1) * 0.999

    def slope(_, y):
        return -rate * y

    y = jnp.ones_like(rate)
    grown = np.abs(jax.jit(lambda y: stabilized_step(slope, 0.0, y, slope(0.0, y), h, 1.0))(y).y)
    assert grown.max() <= 1
    assert grown[rate * h > 1].max() < 0.97


N, OUTPUTS = 40, 3
ONES = np.ones((N, 1))


def squared_error(fx, y):
    """Its program does not show that all samples weigh the same: its flow is not taken apart into modes."""
    return jnp.sum(ONES * (fx - y) ** 2) / 2


BASIS, _ = np.linalg.qr(RNG.normal(size=(N, N)))
Y, START = RNG.normal(size=(N, OUTPUTS)), RNG.normal(size=(N, OUTPUTS))


def kernel(ratio):
    k = (BASIS * np.geomspace(1, 1 / ratio, N)) @ BASIS.T
    return (k + k.T) / 2


@pytest.mark.parametrize(
    ("ratio", "l2", "t_max"), [(1e5, 0.0, 1e4), (1e8, 0.0, 1e8), (1e8, 1e-4, 1e5)]
)
def test_a_stiff_flow_is_the_closed_form_in_few_steps(ratio, l2, t_max):
    """Stabilized steps at first, implicit ones at 1e8; Tsit5 would take t/3."""
    t = t_max * np.array([1e-4, 1e-2, 1.0])
    flow = gradient_descent(squared_error, kernel(ratio), Y, l2=l2, degree=2, max_steps=1200)
    exact = gradient_descent_mse(kernel(ratio), Y, l2=l2, degree=2, reduction="sum")
    np.testing.assert_allclose(flow(t, START), exact(t, START), atol=1e-5)


def test_it_does_not_matter_how_time_is_split():
    """Nor where the parts end: in a phase of explicit steps or of stabilized ones."""
    flow = gradient_descent(squared_error, kernel(1e5), Y, l2=1e-4, degree=2)
    whole = flow(np.array([30.0, 500.0, 9000.0]), START)
    state, before = State(START), 0.0
    for t, f in zip([30.0, 500.0, 9000.0], whole, strict=True):
        state = flow(t - before, state)
        np.testing.assert_allclose(state.fx_train, f, atol=1e-5)
        before = t


def closed_form(l2, y):
    return gradient_descent_mse(kernel(1e5), y, l2=l2, degree=2, reduction="sum")


def default(l2, y):
    return gradient_descent(squared_error, kernel(1e5), y, l2=l2, degree=2)


@pytest.mark.slow
def test_derivatives_along_a_path_of_l2_are_those_of_the_closed_form():
    """Forwards through stabilized steps, backwards through implicit ones, λ = 0 among several, none of them NaN."""

    def total(predictor, l2, y):
        f = predictor(l2, y)(np.array([3.0, 300.0]), START)
        return jnp.sum(f * jnp.asarray(START)[None])

    l2, y = jnp.array([0.0, 1e-3, 0.1]), jnp.asarray(Y)
    found, exact = (
        jax.vmap(jax.grad(lambda l2, y, p=p: total(p, l2, y), argnums=(0, 1)), (0, None))(l2, y)
        for p in (default, closed_form)
    )
    for ours, theirs in zip(found, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    push = (jnp.ones(()), jnp.asarray(START))
    ours, theirs = (
        jax.jvp(lambda l2, y, p=p: p(l2, y)(300.0, START), (l2[1], y), push)[1]
        for p in (default, closed_form)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
