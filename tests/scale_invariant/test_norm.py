"""The norm under gradient descent with weight decay, jumps, and bounds on recorded runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from ntkdecay import scale_invariant as si


def loss(w):
    """Scale-invariant, in four dimensions, with a generic gradient."""
    return (w[0] ** 2 + 0.3 * w[0] * w[1] - 0.2 * w[1] * w[2] - w[3] * w[2]) / (w @ w)


RATE, L2 = 0.4, 0.1
W_0 = jnp.array([1.0, -0.7, 0.4, 0.2])


@pytest.fixture(scope="module")
def run():
    return jax.jit(lambda: si.descend(W_0, RATE, L2, 300, loss=loss))()


def turned(z):
    """1 − cos of each step, by the angle's sine where it is small."""
    unit = np.asarray(z) / np.linalg.norm(z, axis=1, keepdims=True)
    return np.sum((unit[1:] - unit[:-1]) ** 2, axis=1) / 2


def test_equation_3_gives_the_norm_of_gradient_descent(run):
    path = si.norm2_path(run.norm2[0], run.effective_gradient_norm[:-1], RATE, L2)
    np.testing.assert_allclose(path, run.norm2, rtol=1e-12)
    np.testing.assert_allclose(run.norm2, jnp.sum(run.z**2, axis=1), rtol=1e-14)


def test_equation_15_gives_it_from_the_gradients_and_16_without_the_start(run):
    slopes = jax.vmap(jax.grad(loss))(run.z)[:-1]
    norms = np.linalg.norm(slopes, axis=1)
    path = np.asarray(si.norm2_from_gradients(run.norm2[0], norms, RATE, L2))
    np.testing.assert_allclose(path, run.norm2, rtol=1e-12)
    # (16) as corrected: C ḡ², C = η²/(1 − (1 − ηλ)²), about η/(2λ).
    weights = (1 - RATE * L2) ** (2 * np.arange(300)[::-1])
    average, constant = weights @ norms**2 / weights.sum(), RATE**2 / (1 - (1 - RATE * L2) ** 2)
    np.testing.assert_allclose(path[-1], constant * average, rtol=1e-9)
    np.testing.assert_allclose(constant, RATE / (2 * L2), rtol=0.03)


def test_equation_8_gives_the_turn_of_each_step(run):
    distance = si.cosine_distance(run.norm2, run.effective_gradient_norm, RATE, L2)[:-1]
    np.testing.assert_allclose(distance, turned(run.z), rtol=1e-9, atol=1e-16)
    assert distance.max() > 1e-3
    np.testing.assert_allclose(si.cosine_distance(1.0, 1e-9, 1.0, 0.0), 5e-19, rtol=1e-12)


def test_jump_thresholds_9_and_proposition_1():
    rng = np.random.default_rng(3)
    slope, delta = 10.0 ** rng.uniform(-1, 1, 2000), 10.0 ** rng.uniform(-5, -0.05, 2000)
    norm2 = np.asarray(si.jump_threshold(slope, delta, RATE, L2, exact=True))
    for factor in (1 - 1e-9, 1 + 1e-9):
        jumps = si.cosine_distance(norm2 * factor, slope, RATE, L2) > delta
        assert np.all(jumps) if factor < 1 else not np.any(jumps)
    # Necessary, with √(2δ) and 1 − ηλ ≲ 1; tight for small δ and ηλ.
    assert np.all(si.jump_threshold(slope, delta, RATE) / (1 - RATE * L2) >= norm2)
    small = delta < 1e-4
    exact = si.jump_threshold(slope[small], delta[small], RATE, 1e-5, exact=True)
    np.testing.assert_allclose(
        si.jump_threshold(slope[small], delta[small], RATE), exact, rtol=1e-3
    )


CASES = ((1.0, 1.3, 1.02), (1.0, 1.5, 1.5), (1.0, 1.1, 30.0), (0.5, 1.0, 4.0))


def first_jumps(least, most, start, delta, learning_rate, l2, steps):
    """The first δ-jump with constant, random and adverse effective gradients."""
    necessary = si.jump_threshold(most, delta, learning_rate, l2, exact=True)
    random = least + (most - least) * jax.random.uniform(jax.random.key(5), steps)

    def first(slope):
        def advance(norm2, drawn):
            g = slope(norm2, drawn)
            jump = si.cosine_distance(norm2, g, learning_rate, l2) > delta
            product = learning_rate * l2
            return (1 - product) ** 2 * norm2 + (learning_rate * g) ** 2 / norm2, jump

        return jnp.argmax(jax.lax.scan(advance, start, random)[1])

    return jnp.stack(
        [
            first(slope)
            for slope in (
                lambda norm2, drawn: least,
                lambda norm2, drawn: most,
                lambda norm2, drawn: drawn,
                # Small gradients while L could not jump, then L.
                lambda norm2, drawn: jnp.where(norm2 < necessary, most, least),
            )
        ]
    )


