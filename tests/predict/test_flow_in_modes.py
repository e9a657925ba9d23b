"""Flows of quadratic losses: which ones are known to fall into modes, and that they are solved as all others are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from ntkdecay.predict import PiecewiseConstant, State, gradient_descent, gradient_descent_mse
from ntkdecay.predict._affine import is_affine

RNG = np.random.default_rng(0)
N, OUTPUTS = 30, 2
BASIS, _ = np.linalg.qr(RNG.normal(size=(N, N)))
Y, START = RNG.normal(size=(N, OUTPUTS)), RNG.normal(size=(N, OUTPUTS))
MASK = np.arange(N)[:, None] % 3 > 0
NEARLY_ONE = np.where(np.arange(N) == 7, 1 + 1e-3, 1.0)[:, None]
ONES = np.ones((N, OUTPUTS))


def kernel(ratio):
    k = (BASIS * np.geomspace(1, 1 / ratio, N)) @ BASIS.T
    return (k + k.T) / 2


def squared_error(fx, y):
    return jnp.sum((fx - y) ** 2) / 2


def disguised(fx, y):
    """The same numbers, which its program does not show."""
    return jnp.sum(ONES * (fx - y) ** 2) / 2


@jax.custom_jvp
def rounded(x):
    return jnp.round(x, 1)


@rounded.defjvp
def _(primals, tangents):
    return rounded(*primals), tangents[0]


EVEN = {
    "sum": squared_error,
    "mean": lambda f, y: jnp.mean(jnp.square(f - y)) / 2,
    "optax": lambda f, y: jnp.mean(optax.squared_error(f, y)),
    "of sums": lambda f, y: jnp.mean(jnp.sum((y - f) ** 2, axis=-1)),
    "product": lambda f, y: jnp.sum((f - y) * (f - y)),
    "vdot": lambda f, y: jnp.vdot(f - y, f - y),
    "jit": jax.jit(squared_error),
    "vmap": lambda f, y: jnp.mean(jax.vmap(squared_error)(f, y)),
    "a number from the labels": lambda f, y: jnp.sum((f - y) ** 2) / jnp.sum(y**2),
    "more terms": lambda f, y: jnp.sum((f - y) ** 2) + 0.1 * jnp.sum(f * y) + jnp.sum(f**2),
}
UNEVEN = {
    "disguised": disguised,
    "weights": lambda f, y: jnp.sum(NEARLY_ONE * (f - y) ** 2),
    "mask": lambda f, y: jnp.sum(jnp.where(MASK, f - y, 0.0) ** 2),
    "mask from labels": lambda f, y: jnp.sum(jnp.where(y > 0, (f - y) ** 2, 0.0)),
    "some samples": lambda f, y: jnp.sum((f[3:] - y[3:]) ** 2),
    "reversed": lambda f, y: jnp.sum((f[::-1] - y) * (f - y)),
    "coupled outputs": lambda f, y: jnp.sum((jnp.sum(f, axis=1) - y[:, 0]) ** 2),
    "transposed": lambda f, y: jnp.sum((f - y) ** 2) + jnp.sum(f.reshape(2, -1).T * f),
    "nearly": lambda f, y: jnp.sum((f - y) ** 2) + 1e-9 * jnp.sum(f**4),
    "far away": lambda f, y: jnp.sum(optax.huber_loss(f, y, delta=1e6)),
    "cross entropy": lambda f, y: -jnp.sum(jax.nn.log_softmax(f) * y),
    "clipped": lambda f, y: jnp.sum((jnp.clip(f, -1e9, 1e9) - y) ** 2),
    "behind a constant": lambda f, y: jnp.sum((f - y + jax.lax.stop_gradient(f**2)) ** 2),
    "scaled by itself": lambda f, y: jnp.sum(
        (f - y) ** 2 * jax.lax.stop_gradient(jnp.sum(f**2) + 1)
    ),
    "a rule of its own": lambda f, y: jnp.sum((rounded(f) - y) ** 2),
    "in another precision": lambda f, y: jnp.sum((f.astype(jnp.float16) - y) ** 2),
    "a loop": lambda f, y: jax.lax.fori_loop(0, 3, lambda i, s: s + jnp.sum((f - y) ** 2), 0.0),
}


@pytest.mark.parametrize("name", [*EVEN, *UNEVEN])
def test_only_a_sum_of_squares_without_weights_is_known_as_one(name):
    loss = (EVEN | UNEVEN)[name]

    def slope(f):
        return jax.grad(loss)(f, jnp.asarray(Y))

    assert is_affine(slope, jnp.asarray(START)) == (name in EVEN)
    if name in EVEN:
        h = jax.jacobian(slope)(jnp.asarray(START)).reshape(Y.size, Y.size)
        np.testing.assert_allclose(h, h[0, 0] * np.eye(Y.size), atol=1e-15)


@pytest.mark.parametrize(
    ("momentum", "options"),
    [
        (None, {"l2": PiecewiseConstant([1e-3, 0.0, 2e-3], [20.0, 800.0])}),
        (None, {"l2": {"all": 1e-3}, "degree": None}),
        (0.9, {"l2": 1e-3, "degree": 3}),
        pytest.param(0.9, {"l2": 0.0, "l2_from": "init"}, marks=pytest.mark.slow),
        pytest.param(0.9, {"l2": PiecewiseConstant([1e-3, 0.0], [20.0])}, marks=pytest.mark.slow),
    ],
)
def test_modes_are_the_flow_itself(momentum, options):
    k = {"all": kernel(1e4)} if isinstance(options["l2"], dict) else kernel(1e4)
    t = np.array([0.0, 1.0, 300.0, 3000.0])
    options = {"degree": 2, "rtol": 1e-8, "atol": 1e-10, "momentum": momentum} | options
    ours, general = (
        gradient_descent(loss, k, Y, **options)(t, START) for loss in (squared_error, disguised)
    )
    np.testing.assert_allclose(ours, general, atol=1e-6)


@pytest.mark.parametrize(("ratio", "l2", "t_max"), [(1e8, 0.0, 1e8), (1e8, 1e-4, 1e5)])
def test_modes_are_the_closed_form_in_few_steps(ratio, l2, t_max):
    t = t_max * np.array([1e-4, 1e-2, 1.0])
    flow = gradient_descent(squared_error, kernel(ratio), Y, l2=l2, degree=2, max_steps=300)
    exact = gradient_descent_mse(kernel(ratio), Y, l2=l2, degree=2, reduction="sum")
    np.testing.assert_allclose(flow(t, START), exact(t, START), atol=2e-6)
    state, before = State(START), 0.0
    for one, f in zip(t, exact(t, START), strict=True):
        state = flow(one - before, state)
        np.testing.assert_allclose(state.fx_train, f, atol=2e-6)
        before = one


@pytest.mark.parametrize("weights", [MASK * ONES, NEARLY_ONE * ONES])
def test_a_stiff_flow_with_weights_or_a_mask_is_that_flow(weights):
    """f' = −Θ W (f − y), by the exponential of that matrix for each output."""
    k, t = kernel(1e5), 3000.0
    flow = gradient_descent(
        lambda f, y: jnp.sum(weights * (f - y) ** 2) / 2, k, Y, l2=0.0, degree=2
    )
    left = [scipy.linalg.expm(-t * k * weights[:, o]) @ (START - Y)[:, o] for o in range(OUTPUTS)]
    np.testing.assert_allclose(flow(t, START), Y + np.stack(left, 1), atol=1e-5)


