"""Periods and their phases, in synthetic records and on the toy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay import scale_invariant as si

descend = jax.jit(si.descend, static_argnames=("steps", "fixed_norm"))


def synthetic(number, length, jump, ratio, noise, seed):
    """A saw of the effective learning rate by `ratio`; the loss is 1 in a jump and falls to 1e-4 after it."""
    rng = np.random.default_rng(seed)
    t = np.arange(number * length + length // 2)
    phase = t % length
    rising = phase <= length - jump
    share = np.where(rising, phase / (length - jump), (length - phase) / jump)
    loss = np.where(rising, 10.0 ** (-4 * np.minimum(phase / (0.3 * length), 1)), 1.0)
    slope = np.sqrt(loss)
    series = {
        "effective_learning_rate": 0.01 * ratio**share,
        "loss": loss,
        "effective_gradient_norm": slope,
    }
    return {name: v * np.exp(noise * rng.normal(size=t.size)) for name, v in series.items()}


@settings(max_examples=60)
@given(
    st.integers(1, 8),
    st.integers(40, 200),
    st.integers(3, 9),
    st.floats(3, 100),
    st.floats(0, 0.05),
    st.integers(0, 2**32 - 1),
)
def test_known_periods_are_found_through_noise(number, length, jump, ratio, noise, seed):
    record = synthetic(number, length, jump, ratio, noise, seed)
    found = si.periods(record, drop=2.0)
    # Where noise is as large as the growth of a step, the top and the foot of a saw are so uncertain.
    blur = 1 + 6 * noise * length / np.log(ratio)
    expected = length * np.arange(1, number + 1)
    assert found.number == number
    np.testing.assert_allclose(found.destabilization, expected - jump, rtol=0, atol=blur)
    np.testing.assert_allclose(found.end, expected, rtol=0, atol=blur)
    np.testing.assert_allclose(found.lengths, length, rtol=0, atol=2 * blur)
    np.testing.assert_allclose(
        found.learning_rate[:, 1] / found.learning_rate[:, 0], ratio, rtol=0.4
    )
    np.testing.assert_allclose(found.loss[1:], np.tile([1.0, 1e-4], (number - 1, 1)), rtol=0.4)
    assert all(np.all(phase >= 0) for phase in found.phases.values())
    np.testing.assert_array_equal(sum(found.phases.values()), found.lengths)
    if noise == 0:
        np.testing.assert_allclose(found.phases["A"], 0.15 * length, atol=1)
        np.testing.assert_array_equal(found.phases["C"], jump)


def test_two_calls_agree_and_steps_and_datasets_are_read():
    record = synthetic(5, 60, 5, 10.0, 0.05, 1)
    found, again = si.periods(record), si.periods(record)
    for name in ("start", "low", "destabilization", "end", "loss", "learning_rate", "gradient"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    dataset = xr.Dataset(
        {
            "loss": ("step", record["loss"]),
            "norm2": ("step", 0.1 / record["effective_learning_rate"]),
            "gradient_norm": ("step", record["effective_gradient_norm"]),
        },
        {"step": 10 * np.arange(record["loss"].size)},
    )
    np.testing.assert_array_equal(si.periods(dataset).lengths, 10 * found.lengths)


def test_a_rise_of_the_effective_learning_rate_without_one_of_the_loss_is_no_period():
    record = synthetic(4, 100, 12, 10.0, 0.02, 2)
    calm = record | {"loss": np.minimum(record["loss"], 1e-4)}
    assert si.periods(record).number == 4 and si.periods(calm).number == 0


def test_the_median_removes_outliers():
    record = synthetic(4, 100, 12, 10.0, 0.02, 2)
    rate, loss = record["effective_learning_rate"].copy(), record["loss"].copy()
    rate[[45, 145, 250]] *= 20.0
    loss[[46, 146, 251]] *= 1e3
    spiked = record | {"effective_learning_rate": rate, "loss": loss}
    assert si.periods(spiked, window=5).number == 4 < si.periods(spiked).number


@pytest.fixture(scope="module")
def toy():
    return jax.tree.map(np.asarray, descend(jnp.array([0.01, 1.0]), 0.1, 0.5, steps=2000))


def test_the_toy_has_periods_with_three_phases(toy):
    found = si.periods(toy)
    assert found.number > 80
    # Destabilizations are the minima of the norm, ends its maxima.
    for step in found.destabilization:
        assert toy.norm2[step] == toy.norm2[step - 2 : step + 3].min()
    for step in found.end[:-1]:
        assert toy.norm2[step] == toy.norm2[step - 2 : step + 3].max()
    # (3): in C the norm grows; in A and B it shrinks, at most like (1 − ηλ)^{2t}.
    shrinking = found.destabilization - found.start
    shrunk = np.log(toy.norm2[found.destabilization] / toy.norm2[found.start])
    assert np.all(shrunk < 0) and np.all(shrunk >= 2 * np.log(0.95) * shrinking - 1e-9)
    assert np.all(found.loss[:, 0] > 10 * found.loss[:, 1])
    assert np.median(found.phases["B"]) > np.median(found.phases["C"]) > 1


def test_measurement_noise_does_not_change_the_toy_s_periods(toy):
    exact, rng = si.periods(toy), np.random.default_rng(0)
    noisy = toy._replace(
        **{
            name: getattr(toy, name) * np.exp(0.03 * rng.normal(size=2001))
            for name in ("loss", "norm2", "effective_gradient_norm")
        }
    )
    found = si.periods(noisy)
    assert abs(found.number - exact.number) <= 0.02 * exact.number
    off = np.abs(found.destabilization[:, None] - exact.destabilization).min(axis=1)
    assert np.mean(off <= 1) > 0.95


def test_with_a_fixed_norm_or_without_decay_there_are_none():
    rng = np.random.default_rng(4)
    for start, options in (
        ((0.3, 1.0), (0.5, 0.1, 800, True)),
        ((0.01, 1.0), (1.0, 0.0, 800, False)),
    ):
        rate, l2, steps, fixed = options
        run = descend(jnp.array(start), rate, l2, steps=steps, fixed_norm=fixed)
        assert si.periods(run).number == 0 and si.periods(run).lengths.size == 0
        # With a loss that jumps as in a period, too: it is the norm that makes one.
        loss = synthetic(6, 115, 5, 10.0, 0.0, 0)["loss"][:801]
        noisy = run._replace(loss=loss[: run.norm2.size], norm2=run.norm2[: loss.size])
        noisy = noisy._replace(
            norm2=np.asarray(noisy.norm2) * np.exp(0.03 * rng.normal(size=noisy.norm2.size)),
            effective_gradient_norm=run.effective_gradient_norm[: loss.size],
        )
        assert si.periods(noisy).number == 0


RECORD = {name: np.ones(9) for name in ("loss", "norm2", "gradient_norm")}


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        (RECORD, {"drop": 1.0}, "drop"),
        (RECORD, {"rise": 0.5}, "rise"),
        (RECORD, {"window": 4}, "odd"),
        ({"loss": np.ones(9)}, {}, "`record` has no effective_learning_rate"),
        (RECORD | {"loss": np.ones((9, 2))}, {}, "one for each recorded step"),
        (RECORD | {"loss": np.ones(8)}, {}, "`record` must be of one length"),
        (RECORD | {"step": np.arange(8)}, {}, "`record` must be of one length"),
        (RECORD | {"loss": np.full(9, -1.0)}, {}, ">= 0"),
        (RECORD | {"loss": np.full(9, np.inf)}, {}, "finite with 1 axes"),
    ],
)
def test_bad_records_are_told(record, options, message):
    with pytest.raises(ValueError, match=message):
        si.periods(record, **options)