def test_the_first_jump_comes_within_the_times_of_proposition_2():
    """Strictly, with `exact`; the printed (5), (6) without it."""
    learning_rate, l2 = 0.1, 0.01
    least, most, start = np.array(CASES).T
    delta = 0.5 * learning_rate * l2 * (least / most) ** 2
    kappa = np.sqrt(learning_rate / (2 * l2))
    start = start * np.maximum(learning_rate * most / np.sqrt(2 * delta), kappa * most)
    times = jax.jit(jax.vmap(lambda *case: first_jumps(*case, learning_rate, l2, 8000)))(
        least, most, start, delta
    )
    low, high = si.jump_times(start, least, most, delta, learning_rate, l2, exact=True)
    assert np.all(times >= np.asarray(low)[:, None])
    assert np.all(times <= np.ceil(high)[:, None])
    assert np.all(times > 0)  # there was a jump, and not at once

    printed = [
        np.log((learning_rate * one / np.sqrt(2 * delta) - kappa * other) / (start - kappa * other))
        / np.log(1 - factor * learning_rate * l2)
        for one, other, factor in ((most, least, 4), (least, most, 2))
    ]
    found = si.jump_times(start, least, most, delta, learning_rate, l2)
    np.testing.assert_allclose(found, printed, rtol=1e-12)
    np.testing.assert_allclose(found, (low, high), rtol=0.05)


def test_jump_times_at_once_and_never():
    arguments = {"learning_rate": 0.1, "l2": 0.01}
    low, high = si.jump_times(1e-3, 0.5, 1.0, 1e-4, **arguments)
    assert (low, high) == (0, 0)
    # δ >= ηλ L²/ℓ²: the norm need never fall so far; ℓ = 0: no latest time.
    assert si.jump_times(100.0, 1.0, 1.1, 1e-3 * 1.22, **arguments) == (np.inf, np.inf)
    low, high = si.jump_times(100.0, 0.0, 1.1, 1e-4, **arguments)
    assert 0 < low < np.inf and high == np.inf


