"""Fixed points of deep linear networks against trained networks and full Hessians."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay.deep_linear import critical_l2, fixed_points, fixed_points_per_mode, normalization


def _data(seed, samples=5, inputs=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, inputs)), rng.normal(size=samples)


def _network(point, depth, width=3):
    """Rank-one layers whose product is the fixed point's v."""
    unit, direction = np.eye(width)[:1], point.v / max(np.linalg.norm(point.v), 1e-300)
    middle = [point.scale * unit.T @ unit] * (depth - 1)
    return [point.scale * unit.T @ direction[None], *middle, point.scale * unit]


def _loss(shapes, x, y, l2, beta):
    cuts = np.cumsum([a * b for a, b in shapes])[:-1]

    def loss(theta):
        hidden = jnp.asarray(x).T
        for piece, shape in zip(jnp.split(theta, cuts), shapes, strict=True):
            hidden = piece.reshape(shape) @ hidden
        residual = beta * hidden - jnp.asarray(y).reshape(len(x), -1).T
        return 0.5 * jnp.sum(residual**2) + 0.5 * l2 * theta @ theta

    return loss


def _at(weights, x, y, l2, beta):
    """Gradient and Hessian eigenvalues of the whole network."""
    theta = jnp.concatenate([jnp.asarray(W).ravel() for W in weights])
    loss = _loss([W.shape for W in weights], x, y, l2, beta)
    return jax.grad(loss)(theta), np.linalg.eigvalsh(jax.hessian(loss)(theta))


@pytest.mark.parametrize("depth", [1, 2, pytest.param(3, marks=pytest.mark.slow), 4])
def test_every_point_is_stationary_and_its_eigenvalue_is_the_full_hessians(depth):
    x, y = _data(depth)
    beta = normalization(9, depth)
    for fraction in (0.3, 0.95):
        l2 = fraction * critical_l2(x, y, depth=depth, beta=beta)
        points = fixed_points(x, y, l2=l2, depth=depth, beta=beta)
        assert len(points) == (2 if depth == 1 else 3)
        for point in points:
            slopes, eigenvalues = _at(_network(point, depth), x, y, l2, beta)
            np.testing.assert_allclose(slopes, 0, atol=1e-13)
            flat = np.abs(eigenvalues) < 1e-10
            # Rotations of each hidden layer of width 3 out of its one used direction.
            assert flat.sum() == (2 * depth if point.ridge else 0)
            assert point.eigenvalue == pytest.approx(eigenvalues[~flat].min(), abs=1e-12)
            residual = x @ point.v - y
            assert point.loss == pytest.approx(0.5 * residual @ residual)
        assert [p.stable for p in points] == ([False, True] if depth == 1 else [True, False, True])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradient_descent_ends_on_a_stable_point(depth):
    x, y = _data(10 + depth)
    beta, width = normalization(8, depth), 8
    l2 = 0.4 * critical_l2(x, y, depth=depth, beta=beta)
    sizes = [3, *[width] * depth, 1]
    rng = np.random.default_rng(depth)
    weights = [rng.normal(size=(o, i)) for i, o in itertools.pairwise(sizes)]
    shapes = [W.shape for W in weights]
    theta = jnp.concatenate([jnp.asarray(W).ravel() for W in weights])
    slope = jax.grad(_loss(shapes, x, y, l2, beta))

    @jax.jit
    def descend(theta):
        return jax.lax.scan(lambda p, _: (p - 0.03 * slope(p), None), theta, length=20_000)[0]

    pieces = jnp.split(descend(theta), np.cumsum([a * b for a, b in shapes])[:-1])
    layers = [np.asarray(p).reshape(s) for p, s in zip(pieces, shapes, strict=True)]
    v = beta * functools.reduce(lambda below, W: W @ below, layers)[0]
    points = fixed_points(x, y, l2=l2, depth=depth, beta=beta)
    nearest = min(points, key=lambda p: np.abs(p.v - v).max())
    assert nearest.stable and nearest.ridge > 0
    np.testing.assert_allclose(v, nearest.v, atol=1e-9)
    np.testing.assert_allclose([np.linalg.norm(W) for W in layers], nearest.scale, rtol=1e-9)