def test_a_stiff_flow_of_a_nearly_quadratic_loss_is_that_flow():
    """A fourth power that acts at the start, far from the labels, and hardly later."""
    k, t = kernel(1e4), np.array([1.0, 100.0, 3000.0])

    def loss(f, y):
        return squared_error(f, y) + 0.05 * jnp.sum((f - y) ** 4)

    def slope(t, f):
        r = f.reshape(Y.shape) - Y
        return -(k @ (r + 0.2 * r**3)).ravel()

    exact = scipy.integrate.solve_ivp(
        slope, (0, t[-1]), START.ravel(), "LSODA", t_eval=t, rtol=1e-9, atol=1e-11
    )
    ours = gradient_descent(loss, k, Y, l2=0.0, degree=2)(t, START)
    np.testing.assert_allclose(ours, exact.y.T.reshape(ours.shape), atol=1e-5)


def test_in_float32_modes_are_as_good_as_it():
    k, y, start = (x.astype(np.float32) for x in (kernel(1e4), Y, START))
    t = np.array([1.0, 300.0, 3000.0], np.float32)
    ours = gradient_descent(squared_error, k, y, l2=1e-4, degree=2)(t, start)
    exact = gradient_descent_mse(kernel(1e4), Y, l2=1e-4, degree=2, reduction="sum")(t, START)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, exact, atol=2e-3)


T = np.array([1.0, 50.0, 3000.0])


def at(l2, loss=squared_error):
    return gradient_descent(loss, kernel(1e4), Y, l2=l2, degree=2)(T, START)


def test_a_traced_flow_is_the_one_that_is_not():
    """A path of λ, of which some flows are stiff."""
    l2 = np.array([0.0, 1e-3, 1.0])
    np.testing.assert_allclose(jax.vmap(at)(l2), [at(one) for one in l2], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_a_loss_may_have_captured_what_is_differentiated(mode):
    def last(share):
        return at(0.0, lambda f, y: share * squared_error(f, y))[-1, 0, 0]

    h = 1e-4
    near = (last(1 + h) - last(1 - h)) / (2 * h)
    np.testing.assert_allclose(mode(last)(1.0), near, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [None, 0.5])
def test_derivatives_are_those_of_the_flow_with_equal_eigenvalues_too(momentum):
    """Of λ, labels, start and kernel, in both directions; in the eigenbasis itself equal eigenvalues have none."""
    values = np.array([1.0, 1.0, 1.0, 1e-1, 1e-1, *np.geomspace(1e-2, 1e-3, N - 5)])
    k, t = (BASIS * values) @ BASIS.T, np.array([3.0, 800.0])

    def total(loss, l2, y, start, k):
        options = {"l2": l2, "degree": 2, "momentum": momentum, "rtol": 1e-8, "atol": 1e-10}
        flow = gradient_descent(loss, (k + k.T) / 2, y, **options)
        return jnp.sum(flow(t, start) * jnp.asarray(START)[None])

    given = (jnp.asarray(1e-4), *map(jnp.asarray, (Y, START, k)))
    push = tuple(jnp.asarray(RNG.normal(size=x.shape)) for x in given)
    ours, general = (
        jax.jit(jax.grad(lambda *x, loss=loss: total(loss, *x), argnums=(0, 1, 2, 3)))(*given)
        for loss in (squared_error, disguised)
    )
    for one, other in zip(ours, general, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    _, forwards = jax.jit(lambda x, v: jax.jvp(lambda *x: total(squared_error, *x), x, v))(
        given, push
    )
    along = sum(np.vdot(one, v) for one, v in zip(general, push, strict=True))
    np.testing.assert_allclose(forwards, along, rtol=1e-3)
