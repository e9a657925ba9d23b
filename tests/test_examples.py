"""The scripts under examples/: what they read off a grid, and that each writes its picture and its claims."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import jax
import matplotlib
import numpy as np
import optax
import pytest
import xarray as xr

from ntkdecay import report

matplotlib.use("Agg")
L2 = Path(__file__).parent.parent / "examples" / "l2"


def script(name: str):
    """A module of examples/l2, imported as when it is run: with its folder on the path."""
    sys.path.insert(0, str(L2))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(L2))


_sweeps = script("_sweeps")


def record(t_peak, peak=0.9, last=1000.0):
    """Accuracies that rise linearly to `peak` at the step t_peak and fall by half of it until `last`."""
    t_peak = xr.DataArray(t_peak, dims=("learning_rate", "l2"))
    step = xr.DataArray(np.arange(0.0, 1001.0), dims="step", coords={"step": np.arange(1001)})
    fall = peak * (1 - 0.5 * (step - t_peak) / (1000 - t_peak))
    accuracy = xr.where(step <= t_peak, peak * step / t_peak, fall).where(step <= last)
    coords = {"learning_rate": [0.1, 0.4], "l2": [0.0, 0.01, 0.02, 0.1]}
    last_step = xr.full_like(t_peak, last)
    return xr.Dataset({"test_accuracy": accuracy, "last_step": last_step}, coords)


TIMES = np.array([[999.0, 900, 450, 90], [999.0, 225, 112.5, 22.5]])  # 0.9/(ηλ)


def test_time_to_best_is_the_first_step_within_half_a_percent():
    found = _sweeps.time_to_best(record(TIMES))
    np.testing.assert_array_equal(found, np.ceil(TIMES * (0.895 / 0.9)))
    np.testing.assert_array_equal(
        _sweeps.time_to_best(record(TIMES), within=0), np.round(TIMES + 1e-9)
    )


def test_a_peak_counts_where_the_run_goes_on_for_as_long_again():
    t = xr.DataArray(TIMES, dims=("learning_rate", "l2"))
    found = _sweeps.peaked(record(t))
    expected = np.where(2 * np.ceil(TIMES * (0.895 / 0.9)) <= 1000, np.ceil(TIMES * (0.895 / 0.9)), np.nan)  # fmt: skip
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(expected).sum() == 3


def seeds(*accuracies, last=(2, 2)):
    """Two steps after the start of runs of one cell."""
    grid = xr.Dataset(
        {
            "test_accuracy": (("seed", "step"), np.array(accuracies)),
            "last_step": ("seed", np.array(last)),
            "status": ("seed", np.where(np.array(last) == 2, "done", "diverged")),
        },
        {"step": [0, 1, 2]},
    )
    return _sweeps.averaged(grid)


def test_a_mean_over_seeds_has_a_standard_error_and_ends_with_the_first_of_them():
    grid = seeds([0.1, 0.8, 0.7], [0.1, 0.9, 0.5])
    np.testing.assert_allclose(grid["test_accuracy"], [0.1, 0.85, 0.6])
    np.testing.assert_allclose(_sweeps.error(grid), 0.05)  # 0.1/√2 is the deviation of two
    np.testing.assert_allclose(_sweeps.error(grid, 0), 0, atol=1e-15)
    assert grid["status"] == "done"
    grid = seeds([0.1, 0.8, 0.7], [0.1, 0.9, np.nan], last=(2, 1))
    assert grid["last_step"] == 1 and grid["status"] == "diverged"
    assert np.isnan(grid["test_accuracy"][2]) and _sweeps.best(grid) == pytest.approx(0.85)
    alone = seeds([0.1, 0.8, 0.7], last=(2,))
    assert _sweeps.error(alone) == 0 and _sweeps.best(alone) == 0.8


def test_a_difference_within_two_standard_errors_decides_nothing():
    assert _sweeps.ahead(0.03, 0.01) is True and _sweeps.ahead(-0.03, 0.01) is False
    assert _sweeps.ahead(0.02, 0.01) is None and _sweeps.ahead(-0.02, 0.01) is None
    assert _sweeps.ahead(0.001) is True and _sweeps.ahead(0.0) is False
    assert _sweeps.ahead(0.03, 0.01, least=0.04) is None
    assert _sweeps.every([True, None, False]) is False
    assert _sweeps.every([True, None]) is None and _sweeps.every([]) is None
    assert _sweeps.every([True, True]) is True
    nothing = _sweeps.spread(np.array([np.nan]))
    assert nothing.near(-1, 0.2) is None and "too few" in str(nothing)
    assert _sweeps.spread(np.array([-0.9, -1.1])).near(-1, 0.2) is True


def panel_claims(ask, grid, tmp_path, **more):
    """What a function of _panels claims of a grid, by the words that follow the name."""
    out = report.Report("l2", "none", report.Options(out=tmp_path))
    ask(out, grid, "FC", **more)
    return {claim.claim.removeprefix("FC: "): claim.holds for claim in out.claims}


def with_errors(grid, by=0.0):
    return grid.assign(error=0 * grid["test_accuracy"] + by)


def test_the_law_of_the_peak_is_asked_of_runs_that_passed_it(tmp_path):
    panels, law = script("_panels"), "t_* is proportional to 1/λ"
    grid = with_errors(record(xr.DataArray(TIMES, dims=("learning_rate", "l2"))))
    found = panel_claims(panels.scaling, grid, tmp_path)
    assert found[law] is True  # of the second η
    assert found["the best accuracy depends weakly on η"] is True
    assert found["performance is constant at small λ"] is True
    one = grid.isel(learning_rate=[0])
    assert panel_claims(panels.scaling, one, tmp_path)[law] is None  # two peaks in time
    flat = with_errors(record(xr.DataArray(0 * TIMES + 100, dims=("learning_rate", "l2"))))
    assert panel_claims(panels.scaling, flat, tmp_path)[law] is False


def test_a_small_l2_is_better_than_none_by_two_standard_errors_and_in_equal_time(tmp_path):
    panels = script("_panels")
    none, other = xr.DataArray([0, 1, 1, 1], dims="l2"), xr.DataArray([1, 0, 0, 0], dims="l2")
    grid = with_errors(record(xr.DataArray(TIMES, dims=("learning_rate", "l2"))), 0.001)
    lower = grid.assign(test_accuracy=grid["test_accuracy"] - 0.01 * other)
    ask = panels.better_than_none
    assert list(panel_claims(ask, lower, tmp_path).values()) == [True]
    assert list(panel_claims(ask, with_errors(lower, 0.01), tmp_path).values()) == [None]
    higher = grid.assign(test_accuracy=grid["test_accuracy"] - 0.01 * none)
    assert list(panel_claims(ask, higher, tmp_path).values()) == [False]
    short = lower.assign(last_step=lower["last_step"] * none + 1)
    assert list(panel_claims(ask, short, tmp_path).values()) == [None]


def test_a_fixed_budget_has_an_optimum_where_less_l2_or_none_is_worse(tmp_path):
    panels = script("_panels")
    for accuracy, holds in (([0.8, 0.9, 0.9], True), ([0.9, 0.9, 0.8], False), ([0.9, 0.8, 0.9], True)):  # fmt: skip
        within = xr.DataArray(accuracy, dims="l2", coords={"l2": [0.0, 0.01, 0.1]})
        out = report.Report("l2", "none", report.Options(out=tmp_path))
        panels.fixed_budget(out, within, "FC", "10 epochs")
        assert out.claims[0].holds is holds


def test_auto_l2_that_ends_above_the_tuned_l2_has_not_come_to_it(tmp_path):
    auto = script("_auto_l2")
    step = [0, 1, 2]

    def runs(axis, values, accuracy, error, **more):
        data = {"test_accuracy": ((axis, "step"), accuracy), "last_step": (axis, [2] * len(values))}
        grid = xr.Dataset(data | more, {axis: values, "step": step})
        return grid.assign(error=0 * grid["test_accuracy"] + error)

    constant = runs("l2", [0.001, 0.01], [[0.1, 0.5, 0.8], [0.1, 0.7, 0.6]], 0.01)
    for best, end, error, holds in (
        (0.9, -4, 0.01, [True, True]),
        (0.9, -1, 0.01, [True, True]),
        (0.7, -1, 0.01, [False, None]),
        (0.7, -4, 0.01, [False, False]),
        (0.81, -4, 0.01, [True, None]),
    ):
        decades = {auto.DECADES: (("start", "step"), [[-1.0, -1.0, end]])}
        dynamic = runs("start", [0.2], [[0.1, best, 0.6]], error, **decades)
        out = report.Report("l2", "none", report.Options(out=tmp_path))
        auto.claims(out, constant, dynamic, 1.0, "FC")
        assert [claim.holds for claim in out.claims] == holds


def test_best_within_a_budget_counts_no_later_step():
    grid = record(TIMES)
    np.testing.assert_allclose(_sweeps.best(grid), 0.9, rtol=5e-3)
    np.testing.assert_allclose(_sweeps.best(grid, 45).sel(l2=0.01)[0], 0.9 * 45 / 900)
    np.testing.assert_allclose(_sweeps.best(grid, 450).sel(l2=0.02)[0], 0.9)


def test_members_without_a_step_have_no_time_and_no_accuracy():
    grid = record(TIMES)
    grid["last_step"][1, 2] = 0
    for found in (_sweeps.time_to_best(grid), _sweeps.best(grid)):
        assert np.isnan(found[1, 2]) and np.isfinite(found).sum() == 7


def test_slopes_of_an_inverse_are_minus_one_and_leave_out_l2_zero():
    times = xr.DataArray(
        TIMES,
        dims=("learning_rate", "l2"),
        coords={"learning_rate": [0.1, 0.4], "l2": [0.0, 0.01, 0.02, 0.1]},
    )
    np.testing.assert_allclose(_sweeps.slopes(times, "l2"), -1, rtol=1e-12)
    np.testing.assert_allclose(_sweeps.slopes(times, "learning_rate", least=2)[1:], -1, rtol=1e-12)
    assert np.all(np.isnan(_sweeps.slopes(times, "learning_rate")))
    np.testing.assert_allclose(_sweeps.slopes(times**2, "l2"), -2, rtol=1e-12)
    few = times.where(times["l2"] != 0.02)
    assert np.all(np.isnan(_sweeps.slopes(few, "l2")))


def test_smallest_decade_is_of_each_line():
    accuracy = xr.DataArray(
        [[0.1, np.nan, 0.5, 0.6], [0.1, 0.7, 0.8, 0.9]],
        dims=("learning_rate", "l2"),
        coords={"l2": [0.0, 0.01, 0.1, 1.0]},
    )
    kept = _sweeps.smallest_decade(accuracy)
    np.testing.assert_array_equal(kept, [[np.nan, np.nan, 0.5, 0.6], [np.nan, 0.7, 0.8, np.nan]])
    assert str(_sweeps.spread(kept)) == "0.65 (0.50 to 0.80, 4 lines)"


def test_the_softmax_loss_is_the_cross_entropy_over_2k():
    fx, y = np.random.default_rng(0).normal(size=(5, 4)), np.eye(4)[[0, 1, 2, 3, 1]]
    p = np.exp(fx) / np.exp(fx).sum(1, keepdims=True)
    expected = -np.sum(y * np.log(p)) / (2 * 4 * 5)
    np.testing.assert_allclose(_sweeps.softmax_loss(jax.numpy.asarray(fx), y), expected, rtol=1e-12)


def test_images_are_one_hot_and_joined_by_unused_training_images():
    options = report.Options()
    data = _sweeps.images(options, "digits", 512, 1285, size=12)
    assert data.x_train.shape == (512, 12, 12, 1) and data.x_test.shape == (1285, 12, 12, 1)
    assert data.y_train.shape == (512, 10) and np.all(data.y_test.sum(1) == 1)
    assert data.x_train.dtype == np.float32
    assert not {image.tobytes() for image in data.x_train} & {
        image.tobytes() for image in data.x_test
    }
    with pytest.raises(ValueError, match="fewer than the 512 \\+ 1286"):
        _sweeps.images(options, "digits", 512, 1286)


def run_tiny(module: str, tmp_path, names, **options):
    """Run a script with few and small options; every picture is there, with claims beside it."""
    example = script(module)
    example.main(example.Options(out=tmp_path, **options))
    for name in names:
        content = json.loads((tmp_path / "l2" / f"{name}.json").read_text())
        assert content["claims"] and content["numbers"]
        assert all(claim["holds"] in (True, False, None) for claim in content["claims"])
        assert (tmp_path / "l2" / f"{name}.png").stat().st_size > 10_000
    return content


TINY = _sweeps.Setup(
    data="digits",
    samples=32,
    test_samples=32,
    learning_rates=(1.0, 2.0),
    l2=(0.0, 0.02, 0.05, 0.1),
    budget=0.4,
    zero_epochs=10,
    record=5,
    members_per_batch=1,
)


def test_s5_writes_its_picture_and_claims(tmp_path):
    setup = dataclasses.replace(TINY, learning_rates=(0.1, 0.2))
    run_tiny("s5", tmp_path, ["s5"], fc=setup, widths=(8,), rate=0.1)


def test_s7_writes_its_picture_and_claims(tmp_path):
    tiny = dict(
        samples=32, test_samples=32, widths=(16,), epochs=30, batch_size=16, seeds=1, record=5
    )
    run_tiny("s7", tmp_path, ["s7"], l2=(0.0, 0.01, 0.1, 0.2), **tiny)


@pytest.mark.slow
def test_fig2_writes_its_pictures_and_claims(tmp_path):
    sizes = dict(fc=TINY, fc_widths=(8,), fc_rate=1.0, fc_epochs=(5, 10))
    wrn = dataclasses.replace(TINY, batch_size=16)
    content = run_tiny(
        "fig2", tmp_path, ["s1", "s6", "fig2"], **sizes, wrn=wrn, wrn_rate=1.0, wrn_epochs=(1, 2)
    )
    assert len(content["claims"]) == 12


@pytest.mark.slow
def test_fig3_writes_its_pictures_and_claims(tmp_path):
    setup = dataclasses.replace(TINY, batch_size=16, learning_rates=(1.0,))
    run_tiny(
        "fig3", tmp_path, ["s6_cnn", "fig3"], plain=setup, normalized=setup, epochs=(1, 5), filters=2, dense=4
    )  # fmt: skip


@pytest.mark.slow
def test_s8_writes_its_picture_and_claims(tmp_path):
    tiny = dict(samples=16, test_samples=16, batch_size=8, epochs=(1, 2), epochs_a=1, record=2)
    run_tiny("s8", tmp_path, ["s8"], learning_rates=(0.1, 0.4), l2=(0.01, 0.04), **tiny)


def test_the_schedule_falls_by_5_three_times():
    wrn = script("_wrn")
    rate = wrn.schedule(wrn.Setting(samples=80, batch_size=8, learning_rate=0.5), 10)
    steps = np.array([0, 29, 30, 59, 60, 89, 90, 99])
    expected = 0.5 * 0.2 ** np.array([0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_allclose([rate(step) for step in steps], expected, rtol=1e-12)


def test_tuned_finds_the_best_l2_of_each_budget_and_those_within_a_thousandth():
    wrn = script("_wrn")
    l2, step = [0.01, 0.02, 0.1], np.array([0, 10, 100])
    accuracy = np.array([[0.1, 0.2, 0.9], [0.1, 0.5, 0.8995], [0.1, 0.4995, 0.6]])
    grid = xr.Dataset(
        {
            "test_accuracy": (("l2", "step"), accuracy),
            "error": (("l2", "step"), 0.01 * accuracy),
            "last_step": ("l2", [100, 100, 100]),
        },
        {"l2": l2, "step": step},
    )
    options = wrn.Tuning(samples=5, batch_size=1, budgets=(2, 20))
    found = wrn.tuned(options, grid)
    np.testing.assert_array_equal(found["best"], [0.5, 0.9])
    np.testing.assert_array_equal(found["l2_best"], [0.02, 0.01])
    np.testing.assert_array_equal(found["l2_low"], [0.02, 0.01])
    np.testing.assert_array_equal(found["l2_high"], [0.1, 0.02])
    np.testing.assert_allclose(found["error"], [0.005, 0.009])
    np.testing.assert_allclose(wrn.off(found, np.array([0.05, 0.2])), [1, 10])
    assert wrn.of_order(found, np.array([0.05, 0.1])) is True
    assert wrn.of_order(found, np.array([0.05, 0.2])) is None  # outside of the grid
    wide = found.assign_coords(l2=[0.01, 0.02, 0.5])
    assert wrn.of_order(wide, np.array([0.05, 0.2])) is False
    short = grid.isel(l2=[1]).assign(test_accuracy=(("l2", "step"), [[0.95, 0.9, 0.5]]))
    assert wrn.coefficient(options, short) == 0.02 * 10 / 5  # the start is no peak


def test_batch_normalization_over_groups_is_that_of_devices_that_share_a_batch():
    wrn, normalized = script("_wrn"), script("_normalized")
    network = normalized.fully_connected((6,), outputs=3)
    x = jax.random.normal(jax.random.key(0), (8, 2, 2, 1))
    params = network.init(jax.random.key(1), x)
    grouped = wrn.in_groups(network, 4).apply(params, x)
    apart = np.concatenate([network.apply(params, x[:4]), network.apply(params, x[4:])])
    np.testing.assert_allclose(grouped, apart, rtol=1e-5, atol=1e-6)
    assert not np.allclose(grouped, network.apply(params, x), atol=1e-2)
    shifted = [params[0] | {"kernel": 7 * params[0]["kernel"]}, params[1]]
    np.testing.assert_allclose(network.apply(shifted, x), network.apply(params, x), atol=1e-3)


def test_auto_l2_starts_at_what_shrinks_the_weights_as_fast_as_in_the_paper():
    wrn = script("_wrn")
    for options in ({}, wrn.DESK, wrn.PAPER):
        setting = wrn.Setting(**options)
        unit = setting.learning_rate / (1 - setting.momentum)
        optimizer = script("_auto_l2").auto(unit=unit)(0.2)
        state = optimizer.init(np.ones(1, np.float32))
        l2 = optax.tree.get(state, "l2")
        np.testing.assert_allclose(l2 * unit, 0.2, rtol=1e-6)
        if options:
            np.testing.assert_allclose(l2, 0.1, rtol=1e-6)


WRN = dict(samples=32, test_samples=16, batch_size=16, eval_batch_size=16, record=3)
TUNING = WRN | dict(l2=(0.01, 0.1), budgets=(2, 4), large_l2=0.2, short_epochs=1.0)


@pytest.mark.slow
def test_fig1_writes_its_pictures_and_claims(tmp_path):
    sizes = dict(scheduled_l2=(0.05, 0.1), fixed_epochs=1.0, auto_epochs=4.0)
    run_tiny("fig1", tmp_path, ["s9", "fig1"], **TUNING, **sizes)


def test_fig1_writes_its_pictures_and_claims_of_a_fully_connected_network(tmp_path):
    fc = TUNING | dict(network="FC", widths=(8,), seeds=2, per_device=8)
    sizes = dict(scheduled_l2=(0.05, 0.1), fixed_epochs=1.0, auto_epochs=4.0)
    run_tiny("fig1", tmp_path, ["s9", "fig1"], **fc, **sizes)


@pytest.mark.slow
def test_fig4_writes_its_pictures_and_claims(tmp_path):
    run_tiny("fig4", tmp_path, ["s2", "s3", "s4", "fig4"], **TUNING)


@pytest.mark.slow
def test_s10_writes_its_picture_and_claims(tmp_path):
    run_tiny("s10", tmp_path, ["s10"], **WRN, l2=(0.01,), epochs=4.0)


@pytest.mark.slow
def test_s11_writes_its_picture_and_claims(tmp_path):
    case = script("s11").Case
    cases = tuple(
        case(name, "digits", 32, 16, 1.0, (0.01,), 2, 16) for name in ("FC", "CNN", "CNN with BN")
    )
    run_tiny(
        "s11", tmp_path, ["s11"], cases=cases, widths=(8,), filters=2, dense=4, record=2, eval_batch_size=16
    )  # fmt: skip


@pytest.mark.slow
def test_s12_writes_its_picture_and_claims(tmp_path):
    run_tiny("s12", tmp_path, ["s12"], **WRN, w_std=(1.0, 2.0), l2=(0.1,), scale=0.2)


@pytest.mark.slow
def test_next_order_writes_its_picture_and_claims(tmp_path):
    sizes = dict(networks=("linear", "ReLU"), widths=(512, 1024), seeds=1, span=0.3)
    late = dict(late_samples=4, late_width=512, late_time=3.0, restarts=2)
    content = run_tiny("next_order", tmp_path, ["next_order"], samples=6, **sizes, **late)
    nearer = [claim for claim in content["claims"] if "every width" in claim["claim"]]
    assert len(nearer) == 2 and all(claim["holds"] for claim in nearer)


@pytest.mark.slow
def test_learning_curves_and_best_schedule_write_their_pictures_and_claims(tmp_path):
    sizes = dict(pool=300, samples=(20, 60), drawn=400, sizes=(20, 60), noise=(0.3, 1.0))
    content = run_tiny("learning_curves", tmp_path, ["learning_curves"], **sizes)
    assert content["claims"][0]["holds"] and len(content["claims"]) == 4
    few = dict(modes=60, samples=30, alpha=(1.5,), beta=(-0.3, 0.0, 0.5), stopping=60, steps=2000)
    content = run_tiny("best_schedule", tmp_path, ["best_schedule"], **few)
    assert [claim["holds"] for claim in content["claims"]][:2] == [True, True]


def test_figure_5_refuses_an_unstable_learning_rate_before_it_trains(monkeypatch):
    fig5 = script("fig5")
    monkeypatch.setattr(fig5.kernels, "empirical_ntk", lambda *_: 3.99 * np.eye(8))
    options = fig5.Options(samples=8, kernel_width=16, learning_rate=100.0)
    with pytest.raises(ValueError, match=r"`learning_rate` is 100.0, .* 2/\(γ \+ λ\) = 0.5, γ"):
        fig5.training_loss(None, None, options)
