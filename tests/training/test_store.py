"""What the store promises: a member is trained once, goes on bit by bit, and is never half a file or another's."""

import contextlib
import itertools
import multiprocessing
import os
import runpy
import socket
import sys
import time
import warnings
from typing import Any, NamedTuple

import grid as script
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grid import by_seed, digests, grid

from ntkdecay.training import _store, _trained, load, sweep

SHORT = {"learning_rate": [0.01, 0.03], "seed": [0, 1]}

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["grid", "pytest"])  # imported once, for all processes


class Running(NamedTuple):
    process: Any
    pipe: Any

    def answer(self):
        """The digests that it ends with, and its devices."""
        found = self.pipe.recv()
        self.process.join()
        return found

    def kill(self):
        """Whether it was still at work."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode < 0


def process(store, total, **options):
    """The grid in a process of its own; options as in `grid.answer`."""
    pipe, theirs = FORKS.Pipe(duplex=False)
    run = FORKS.Process(target=script.answer, args=(theirs, store, total), kwargs=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        run.start()
    theirs.close()
    return Running(run, pipe)


def short(store, cells=SHORT, steps=64, **options):
    """Four members that are compiled fast: in full batches."""
    options = {"batch_size": None, "metrics": ["loss", "norm2"]} | options
    return grid(store, steps, cells, **options)


def files(store):
    return sorted(file.name for file in store.iterdir() if not file.name.startswith("."))


@pytest.fixture
def trained(monkeypatch):
    """How many members each call trained, and from which steps."""
    calls, original = [], _trained.run

    def run(problem, data, cells, progress, *args, **kwargs):
        calls.append(sorted(progress.at.tolist()))
        return original(problem, data, cells, progress, *args, **kwargs)

    monkeypatch.setattr(_trained, "run", run)
    return calls


@pytest.fixture
def stop_after(monkeypatch):
    """Stops a run at its n-th writing, which is made."""
    original = _store.write

    def cut(number, call):
        left = [number]

        def write(*args):
            original(*args)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        monkeypatch.setattr(_store, "write", write)
        with pytest.raises(KeyboardInterrupt):
            call()
        monkeypatch.setattr(_store, "write", original)

    return cut


def test_a_finished_grid_is_returned_without_a_step(tmp_path, trained):
    first = digests(short(tmp_path))
    assert digests(short(tmp_path)) == first and trained == [[0] * 4]
    assert len(files(tmp_path)) == 1


def test_order_blocks_devices_and_twins_do_not_matter_to_a_finished_member(tmp_path, trained):
    first = digests(short(tmp_path))
    other = {"seed": [1, 0, 1], "learning_rate": [0.03, 0.01]}
    assert digests(short(tmp_path, other, members_per_batch=1)) == first
    assert (
        digests(short(tmp_path, {"learning_rate": [0.03]}, members_per_batch=None)).items()
        < first.items()
    )
    assert trained == [[0] * 4]
    short(tmp_path, {"learning_rate": [0.1, 0.1]})
    assert trained[1:] == [[0]]


def test_a_grown_grid_trains_only_what_is_new(tmp_path, trained):
    first = digests(short(tmp_path, return_params=True))
    second = digests(short(tmp_path, SHORT | {"seed": range(3)}))
    assert trained == [[0] * 4, [0] * 2]
    assert first.items() < second.items()
    (found,) = load(tmp_path).values()
    assert found["loss"].shape[:2] == (2, 3) and (found["status"] == "done").all()


def test_longer_members_of_a_grown_grid_leave_the_others_as_they_are(tmp_path, trained):
    def steps(learning_rate):
        return 1 / learning_rate

    short(tmp_path, {"learning_rate": [0.1, 0.05]}, steps=steps, return_params=False)
    data = short(tmp_path, {"learning_rate": [0.1, 0.05, 0.03]}, steps=steps, return_params=False)
    assert trained == [[0, 0], [0]]
    assert list(data["last_step"].values) == [10, 20, 34]
    assert np.isnan(data["loss"].sel(learning_rate=0.03, step=34)) == False  # noqa: E712


@pytest.mark.parametrize("record", [7, [0, 5, 32, 50, 64, 100]])
def test_more_steps_go_on_and_end_with_the_bits_of_one_run(tmp_path, trained, record):
    expected = digests(short(tmp_path / "whole", steps=128, record=record))
    short(tmp_path / "parts", steps=32, record=record)
    short(tmp_path / "parts", steps=64, record=record)
    assert digests(short(tmp_path / "parts", steps=128, record=record)) == expected
    assert trained[1:] == [[0] * 4, [32] * 4, [64] * 4]
    short(tmp_path / "parts", steps=64, record=record)  # what was done stays
    assert len(trained) == 4


def test_a_schedule_that_was_not_measured_starts_anew(tmp_path, trained):
    short(tmp_path, steps=32, record=[0, 32])
    short(tmp_path, steps=64, record=[0, 16, 64])
    assert trained == [[0] * 4] * 2


def test_an_axis_that_only_the_length_reads_is_one_run_at_its_lengths(tmp_path, trained):
    def call(lengths):
        return sweep(
            script.init, script.apply_fn, script.loss, lambda: optax.sgd(0.1), {"length": lengths}, script.X, script.Y,
            steps=lambda length: length, record=[0], store=tmp_path, members_per_batch=1,
        )  # fmt: skip

    assert len(np.unique(call([4, 8])["key"])) == 1
    call([16])
    assert trained == [[0, 0], [8]]


def test_the_key_follows_the_program_the_data_the_cell_and_the_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr(_trained, "run", lambda *args, **options: [])  # the keys are enough

    def key(scale=1.0, shift=0.0, rate=0.1, captured=(0.0,) * 20, w_std=1.0, momentum=0.0):
        captured = jnp.asarray(captured)
        return sweep(
            lambda key, w_std: w_std * jnp.ones((3, 1)), lambda p, x: scale * x @ p, lambda fx, y: jnp.mean((fx - y) ** 2) + captured.sum(),
            lambda learning_rate: optax.sgd(learning_rate, momentum), {"learning_rate": [rate], "w_std": [w_std]},
            np.ones((4, 3)) + shift, np.ones((4, 1)), steps=0, record=1, store=tmp_path,
        )["key"].item()  # fmt: skip

    other = np.zeros(20)
    other[7] = 1e-300

    def five():
        return {
            key(), key(scale=1.1), key(shift=1e-15), key(rate=0.2), key(captured=other), key(w_std=2.0),
            key(captured=other[::-1]), key(momentum=0.5),
        }  # fmt: skip

    assert key() == key() and len(five()) == 8
    before = jax.config.jax_use_simplified_jaxpr_constants  # pyright: ignore
    jax.config.update("jax_use_simplified_jaxpr_constants", True)
    try:
        assert len(five()) == 8
    finally:
        jax.config.update("jax_use_simplified_jaxpr_constants", before)
    first, flags = key(), os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count=7")
    assert key() == first
    monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_enable_fast_math=true")
    assert key() != first
    monkeypatch.setenv("XLA_FLAGS", flags)
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, not before)
    try:
        assert key() != first
    finally:
        jax.config.update(name, before)
    assert key() == first


@pytest.mark.parametrize("where", ["loss", "metric", "augment"])
def test_a_program_that_calls_back_into_python_is_refused(tmp_path, where):
    def back(x):
        return jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    def loss(fx, y):
        return script.loss(back(jax.lax.stop_gradient(fx)) if where == "loss" else fx, y)

    metrics = {"mine": lambda s: back(s.fx)} if where == "metric" else ["loss"]
    augment = (lambda key, x, y: (back(x), y)) if where == "augment" else None
    with pytest.raises(ValueError, match="`store` cannot name a run that calls back"):
        sweep(
            script.init, script.apply_fn, loss, lambda: optax.sgd(0.0), {}, script.X, script.Y, steps=1, metrics=metrics,
            augment=augment, store=tmp_path,
        )  # fmt: skip
    assert not files(tmp_path)


def test_an_interrupted_grid_goes_on_and_ends_with_the_same_bits(tmp_path, stop_after, trained):
    expected = digests(grid(tmp_path / "whole", by_seed(300)))
    stop_after(3, lambda: grid(tmp_path / "cut", by_seed(300)))
    assert files(tmp_path / "cut")[0].endswith("unfinished.npz")
    assert digests(grid(tmp_path / "cut", by_seed(300))) == expected
    assert trained[2][-1] > 0 and len(files(tmp_path / "cut")) == 1


def test_parts_of_an_interrupted_grid_go_on_in_any_order_and_block(tmp_path, stop_after, trained):
    expected = digests(grid(tmp_path / "whole", by_seed(300)))
    store = tmp_path / "cut"
    stop_after(3, lambda: grid(store, by_seed(300)))
    part = {"seed": [2, 0, 1], "l2": [0.01, 0.0], "learning_rate": [3e5, 0.001]}
    assert digests(grid(store, by_seed(300), part, members_per_batch=1)).items() < expected.items()
    assert len(files(store)) == 2 and any("unfinished" in name for name in files(store))
    assert digests(grid(store, by_seed(300), members_per_batch=None)) == expected
    assert all("unfinished" not in name for name in files(store))
    assert len(trained[2]) == 12 and min(trained[2]) > 0


def test_a_run_interrupted_on_one_device_goes_on_on_two(tmp_path, stop_after):
    """The rows of a device are no order of members."""
    expected = digests(grid(tmp_path / "whole", by_seed(1200), members_per_batch=1))
    stop_after(3, lambda: grid(tmp_path / "cut", by_seed(1200), members_per_batch=1))
    found, devices = process(tmp_path / "cut", 1200, width=2, devices=2).answer()
    assert devices == 2 and found == expected


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_what_cannot_be_read_counts_as_absent(tmp_path, trained, damage):
    expected = digests(short(tmp_path))
    (name,) = files(tmp_path)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    places = rng.integers(0, len(whole), 6) if damage == "flip" else [0]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        content = {"cut": whole[:-100], "flip": bytes(content), "other": b"PK\x03\x04 no archive"}[
            damage
        ]
        (tmp_path / name).write_bytes(content)
        with warnings.catch_warnings(record=True) as of_load:
            warnings.simplefilter("always")
            load(tmp_path)
        with warnings.catch_warnings(record=True) as of_sweep:
            warnings.simplefilter("always")
            found = digests(short(tmp_path))
        assert found == expected
        said = [str(warning.message) for warning in (*of_load, *of_sweep)]
        assert {warning.filename for warning in of_load} <= {__file__}
        assert {warning.filename for warning in of_sweep} <= {script.__file__}
        assert all("counts as absent" in text and "\n" not in text for text in said)
        assert bool(of_sweep) == (len(trained) > 1)
        trained[1:] = []
    assert load(tmp_path)


def test_an_unusable_store_is_found_before_training(tmp_path, trained):
    (tmp_path / "file").write_text("")
    for store, sentence in (
        (tmp_path / "file", "`store` is a file"),
        (tmp_path / "file" / "below", "cannot be written"),
        (tmp_path / ("a" * 300), "`store`"),
        ("/proc/nowhere", "cannot be written"),
    ):
        with pytest.raises(ValueError, match=sentence):
            short(store)
    assert not trained


def test_a_store_too_small_for_the_states_is_found_before_training(tmp_path, trained):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(ValueError, match=r"`store` cannot be written to .*: File too large"):
            sweep(
                lambda key: jnp.zeros((3, 50_000)), lambda p, x: (x @ p)[:, :1], script.loss, lambda: optax.sgd(0.1), {},
                script.X, script.Y, steps=1, store=tmp_path,
            )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not trained and not files(tmp_path)


def test_a_disk_that_fills_up_costs_the_file_and_not_the_result(tmp_path, monkeypatch):
    expected, _ = short(None)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_store, "write", full)
    with pytest.warns(UserWarning, match="No space left on device") as said:
        found, _ = short(tmp_path)
    assert said[0].filename == script.__file__
    np.testing.assert_array_equal(found["loss"], expected["loss"])


def test_a_store_that_cannot_be_written_still_gives_what_it_holds(tmp_path, monkeypatch):
    first = digests(short(tmp_path))

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_store, "probe", denied)
    assert digests(short(tmp_path)) == first
    with pytest.raises(ValueError, match="Permission denied"):
        short(tmp_path, {"learning_rate": [0.5]})


def test_a_store_is_read_without_the_script_that_made_it(tmp_path, stop_after, monkeypatch, capsys):
    wide = {"learning_rate": [0.01, 0.03], "l2": [0.0, 0.5]}
    data, _ = short(tmp_path, wide, progress="a name")
    short(tmp_path, {"learning_rate": [0.05], "l2": [0.5]})
    stop_after(2, lambda: short(tmp_path, {"learning_rate": [0.07], "l2": [0.0]}, steps=4000))
    (found,) = load(tmp_path).values()
    same = found.sel(learning_rate=wide["learning_rate"], step=data["step"])
    np.testing.assert_array_equal(same["loss"].transpose(*data["loss"].dims), data["loss"])
    assert found["status"].sel(learning_rate=0.05).values.tolist() == ["absent", "done"]
    assert found["status"].sel(learning_rate=0.07, l2=0.0) == "running"
    assert found.attrs["title"] == "a name" and "jax" in found.attrs["versions"]
    assert {"date", "commit", "device"} <= set(found.attrs)
    assert found["learning_rate"].attrs["units"] == "time/step" and found["loss"].attrs["long_name"]
    monkeypatch.setattr(sys, "argv", ["training", str(tmp_path)])
    capsys.readouterr()
    runpy.run_module("ntkdecay.training", run_name="__main__")
    text = capsys.readouterr().out
    assert "5 done, 1 running" in text and "unfinished" in text and "a name" in text


def test_scattered_members_are_a_list(tmp_path):
    for seed in range(3):
        short(
            tmp_path,
            {"learning_rate": [0.01 * (seed + 1)], "l2": [0.1 * seed], "seed": [seed]},
            steps=1,
        )
    (found,) = load(tmp_path).values()
    assert found["status"].dims == ("member",) and (found["status"] == "done").all()
    assert sorted(found["seed"].values) == [0, 1, 2]


# The rest is of processes.

TOTAL, WIDTHS = 60_000, (1, 3, 4)


@pytest.fixture(scope="module")
def widths(tmp_path_factory):
    """The grid without interruption, by the width of its blocks."""
    store = tmp_path_factory.mktemp("store")
    return {
        width: digests(grid(store / str(width), by_seed(TOTAL), members_per_batch=width))
        for width in WIDTHS
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What processes of 1 to 3 devices compile for these widths."""
    folder = tmp_path_factory.mktemp("cache")
    for width in WIDTHS:
        runs = [
            process(folder / "store" / str(devices), 0, width=width, devices=devices, cache=folder)
            for devices in (1, 2, 3)
        ]
        for run in runs:
            run.answer()
    return folder


