"""What the store promises: found at once, resumed bit by bit, never half a file, shared by processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grid import digest, grid

from ntkdecay.training import _store, _sweep

SCRIPT = Path(__file__).with_name("grid.py")


def process(*arguments, **variables):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"} | variables,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with the finished grid of a process of its own, and its digest."""
    store = tmp_path_factory.mktemp("store")
    with process(store) as run:
        printed = run.stdout.read().split()  # pyright: ignore
    assert run.returncode == 0
    return store, printed[0]


def test_a_finished_grid_is_returned_without_a_step(tmp_path, monkeypatch):
    first = digest(grid(tmp_path, steps=40))
    (file,) = tmp_path.iterdir()

    def never(*args, **kwargs):
        raise AssertionError("it ran")

    monkeypatch.setattr(_sweep, "run", never)
    assert digest(grid(tmp_path, steps=40)) == first
    with pytest.raises(AssertionError, match="it ran"):
        grid(tmp_path, steps=41)
    file.write_bytes(file.read_bytes()[:-100])  # a file cut short does not count
    with pytest.raises(AssertionError, match="it ran"):
        grid(tmp_path, steps=40)


def test_the_name_follows_the_program_the_data_and_the_grid(tmp_path):
    def key(scale=1.0, shift=0.0, rate=0.1):
        return _sweep.sweep(
            lambda key: jnp.ones((3, 1)), lambda p, x: scale * x @ p, lambda fx, y: jnp.mean((fx - y) ** 2),
            lambda learning_rate: optax.sgd(learning_rate), {"learning_rate": [rate]}, np.ones((4, 3)) + shift,
            np.ones((4, 1)), steps=0, record=1, store=tmp_path,
        ).attrs["key"]  # fmt: skip

    assert key() == key()
    assert len({key(), key(scale=1.1), key(shift=1e-15), key(rate=0.2)}) == 4


def kill_and_resume(store, moments):
    """Starts the script and kills it after each of the given seconds, then lets it end."""
    for seconds in moments:
        run = process(store)
        time.sleep(seconds)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    with process(store) as run:
        printed = run.stdout.read().split()  # pyright: ignore
    assert run.returncode == 0
    return printed[0]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_do_not_change_a_bit(whole, tmp_path):
    moments = np.random.default_rng(0).uniform(1.5, 9.0, size=20)
    assert kill_and_resume(tmp_path, moments) == whole[1]
    assert [file.suffix for file in tmp_path.iterdir() if not file.name.startswith(".")] == [".npz"]


def test_an_interrupted_grid_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    expected = digest(grid(tmp_path / "whole", steps=300))
    writes, original = [], _store.write

    def write(path, arrays, meta):
        original(path, arrays, meta)
        writes.append(path)
        if len(writes) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_store, "write", write)
    with pytest.raises(KeyboardInterrupt):
        grid(tmp_path / "cut", steps=300)
    monkeypatch.setattr(_store, "write", original)
    left = [file.name for file in (tmp_path / "cut").iterdir()]
    assert len(left) == 1 and "0of1" in left[0]
    assert digest(grid(tmp_path / "cut", steps=300)) == expected


@pytest.mark.slow
def test_two_processes_on_one_name_both_end_whole(whole, tmp_path):
    runs = [process(tmp_path) for _ in range(2)]
    assert {run.communicate()[0].split()[-2] for run in runs} == {whole[1]}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_two_distributed_processes_share_the_grid(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = [process(tmp_path, "--processes", i, 2, port) for i in range(2)]
    assert len({run.communicate()[0].split()[-2] for run in runs}) == 1
    same_but_for_rounding(tmp_path, whole[0])


@pytest.mark.slow
def test_two_devices_share_the_members(whole, tmp_path):
    with process(tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2") as run:
        assert run.stdout.read().split()[-1] == "2"  # pyright: ignore
    same_but_for_rounding(tmp_path, whole[0])


def same_but_for_rounding(store, expected_store):
    """Blocks are of other members there: what a finished grid is found again with is the same."""
    (found, params), (expected, expected_params) = grid(store), grid(expected_store)
    assert len(list(store.iterdir())) == len(list(expected_store.iterdir())) == 1
    np.testing.assert_array_equal(found["status"], expected["status"])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-9)
    for a, b in zip(params, expected_params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
