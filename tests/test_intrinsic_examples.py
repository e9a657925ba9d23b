"""The scripts under examples/intrinsic_lr: schedules, times, distances and averages with a right answer; and that each runs."""

import dataclasses
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import xarray as xr

from ntkdecay import scale_invariant as si

matplotlib.use("Agg")
FOLDER = Path(__file__).parent.parent / "examples" / "intrinsic_lr"
SHARED = ("_runs", "_schedules", "_total_variation")


def script(name: str):
    """A module of examples/intrinsic_lr, imported as when it is run: with its folder on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


def paper_script(name: str):
    """A script by its file, as other papers have figures of the same name."""
    for shared in SHARED:
        script(shared)
    spec = importlib.util.spec_from_file_location(f"intrinsic_lr_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_runs, _schedules, _total_variation = map(script, SHARED)


# --- schedules


def test_the_five_schedules_of_table_1_end_with_the_same_rates_and_then_none():
    table = _schedules.table_1(0.4, 0.0005, 100)
    assert len(table) == 5
    for phases in table.values():
        assert [phase.start for phase in phases] == [0, 100, 200, 300, 400, 500, 1000]
        np.testing.assert_allclose(phases[5], (500, 0.4, 0.0005), rtol=1e-14)
        np.testing.assert_allclose(phases[6], (1000, 0.04, 0), rtol=1e-14)
    rates = {name: [phase.learning_rate for phase in phases] for name, phases in table.items()}
    # The table, step by step: LR/4, LR×4, LR/4, LR×2, LR×2; none; LR×4, LR/2, LR/2, LR/4, LR×4; …
    np.testing.assert_allclose(rates["schedule 1"][:6], [0.4, 0.1, 0.4, 0.1, 0.2, 0.4])
    np.testing.assert_allclose(rates["schedule 3"][:6], [0.4, 1.6, 0.8, 0.4, 0.1, 0.4])
    np.testing.assert_allclose(rates["schedule 5"][:6], [12.8, 6.4, 3.2, 1.6, 0.8, 0.4])
    decays = [phase.l2 for phase in table["schedule 4"]]
    np.testing.assert_allclose(decays, np.multiply([4, 16, 8, 4, 1, 4, 0], 0.000125))


def test_a_table_is_read_by_number_and_step():
    one = _schedules.schedule((0, 10), (0.5, 0.25), (2.0, 0.0))
    other = _schedules.schedule((0,), (3.0,), (1.0,))
    table = _schedules.Table.of([one, other])
    steps = jnp.array([0, 9, 10, 1_000_000])
    for number, rates, decays in ((0, [0.5, 0.5, 0.25, 0.25], [2, 2, 0, 0]), (1, [3.0] * 4, [1] * 4)):  # fmt: skip
        np.testing.assert_array_equal(jax.vmap(lambda s, n=number: table.learning_rate(n, s))(steps), rates)  # fmt: skip
        np.testing.assert_array_equal(jax.vmap(lambda s, n=number: table.l2(n, s))(steps), decays)


@pytest.mark.parametrize("starts", [(), (5, 10), (0, 20, 10)])
def test_a_schedule_begins_at_0_and_ascends(starts):
    with pytest.raises(ValueError, match="ascend from 0"):
        _schedules.schedule(starts, [1.0] * len(starts), [0.0] * len(starts))


def test_steps_out_of_order_are_refused_by_the_names_of_their_options():
    options = SimpleNamespace(first=500, decay=400, end=900, halvings=(2, 5, 5))
    with pytest.raises(ValueError, match=r"`--decay` is 400; it must come after `--first`, 500"):
        _schedules.in_order(options, "first", "decay", "end")
    with pytest.raises(ValueError, match=r"`--halvings` is \(2, 5, 5\); .* after `--halvings`, 5"):
        _schedules.in_order(options, "halvings", "decay")
    _schedules.in_order(options, "decay", "first", "end")


def test_a_weight_decay_that_makes_weights_grow_is_refused_before_training():
    schedules = [_schedules.schedule((0, 3), (0.1, 1e3), (0.01, 0.01))]
    with pytest.raises(ValueError, match=r"`--learning-rate` times `--l2` is 10 in a phase"):
        _runs.run(TINY_OPTIONS, schedules, 4, np.arange(5))


def test_means_within_chance_are_neither_alike_nor_apart():
    def found(gap, seeds=3):
        noise = np.linspace(-1e-3, 1e-3, seeds)
        values = np.stack([0.5 + noise, 0.5 + gap + noise])
        return _runs.apart(xr.DataArray(values, dims=("schedule", "seed")))

    assert _runs.alike([found(0.005)], 0.01) is True
    assert _runs.alike([found(0.02)], 0.01) is False
    assert _runs.alike([found(0.02, seeds=1)], 0.01) is None
    # p = 0.006 for a single comparison, not for two
    near = found(0.0043)
    assert 0.005 < near.p < 0.01
    assert _runs.alike([near], 0.001) is False and _runs.alike([near] * 2, 0.001) is None
    assert _runs.alike([near, found(0.5)], 0.001) is False


def test_a_phase_is_settled_after_three_times_the_relaxation_time():
    assert not _runs.settled(1e-3, 740) and _runs.settled(1e-3, 750)


def test_predicted_rate_is_lemma_5_2_in_each_phase_and_jumps_where_the_rate_does():
    phases = _schedules.schedule((0, 100), (0.4, 0.1), (0.01, 0.08))
    steps, trace = np.arange(0, 301, 10), np.full(31, 3.0)
    found = _schedules.predicted_rate(phases, steps, 0.02, trace)
    first = np.asarray(si.gamma_constant_noise(steps[:11] * 1.0, 0.02**-2, 3.0, 0.004))
    np.testing.assert_allclose(found[:10], first[:10] ** -0.5, rtol=1e-12)
    # The weights stay, so γ = (‖w‖²/η)² grows by 4² when η falls by 4.
    np.testing.assert_allclose(found[10], first[10] ** -0.5 / 4, rtol=1e-12)
    second = si.gamma_constant_noise(steps[10:] - 100.0, 16 * first[10], 3.0, 0.008)
    np.testing.assert_allclose(found[10:], np.asarray(second) ** -0.5, rtol=1e-12)


def test_predicted_rate_is_stationary_at_the_equilibrium():
    level = float(si.stationary_learning_rate(3.0, 0.004))
    phases = _schedules.schedule((0,), (0.4,), (0.01,))
    found = _schedules.predicted_rate(phases, np.arange(50), level, np.full(50, 3.0))
    np.testing.assert_allclose(found, level, rtol=1e-12)


# --- times


@pytest.mark.parametrize("tau", [3.0, 40.0])
def test_settling_time_of_an_exponential_approach_is_tau_times_a_logarithm(tau):
    t = np.linspace(0, 12 * tau, 2001)
    values = np.stack([5 + 2 * np.exp(-t / tau), 5 - 7 * np.exp(-t / tau)])
    found = _schedules.settling_time(t, values, [5.0, 5.0], 0.1)
    np.testing.assert_allclose(found, tau * np.log(10), rtol=1e-4)


def test_settling_time_is_the_last_entry_into_the_band_and_nan_of_none():
    t = np.arange(6.0)
    values = np.array([[1.0, 0.05, 0.5, 0.3, 0.05, 0.0], [1.0, 0, 0, 0, 0, 0.5]])
    found = _schedules.settling_time(t, values, 0.0 * values[:, 0], 0.1)
    np.testing.assert_allclose(found, [3.8, np.nan])


def test_recovery_time_is_half_way_from_the_lowest_point():
    t = np.arange(7.0)
    values = np.array([1.0, -3.0, -4.0, -3.5, -2.5, -1.5, 2.0])
    np.testing.assert_allclose(_schedules.recovery_time(t, values, 0.0), 4.5)
    assert np.isnan(_schedules.recovery_time(t[:4], values[:4], 0.0))


def test_the_slope_of_times_proportional_to_the_inverse_is_one():
    rate = np.array([1e-3, 4e-3, 2e-2])
    np.testing.assert_allclose(_runs.slope(1 / rate, 2.5 / rate), 1, rtol=1e-12)
    assert np.isnan(_runs.slope(1 / rate, np.array([1.0, np.nan, 2.0])))


# --- total variation


def test_total_variation_of_known_distributions():
    same, other = np.zeros((4, 3), int), np.ones((4, 3), int)
    assert _total_variation.total_variation(same, other) == 1
    assert _total_variation.total_variation(same, same) == 0
    mixed = np.array([[0, 0, 2], [0, 1, 2], [0, 1, 3], [1, 1, 3]])  # TV from class 0: 1/4, 3/4, 1
    np.testing.assert_allclose(_total_variation.total_variation(same, mixed), 2 / 3)


def test_chance_is_the_total_variation_of_equal_distributions():
    trials, images = 64, 4000
    a, b = np.random.default_rng(0).integers(0, 2, (2, trials, images))
    found = _total_variation.distance(a, b, classes=2, deals=100)
    # p̂ − q̂ is nearly normal with variance 2 · (1/4)/n: its mean modulus is 1/√(πn).
    np.testing.assert_allclose(found.chance, 1 / np.sqrt(np.pi * trials), rtol=0.02)
    assert abs(found.corrected) < 0.02 * found.chance and found.p > 0.05


def test_a_difference_beyond_chance_has_the_least_p():
    draws = np.random.default_rng(0).random((2, 32, 300))
    a, b = draws[0] < 0.5, draws[1] < 0.7
    found = _total_variation.distance(a, b, classes=2, deals=99)
    assert found.p == 0.01 and found.corrected > 0.05


def test_the_distance_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="as many trials"):
        _total_variation.distance(np.zeros((3, 5)), np.zeros((4, 5)))


# --- averages


def test_the_running_average_is_the_mean_by_hand_and_lags_are_diagonals():
    fig6_7 = paper_script("fig6_7")
    weights = np.random.default_rng(0).normal(size=(5, 3))
    found = fig6_7.running_average(jnp.asarray(weights))
    np.testing.assert_allclose(found, [weights[: i + 1].mean(0) for i in range(5)], rtol=1e-12)
    square = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    np.testing.assert_array_equal(fig6_7.by_lag(np.stack([square, 3 * square])), [0, 2, 4, 6])


def test_averages_of_weights_are_those_of_their_networks():
    fig6_7 = paper_script("fig6_7")
    options = dataclasses.replace(TINY_OPTIONS, width=3)
    net, data = _runs.network(options), _runs.images(options)
    first = net.init(jax.random.key(0), data.x_train)
    keys = jax.random.split(jax.random.key(1), 4)
    trees = [
        jax.tree.map(lambda w, k=k: w + jax.random.normal(k, w.shape, w.dtype), first) for k in keys
    ]
    flat = np.stack([jax.flatten_util.ravel_pytree(tree)[0] for tree in trees])
    found = fig6_7.averages(options, flat.reshape(2, 2, -1))
    half = jax.tree.map(lambda a, b: (a + b) / 2, *trees[:2])
    right = np.mean(np.argmax(jax.jit(net.apply)(half, data.x_test), -1) == data.y_test)
    assert found.pairs[0, 0, 1] == found.pairs[0, 1, 0] == found.running[0, 1] == right
    np.testing.assert_allclose(found.single, np.diagonal(found.pairs, axis1=1, axis2=2))
    np.testing.assert_allclose(found.distance2[1, 0, 1], np.sum((flat[2] - flat[3]) ** 2), rtol=1e-5)  # fmt: skip


# --- runs

TINY = dict(samples=12, test_samples=10, width=4, batch_size=4, seeds=2)
TINY_OPTIONS = _runs.Options(**TINY)


def test_images_are_the_first_and_unused_ones_join_the_test():
    options = dataclasses.replace(TINY_OPTIONS, samples=1000, test_samples=797)
    data = _runs.images(options)
    assert data.x_train.shape == (1000, 8, 8, 1) and data.x_test.shape == (797, 8, 8, 1)
    assert data.x_train.dtype == np.float32
    with pytest.raises(ValueError, match=r"fewer than the 1000 \+ 798"):
        _runs.images(dataclasses.replace(options, test_samples=798))


def test_evenly_has_the_starts_and_the_first_steps_of_each_phase_and_nothing_later():
    phases = _schedules.schedule((0, 333), (1.0, 1.0), (0.0, 0.0))
    steps = _runs.evenly(1000, 10, [phases])
    assert {*range(0, 1001, 100), 333, 334, 335, 337, 341, 349, 365} <= set(steps.tolist())
    assert steps[-1] == 1000 and np.all(np.diff(steps) > 0) and len(steps) < 30


def test_the_noise_is_the_variance_of_batch_gradients_at_unit_norm():
    """L = w·x̄: a batch of B has the gradient x̄, of variance Tr Cov(x)/B about E x; then times ‖w‖²."""
    x = np.random.default_rng(0).normal(size=(4000, 50)) * 2 + 1

    def snapshot(x):
        return SimpleNamespace(
            step=3, params=jnp.full(50, 0.2), data=SimpleNamespace(x=jnp.asarray(x), y=jnp.zeros(len(x))),
            apply_fn=lambda w, x: x @ w, loss_fn=lambda fx, y: fx.mean(),
        )  # fmt: skip

    variance, mean2 = _runs.Noise(4, batches=400)(snapshot(x))
    np.testing.assert_allclose(variance, 50 * 4 / 4 * 2.0, rtol=0.05)  # ‖w‖² = 2
    np.testing.assert_allclose(mean2, 50 * 2.0, rtol=0.05)
    variance, mean2 = _runs.Noise(4)(snapshot(np.ones((32, 50))))
    np.testing.assert_allclose((variance, mean2), (0, 100), atol=1e-9)


def test_runs_follow_their_schedules_and_share_neither_start_nor_batches():
    schedules = [
        _schedules.schedule((0, 2), (0.1, 0.4), (0.1, 0.5)),
        _schedules.schedule((0,), (0.1,), (0.1,)),
    ]
    grid = _runs.run(TINY_OPTIONS, schedules, 4, np.arange(5))
    rate = np.array([[0.1, 0.1, 0.4, 0.4, 0.4], [0.1] * 5])
    decay = np.array([[0.1, 0.1, 0.5, 0.5, 0.5], [0.1] * 5])
    norm2 = grid["norm2"].transpose("schedule", "seed", "step").to_numpy().astype(float)
    np.testing.assert_allclose(grid["rate"].transpose(*grid["norm2"].dims), rate[:, None] / norm2, rtol=1e-6)  # fmt: skip
    assert len(np.unique(norm2[..., 0])) == 4
    # ρ² ← (1 − ηλ)² ρ² + η² ‖∇L_B‖²: what is above the first term is another batch's gradient in every run.
    floor = ((1 - rate * decay) ** 2)[:, None, :-1] * norm2[..., :-1]
    assert np.all(norm2[..., 1:] > floor)
    gradients2 = (norm2[..., 1:] - floor) / rate[:, None, :-1] ** 2
    assert len(np.unique(gradients2)) == gradients2.size
    assert np.all(np.isfinite(grid["noise"])) and np.all(grid["noise"] > 0)


def test_noise_needs_two_batches():
    with pytest.raises(ValueError, match="12 samples hold 1 batches of 8"):
        _runs.Noise(8)(SimpleNamespace(data=SimpleNamespace(x=np.zeros((12, 2)))))


def test_apart_is_the_range_of_means_with_the_p_of_an_analysis_of_variance():
    values = xr.DataArray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dims=("schedule", "seed"))
    found = _runs.apart(values)
    np.testing.assert_allclose(
        (found.range, found.p), (3, 0.021312), rtol=1e-4
    )  # F = 13.5, 1 and 4
    alone = _runs.apart(values[:, :1])
    assert alone.range == 3 and np.isnan(alone.p) and alone.chance == "one seed each"


# --- each script

SCRIPTS = {
    "fig1": dict(phase=3, record=11),
    "fig2_10": dict(first=2, decay=8, end=12, record=6),
    "fig3": dict(seeds=5, phase=2, finetune=2, record=4, compared=10),
    "fig4": dict(halvings=(3, 6, 9, 12, 15, 18, 21), decay=24, end=30, record=10),
    "fig5": dict(off=8, end=14, toy_steps=300),
    "fig6_7": dict(burn_in=2, end=8, snapshots=7),
    "fig8": dict(drops=(8, 10), end=12, record=6),
    "fig11": dict(l2=(0.05, 0.1, 0.2), wait=8, recovery=0.5, record=8),
}
FIGURES = {"fig2_10": ("fig2", "fig10"), "fig6_7": ("fig6", "fig7")}


def first_options(module):
    """The options class of a script: that of its PAPER."""
    return type(module.PAPER)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_runs_tiny(name, tmp_path):
    module = paper_script(name)
    sizes = TINY | dict(out=tmp_path) | SCRIPTS[name]
    module.main(first_options(module)(**sizes))
    for figure in FIGURES.get(name, (name,)):
        path = tmp_path / "intrinsic_lr" / figure
        assert path.with_suffix(".png").stat().st_size > 10_000
        content = json.loads(path.with_suffix(".json").read_text())
        assert content["numbers"] and len(content["claims"]) >= 3
        assert all(claim["measured"] for claim in content["claims"])


@pytest.mark.slow
def test_the_paper_preset_of_fig1_builds_its_network(tmp_path):
    module = paper_script("fig1")
    small = dict(data="digits", samples=4, test_samples=4, batch_size=2, phase=1, record=2, eval_batch_size=None)  # fmt: skip
    module.main(dataclasses.replace(module.PAPER, **small, out=tmp_path, members_per_batch=1))
    content = json.loads((tmp_path / "intrinsic_lr" / "fig1.json").read_text())
    assert content["provenance"]["options"]["network"] == "pre_resnet_32"
