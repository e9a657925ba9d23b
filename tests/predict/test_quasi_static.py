"""G_s against mpmath, over all of its domain."""

import jax
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay.predict import quasi_static

DEGREES = (1.5, 2, 2.5, 3, 4, 7, 50)
U = np.concatenate(
    [np.geomspace(1e-300, 1e300, 41), np.geomspace(1e-2, 1e2, 41), [1 - 1e-12, 1.0, 1 + 1e-12]]
)


def exact(u: float, degree: float) -> mp.mpf:
    """u^{1−s} e^u Γ(s, u) at 40 digits; its asymptotic series where e^u is beyond reach."""
    with mp.workdps(40):
        u, k = mp.mpf(float(u)), mp.mpf(degree)
        s = (k - 2) / (2 * (k - 1))
        if u > 200:
            return mp.fsum((-1) ** n * mp.rf(1 - s, n) / u**n for n in range(20))
        return u ** (1 - s) * mp.exp(u) * mp.gammainc(s, u)


def relative_error(values, u, degree) -> float:
    pairs = zip(np.asarray(values), u, strict=True)
    return max(float(abs(mp.mpf(float(value)) / exact(one, degree) - 1)) for value, one in pairs)


@pytest.mark.parametrize("degree", DEGREES)
def test_float64_is_exact_to_1e_13_from_1e_minus_300_to_1e_300(degree):
    assert relative_error(quasi_static(U, degree), U, degree) <= 1e-13


@pytest.mark.parametrize("degree", DEGREES)
def test_float32_is_exact_to_2e_6(degree):
    u = U[(U > 1.2e-38) & (U < 3e38)].astype(np.float32)
    values = quasi_static(u, degree)
    assert values.dtype == np.float32
    assert relative_error(values, u, degree) <= 2e-6


@settings(max_examples=40)
@given(k=st.floats(1.2, 60), log_u=st.floats(-100, 100))
def test_any_real_degree_above_1(k, log_u):
    u = np.exp(log_u)
    assert relative_error(quasi_static(np.array([u]), k), [u], k) <= 1e-13


@pytest.mark.parametrize("degree", [2 - 1e-9, 2 + 1e-9, 4 / 3, 4 / 3 + 1e-9, 6 / 5])
def test_the_poles_of_the_gamma_function_are_no_special_case(degree):
    u = np.array([1e-3, 0.3, 0.9])
    assert relative_error(quasi_static(u, degree), u, degree) <= 1e-13


@pytest.mark.parametrize("degree", [1 + 1e-3, 1 + 1e-6, 1 + 1e-12])
def test_near_the_linear_model_it_is_gamma_over_gamma_plus_lambda(degree):
    ratio = np.array([1e-6, 1e-2, 1.0, 1e3])  # γ/(kλ)
    p = degree / (2 * (degree - 1))
    np.testing.assert_allclose(quasi_static(ratio * p, degree), ratio / (1 + ratio), atol=1.5 / p)


def test_it_is_0_at_0_and_1_at_infinity_and_rises_between():
    values = quasi_static(np.concatenate([[0.0], U[np.argsort(U)], [np.inf]]), 3)
    assert values[0] == 0 and values[-1] == 1
    assert np.all(np.diff(values) >= -1e-15)


def test_its_derivative_obeys_its_differential_equation():
    u = np.geomspace(1e-6, 1e2, 50)
    for degree in (1.3, 2, 3):
        p = degree / (2 * (degree - 1))
        slope = jax.jit(jax.vmap(jax.grad(lambda one, k=degree: quasi_static(one, k))))(u)
        value = np.asarray(quasi_static(u, degree))
        np.testing.assert_allclose(slope, value * (1 + p / u) - 1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1])
def test_degrees_without_decay_are_refused(degree):
    with pytest.raises(ValueError, match="degree > 1"):
        quasi_static(1.0, degree)
