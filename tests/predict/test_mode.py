"""The closed form of a mode, against eq. (3), against Theorem 1, and at its limits."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay.predict import mode
from ntkdecay.predict._response import on_training_set, response

DEGREES = (0, 1, 2, 3, 4.5, 10)


def exact(t, gamma, l2, degree, f0, y):
    """f(t) at 28 digits: the closed form in mpmath, which has no overflow."""
    with mp.workdps(28):
        t, gamma, l2, k = (mp.mpf(float(value)) for value in (t, gamma, l2, degree))
        c = 2 * (k - 1) * l2
        if degree == 0 and 2 * l2 * t > 1e4:
            return mp.mpf(y if gamma > 0 else f0)
        kept = mp.exp(-k * l2 * t - gamma * (t if c == 0 else -mp.expm1(-c * t) / c))
        if degree == 0:
            learned = 1 - kept
        elif degree == 1:
            learned = gamma / (gamma + l2) * (1 - kept)
        else:
            s = (k - 2) / (2 * (k - 1))

            def gain(u):
                if u > 200:
                    return mp.fsum((-1) ** n * mp.rf(1 - s, n) / u**n for n in range(20))
                return u ** (1 - s) * mp.exp(u) * mp.gammainc(s, u)

            learned = gain(gamma / c * mp.exp(-c * t)) - kept * gain(gamma / c)
        return kept * f0 + learned * y


def test_it_is_eq_3_by_quadrature():
    """Eq. (3) as printed, its integral by quadrature at 30 digits, where it does not overflow."""
    for k, gamma, l2, t in [
        (2, 0.3, 0.1, 2.0),
        (3, 5.0, 0.2, 1.0),
        (4.5, 0.01, 0.3, 4.0),
        (2, 2.0, 0.01, 200.0),
    ]:
        with mp.workdps(30):
            c = 2 * (k - 1) * mp.mpf(l2)
            inner = mp.quad(
                lambda s: mp.exp(-gamma * mp.exp(-c * s) / c - (k - 2) * mp.mpf(l2) * s),  # noqa: B023
                mp.linspace(0, t, 20),
            )
            front = mp.exp(gamma * mp.exp(-c * t) / c - k * mp.mpf(l2) * t)
            printed = front * (mp.exp(-gamma / c) * 0.7 + gamma * 1.5 * inner)
        assert abs(float(mode(t, gamma, l2, k, 0.7, 1.5)) - float(printed)) < 1e-14


@settings(max_examples=60)
@given(
    degree=st.sampled_from(DEGREES),
    log_ratio=st.floats(-12, 12),
    log_time=st.floats(-9, 6),
    log_l2=st.floats(-3, 1),
    start_and_label=st.sampled_from([(0.0, 1.0), (1.0, 0.0), (0.7, -1.3)]),
)
def test_error_below_1e_12_over_all_ratios_and_times(
    degree, log_ratio, log_time, log_l2, start_and_label
):
    f0, y = start_and_label
    l2 = 10**log_l2
    t, gamma = 10**log_time / l2, l2 * 10**log_ratio
    error = abs(
        mp.mpf(float(mode(t, gamma, l2, degree, f0, y))) - exact(t, gamma, l2, degree, f0, y)
    )
    assert error <= 1e-12 * max(abs(f0), abs(y))


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_never_nan_or_inf(degree, dtype):
    ratio = np.concatenate([[0.0], np.geomspace(1e-12, 1e12, 49)])[:, None].astype(dtype)
    time = np.concatenate([[0.0], np.geomspace(1e-9, 1e6, 40), [np.inf]]).astype(dtype)
    for l2 in dtype([0, 1e-6, 1e-2, 1]):
        scale = dtype(l2 if l2 else 1)
        f = mode(time / scale, ratio * scale, l2, degree, dtype(0.5), dtype(1))
        assert f.dtype == dtype
        assert np.all(np.isfinite(f)) and np.all(f >= -1e-6) and np.all(f <= 1 + 1e-6)


@pytest.mark.parametrize("degree", [1.5, 2, 3, 10])
def test_the_fast_path_is_the_careful_one(degree):
    t, rate = np.geomspace(1e-6, 1e4, 60)[None], np.geomspace(1e-10, 1e10, 61)[:, None]
    fast = on_training_set(t, rate, jnp.ones((1, 1)), degree)
    for a, b in zip(fast, response(t, rate, jnp.ones((1, 1)), degree)[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.0, 1e-300, 1e-30, 1e-12, 1e-6])
@pytest.mark.parametrize("degree", [1.2, 1.5, 2, 3, 4.5, 10])
def test_per_rate_response_keeps_its_digits_as_the_rate_vanishes(degree, gamma):
    """X/γ and (e^{−kλt} − e^{−x})/γ against their integrals, at rates where the differences have no digit left."""
    l2, t = 0.3, 1.7
    r = response(*(jnp.asarray(value) for value in (t, gamma, l2)), degree)
    with mp.workdps(30):
        c = 2 * (degree - 1) * mp.mpf(l2)

        def tau(s):
            return -mp.expm1(-c * s) / c

        learned = mp.quad(
            lambda s: mp.exp(-c * s - degree * l2 * (t - s) - gamma * (tau(t) - tau(s))), [0, t]
        )
        lost = tau(t) if gamma == 0 else -mp.expm1(-gamma * tau(t)) / gamma
        kept = mp.exp(-degree * mp.mpf(l2) * t) * lost
    assert float(r.learned_per_rate) == pytest.approx(float(learned), rel=1e-13)
    assert float(r.kept_per_rate) == pytest.approx(float(kept), rel=1e-13)


@pytest.mark.parametrize("degree", [1, 1.5, 2, 3])
def test_continuous_as_l2_vanishes(degree):
    t, gamma = np.geomspace(1e-3, 1e2, 20), np.geomspace(1e-3, 1e2, 21)[:, None]
    still = 1 + (0.3 - 1) * np.exp(-gamma * t)
    np.testing.assert_allclose(mode(t, gamma, 0.0, degree, 0.3), still, rtol=0, atol=1e-15)
    for l2 in (1e-300, 1e-16, 1e-12):
        np.testing.assert_allclose(
            mode(t, gamma, l2, degree, 0.3), still, rtol=0, atol=1e-15 + 1e4 * l2
        )


def test_continuous_as_the_degree_goes_to_1():
    t, gamma = np.geomspace(1e-3, 1e3, 20), np.geomspace(1e-3, 1e3, 21)[:, None]
    linear = mode(t, gamma, 0.1, 1, 0.3)
    for step in (1e-6, 1e-9, 1e-12):
        np.testing.assert_allclose(
            mode(t, gamma, 0.1, 1 + step, 0.3), linear, rtol=0, atol=400 * step + 1e-14
        )


MOVING = jax.jit(jax.value_and_grad(mode), static_argnums=3)


@settings(max_examples=25)
@given(
    degree=st.sampled_from((0, 1, 1.5, 2, 3)),
    log_gamma=st.floats(-6, 3),
    log_l2=st.floats(-6, 1),
    t=st.floats(0.01, 5),
)
def test_theorem_1_holds_by_automatic_differentiation(degree, log_gamma, log_l2, t):
    gamma, l2, f0, y = 10**log_gamma, 10**log_l2, 0.4, -1.3
    f, rate = MOVING(t, gamma, l2, degree, f0, y)
    pull = gamma * np.exp(-2 * (degree - 1) * l2 * t)
    assert abs(rate + pull * (f - y) + degree * l2 * f) <= 1e-12 * (pull + degree * l2 + 1)


def test_derivatives_with_respect_to_every_argument():
    @jax.jit
    def f(t, gamma, l2, f0, y):
        return mode(t, gamma, l2, 3, f0, y)

    slopes = jax.jit(jax.grad(f, argnums=(0, 1, 2, 3, 4)))
    for arguments in [
        (2.0, 0.5, 0.1, 0.2, 1.0),
        (1.0, 30.0, 0.01, 0.2, 1.0),
        (0.5, 1e-3, 2.0, -1.0, 1.0),
    ]:
        for i, slope in enumerate(slopes(*arguments)):
            step = 1e-6 * max(1e-3, abs(arguments[i]))
            up, down = (
                (*arguments[:i], arguments[i] + d, *arguments[i + 1 :]) for d in (step, -step)
            )
            assert float(slope) == pytest.approx(
                float(f(*up) - f(*down)) / (2 * step), rel=1e-6, abs=1e-8
            )


def test_derivatives_exist_at_the_limits():
    # at γ = 0: df/dγ = y (e^{−ct} − e^{−kλt})/(kλ − c) − f_0 e^{−kλt} (1 − e^{−ct})/c, with k = 3, so c = 4λ
    slope = jax.jit(jax.grad(mode, argnums=1), static_argnums=3)(1.0, 0.0, 0.1, 3, 0.5)
    assert slope == pytest.approx(
        (np.exp(-0.4) - np.exp(-0.3)) / -0.1 - 0.5 * np.exp(-0.3) * (1 - np.exp(-0.4)) / 0.4
    )
    # at λ = 0, k = 2: f satisfies the linear equation perturbed by λ(2γt(f − y) − 2f)
    t, gamma = 1.5, 2.0
    s = np.linspace(0, t, 200_001)
    drive = 2 * gamma * s * -np.exp(-gamma * s) - 2 * (1 - np.exp(-gamma * s))
    expected = np.trapezoid(np.exp(-gamma * (t - s)) * drive, s)
    slope = jax.jit(jax.grad(mode, argnums=2), static_argnums=3)(t, gamma, 0.0, 2)
    assert slope == pytest.approx(expected, rel=1e-9)


def test_jit_and_vmap_agree_with_the_plain_call():
    t, l2 = jnp.linspace(0.1, 3, 5), jnp.array([0.0, 0.1, 1.0])
    expected = np.stack([mode(t, 0.7, float(one), 2) for one in l2])
    np.testing.assert_allclose(jax.vmap(lambda one: mode(t, 0.7, one, 2))(l2), expected, atol=1e-15)
    np.testing.assert_allclose(
        jax.jit(lambda one: mode(t, 0.7, one, 2))(l2[1]), expected[1], atol=1e-15
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 1.0, 0.1, 2), "`t` is -1.0; it must be an array of numbers >= 0"),
        ((np.nan, 1.0, 0.1, 2), "`t` is nan; it must be"),
        ((1.0, -0.5, 0.1, 2), "`eigenvalue` is -0.5; it must be"),
        ((1.0, 1.0, -0.1, 2), "`l2` is -0.1; it must be"),
        ((1.0, 1.0, 0.1, 0.5), "`degree` is 0.5; it must be 0"),
        ((1.0, 1.0, 0.1, -1), "`degree` is -1; it must be 0"),
        ((1.0, [1.0, np.inf], 0.1, 2), "`eigenvalue` is .* with entries from 1 to inf; it must be"),
        ((1.0, 1.0, np.inf, 2), "`l2` is inf; it must be"),
        ((1.0, 1.0, 0.1, 2, np.nan), "`f0` is nan; it must be"),
        ((1.0, 1.0, 0.1, np.nan), "`degree` is nan; it must be 0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        mode(*arguments)
    assert "\n" not in str(caught.value)


def test_complex_input_is_refused():
    with pytest.raises(TypeError, match="`f0` is 1j; it must be an array of numbers"):
        mode(1.0, 1.0, 0.1, 2, 1j)
