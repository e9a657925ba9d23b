"""β-undetermined sequences: (10)–(14), Lemmas 1 and 2, Corollary 2, Proposition 5 of `periodic`."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkdecay import scale_invariant as si

STEPS, CASES = 400, 300
alphas = st.floats(1e-4, 0.499)


def above(larger, smaller):
    """How far `smaller` exceeds `larger`, relative."""
    larger, smaller = np.broadcast_arrays(larger, smaller)
    larger, smaller = larger[np.isfinite(larger)], smaller[np.isfinite(larger)]
    return np.max((smaller - larger) / np.maximum(abs(larger), 1e-300), initial=0.0)


@pytest.fixture(scope="module")
def drawn():
    """Random sequences, β often at an end of [a, b]: α, a, b, x of shape (steps + 1, cases)."""
    rng = np.random.default_rng(7)
    alpha, least = rng.uniform(0.005, 0.49, CASES), 10.0 ** rng.uniform(-2, 0, CASES)
    most = least * 10.0 ** rng.uniform(0.05, 2, CASES)
    beta = rng.uniform(least, most, (STEPS, CASES))
    ends = rng.uniform(size=beta.shape) < 0.5
    beta = np.where(ends, np.where(rng.uniform(size=beta.shape) < 0.5, least, most), beta)
    x_0 = np.sqrt(most / alpha) * 10.0 ** rng.uniform(-1.5, 1.5, CASES)
    return alpha, least, most, beta, np.asarray(jax.jit(si.sequence)(x_0, beta, alpha))


def test_sequences_are_10_term_by_term_and_broadcast(drawn):
    alpha, _, _, beta, x = drawn
    np.testing.assert_allclose(x[1:], (1 - alpha) * x[:-1] + beta / x[:-1], rtol=1e-14)
    one = si.sequence(2.0, 0.3, 0.1, 5)
    assert one.shape == (6,) and one[1] == 0.9 * 2 + 0.15
    assert si.sequence([[1.0], [2.0]], [1.0, 2.0, 3.0], 0.1, 4).shape == (5, 2, 3)
    assert si.sequence([1.0, 2.0], [3.0, 4.0, 5.0], 0.1).shape == (4, 2)
    np.testing.assert_allclose(si.sequence(3.0, 0.0, 0.1, 9), 3 * 0.9 ** np.arange(10))


@jax.jit
def facts(ratio, alpha):
    special = si.hop_threshold(alpha), si.turning_point(alpha), si.least_value(alpha)
    values = [si.phi(one, alpha) for one in (ratio, *special[:2])]
    return values, jax.grad(si.phi)(ratio, alpha), special


@given(alphas, st.floats(-6, 6))
def test_facts_13_of_phi(alpha, log_ratio):
    ratio, slack = 10.0**log_ratio, 1e-12
    (after, at_hop, at_turn), slope, (hop, turn, least) = facts(ratio, alpha)
    assert hop < turn < least < 1
    assert (after >= ratio * (1 - slack)) if ratio < 1 else (after <= ratio * (1 + slack))
    if ratio > 1 or ratio < hop:
        assert after >= 1 - slack
    else:
        assert least * (1 - slack) <= after <= 1 + slack
    assert (slope >= -slack) if ratio > turn else (slope <= slack)
    np.testing.assert_allclose(at_hop, 1, rtol=1e-12)
    np.testing.assert_allclose(at_turn, least, rtol=1e-12)


def test_phi_is_the_sequence_in_units_of_its_stationary_point(drawn):
    alpha, least, *_ = drawn
    point, ratio = si.stationary_point(least, alpha), np.geomspace(1e-3, 1e3, CASES)
    after = si.sequence(ratio * point, least, alpha, 1)[1]
    np.testing.assert_allclose(after / point, si.phi(ratio, alpha), rtol=1e-12)


def test_lemma_1_for_constant_beta(drawn):
    alpha, least, *_ = drawn
    point = np.asarray(si.stationary_point(least, alpha))
    x = np.asarray(si.sequence(2 * point, least, alpha, STEPS))
    lower, upper = si.determined_bounds(np.arange(STEPS + 1)[:, None], 2 * point, least, alpha)
    assert above(x, lower) < 1e-12 and above(upper, x) < 1e-12
    # Both are needed: the first step is between them, near neither.
    share = (x[1] - lower[1]) / (upper[1] - lower[1])
    assert np.all((share > 0.1) & (share < 0.9))


def test_lemma_2_and_remark_2(drawn):
    alpha, least, most, _, x = drawn
    lower, upper = (np.asarray(b) for b in si.bounding_sequences(x[0], least, most, alpha, STEPS))
    assert above(x, lower) < 1e-12
    allowed = np.cumprod(x > np.sqrt(most / (1 - alpha)), axis=0)[:-1].astype(bool)
    assert above(upper[1:][allowed], x[1:][allowed]) < 1e-12
    assert above(upper, x) > 0.01  # not without its condition
    always = (x[0] > np.sqrt(most / alpha)) & np.asarray(si.attracts(least, most, alpha))
    assert always.sum() > 20 and above(upper[:, always], x[:, always]) < 1e-12


def test_corollary_2(drawn):
    alpha, least, most, _, x = drawn
    lower, upper = (
        np.asarray(b)
        for b in si.rate_bounds(np.arange(STEPS + 1)[:, None], x[0], least, most, alpha)
    )
    assert above(x, lower) < 1e-12
    inside = np.cumprod(x >= np.sqrt(alpha * most) / (1 - alpha), axis=0).astype(bool)
    assert above(upper[inside], x[inside]) < 1e-12
    assert np.isfinite(upper[0]).sum() > 50 and (lower[0] > 0).sum() > 50
    np.testing.assert_allclose(upper[0][np.isfinite(upper[0])], x[0][np.isfinite(upper[0])])


def test_proposition_5_sequences_end_in_the_interval(drawn):
    alpha, least, most, _, x = drawn
    one = (alpha > 0.05) & np.asarray(si.attracts(least, most, alpha))
    lower, upper = (
        np.asarray(b) for b in si.attracting_interval(least[one], most[one], alpha[one])
    )
    assert one.sum() > 50
    late = x[-40:, one]
    assert above(late, lower) < 1e-3 and above(upper, late) < 1e-3
    assert above(late, 1.05 * lower) > 0.01 and above(0.95 * upper, late) > 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: si.sequence(1.0, 1.0, 0.1), "how many `steps`"),
        (lambda: si.sequence(0.0, 1.0, 0.1, 3), "x_0"),
        (lambda: si.sequence(1.0, -1.0, 0.1, 3), "beta"),
        (lambda: si.sequence(1.0, 1.0, 1.0, 3), "alpha"),
        (lambda: si.phi(1.0, 0.5), "1/2"),
        (lambda: si.determined_bounds(1, 1.0, 1.0, 0.1), "above the stationary point"),
        (lambda: si.rate_bounds(1, 1.0, 2.0, 1.0, 0.1), "a <= β_t <= b"),
        (lambda: si.attracting_interval(0.0, 1.0, 0.1), "Proposition 5 says nothing"),
    ],
)
def test_bad_numbers_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
