"""The scripts under examples/output_scale: what they read off a plane, and that each writes its picture and its claims."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr

matplotlib.use("Agg")
FOLDER = Path(__file__).parent.parent / "examples" / "output_scale"
TINY = dict(samples=12, test_samples=12, width=4, steps=4, members_per_batch=2)


def script(name: str):
    """A module of examples/output_scale, imported as when it is run: with its folder on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


_plane = script("_plane")
RATES, ALPHAS = _plane.powers(-6, 2, 0.5), _plane.powers(-4, 4, 2)


@pytest.fixture
def plane():
    """Near-best where 10^−2 α^½ <= η <= 10 times that; below and above, accuracy falls by 0.1 in half a decade."""
    rate, alpha = (
        xr.DataArray(np.log10(values), dims=name, coords={name: list(values)})
        for name, values in (("learning_rate", RATES), ("alpha", ALPHAS))
    )
    outside = np.maximum(abs(rate - (-2 + alpha / 2) - 0.5) - 0.5, 0)
    accuracy = 0.9 - 0.2 * outside
    never = xr.zeros_like(rate + alpha, dtype=bool)
    cells = {"test_accuracy": accuracy, "trained": ~never, "diverged": never, "lost": never}
    # learned up to three times as large an η
    return xr.Dataset(cells | {"accuracy": 1 - 0.2 * np.maximum(outside - 0.5, 0)})


def test_ends_width_and_slope_of_a_ridge(plane):
    rate = _plane.lowest(plane)
    np.testing.assert_allclose(rate, 0.01 * np.sqrt(ALPHAS))
    np.testing.assert_allclose(_plane.highest(plane)[1:], 0.1 * np.sqrt(ALPHAS[1:]))
    np.testing.assert_allclose(_plane.stable(plane)[1:], 10**-0.5 * np.sqrt(ALPHAS[1:]))
    np.testing.assert_allclose(_plane.middle(plane)[1:], 0.1**1.5 * np.sqrt(ALPHAS[1:]))
    np.testing.assert_allclose(_plane.slope(rate), 0.5)
    np.testing.assert_allclose(_plane.slope(rate, 1.0, 1e2), 0.5)
    assert np.isnan(_plane.slope(rate, 1e4))
    np.testing.assert_allclose(_plane.decades(plane)[1:], [1.5] * 4)  # three cells of half a decade
    np.testing.assert_allclose(_plane.best_accuracy(plane), 0.9)


@pytest.mark.parametrize("why", ["diverged", "lost"])
def test_cells_that_diverged_or_were_lost_are_never_best(plane, why):
    plane[why] = plane["learning_rate"] <= 0.02 * np.sqrt(plane["alpha"])
    np.testing.assert_allclose(_plane.lowest(plane), 0.01 * np.sqrt(10 * np.array(ALPHAS)))


def test_an_end_that_is_the_last_trained_cell_is_not_known(plane):
    plane["trained"] = plane["learning_rate"] <= 0.1 * np.sqrt(plane["alpha"]) * 1.01
    assert np.isnan(_plane.highest(plane)).all() and _plane.lowest(plane).notnull().all()
    plane["trained"] = plane["learning_rate"] >= 0.01 * np.sqrt(plane["alpha"]) / 1.01
    assert np.isnan(_plane.lowest(plane)).all() and np.isnan(_plane.middle(plane)).all()
    assert np.isnan(_plane.slope(_plane.lowest(plane)))


def test_an_output_scale_at_which_nothing_is_learned_has_no_proper_rates(plane):
    plane["accuracy"] = plane["accuracy"].where(plane["alpha"] > 1e-3, 0.85)
    for ends in (_plane.lowest, _plane.stable):
        assert np.isnan(ends(plane)[0]) and ends(plane)[2:].notnull().all()


def test_the_edge_is_where_all_larger_rates_diverge(plane):
    assert np.isnan(_plane.edge(plane)).all()  # none does
    beyond = plane["learning_rate"] >= 0.3 * np.sqrt(plane["alpha"])
    hole = plane["learning_rate"] < 1e-5  # not an edge: larger rates are stable
    plane["diverged"] = beyond | hole
    np.testing.assert_allclose(_plane.edge(plane), 10**-0.5 * np.sqrt(ALPHAS), rtol=1e-6)
    plane["trained"] = ~beyond  # where nothing was trained, nothing is known
    assert np.isnan(_plane.edge(plane)).all()


