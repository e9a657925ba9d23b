"""A learning curve of 1,000 modes over 30 numbers of samples and 30 times, beside ten draws of each.

The draws are of Gaussian features, one eigendecomposition of each n for all times: what a user would run otherwise, of
whose mean ten draws know the error to a few percent.
"""

import time

import jax
import numpy as np

from ntkdecay import risk
from ntkdecay.predict._response import response

MODES = np.arange(1.0, 1001)
EIGENVALUES, COEFFICIENTS = MODES**-1.5, MODES**-0.3
N = np.unique(np.geomspace(10, 3000, 30).astype(int))
T, L2, NOISE, DRAWS = np.geomspace(1, 1e4, 30), 1e-3, 0.1, 10


def predicted():
    return risk.learning_curve(EIGENVALUES, COEFFICIENTS, N, t=T, l2=L2, degree=2, noise=NOISE)


def drawn():
    errors = np.empty((DRAWS, len(N), len(T)))
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        for i, n in enumerate(N):
            features = rng.normal(size=(n, len(MODES))) * np.sqrt(EIGENVALUES)
            y = features @ COEFFICIENTS + NOISE * rng.normal(size=n)
            # in the space of the modes where they are fewer
            small = min(features.shape)
            vectors, roots, modes = np.linalg.svd(features / np.sqrt(n), full_matrices=False)
            grid = np.broadcast_arrays(T[:, None], np.maximum(roots**2, 1e-14), L2)
            with jax.numpy_rank_promotion("allow"):
                per_rate = np.asarray(response(*grid, 2.0).learned_per_rate)
            projected = roots * (vectors.T @ y) / np.sqrt(n)
            learned = (per_rate * projected) @ modes[:small]
            errors[draw, i] = ((COEFFICIENTS - learned) ** 2 * EIGENVALUES).sum(1)
    return errors


RATIOS = [("ten draws", "learning_curve")]


@jax.enable_x64(True)
def test_learning_curve(benchmark, medians):
    found = np.asarray(predicted())
    begun = time.perf_counter()
    errors = drawn()
    rival = time.perf_counter() - begun
    mean, error = errors.mean(0), errors.std(0) / np.sqrt(DRAWS)
    assert np.median(np.abs(found - mean) / error) < 2
    benchmark.pedantic(lambda: jax.block_until_ready(predicted()), rounds=5)
    ours = benchmark.stats.stats.median
    medians |= {"ten draws": rival, "learning_curve": ours}
    print(
        f"\n{ours:.2f} s; ten draws {rival:.1f} s, {rival / ours:.0f} times, known to {np.median(error / mean):.1%}"
    )
