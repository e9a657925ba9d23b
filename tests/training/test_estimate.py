"""`training.estimate` against what training takes, and a network split over devices or rounded."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import datasets, networks, training

ROOT = Path(__file__).parents[2]
X, Y = np.random.default_rng(0).normal(size=(64, 20)), np.random.default_rng(1).normal(size=(64, 3))
GRID = {"learning_rate": [0.01, 0.1], "seed": [0, 1, 2]}
ONE_DEVICE = {"devices": jax.local_devices()[:1]}


def init(key):
    first, second = jax.random.split(key)
    return {
        "a": jax.random.normal(first, (20, 256)) / 5,
        "b": jax.random.normal(second, (256, 3)) / 16,
    }


def apply_fn(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def loss(fx, y):
    return ((fx - y) ** 2).mean()


def estimate(steps=1000, **options):
    return training.estimate(
        init, apply_fn, loss, optax.sgd, GRID, X, Y, steps=steps, **ONE_DEVICE | options
    )


def test_operations_are_those_of_the_products_of_matrices():
    """Forwards, and backwards to the weights of both layers and to the hidden ones; metrics see all samples once each."""
    a, b = 2 * 64 * 20 * 256, 2 * 64 * 256 * 3
    found = estimate(record=[0], metrics=["norm2"])
    np.testing.assert_allclose(found.flops, 6000 * (2 * a + 3 * b), rtol=0.2)
    half = estimate(record=[0], metrics=["norm2"], batch_size=32)
    np.testing.assert_allclose(half.flops, found.flops / 2, rtol=0.05)
    assert found.members == 6 and found.steps == 6000
    measured = estimate(record=np.arange(1001), metrics=["loss"], eval_batch_size=16)
    np.testing.assert_allclose(measured.flops - found.flops, 6006 * (a + b), rtol=0.2)


def test_time_on_a_named_device_is_operations_over_its_peak():
    found = estimate(device="H100", share=0.5, compute_dtype=jnp.bfloat16)
    np.testing.assert_allclose(
        found.seconds, found.flops / (0.5 * training.DEVICES["H100"].bfloat16)
    )
    double = estimate(device="H100", share=0.5)
    np.testing.assert_allclose(
        double.seconds, found.seconds * 989 / 67, rtol=0.02
    )  # parameters of float64
    with pytest.raises(ValueError, match="'TPU v4', which does not compute in float64"):
        estimate(device="TPU v4")
    with pytest.raises(ValueError, match="`device` is 'GTX'; it must be one of 'V100'"):
        estimate(device="GTX")


def test_what_does_not_fit_says_what_to_change():
    images = np.zeros((4096, 32, 32, 3), np.float32), np.zeros(4096, int)
    network = networks.wide_resnet(10, 4)

    def cross_entropy(fx, y):
        return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()

    grid = {"learning_rate": np.geomspace(0.1, 1, 200)}
    found = training.estimate(
        lambda key: network.init(key, images[0][:2]), network.apply, cross_entropy, optax.sgd, grid, *images, steps=10,
        device="T4", members_per_batch=100, metrics=["norm2"],
    )  # fmt: skip
    assert "take `members_per_batch=" in found.advice and found.advice in str(found)
    assert found.memory > training.DEVICES["T4"].memory


@pytest.mark.slow
def test_time_here_is_what_training_takes():
    """Within 1.5 times, compiling included, on a machine that does nothing else."""
    import time

    found = estimate(20_000, members_per_batch=3)
    begin = time.perf_counter()
    training.sweep(
        init, apply_fn, loss, optax.sgd, GRID, X, Y, steps=20_000, members_per_batch=3, **ONE_DEVICE
    )  # pyright: ignore
    took = time.perf_counter() - begin
    assert found.share is None and 1 / 1.5 < found.seconds / took < 1.5


def test_within_estimating_nothing_is_trained():
    with training.estimating("A100") as found:
        runs, params = training.sweep(
            init, apply_fn, loss, optax.sgd, GRID, X, Y, steps=10**9, return_params=True
        )
        run = training.train(
            apply_fn, init(jax.random.key(0)), loss, X, Y, optax.sgd(0.1), steps=10
        )
    assert [one.members for one in found] == [6, 1] and found[0].steps == 6 * 10**9
    assert runs.loss.isnull().all() and runs.loss.dims == ("learning_rate", "seed", "step")
    assert params["a"].shape == (2, 3, 20, 256) and np.isnan(run.params["a"]).all()
    trained = training.train(apply_fn, init(jax.random.key(0)), loss, X, Y, optax.sgd(0.1), steps=1)
    assert np.isfinite(trained.params["a"]).all()


def test_a_script_says_what_it_will_take_and_draws_nothing(tmp_path):
    command = [
        sys.executable,
        ROOT / "examples/l2/fig5.py",
        "--estimate",
        "H100",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "In all 2 members" in done.stdout and "on H100" in done.stdout
    assert not list(tmp_path.rglob("*.png"))
    command[1] = ROOT / "examples/periodic/fig14.py"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "Nothing is trained."
    command[3] = "GTX"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "`--estimate` is 'GTX'; it must be one of V100" in done.stderr


def test_computing_in_bfloat16_keeps_parameters_and_rounds_the_network():
    params, options = init(jax.random.key(0)), {"steps": 50, "l2": 0.01, "record": 5}
    runs = {
        dtype: training.train(
            apply_fn, params, loss, X, Y, optax.sgd(0.1), compute_dtype=dtype, **options
        )
        for dtype in (None, jnp.bfloat16, jnp.float64)
    }
    plain, low, same = runs.values()
    assert (
        low.params["a"].dtype == plain.params["a"].dtype
        and low.data.loss.dtype == plain.data.loss.dtype
    )
    rounded = np.abs(low.data.loss / plain.data.loss - 1).max()
    assert 1e-6 < rounded < 2e-2
    np.testing.assert_array_equal(same.data.loss, plain.data.loss)
    seen = []

    def watched(params, x):
        seen.append({x.dtype, *(leaf.dtype for leaf in params.values())})
        return apply_fn(params, x)

    training.train(watched, params, loss, X, Y, optax.sgd(0.1), compute_dtype=jnp.bfloat16, steps=1)
    assert all(one == {jnp.dtype(jnp.bfloat16)} for one in seen)


@pytest.mark.slow
def test_a_residual_network_learns_as_well_in_bfloat16():
    digits = datasets.load("digits")
    x, y = digits.x_train[:512].astype(np.float32), digits.y_train[:512]
    network = networks.wide_resnet(10, 1)

    def cross_entropy(fx, y):
        return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()

    found = [
        training.sweep(
            lambda key: network.init(key, x[:2]),
            network.apply,
            cross_entropy,
            lambda: optax.sgd(0.1, momentum=0.9),
            {"seed": [0, 1, 2]},
            x,
            y,
            steps=120,
            batch_size=64,
            record=[0],
            compute_dtype=dtype,
            metrics=["test_accuracy"],
            x_test=digits.x_test.astype(np.float32),
            y_test=digits.y_test,
        )
        .test_accuracy[:, -1]
        .to_numpy()
        for dtype in (None, jnp.bfloat16)
    ]
    spread = max(one.std(ddof=1) for one in found)
    assert found[0].mean() > 0.9
    assert abs(found[0].mean() - found[1].mean()) < max(3 * spread * np.sqrt(2 / 3), 0.01)