def test_verdicts_of_what_could_not_be_measured_are_open():
    assert _plane.near(1.05, 1.0, 0.1) and not _plane.near(1.2, 1.0, 0.1)
    assert _plane.near(np.nan, 1.0, 0.1) is None
    assert _plane.every([True, True]) is True and _plane.every([True, None]) is None
    assert _plane.every([False, None]) is False and _plane.every([]) is None
    assert _plane.every([np.True_, np.False_]) is False
    # standard errors 0.1 and 0: a mean of 0.15 is within two of 0, one of 0.25 is not
    assert _plane.above(np.array([0.05, 0.25])) is None
    assert (
        _plane.above(np.array([0.15, 0.35])) is True
        and _plane.above(np.array([-0.35, -0.15])) is False
    )
    assert _plane.above(np.array([0.001])) is True


def test_images_are_on_the_sphere_with_a_label_for_each_class():
    data = _plane.images(_plane.Options(samples=30, test_samples=20))
    np.testing.assert_allclose(np.sum(np.square(data.x), axis=1), 64, rtol=1e-12)
    assert data.x.dtype == np.float64 and data.x_test.shape == (20, 64)
    np.testing.assert_array_equal(data.y.sum(1), -8)
    pooled = _plane.averaged(np.arange(16.0).reshape(1, 4, 4, 1), 2)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    with pytest.raises(ValueError, match="`--pooled` is 3; it must divide the 8 pixels"):
        _plane.images(_plane.Options(pooled=3))
    with pytest.raises(ValueError, match="297 test samples; 298"):
        _plane.images(_plane.Options(test_samples=298))


def made(main, options, tmp_path, figure):
    """The JSON of a script that ran in `tmp_path`, which must have a picture, numbers and claims."""
    main(dataclasses.replace(options, **TINY, out=tmp_path))
    path = tmp_path / "output_scale" / figure
    assert path.with_suffix(".png").stat().st_size > 10_000
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["numbers"] and content["provenance"]["dtype"] == "float64"
    assert all(claim["measured"] for claim in content["claims"])
    return content


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A plane with one cell that diverges and one whose step is lost, and a store that keeps it."""
    store = tmp_path_factory.mktemp("runs")
    return _plane.PlaneOptions(
        learning_rates=(1e-9, 1e-2, 1e5, 1e6),
        alphas=(1e-4, 1e-3, 1.0, 10.0, 1e8, 1e10),
        highest=1e5,
        store=store,
    )


@pytest.mark.slow
def test_fig3_and_fig7_share_a_plane(tiny, tmp_path):
    content = made(script("fig3").main, tiny, tmp_path, "fig3")
    assert len(content["claims"]) == 11
    gd = content["numbers"]["gradient descent"]
    assert (
        gd["diverged"][2][0] and not gd["lost"][2][0] and gd["lost"][0][5] and not gd["lost"][1][2]
    )
    assert gd["trained"][3] == [False, False, False, True, True, True] and all(gd["trained"][2])
    assert gd["test_accuracy"][3][0] == "nan" and not gd["diverged"][3][0]
    runs = set(tiny.store.iterdir())
    content = made(script("fig7").main, tiny, tmp_path, "fig7")
    assert len(content["claims"]) == 4 and set(tiny.store.iterdir()) == runs
    signs = np.array(content["numbers"]["modified RMSProp"]["sign_consistency"][:3])
    assert np.all((signs >= 0) & (signs <= 1)) and signs[0, 5] == 1


def test_fig6_compares_two_optimizers(tmp_path):
    fig6 = script("fig6")
    options = dataclasses.replace(fig6.QUICK, alphas=(1e-2, 1.0, 1e2), seeds=(0, 1))
    content = made(fig6.main, options, tmp_path, "fig6")
    assert len(content["claims"]) == 3
    assert np.shape(content["numbers"]["RMSProp"]["test_accuracy"]) == (3, 2)


@pytest.mark.slow
def test_the_first_effective_learning_rates_of_fig1_2_have_exponents_1_and_0(tmp_path):
    fig1_2 = script("fig1_2")
    content = made(fig1_2.main, dataclasses.replace(fig1_2.QUICK, record=(0,)), tmp_path, "fig1_2")
    first = [claim for claim in content["claims"] if "step 1" in claim["claim"]]
    assert len(first) == 4 and all(claim["holds"] for claim in first)


@pytest.mark.slow
def test_l2_script_finds_the_exponents_of_the_lazy_limit(tmp_path):
    l2 = script("l2")
    content = made(l2.main, dataclasses.replace(l2.QUICK, alphas=(1.0, 1e4, 1e6)), tmp_path, "l2")
    assert len(content["claims"]) == 5
    assert content["claims"][0]["holds"] and content["claims"][3]["holds"]