def bits_of_a_run_without_interruption(found, widths):
    """Each member's bits are those of one run in blocks of the width that it tells."""
    return len(found) == 18 and all(
        widths[int(value.split(":")[0])][key] == value for key, value in found.items()
    )


def written(store):
    """The last writing of a file of the store."""
    with contextlib.suppress(FileNotFoundError):  # tidied up meanwhile
        return max((file.stat().st_mtime_ns for file in store.glob("*.npz")), default=0)


@pytest.mark.slow
def test_a_hundred_kills_with_other_devices_blocks_and_orders_do_not_change_a_bit(
    widths, cache, tmp_path
):
    rng = np.random.default_rng(0)

    def start(store, **options):
        return process(
            store, TOTAL, width=int(rng.choice(WIDTHS)), shuffle=int(rng.integers(1000)), devices=int(rng.integers(1, 4)),
            cache=cache, **options,
        )  # fmt: skip

    kills, unfinished = 0, 0
    for number in itertools.count():
        store = tmp_path / str(number)
        store.mkdir()
        for _ in range(10):
            run, before = start(store, keeps=False), written(store)
            while run.process.is_alive() and written(store) == before:
                time.sleep(0.01)
            run.process.join(rng.exponential(0.3))
            if not run.kill():
                break
            kills += 1
            unfinished += any("unfinished" in name for name in files(store))
        found, _ = start(store).answer()
        assert bits_of_a_run_without_interruption(found, widths)
        assert len(files(store)) == 1
        if kills >= 100:
            break
    assert unfinished > kills / 2


