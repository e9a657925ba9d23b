"""`mode`, its value and its derivatives, at 10^5 points against mpmath, those included where its forms meet."""

import multiprocessing
import os
from functools import partial

import jax
import numpy as np
import pytest
from exact_mode import value_and_slopes

from ntkdecay.predict import mode

DEGREES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.5, 10.0)


def random_points(number, seed):
    """(number, 6): t, γ, λ, k, f(0), y."""
    rng = np.random.default_rng(seed)
    k, l2 = rng.choice(DEGREES, number), 10 ** rng.uniform(-3, 1, number)
    gamma, t = l2 * 10 ** rng.uniform(-12, 12, number), 10 ** rng.uniform(-9, 1.5, number) / l2
    return np.stack([t, gamma, l2, k, rng.normal(size=number), rng.normal(size=number)], 1)


def ties(number, seed):
    """Round numbers, where the forms of G_s and of X meet: u_0 = 1, u_t = 1, t = 0, γ = 0, λ = 0, x = ct."""
    rng = np.random.default_rng(seed)
    k = rng.choice(DEGREES[2:], number)
    l2 = rng.choice([0.0, 0.125, 0.25, 0.5, 1.0], number)
    c = 2 * (k - 1) * l2
    t = rng.choice([0.0, 0.25, 1.0, 2.0, 8.0], number)
    met = np.stack(
        [c, c * np.exp(np.minimum(c * t, 8)), np.round(c * 2), np.zeros(number), np.ones(number)]
    )
    gamma = met[rng.integers(0, len(met), number), np.arange(number)]
    signs = rng.choice([-1.0, -0.5, 0.3, 1.0], (2, number))
    return np.stack([t, gamma, l2, k, *signs], 1)


@partial(jax.jit, static_argnums=0)
def value_and_slopes_found(k, *arguments):
    moving = jax.value_and_grad(lambda t, gamma, l2, *rest: mode(t, gamma, l2, k, *rest), (0, 1, 2))
    return jax.vmap(moving)(*arguments)


def errors(points, exact):
    """Of f, and of its derivatives by t, γ and λ, each in units of the size that bounds it."""
    found = np.empty((len(points), 4))
    for k in np.unique(points[:, 3]):
        of_k = points[:, 3] == k
        t, gamma, l2, _, f0, y = points[of_k].T
        value, slopes = value_and_slopes_found(float(k), t, gamma, l2, f0, y)
        found[of_k] = np.stack([value, *slopes], 1)
    t, gamma, l2, k, f0, y = points.T
    fastest = np.maximum(gamma, np.maximum(2 * (k - 1) * l2, 0))
    pull = gamma * np.exp(-2 * (k - 1) * l2 * t)
    with np.errstate(divide="ignore"):
        units = [
            np.ones_like(t),
            np.maximum(pull + k * l2, 1e-10),
            np.where(fastest > 0, 1 / fastest, np.maximum(t, 1e-10)),
            np.where(l2 > 0, 1 / l2, np.maximum(t * (1 + gamma * t), 1e-10)),
        ]
    return np.abs(found - exact) / (np.maximum(abs(f0), abs(y)) * np.stack(units)).T


def check(points, exact):
    worst = errors(points, np.asarray(exact))
    at = [(float(w.max()), points[w.argmax()].tolist()) for w in worst.T]
    assert all(
        error <= bound for (error, _), bound in zip(at, (5e-14, 1e-12, 1e-12, 1e-11), strict=True)
    ), at


def test_where_its_forms_meet():
    points = np.unique(ties(150, 0), axis=0)
    check(points, [value_and_slopes(point) for point in points.tolist()])


@pytest.mark.slow
def test_100_000_points():
    points = np.concatenate([random_points(90_000, 1), ties(10_000, 2)])
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        check(points, pool.map(value_and_slopes, points.tolist(), chunksize=500))
