"""(S10) of Lewkowycz & Gur-Ari (2020), the solution by matrix exponentials, against the closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad_vec
from scipy.linalg import expm

from ntkdecay.predict import gradient_descent_mse


def functional_form(t, k, y, start, l2, degree):
    """e^{−kλt} { exp[(Θ_t − Θ_0)/c] f_0 + ∫_0^t e^{−(k−2)λt'} exp[(Θ_t − Θ_t')/c] Θ_0 y dt' }."""
    c = 2 * (degree - 1) * l2

    def propagator(since):
        return expm(k * (np.exp(-c * t) - np.exp(-c * since)) / c)

    pulled, _ = quad_vec(
        lambda since: np.exp(-(degree - 2) * l2 * since) * (propagator(since) @ k @ y),
        0,
        t,
        epsabs=1e-12,
        epsrel=1e-12,
    )
    return np.exp(-degree * l2 * t) * (propagator(0.0) @ start + pulled)


@pytest.mark.parametrize("degree", [2, 3, 4, 1.5])
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    ratio=st.floats(0.1, 30),  # the largest γ/λ
    t=st.floats(0.05, 3),  # in units of 1/λ
)
def test_functional_form_s10_is_the_closed_form(degree, seed, ratio, t):
    n, l2 = 4, 0.2
    rng = np.random.default_rng(seed)
    a, y, start = rng.normal(size=(n, n)), rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    k = a @ a.T
    k *= ratio * l2 / np.linalg.eigvalsh(k)[-1]
    predict_fn = gradient_descent_mse(k, y, l2=l2, degree=degree, reduction="sum")
    expected = functional_form(t / l2, k, y, start, l2, degree)
    np.testing.assert_allclose(predict_fn(t / l2, start), expected, rtol=0, atol=1e-9)