def test_one_sample_two_layers_is_one_minus_l2_root_n():
    for n, l2, expected in ((25, 0.05, 0.75), (100, 0.02, 0.8)):
        points = fixed_points([[1.0]], [1.0], l2=l2, depth=1, beta=normalization(n, 1))
        assert points[-1].v[0] == pytest.approx(expected, rel=1e-14)
    points = fixed_points([[1.0]], [1.0], l2=0.21, depth=1, beta=0.2)
    assert [p.ridge for p in points] == [0.0] and points[0].stable


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(1, 6),
    spread=st.floats(0.0, 6.0),
    fraction=st.floats(1e-3, 1.5),
)
def test_roots_are_those_of_a_fine_grid_and_satisfy_s20(seed, depth, spread, fraction):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x = basis * 10.0 ** rng.uniform(-spread, 0, size=6)
    y = basis @ 10.0 ** rng.uniform(-3, 1, size=6)
    critical = critical_l2(x, y, depth=depth)
    l2 = fraction * critical
    points = fixed_points(x, y, l2=l2, depth=depth)
    for point in points[1:]:
        slopes = x @ point.v - y
        right = (-slopes @ (x @ point.v)) ** (depth - 1) * np.sum((x.T @ slopes) ** 2)
        assert right == pytest.approx(l2 ** (depth + 1), rel=1e-9)
        assert point.scale**2 == pytest.approx(-slopes @ (x @ point.v) / l2, rel=1e-9)
    kappa, labels = np.linalg.svd(x)[1] ** 2, np.linalg.svd(x)[0].T @ y
    s = np.linspace(-60, 60, 200_001) + np.log(1 / kappa.max())
    z = np.exp(s)[:, None] * kappa
    excess = s - depth * np.log(np.sum(z * labels**2 / (1 + z) ** 2, 1)) + (depth + 1) * np.log(l2)
    changes = np.flatnonzero(np.diff(np.sign(excess)))
    near_fold = any(abs(p.eigenvalue) < 1e-5 * l2 for p in points)
    assert near_fold or len(changes) == len(points) - 1
    assert (fraction > 1) == (len(points) == 1) or near_fold
    # Outermost root: gradient descent from large weights ends there.
    assert points[-1].stable or near_fold


def test_several_pairs_of_roots_where_the_spectrum_is_wide():
    x, y = np.diag([1.0, 1e-3]), np.array([1.0, 6.0])
    critical = critical_l2(x, y, depth=4)
    points = fixed_points(x, y, l2=0.9 * critical, depth=4)
    assert [p.stable for p in points] == [True, False, True, False, True]
    one_higher = np.array([1.0, 12.0])
    critical = critical_l2(x, one_higher, depth=4)
    assert len(fixed_points(x, one_higher, l2=0.9 * critical, depth=4)) == 3


def test_the_pair_meets_in_a_fold_at_the_critical_l2():
    x, y = _data(3)
    for depth in (2, 3, 5):
        critical = critical_l2(x, y, depth=depth)
        assert len(fixed_points(x, y, l2=critical * (1 + 1e-9), depth=depth)) == 1
        low, high = fixed_points(x, y, l2=critical * (1 - 1e-9), depth=depth)[1:]
        assert low.ridge == pytest.approx(high.ridge, rel=1e-3)
        assert low.eigenvalue < 0 < high.eigenvalue < 1e-3
        # First order: the function is far from zero where it disappears.
        assert np.linalg.norm(x @ high.v) > 0.1 * np.linalg.norm(y)
        _, at_the_fold = fixed_points(x, y, l2=critical, depth=depth)
        assert abs(at_the_fold.eigenvalue) < 1e-6


def test_without_a_fold_the_branch_leaves_zero_continuously():
    x, y = _data(4)
    critical = critical_l2(x, y, depth=1, beta=0.3)
    assert critical == pytest.approx(0.3 * np.linalg.norm(x.T @ y))
    below = fixed_points(x, y, l2=critical * (1 - 1e-6), depth=1, beta=0.3)
    assert len(below) == 2 and np.linalg.norm(below[1].v) < 1e-5
    assert len(fixed_points(x, y, l2=critical * (1 + 1e-6), depth=1, beta=0.3)) == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_ntk_normalization_collapses_on_l2_times_a_power_of_the_width(depth):
    x, y = _data(5)
    scaled = 0.5 * critical_l2(x, y, depth=depth)
    ends = [
        fixed_points(
            x,
            y,
            l2=scaled * n ** (-depth / (depth + 1)),
            depth=depth,
            beta=normalization(n, depth),
        )[-1].v
        for n in (1, 10, 10**4)
    ]
    np.testing.assert_allclose(ends[1:], [ends[0]] * 2, rtol=1e-10)
    assert normalization(10, depth, "standard") == 1.0


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_several_outputs_combine_singular_values(depth):
    rng = np.random.default_rng(depth)
    x = np.linalg.qr(rng.normal(size=(4, 2)))[0] * 1.3
    y = rng.normal(size=(4, 2))
    l2, width = 0.05, 3
    modes = fixed_points_per_mode(x, y, l2=l2, depth=depth)
    left, strengths, right = np.linalg.svd(y.T @ x)
    best = x @ np.linalg.lstsq(x, y)[0]
    for chosen in itertools.product(*modes):
        upper = np.zeros((2, width))
        middle, lower = np.zeros((width, width)), np.zeros((width, 2))
        for i, point in enumerate(chosen):
            upper[:, i], lower[i] = point.scale * left[:, i], point.scale * right[i]
            middle[i, i] = point.scale
        weights = [lower, *[middle] * (depth - 1), upper]
        np.testing.assert_allclose(
            functools.reduce(lambda below, W: W @ below, weights).T,
            sum(p.v for p in chosen),
            atol=1e-12,
        )
        f = x @ sum(p.v for p in chosen)
        assert sum(p.loss for p in chosen) == pytest.approx(0.5 * np.sum((f - best) ** 2))
        slopes, eigenvalues = _at(weights, x, y, l2, 1.0)
        np.testing.assert_allclose(slopes, 0, atol=1e-12)
        empty = [a for a, p in zip(strengths, chosen, strict=True) if p.ridge == 0]
        used = [a for a, p in zip(strengths, chosen, strict=True) if p.ridge > 0]
        ordered = max(empty, default=0) <= min(used, default=np.inf)
        assert (eigenvalues.min() > -1e-10) == (ordered and all(p.stable for p in chosen))


