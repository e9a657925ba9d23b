"""x²/(x² + y²) under gradient descent with weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import scale_invariant as si

NEAR = jnp.array([0.01, 1.0])  # the start of Figure 14
descend = jax.jit(si.descend, static_argnames=("steps", "fixed_norm"))
exponent = jax.jit(jax.vmap(lambda *a: si.lyapunov_exponent(*a, 20_000, burn_in=1000)))


def test_steps_are_those_written_out():
    run = descend(NEAR, 0.3, 0.2, steps=30)
    x, y = 0.01, 1.0
    for t in range(31):
        norm2 = x * x + y * y
        np.testing.assert_allclose(run.z[t], (x, y), rtol=1e-10)
        np.testing.assert_allclose(run.loss[t], x * x / norm2, rtol=1e-10)
        np.testing.assert_allclose(
            run.effective_gradient_norm[t], 2 * abs(x * y) / norm2, rtol=1e-10
        )
        slope = 2 * x * y / norm2**2
        x, y = 0.94 * x - 0.3 * slope * y, 0.94 * y + 0.3 * slope * x


def test_without_decay_the_effective_learning_rate_falls_and_the_run_converges():
    run = descend(NEAR, 1.0, 0.0, steps=5000)
    assert np.all(np.diff(run.norm2) >= 0) and run.norm2[-1] > 1.0001 * run.norm2[0]
    np.testing.assert_allclose(run.z[-1], run.z[-1000], rtol=1e-12, atol=1e-12)
    assert run.loss[-1] < 1e-60


def test_with_decay_it_does_not_converge():
    run = descend(NEAR, 1.0, 0.1, steps=5000)
    late = np.asarray(run.loss[-500:])
    assert late.max() > 0.1 and late.min() < 1e-4


def test_a_fixed_norm_is_kept_and_the_run_converges_below_the_critical_rate():
    run = descend(jnp.array([0.3, 1.0]), 0.5, 0.1, steps=300, fixed_norm=True)
    np.testing.assert_allclose(run.norm2, 1.09, rtol=1e-12)
    assert run.loss[-1] < 1e-30


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_gradient_flow_never_lets_the_ratio_grow(l2):
    """d(x/y)/dt = −2η (x/y)/ρ², ρ² = ρ_0² e^{−2ηλt}; small steps of descent follow it."""
    t = jnp.linspace(0, 30, 61)
    ratio, velocity = jax.jit(
        lambda t: jax.jvp(lambda t: si.flow_ratio(t, NEAR, 0.1, l2), (t,), (jnp.ones_like(t),))
    )(t)
    norm2 = (NEAR @ NEAR) * jnp.exp(-2 * 0.1 * l2 * t)
    np.testing.assert_allclose(velocity, -2 * 0.1 * ratio / norm2, rtol=1e-12)
    assert np.all(np.diff(ratio) < 0) and ratio[-1] > 0
    small = descend(NEAR, 1e-4, l2, steps=10_000).z[-1]
    np.testing.assert_allclose(small[0] / small[1], ratio[20], rtol=1e-3)


def test_the_exponent_is_the_rate_at_which_two_nearby_runs_part():
    """Figure 5a of `intrinsic_lr`: η = 0.1, λ = 0.5, two starts near zero loss."""
    starts = jnp.array([[0.01, 1.0], [0.01 * (1 + 1e-10), 1.0]])
    one, other = jax.vmap(lambda z: descend(z, 0.1, 0.5, steps=500).z)(starts)
    apart = np.log(np.linalg.norm(np.asarray(one - other), axis=1)[1:])
    first, last = 20, np.argmax(apart > np.log(1e-3))
    slope = np.polyfit(np.arange(first, last), apart[first:last], 1)[0]
    found = exponent(NEAR[None], jnp.array([0.1]), jnp.array([0.5]))[0]
    assert 0.08 < found < 0.13  # chaos
    np.testing.assert_allclose(slope, found, rtol=0.25)
    assert np.max(abs(one - other)[400:]) > 0.1


def test_exponents_without_decay_with_regular_motion_and_after_rescaling():
    """0 where the run converges along rings of minima; 0 on Figure 14's start at λ = 0.01; Proposition 4."""
    scale = 2.0  # rounds nothing
    z = jnp.stack([jnp.array([0.1, 2.0]), NEAR, NEAR, scale * NEAR])
    rates = jnp.array([1.0, 1.0, 0.1, scale**2 * 0.1])
    l2 = jnp.array([0.0, 0.01, 0.5, 0.5 / scale**2])
    settled, regular, here, there = exponent(z, rates, l2)
    assert abs(settled) < 1e-3 and abs(regular) < 1e-3
    np.testing.assert_allclose(here, there, rtol=1e-12)
    # Decay alone: every direction shrinks by 1 − ηλ.
    flat = si.lyapunov_exponent(NEAR, 0.1, 0.5, 50, loss=lambda z: 0.0 * z[0])
    np.testing.assert_allclose(flat, np.log(0.95), rtol=1e-12)


def test_bad_numbers_are_told():
    with pytest.raises(ValueError, match="weights that are zero"):
        si.descend(jnp.zeros(2), 0.1, 0.1, 3)
    with pytest.raises(ValueError, match="below 1"):
        si.lyapunov_exponent(NEAR, 2.0, 0.5, 3)
