"""The scripts of trained networks under examples/periodic: what they read off a run, and that each writes its picture and its claims."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import pytest
import xarray as xr

from ntkdecay import report
from ntkdecay import scale_invariant as si

matplotlib.use("Agg")
FOLDER = Path(__file__).parent.parent / "examples" / "periodic"


def script(name: str):
    """A module of examples/periodic, imported as when it is run: with its folder on the path and its own `_runs`."""
    sys.path.insert(0, str(FOLDER))
    other = sys.modules.pop("_runs", None)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("_runs", None)
        if other is not None:
            sys.modules["_runs"] = other


_runs = script("_runs")
PRODUCT, PERIOD = 1e-3, 1000


@pytest.fixture(scope="module")
def saw():
    """Four periods: the norm decays freely for 1000 steps, then the loss jumps to 2 and η/ρ² falls to where it began."""
    t = np.arange(4 * PERIOD + 100)
    phase = t % PERIOD
    rate = 0.01 * (1 - PRODUCT) ** (-2.0 * phase)
    loss = 0.005 + 2 * np.exp(-phase / 20)
    return xr.Dataset(
        {
            "loss": ("step", loss),
            "norm2": ("step", 0.5 / rate),
            "effective_learning_rate": ("step", rate),
            "effective_gradient_norm": ("step", loss),
        },
        {"step": t},
    )


def test_a_period_of_free_decay_is_as_long_as_free_decay(saw):
    found = si.periods(saw)
    assert found.number == 4
    numbers = _runs.summary(found, PRODUCT)
    np.testing.assert_allclose(numbers["from the start to destabilization, over free decay"], 1)
    np.testing.assert_allclose(numbers["lengths"], PERIOD)
    levels = np.array([[0.01, 0.08]])
    np.testing.assert_allclose(_runs.free_decay(levels, 1e-6), np.log(8) / 2e-6, rtol=1e-5)


def test_the_first_period_counts_only_where_it_is_alone(saw):
    assert list(_runs.settled(si.periods(saw))) == [False, True, True, True]
    alone = si.periods(saw.isel(step=slice(PERIOD + 500)))
    assert alone.number == 1 and list(_runs.settled(alone)) == [True]


def test_bursts_count_returns_of_the_loss_whatever_the_norm_does(saw):
    assert _runs.bursts(saw) == 4
    assert _runs.bursts(saw, rise=1e3) == 0
    assert _runs.bursts(saw.isel(step=slice(500, 1500))) == 1
    up = saw.assign(loss=("step", saw["loss"].to_numpy()[::-1])).isel(step=slice(100, 1000))
    assert _runs.bursts(up) == 0  # it rises and does not return


def test_periods_at_high_loss_are_not_learned(saw):
    found = si.periods(saw)
    assert _runs.learned(saw, found) == 4
    assert _runs.learned(saw.assign(loss=saw["loss"] * 0 + 0.04), found) == 0


def test_a_member_ends_at_its_last_step_with_its_effective_learning_rate():
    norm2 = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, np.nan]])
    grid = xr.Dataset(
        {
            "norm2": (("learning_rate", "step"), norm2),
            "status": ("learning_rate", ["done", "diverged"]),
            "last_step": ("learning_rate", [20, 10]),
        },
        {"learning_rate": [0.5, 1.0], "step": [0, 10, 20]},
    )
    np.testing.assert_allclose(
        _runs.member(grid, 0.5, learning_rate=0.5)["effective_learning_rate"], [0.5, 0.25, 0.125]
    )
    assert not _runs.member(grid, 0.5, learning_rate=0.5).attrs["diverged"]
    other = _runs.member(grid, 1.0, learning_rate=1.0)
    assert list(other["step"]) == [0, 10] and other.attrs["diverged"]


def test_a_short_run_without_periods_decides_nothing():
    assert _runs.present(3, 0.1) is True and _runs.present(2, 4.0) is False
    assert _runs.present(2, 3.9) is None


def test_a_weight_decay_that_makes_weights_grow_is_refused_before_training():
    with pytest.raises(
        ValueError, match=r"`--learning-rate` times `--l2` is 3; it must be below 2"
    ):
        _runs.run(_runs.Setup(), {"learning_rate": [1.0, 30.0], "l2": [0.1]}, 5)


def test_the_last_layer_has_the_norm_that_is_asked_for():
    small, large = (_runs.Setup(head_norm=norm, width=4).net() for norm in (2.0, 6.0))
    x = _runs.images(_runs.Setup(samples=8)).x_train
    params = small.init(jax.random.key(0), x)
    np.testing.assert_allclose(large.apply(params, x), 3 * small.apply(params, x), rtol=1e-5)


@pytest.mark.parametrize(("name", "layers"), [("fc", 2), ("conv_net", 3), ("resnet_18", 20)])
def test_networks_of_practice_are_invariant_before_a_normalization_and_train_the_rest(name, layers):
    practical = script("_practical")
    module = practical.Practical(name, 2, 100)
    x = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    apply = jax.jit(lambda params: module.apply({"params": params}, x))
    before = practical.invariant(params)
    assert len(before) == layers and len(params) == 3 * layers + 1
    fx = apply(params)
    scaled = params | jax.tree.map(lambda w: 3 * w, before)
    np.testing.assert_allclose(apply(scaled), fx, atol=1e-4)
    assert fx.shape == (6, 100)  # pyright: ignore
    moved = params | {"offset_1": params["offset_1"].at[0].add(1)}
    assert np.max(np.abs(apply(moved) - fx)) > 0.01


def claims_of(errors, numbers, tmp_path):
    fig15_18, out = script("fig15_18"), report.Report("periodic", "none", report.Options(out=tmp_path))  # fmt: skip
    fig15_18.accuracy(out, np.array(errors), np.array(numbers), "17")
    return out.claims[0].holds


def test_the_error_is_lower_where_there_are_periods_than_at_both_ends_beyond_chance(tmp_path):
    good, bad = [0.1, 0.11, 0.12], [0.3, 0.31, 0.32]
    assert claims_of([bad, good, bad], [0, 5, 0], tmp_path) is True
    assert claims_of([bad, good, good], [0, 5, 0], tmp_path) is None
    assert claims_of([good, bad, bad], [0, 5, 0], tmp_path) is False
    assert claims_of([bad, good, bad], [0, 0, 0], tmp_path) is None
    assert claims_of([[0.3], [0.1], [0.3]], [0, 5, 0], tmp_path) is None


def test_a_gain_within_two_standard_errors_decides_nothing():
    fig20 = script("fig20")
    assert fig20.gain(np.array([0.2, 0.3, 0.4])).above is True
    assert fig20.gain(np.array([-0.2, -0.3, -0.4])).above is False
    assert fig20.gain(np.array([-0.2, 0.3, 0.4])).above is None
    assert fig20.gain(np.array([0.3])).above is None
    np.testing.assert_allclose(fig20.gain(np.array([1.0, 3.0, 5.0])), (3, 2 / 3**0.5))
    right, wrong = np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])
    a = fig20.Minima(np.arange(3), np.zeros((3, 1)), np.stack([right, right, wrong]))
    b = fig20.Minima(np.arange(2), np.zeros((2, 1)), np.stack([wrong, right]))
    np.testing.assert_array_equal(fig20.paired(a, b, np.array([0])), [0, 0])
    np.testing.assert_array_equal(fig20.paired(a, b, np.array([1])), [1, 1])


def test_a_step_on_the_sphere_keeps_the_norm_and_the_direction_of_the_step():
    w, slope = jnp.array([3.0, 4.0]), jnp.array([1.0, -2.0])
    optimizer = _runs.on_sphere(optax.sgd(0.1))
    change, _ = jax.jit(optimizer.update)(slope, optimizer.init(w), w)
    after, free = w + change, w - 0.1 * slope
    np.testing.assert_allclose(jnp.linalg.norm(after), 5, rtol=1e-12)
    np.testing.assert_allclose(
        after / jnp.linalg.norm(after), free / jnp.linalg.norm(free), rtol=1e-12
    )


def test_products_and_ratios_are_those_of_the_step():
    w, slope = jnp.array([2.0]), jnp.array([0.3])
    optimizer = _runs.product_and_ratio(jnp.array(0.02), jnp.array(50.0))  # η = 1, λ = 0.02
    change, _ = jax.jit(optimizer.update)(slope, optimizer.init(w), w)
    np.testing.assert_allclose(change, -(0.3 + 0.02 * 2.0), rtol=1e-12)


def test_images_are_one_hot_and_joined_by_unused_training_images():
    data = _runs.images(_runs.Setup(samples=512, test_samples=1285))
    assert data.x_train.shape == (512, 8, 8, 1) and data.x_test.shape == (1285, 8, 8, 1)
    assert data.x_train.dtype == np.float32 and np.all(data.y_test.sum(1) == 1)
    assert not {one.tobytes() for one in data.x_train} & {one.tobytes() for one in data.x_test}
    with pytest.raises(ValueError, match=r"fewer than the 512 \+ 1286"):
        _runs.images(_runs.Setup(samples=512, test_samples=1286))


def test_minima_are_the_least_loss_of_each_period_and_pairs_are_by_lag(saw):
    fig20 = script("fig20")
    at = fig20.least(saw, si.periods(saw))
    assert np.all(saw["loss"].to_numpy()[at] < 0.0051) and np.all(np.diff(at) == PERIOD)
    truth = np.array([0, 1])
    right, wrong = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.2, 0.8], [0.1, 0.9]])
    one = fig20.Minima(
        np.arange(3),
        np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]),
        np.stack([right, wrong, wrong]),
    )
    np.testing.assert_array_equal(fig20.errors(one.probabilities, truth), [0, 0.5, 0.5])
    cosines, ensembles = fig20.lagged([one, one], truth, 8)
    assert len(cosines) == 2
    np.testing.assert_array_equal(cosines[0], [0, 0, 0, 0])
    np.testing.assert_array_equal(cosines[1], [1, 1])
    np.testing.assert_array_equal(ensembles[0], [0, 0.5, 0, 0.5])
    np.testing.assert_array_equal(ensembles[1], [0, 0])


TINY = dict(samples=40, test_samples=40, width=8)
SCRIPTS = {
    "fig10_13": dict(learning_rates=(1.0, 8.0), l2=5e-3, steps=400, close=(8.0, 5e-3), jumps=(8.0, 5e-3),
                     fixed=(8.0, 5e-3), fixed_steps=400, scales=(1.0, 0.5), stops=(0.5,), stochastic=(8.0, 5e-3),
                     stochastic_samples=40, stochastic_batch=20, smooth=3),
    "fig15_18": dict(batch_size=20, every=4, products=(0.01, 0.02), ratios=(100.0, 400.0), steps=400, scales=(2.0,),
                     learning_rates=(0.1, 2.0), decays=(1e-4, 1e-2), seeds=2),
    "fig19": dict(batch_size=20, every=2, head_norms=(1.0, 10.0), steps=200),
    "fig20": dict(batch_size=20, every=2, learning_rate=8.0, l2=5e-3, steps=500, seeds=2, lags=2),
    "fig21_23": dict(batch_size=20, every=4, steps=100),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_writes_its_picture_and_claims(name, tmp_path):
    module = script(name)
    options = dataclasses.replace(module.Options(), **TINY, **SCRIPTS[name], out=tmp_path)
    module.main(options)
    path = tmp_path / "periodic" / name
    assert path.with_suffix(".png").stat().st_size > 10_000
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["numbers"] and len(content["claims"]) >= 2
    assert all(claim["measured"] for claim in content["claims"])


@pytest.mark.slow
def test_runs_too_short_for_three_periods_decide_nothing(tmp_path):
    fig20 = script("fig20")
    options = dataclasses.replace(fig20.Options(), **TINY, **SCRIPTS["fig20"] | dict(steps=20))
    fig20.main(dataclasses.replace(options, out=tmp_path))
    content = json.loads((tmp_path / "periodic" / "fig20.json").read_text())
    assert [claim["holds"] for claim in content["claims"]] == [None] * 4
