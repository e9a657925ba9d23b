"""The intrinsic learning rate and the equation of the norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from ntkdecay import scale_invariant as si

rates = st.floats(1e-4, 0.5)
levels = st.floats(1e-3, 1e3)


@jax.jit
def value_and_velocity(t, *parameters):
    return jax.jvp(lambda t: si.gamma_constant_noise(t, *parameters), (t,), (jnp.ones_like(t),))


@given(st.floats(1e-9, 50), levels, levels, rates)
def test_equation_10_is_solved_from_gamma_0(t, gamma_0, trace, intrinsic_lr):
    value, velocity = value_and_velocity(t, gamma_0, trace, intrinsic_lr)
    scale = 4 * intrinsic_lr * value + 2 * trace
    assert abs(velocity - (-4 * intrinsic_lr * value + 2 * trace)) < 1e-12 * scale
    np.testing.assert_allclose(value_and_velocity(0.0, gamma_0, trace, 0.1)[0], gamma_0, rtol=1e-15)


def test_gamma_without_decay_is_the_limit_of_little_decay():
    t = np.array([0.0, 3.0, 70.0])
    np.testing.assert_allclose(si.gamma_constant_noise(t, 2.0, 0.5, 0.0), 2 + t, rtol=1e-15)
    np.testing.assert_allclose(si.gamma_constant_noise(t, 2.0, 0.5, 1e-12), 2 + t, rtol=1e-9)


def test_gamma_at_infinity_is_the_equilibrium_and_so_are_its_slopes():
    assert si.gamma_constant_noise(np.inf, 7.0, 0.5, 1e-3) == 250
    assert si.gamma_band(np.inf, 7.0, 0.5, 1.0, 1e-3) == (250, 500)
    slopes = jax.grad(si.gamma_constant_noise, argnums=(0, 1, 2, 3))(np.inf, 7.0, 0.5, 1e-3)
    np.testing.assert_allclose(slopes, (0, 0, 500, -250e3), rtol=1e-15)
    # without decay γ grows for ever, and without noise too it stays
    assert si.gamma_constant_noise(np.inf, 7.0, 0.5, 0.0) == np.inf
    assert si.gamma_constant_noise(np.inf, 7.0, 0.0, 0.0) == 7
    assert si.gamma_constant_noise(np.inf, 7.0, 0.0, 1e-3) == 0


def test_equation_11_along_a_path_is_its_integral():
    t, trace = np.array([0.0, 2.0, 2.5, 9.0]), np.array([1.0, 7.0, 0.2])

    def integrand(tau, end):
        return 2 * np.exp(-4 * 0.05 * (end - tau)) * trace[np.searchsorted(t, tau) - 1]

    integrals = [
        quad(integrand, 0, end, (end,), points=t[1:-1], epsabs=1e-13)[0] if end else 0 for end in t
    ]
    expected = np.exp(-4 * 0.05 * t) * 3.0 + integrals
    np.testing.assert_allclose(si.gamma_path(t, 3.0, trace, 0.05), expected, rtol=1e-12)


gamma_path, gamma_band = jax.jit(si.gamma_path), jax.jit(si.gamma_band)


@given(st.integers(0, 2**32 - 1), levels, levels, st.floats(0, 2), rates)
def test_lemma_5_2_holds_for_noise_within_its_band(seed, gamma_0, sigma2, epsilon, intrinsic_lr):
    t = np.linspace(0, 3 / intrinsic_lr, 20)
    trace = sigma2 * (1 + epsilon * np.random.default_rng(seed).uniform(size=19))
    path = np.asarray(gamma_path(t, gamma_0, trace, intrinsic_lr))
    low, high = gamma_band(t, gamma_0, sigma2, epsilon, intrinsic_lr)
    assert np.all(low <= path * (1 + 1e-12)) and np.all(path <= high * (1 + 1e-12))
    # The band is what constant noise at its ends gives.
    np.testing.assert_allclose(
        high, gamma_path(t, gamma_0, np.full(19, (1 + epsilon) * sigma2), intrinsic_lr)
    )


def test_equilibrium_is_the_square_root_of_2_lambda_e_over_sigma_after_the_relaxation_time():
    sigma2, intrinsic_lr = 0.3, 1e-3
    rate = si.stationary_learning_rate(sigma2, intrinsic_lr)
    np.testing.assert_allclose(rate, np.sqrt(2 * 1e-3) / np.sqrt(0.3), rtol=1e-14)
    late = si.gamma_constant_noise(1e5, 1.0, sigma2, intrinsic_lr)
    np.testing.assert_allclose(late**-0.5, rate, rtol=1e-12)
    t = si.relaxation_time(intrinsic_lr)
    assert t == 250
    left = si.gamma_constant_noise(t, 1.0, sigma2, intrinsic_lr) - late
    np.testing.assert_allclose(left / (1 - late), np.exp(-1), rtol=1e-12)


def test_gamma_is_the_inverse_square_of_the_effective_learning_rate():
    np.testing.assert_allclose(si.effective_learning_rate([2.0, 4.0], 0.1), [0.05, 0.025])
    np.testing.assert_allclose(si.gamma([2.0, 4.0], 0.1), [400, 1600])


def test_heavy_ball_without_a_gradient_decays_at_the_intrinsic_learning_rate():
    """w' − (1 + β − ηλ)w + βw⁻ = 0 has the larger root 1 − ηλ/(1 − β), to first order."""
    for product in (1e-4, 1e-5):
        intrinsic_lr = si.intrinsic_learning_rate(0.1, 10 * product, momentum=0.9)
        root = np.max(np.roots([1, -(1 + 0.9 - product), 0.9]).real)
        np.testing.assert_allclose(-np.log(root) / intrinsic_lr, 1, rtol=0, atol=100 * product)
    assert si.intrinsic_learning_rate(0.1, 0.5) == 0.05