def alternating(least, most, steps, period):
    rng = np.random.default_rng(17)
    slope = np.array([least, most, 0.0])[np.arange(steps) // period % 3]
    return np.where(slope > 0, slope, rng.uniform(least, most, steps))


@pytest.mark.parametrize(
    ("learning_rate", "l2", "least", "most"),
    [(0.1, 0.02, 1.0, 3.0), (0.5, 0.02, 0.2, 1.0), (1.0, 0.05, 1.0, 9.0)],
)
def test_proposition_3_and_remark_3(learning_rate, l2, least, most):
    """The norm ends in [κℓ, κL] and reaches both ends; strictly, with `exact`."""
    assert 2 * learning_rate * l2 * most <= least
    time = int(1 / (learning_rate * l2))
    slope = alternating(least, most, 36 * time, 4 * time)
    late = np.asarray(si.norm2_path(10.0, slope, learning_rate, l2))[18 * time :]
    low, high = si.equilibrium_norm2(least, most, learning_rate, l2, exact=True)
    assert low * (1 - 1e-6) < late.min() < 1.01 * low
    assert high * (1 + 1e-6) > late.max() > 0.99 * high
    kappa = np.sqrt(learning_rate / (2 * l2))
    np.testing.assert_allclose(
        si.equilibrium_norm2(least, most, learning_rate, l2), (kappa * least, kappa * most)
    )
    np.testing.assert_allclose(
        si.equilibrium_learning_rate(least, most, learning_rate, l2),
        np.sqrt(2 * learning_rate * l2) / np.array([most, least]),
    )


def test_a_7_where_the_norm_can_hop_out_it_stays_below_the_highest_hop():
    learning_rate, l2, least, most = 1.0, 0.05, 0.05, 2.0
    assert 2 * learning_rate * l2 * most > least
    slope = np.where(np.arange(600) % 150 < 149, least, most)
    late = np.asarray(si.norm2_path(5.0, slope, learning_rate, l2))[300:]
    low, high = si.equilibrium_norm2(least, most, learning_rate, l2, exact=True)
    assert late.max() > np.sqrt(learning_rate / (2 * l2)) * most  # beyond κL
    assert low * (1 - 1e-12) <= late.min() and 0.99 * high < late.max() <= high
    assert si.equilibrium_norm2(0.0, 2.0, 1.0, 0.05) == (0, np.inf)


def test_the_equilibrium_s_learning_rate_depends_on_the_product_alone():
    """And is that of the rescaled run, Proposition 4."""
    one = si.equilibrium_learning_rate(1.0, 2.0, 0.1, 0.05, exact=True)
    np.testing.assert_allclose(one, si.equilibrium_learning_rate(1.0, 2.0, 0.5, 0.01, exact=True))


def test_bounds_on_a_recorded_run(run):
    record = {
        "step": ("step", 10 * np.arange(301)),
        "norm2": ("step", np.asarray(run.norm2)),
        "gradient_norm": ("step", np.asarray(run.effective_gradient_norm / run.norm2**0.5)),
        "cosine_distance": ("step", np.append(turned(run.z), 0.0)),
    }
    dataset = xr.Dataset(record).isel(step=slice(0, 300))
    found = si.bounds(dataset, RATE, L2, window=5)
    assert found.attrs["share_inside"] == 1.0
    np.testing.assert_array_equal(found.step, 10 * np.arange(300))
    assert np.all(found.lower < found.upper)
    slope = np.asarray(run.effective_gradient_norm)
    local = np.lib.stride_tricks.sliding_window_view(slope[:300], 5)
    np.testing.assert_allclose(found.least[2:-2], local.min(1), rtol=1e-14)
    np.testing.assert_allclose(found.most[2:-2], local.max(1), rtol=1e-14)
    # What is between the ends is decided by ℓ and L: with them a little narrower, steps fall out.
    third = (found.most - found.least) / 3
    narrow = si.bounds(dataset, RATE, L2, least=found.least + third, most=found.most - third)
    assert narrow.attrs["share_inside"] < 0.9
    # Constant bounds that hold for the later half only hold what they say.
    late = {"least": slope[150:].min(), "most": slope[150:].max()}
    inside = si.bounds(run, RATE, L2, **late).inside
    assert np.all(inside[150:]) and 0.5 <= inside.mean() < 1
    np.testing.assert_allclose(inside, (late["least"] <= slope) & (slope <= late["most"]))


def test_power_envelopes_are_the_tightest_of_17():
    t = np.arange(1, 400)
    slope = np.append(9.0, (1 + 0.5 * np.sin(t)) / t)
    low, high = si.power_envelope(slope, (2.0, 1.0), valid_from=20)
    assert np.all(low[20:] <= slope[20:]) and np.all(slope[20:] <= high[20:] * (1 + 1e-12))
    np.testing.assert_allclose(np.diff(low[1:] * t**2.0), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(high[1:] * t), 0, atol=1e-12)
    assert np.isclose(np.max(slope[20:] / high[20:]), 1) and np.isclose(
        np.min(slope[20:] / low[20:]), 1
    )


RECORD = {"norm2": np.ones(5), "effective_gradient_norm": np.ones(5)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: si.norm2_path(1.0, np.ones(3), 3.0, 0.5), "ηλ >= 1"),
        (lambda: si.norm2_path(1.0, 1.0, 0.1, 0.1), "`effective_gradient_norm` is one number"),
        (lambda: si.norm2_path(0.0, np.ones(3), 0.1, 0.5), "weights that are zero"),
        (lambda: si.jump_threshold(1.0, 1.0, 0.1), "delta"),
        (lambda: si.jump_times(1.0, 2.0, 1.0, 0.1, 0.1, 0.1), "ℓ <= g̃ <= L"),
        (lambda: si.jump_times(1.0, 1.0, 2.0, 0.1, 0.1, 0.0), "never falls"),
        (lambda: si.jump_times(1.0, 1.0, 2.0, 0.1, 1.0, 0.4), "`l2` is 0.4; it must be below 0.25"),
        (lambda: si.equilibrium_norm2(1.0, 2.0, 0.1, 0.0), "no equilibrium"),
        (lambda: si.power_envelope(np.ones(5), valid_from=0), "valid_from"),
        (
            lambda: si.bounds({"norm2": np.ones(5)}, 0.1, 0.1),
            "`record` has no effective_gradient_norm",
        ),
        (lambda: si.bounds(RECORD | {"norm2": np.ones((5, 2))}, 0.1, 0.1), "one member"),
        (lambda: si.bounds(RECORD | {"norm2": np.full(5, np.nan)}, 0.1, 0.1), "diverged"),
        (lambda: si.bounds(RECORD, 0.1, 0.1, least=2.0), "ℓ <= g̃ <= L"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