@pytest.mark.slow
def test_two_processes_on_one_store_both_end_whole(widths, cache, tmp_path):
    runs = [process(tmp_path, TOTAL, shuffle=i, cache=cache) for i in range(2)]
    for run in runs:
        assert run.answer()[0] == widths[4]
    assert len(files(tmp_path)) == 1


@pytest.mark.slow
def test_two_distributed_processes_share_the_grid(widths, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = [process(tmp_path, TOTAL, distributed=(f"localhost:{port}", 2, i)) for i in range(2)]
    assert [run.answer()[0] for run in runs] == [widths[4]] * 2
    assert len(files(tmp_path)) == 2
    assert digests(grid(tmp_path, by_seed(TOTAL))) == widths[4]


@pytest.mark.slow
def test_two_devices_share_the_members(widths, cache, tmp_path):
    assert process(tmp_path, TOTAL, devices=2, cache=cache).answer() == (widths[4], 2)


SOAK = float(os.environ.get("NTKDECAY_SOAK_SECONDS", "600"))


@pytest.mark.slow
def test_two_processes_on_one_store_for_ten_minutes(widths, cache, tmp_path):
    """Calls of random orders, blocks and devices, side by side, from stores that fill and are emptied."""
    rng, ends, rounds = np.random.default_rng(1), time.monotonic() + SOAK, 0
    while time.monotonic() < ends:
        store = tmp_path / str(rounds // 3)
        runs = [
            process(
                store, TOTAL, width=int(rng.choice(WIDTHS)), shuffle=int(rng.integers(1000)), devices=int(rng.integers(1, 4)),
                cache=cache,
            )
            for _ in range(2)
        ]  # fmt: skip
        for run in runs:
            assert bits_of_a_run_without_interruption(run.answer()[0], widths)
        assert len(files(store)) == 1
        rounds += 1
    assert rounds
