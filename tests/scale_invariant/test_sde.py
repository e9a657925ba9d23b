"""SGD as a stochastic differential equation: (5), and (9), (10) in the direction and γ."""

from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import scale_invariant as si

ETA, L2 = 0.1, 0.5
M = jnp.array([[1.0, 0.3, 0.0], [0.3, -0.5, 0.2], [0.0, 0.2, 0.1]])
W_0 = jnp.array([1.0, -0.7, 0.4])
U_0 = W_0 / jnp.linalg.norm(W_0)
GAMMA_0 = float(si.gamma(W_0 @ W_0, ETA))
TS = np.linspace(0.0, 20.0, 81)
TOL = 4e-3


def loss(w):
    return (w @ M @ w) / (w @ w)


def noise_root(u):
    """Tangent, and stronger in some directions than in others."""
    return 0.5 * (jnp.eye(3) - jnp.outer(u, u)) * (1 + u[0])


@partial(jax.jit, static_argnames="dt")
def both(keys, dt):
    """(5) and (9), (10), driven by the same noise: W, W̄ and γ for each key."""

    def one(key):
        options = {"key": key, "dt": dt, "tol": TOL}
        w = si.weights_sde(loss, noise_root, W_0, TS, learning_rate=ETA, l2=L2, **options)
        return w, si.direction_sde(
            loss, noise_root, U_0, GAMMA_0, TS, intrinsic_lr=ETA * L2, **options
        )

    return jax.vmap(one)(keys)


def rms(x):
    return float(jnp.sqrt(jnp.mean(x**2)))


@pytest.fixture(scope="module")
def paths():
    keys = jax.random.split(jax.random.key(0), 32)
    return {dt: both(keys, dt) for dt in (0.2, 0.0125)}


def test_both_equations_describe_one_process(paths):
    """Driven by the same noise they agree path by path, by an error that falls as √dt or faster."""
    apart = {}
    for dt, (w, path) in paths.items():
        norm2 = jnp.sum(w**2, axis=-1)
        turn = w / jnp.sqrt(norm2)[..., None] - path.direction
        apart[dt] = rms(turn), rms((norm2 / ETA) ** 2 / path.gamma - 1)
        moved = rms(path.direction[:, -1] - U_0[None])
    assert max(apart[0.0125]) < 0.05 and moved > 0.3
    order = np.log(np.divide(apart[0.2], apart[0.0125])) / np.log(16)
    assert np.all(order > 0.4)


def test_the_direction_keeps_its_norm(paths):
    """To the solver's error, which falls as √dt."""
    error = {dt: rms(jnp.linalg.norm(p.direction, axis=-1) - 1) for dt, (_, p) in paths.items()}
    assert error[0.0125] < 0.01
    assert 0.35 < np.log(error[0.2] / error[0.0125]) / np.log(16) < 0.75


def test_equation_7_holds_along_each_path(paths):
    """Integrated, that is (11): γ is the running average of Tr Σ on that path; no dB is left."""
    w, path = paths[0.0125]
    gamma = si.gamma(jnp.sum(w**2, axis=-1), ETA)
    for found, points in ((gamma, w), (path.gamma, path.direction)):
        unit = points / jnp.linalg.norm(points, axis=-1, keepdims=True)
        trace = jax.vmap(jax.vmap(lambda u: jnp.sum(noise_root(u) ** 2)))(unit)
        middle = (trace[:, 1:] + trace[:, :-1]) / 2
        expected = jax.vmap(lambda one: si.gamma_path(TS, GAMMA_0, one, ETA * L2))(middle)
        assert rms(found / expected - 1) < 0.02
        assert float(jnp.std(expected[:, -1]) / jnp.mean(expected[:, -1])) > 0.03  # paths differ


def circle_root(u):
    """One noise in the plane: it commutes."""
    return 0.6 * jnp.stack([-u[1], u[0]])[:, None] * (1 + 0.5 * u[0])


