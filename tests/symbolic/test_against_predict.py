"""The asymptotics proved in the register, found again in the numbers of `ntkdecay.predict`."""

import numpy as np
import pytest

from ntkdecay import predict


@pytest.mark.parametrize("degree", [2.0, 2.5, 4.0])
def test_the_expansion_of_the_peak_time_of_one_mode(degree):
    errors = []
    for l2 in (1e-4, 1e-6):
        log = np.log(1 / (2 * degree * (degree - 1) * l2**2))
        slow = (degree - 1) * log**2 - (5 * degree - 4) * log + 6 * degree - 4
        peak = predict.peak_time([[1.0]], [[1.0]], l2=l2, degree=degree, reduction="sum")
        errors.append(abs(float(peak) - (log + l2 * slow)))
    # What is left is of second order in λ/γ, up to logarithms: 100² for a hundred times less λ.
    assert errors[1] < errors[0] / 1000
    assert errors[1] < 1e-6