def test_stability_keeps_its_digits_where_l2_is_tiny():
    for l2 in (1e-6, 1e-12, 1e-20):
        zero, low, high = fixed_points([[1.0]], [1.0], l2=l2, depth=3)
        # Hessians in units of λ: 1 at rest, −2 next to v = 0, 1 at the trained point.
        np.testing.assert_allclose(
            [zero.eigenvalue / l2, low.eigenvalue / l2, high.eigenvalue / l2],
            [1, -2, 1],
            atol=30 * l2**0.5,
        )


def test_no_labels_in_reach_leaves_only_zero():
    x, y = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0.0, 1.0])
    (zero,) = fixed_points(x, y, l2=0.1, depth=2)
    assert zero.loss == 0.5 and zero.stable
    (zero,) = fixed_points(np.eye(2), np.zeros(2), l2=0.1, depth=2)
    assert zero.loss == 0 and critical_l2(np.eye(2), np.zeros(2), depth=2) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"l2": -0.1}, "`l2` is -0.1"),
        ({"l2": 0.0}, "every interpolating network"),
        ({"l2": np.nan}, "`l2` is nan"),
        ({"l2": 1e-200}, "too small or large for float64"),
        ({"depth": 0}, "`depth` is 0"),
        ({"depth": 1.5}, "must be an integer"),
        ({"beta": 0.0}, "`beta` is 0.0; it must be a number > 0"),
        ({"x": np.zeros(3)}, "array of numbers that are finite with 2 axes"),
        ({"y": np.zeros(4)}, "one row for each row of `x`"),
        ({"y": np.zeros((5, 2, 1))}, "1 or 2 axes"),
        ({"y": np.full(5, np.nan)}, "finite"),
        ({"x": np.full((5, 3), np.inf)}, "finite"),
        ({"y": np.zeros((5, 2))}, "fixed_points_per_mode takes several outputs"),
    ],
)
def test_bad_input_gets_one_sentence(change, reason):
    x, y = _data(0)
    arguments = {"x": x, "y": y, "l2": 0.1, "depth": 2, "beta": 1.0} | change
    with pytest.raises((ValueError, TypeError), match=reason) as raised:
        fixed_points(arguments.pop("x"), arguments.pop("y"), **arguments)
    assert "\n" not in str(raised.value)


def test_several_outputs_need_whitened_inputs():
    x, y = _data(0)
    with pytest.raises(ValueError, match="whitened inputs"):
        fixed_points_per_mode(x, np.stack([y, y], 1), l2=0.1, depth=1)
    with pytest.raises(ValueError, match="whitened inputs"):
        fixed_points_per_mode(np.eye(3)[:2], np.eye(2), l2=0.1, depth=1)
    with pytest.raises(ValueError, match="outputs"):
        fixed_points_per_mode(x, y, l2=0.1, depth=1)


def test_bad_normalization_and_critical_l2():
    with pytest.raises(ValueError, match=">= 1"):
        normalization(0, 1)
    with pytest.raises(ValueError, match="parameterization"):
        normalization(4, 1, "lecun")  # pyright: ignore
    with pytest.raises(ValueError, match="one row for each row"):
        critical_l2(np.eye(2), np.eye(2), depth=2)