@partial(jax.jit, static_argnames=("dt", "solver"))
def ends(keys, dt, solver):
    def one(key):
        return si.weights_sde(
            lambda w: w[0] ** 2 / (w @ w),
            circle_root,
            jnp.array([1.2, 1.6]),
            np.array([0.0, 2.0]),
            learning_rate=0.5,
            l2=0.2,
            key=key,
            dt=dt,
            solver=solver,
            tol=1 / 1024,
        )[-1]

    return jax.vmap(one)(keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "order"), [(diffrax.Euler(), 0.5), (diffrax.ItoMilstein(), 1.0)]
)
def test_strong_order_of_the_solver(solver, order):
    """Regressed on the error of 400 paths against the same paths with finer steps."""
    keys = jax.random.split(jax.random.key(3), 400)
    steps = 2.0 ** np.arange(-7, -4)
    exact = ends(keys, 1 / 512, diffrax.ItoMilstein())
    errors = [rms(ends(keys, dt, solver) - exact) for dt in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.1 < slope < order + 0.2


@pytest.mark.slow
def test_the_mean_of_gamma_over_4096_paths_is_that_of_11():
    """(5) within 4 standard errors of (11) at 20 times, with the mean of Tr Σ on the same paths.

    Steps of 1/16 and 1/32 on the same noise, extrapolated: the bias of one step, of order dt, exceeds
    the standard error of so many paths.
    """
    keys = jax.random.split(jax.random.key(1), 4096)
    ts = np.linspace(0.0, 20.0, 161)

    @partial(jax.jit, static_argnames="dt")
    def run(keys, dt):
        def one(key):
            options = {"learning_rate": ETA, "l2": L2, "key": key, "dt": dt, "tol": 1 / 64}
            w = si.weights_sde(loss, noise_root, W_0, ts, **options)
            norm2 = jnp.sum(w**2, axis=1)
            trace = jax.vmap(lambda u: jnp.sum(noise_root(u) ** 2))(w / jnp.sqrt(norm2)[:, None])
            return si.gamma(norm2, ETA), trace

        return jax.lax.map(one, keys, batch_size=512)

    gamma, trace = (
        2 * fine - rough for fine, rough in zip(run(keys, 1 / 32), run(keys, 1 / 16), strict=True)
    )
    mean = jnp.mean(trace, axis=0)
    expected = si.gamma_path(ts, GAMMA_0, (mean[1:] + mean[:-1]) / 2, ETA * L2)
    error = jnp.std(gamma, axis=0) / 64
    deviation = ((jnp.mean(gamma, axis=0) - expected) / error)[8::8]
    assert deviation.size == 20
    assert jnp.max(jnp.abs(deviation)) < 4, deviation


def test_roots_are_roots_of_their_covariance():
    a = np.random.default_rng(0).normal(size=(3, 2))
    covariance = a @ a.T
    root = si.covariance_root(lambda u: jnp.asarray(covariance))(U_0)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(root, root.T, atol=1e-14)

    matrices = jnp.asarray(np.random.default_rng(1).normal(size=(7, 3, 3)))

    def losses(w):
        return jnp.einsum("i,nij,j->n", w, matrices, w) / (w @ w)

    a = si.minibatch_root(losses, batch_size=2)(U_0)
    slopes = np.asarray(jax.jacobian(losses)(U_0))
    # All pairs of samples, drawn with replacement.
    pairs = (slopes[:, None] + slopes[None]).reshape(49, 3) / 2
    np.testing.assert_allclose(a @ a.T, np.cov(pairs.T, bias=True), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(U_0 @ a, 0, atol=1e-14)


def simulate(**changes):
    options = {"loss": loss, "noise_root": noise_root, "w_0": W_0, "ts": TS}
    options |= {"learning_rate": ETA, "l2": L2, "key": jax.random.key(0)}
    options |= changes
    positional = [options.pop(name) for name in ("loss", "noise_root", "w_0", "ts")]
    return si.weights_sde(*positional, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(loss=lambda w: jnp.sum(w**2)), "`loss` is not scale-invariant"),
        (lambda: simulate(noise_root=lambda u: jnp.eye(3)), "`noise_root` is not scale-invariant"),
        (lambda: simulate(w_0=jnp.zeros(3)), "weights that are zero"),
        (lambda: simulate(l2=10.0), "below 1"),
        (lambda: simulate(ts=[0.0, 2.0, 1.0]), "ascending"),
        (lambda: simulate(dt=0.0), "solver's step"),
        (lambda: simulate(dt=1e-300), "`dt` is 1e-300; it makes"),
        (lambda: simulate(loss=lambda w: w), r"`loss` gives shape \(3,\)"),
        (lambda: simulate(noise_root=lambda u: u), "`noise_root` gives shape"),
        (lambda: si.covariance_root(lambda u: u)(W_0), "`covariance` gives shape"),
        (lambda: si.minibatch_root(jnp.sum, 2)(W_0), "`losses` gives shape"),
        (
            lambda: si.direction_sde(
                loss, noise_root, W_0, 1.0, TS, intrinsic_lr=0.1, key=jax.random.key(0)
            ),
            "`direction_0` has norm 1.285; it must be 1",
        ),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
