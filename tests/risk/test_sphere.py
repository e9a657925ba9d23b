"""`risk.sphere_spectrum`, and learning curves of the spectrum it gives beside draws of points on the sphere."""

import numpy as np
import pytest
from scipy.special import eval_gegenbauer

from ntkdecay import risk, stax
from ntkdecay.predict._response import response

KERNEL_FN = stax.serial(stax.Dense(1, b_std=None), stax.Relu(), stax.Dense(1, b_std=None))[2]
D, N, DRAWS, NOISE = 12, 200, 200, 0.3
LEVELS = np.array([0.3, 1.0, 0.7, 0.5])  # standard deviations of the target's harmonics


def ntk(u):
    """Of the network of `KERNEL_FN`, whose layers have W_std = 1, on inputs of norm 1."""
    angle = np.arccos(np.clip(u, -1, 1))
    return (2 * u * (np.pi - angle) + np.sin(angle)) / (2 * np.pi * D)


def harmonic(degree, u):
    order = (D - 2) / 2
    return eval_gegenbauer(degree, order, u) / eval_gegenbauer(degree, order, 1.0)


def test_its_levels_are_the_kernel():
    values, multiplicity = (np.asarray(a) for a in risk.sphere_spectrum(KERNEL_FN, D, levels=30))
    u = np.array([-0.9, -0.3, 0.0, 0.5])
    series = sum(v * m * harmonic(i, u) for i, (v, m) in enumerate(zip(values, multiplicity, strict=True)))  # fmt: skip
    np.testing.assert_allclose(series, ntk(u), atol=1e-5 * ntk(1.0))  # of 30 levels
    np.testing.assert_allclose(values @ multiplicity, ntk(1.0), rtol=1e-7)
    assert multiplicity[:3].tolist() == [1, 12, 77]  # 77 of the 78 products of two coordinates
    twice = np.asarray(risk.sphere_spectrum(KERNEL_FN, D, levels=30, norm=2.0).eigenvalues)
    np.testing.assert_allclose(twice[:3], 4 * values[:3], rtol=1e-10)


def test_several_modes_of_one_eigenvalue():
    given = dict(t=[3.0, 40.0], l2=1e-2, degree=2, noise=0.2)
    single = risk.learning_curve([1.0, 0.1, 0.1, 0.1], [1.0, 0.0, 3.0, 4.0], [5, 30], **given)
    level = risk.learning_curve([1.0, 0.1], [1.0, 5.0], [5, 30], **given, multiplicity=[1, 3])
    np.testing.assert_allclose(level, single, rtol=1e-12)
    with pytest.raises(ValueError, match="`multiplicity` has shape"):
        risk.learning_curve([1.0, 0.1], [1.0, 5.0], 5, **given, multiplicity=[1, 3, 2])


CASES = [(1.0, 50.0, 1e-2), (2.0, 50.0, 1e-2), (3.0, 200.0, 3e-3), (2.0, 2000.0, 1e-4)]


@pytest.mark.slow
def test_uniform_data_on_a_sphere():
    """Within three standard errors of 200 draws, whose errors over the sphere are exact."""
    values, multiplicity = risk.sphere_spectrum(KERNEL_FN, D, levels=30)
    size = float(ntk(1.0))  # times are in its units
    known = np.asarray(values)[:4]
    roots = np.sqrt(np.asarray(multiplicity)[:4])
    along = np.linspace(0, np.pi, 4001)
    squared = sum(
        float(v) ** 2 * float(m) * harmonic(i, np.cos(along))
        for i, (v, m) in enumerate(zip(values[:30], multiplicity[:30], strict=True))
    )
    errors = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(N, D))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        harmonics = roots * np.stack([harmonic(i, x[:, 0]) for i in range(4)], 1)
        y = harmonics @ LEVELS + NOISE * rng.normal(size=N)
        rates, vectors = np.linalg.eigh(ntk(x @ x.T) / N)
        towards, labels = harmonics @ (known * LEVELS), vectors.T @ y
        again = np.interp(np.arccos(np.clip(x @ x.T, -1, 1)), along, squared)
        row = []
        for degree, t, l2 in CASES:
            per_rate = np.asarray(response(t / size, np.maximum(rates, 1e-16), l2 * size, degree).learned_per_rate)  # fmt: skip
            weights = vectors @ (per_rate * labels) / N
            row.append(weights @ again @ weights - 2 * weights @ towards + (LEVELS**2).sum())
        errors.append(row)
    mean, error = np.mean(errors, 0), np.std(errors, 0) / DRAWS**0.5
    coefficients = np.zeros(len(values))
    coefficients[:4] = LEVELS / np.sqrt(known)
    for i, (degree, t, l2) in enumerate(CASES):
        found = risk.learning_curve(
            values, coefficients, N, t=t / size, l2=l2 * size, degree=degree, noise=NOISE, multiplicity=multiplicity
        )  # fmt: skip
        assert abs(float(found) - mean[i]) < 3 * error[i], (degree, float(found), mean[i], error[i])
    assert (error < 0.01 * mean).all()