@pytest.mark.parametrize("factor", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("gamma_0", [0.2, 3.0, 1e9, 1e24])
def test_norm_convergence_time_is_when_both_phases_have_settled(gamma_0, factor):
    intrinsic_lr, sigma2 = 1e-3, 0.5
    end = sigma2 / (2 * intrinsic_lr)
    total = si.norm_convergence_time(gamma_0 * end, intrinsic_lr, sigma2=sigma2, factor=factor)

    def settle(gamma, target, rate):
        """The first of many times at which γ is within 1% under (10), and γ then."""
        t = np.linspace(0, 80 / rate, 400_001)
        path = target + (gamma - target) * np.exp(-4 * rate * t)
        first = np.argmax(abs(path / target - 1) <= 0.01 * (1 + 1e-9))
        return t[first], path[first]

    first, left = settle(gamma_0 * end / factor**2, end / factor, factor * intrinsic_lr)
    second, _ = settle(left * factor**2, end, intrinsic_lr)
    np.testing.assert_allclose(total, first + second, atol=0.5 / intrinsic_lr * 1e-3 + 0.5)
    if gamma_0 > 1e6 and factor > 1:
        leading = np.log(gamma_0 / factor) / (4 * factor * intrinsic_lr)
        leading += np.log(factor) / (4 * intrinsic_lr)
        margin = np.log(100) / (4 * intrinsic_lr) * (1 + 1 / factor)
        np.testing.assert_allclose(total, leading + margin, rtol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: si.intrinsic_learning_rate(2.0, 0.5), "`learning_rate` × `l2`.*below 1"),
        (lambda: si.intrinsic_learning_rate(0.1, -0.5), "l2.*>= 0"),
        (lambda: si.intrinsic_learning_rate(0.1, 0.5, 1.0), "momentum"),
        (lambda: si.effective_learning_rate(0.0, 0.1), "weights that are zero"),
        (lambda: si.gamma_path([0, 1, 2], 1.0, [1.0, 1.0, 1.0], 0.1), "one value of Tr"),
        (lambda: si.gamma_band(1.0, 1.0, 1.0, -0.1, 0.1), "epsilon"),
        (lambda: si.relaxation_time(0.0), "grows for ever"),
        (lambda: si.norm_convergence_time(1.0, 0.2, sigma2=1.0, factor=5.0), "below 1"),
        (lambda: si.norm_convergence_time(1.0, 0.2, sigma2=1.0, factor=0.5), "factor"),
    ],
)
def test_bad_numbers_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
