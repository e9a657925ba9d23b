"""The standard files, read by their format or fetched; what is wrong with them said in one sentence."""

import functools
import gzip
import hashlib
import http.server
import io
import re
import tarfile
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ntkdecay import datasets
from ntkdecay.datasets import _download

SHAPES = {
    "train-images-idx3": (5, 28, 28),
    "train-labels-idx1": (5,),
    "t10k-images-idx3": (3, 28, 28),
    "t10k-labels-idx1": (3,),
}
BATCHES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def idx(shape) -> bytes:
    array = np.arange(np.prod(shape)).astype(np.uint8) % 10
    return bytes((0, 0, 8, len(shape))) + np.asarray(shape, ">u4").tobytes() + array.tobytes()


def cifar10_batch(seed: int) -> bytes:
    """Two records, labels `seed` and 9."""
    records = np.random.default_rng(seed).integers(0, 256, (2, 3073), np.uint8)
    records[:, 0] = seed, 9
    return records.tobytes()


@pytest.fixture(autouse=True)
def without_network(tmp_path, monkeypatch):
    """An empty cache, and mirrors where nobody answers."""
    monkeypatch.delenv("NTKDECAY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    serve_from(monkeypatch, "http://127.0.0.1:9/")


def serve_from(monkeypatch, *mirrors, **more):
    sources = {n: s._replace(mirrors=mirrors, **more) for n, s in _download.SOURCES.items()}
    monkeypatch.setattr(_download, "SOURCES", sources)


@pytest.fixture(params=["mnist", "fashion_mnist"])
def folder(request, tmp_path):
    """The folder that has `mnist/` or `fashion_mnist/`, with files plain and gzipped in turn."""
    for i, (name, shape) in enumerate(SHAPES.items()):
        content, path = idx(shape), tmp_path / request.param / f"{name}-ubyte"
        path.parent.mkdir(exist_ok=True)
        if i % 2:
            path.write_bytes(content)
        else:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    return tmp_path


@pytest.fixture
def cifar10(tmp_path):
    path = tmp_path / "data" / "cifar-10-batches-bin"
    path.mkdir(parents=True)
    for seed, file in enumerate(BATCHES):
        (path / file).write_bytes(cifar10_batch(seed))
    return path


@pytest.fixture
def server(tmp_path):
    """A folder, and the address under which it is served."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield served, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("folder", ["mnist"], indirect=True)
def test_mnist_is_read_plain_or_gzipped_from_either_folder(folder, monkeypatch):
    data = datasets.load("mnist", folder)
    assert data.x_train.shape == (5, 28, 28, 1) and data.x_train.dtype == np.float32
    assert data.x_train.max() == np.float32(9 / 255)
    np.testing.assert_array_equal(data.y_test, [0, 1, 2])
    monkeypatch.setenv("NTKDECAY_DATA", str(folder / "mnist"))
    np.testing.assert_array_equal(datasets.load("mnist").x_test, data.x_test)


@pytest.mark.parametrize("folder", ["fashion_mnist"], indirect=True)
def test_mnist_and_the_other_mnist_are_not_confused_though_their_files_have_the_same_names(folder):
    data = datasets.load("fashion_mnist", folder)
    same = datasets.load("fashion_mnist", folder / "fashion_mnist")
    np.testing.assert_array_equal(data.x_train, same.x_train)
    assert data.x_test.shape == (3, 28, 28, 1) and data.y_train.dtype == np.int64
    with pytest.raises(FileNotFoundError, match="name their files alike"):
        datasets.load("mnist", folder / "fashion_mnist")
    (folder / "fashion_mnist").rename(folder / "mnist")
    for given in (folder, folder / "mnist"):
        with pytest.raises(FileNotFoundError, match="name their files alike"):
            datasets.load("fashion_mnist", given)


def test_cifar10_is_read_in_order_with_channels_last(cifar10):
    data = datasets.load("cifar10", cifar10.parent)
    assert data.x_train.shape == (10, 32, 32, 3) and data.x_test.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(data.y_train, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9])
    raw = np.frombuffer(cifar10_batch(3), np.uint8)[3074:].reshape(3, 32, 32)
    np.testing.assert_array_equal(data.x_train[7, 5, 8], (raw[:, 5, 8] / np.float32(255)))
    assert data.x_train.dtype == np.float32 and data.x_train.flags.c_contiguous
    np.testing.assert_array_equal(datasets.load("cifar10", cifar10).y_test, [5, 9])


def test_cifar100_has_the_fine_labels(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (2, 3074), np.uint8)
    records[:, :2] = (19, 99), (0, 7)
    for file in ("train.bin", "test.bin"):
        (tmp_path / "cifar-100-binary").mkdir(exist_ok=True)
        (tmp_path / "cifar-100-binary" / file).write_bytes(records.tobytes())
    data = datasets.load("cifar100", tmp_path)
    np.testing.assert_array_equal(data.y_train, [99, 7])
    first = records[0, 2:].reshape(3, 32, 32).transpose(1, 2, 0) / np.float32(255)
    np.testing.assert_array_equal(data.x_test[0], first)
    assert datasets.classes("cifar100") == 100 and datasets.classes("digits") == 10
    (tmp_path / "cifar-100-binary" / "test.bin").write_bytes(cifar10_batch(0))
    with pytest.raises(ValueError, match="not a whole number of CIFAR-100's records of 3074"):
        datasets.load("cifar100", tmp_path)


def test_standardized_images_are_of_mean_0_and_joined_by_unused_training_images():
    digits = datasets.load("digits")
    found = datasets.standardized(digits, 1400, 350)
    assert len(found.x_train) == 1400 and len(found.x_test) == len(found.y_test) == 350
    np.testing.assert_array_equal(found.y_test[297:], digits.y_train[1400:1453])
    whole = datasets.standardized(digits, 1500, 297).x_train
    assert abs(whole.mean()) < 1e-5 and abs(whole.std() - 1) < 1e-5 and whole.dtype == np.float32
    np.testing.assert_array_equal(datasets.one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    with pytest.raises(ValueError, match=r"1500 \+ 297 images, fewer than the 1500 \+ 298"):
        datasets.standardized(digits, 1500, 298)


def test_a_data_set_shows_its_shapes_alone():
    shown = repr(datasets.load("digits"))
    assert shown.startswith("Dataset(x_train: float32[1500, 8, 8, 1], y_train: int64[1500], ")
    assert len(shown) < 150


def test_digits_are_always_the_same():
    data = datasets.load("digits")
    assert data.x_train.shape == (1500, 8, 8, 1) and data.x_test.shape == (297, 8, 8, 1)
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert sorted(np.unique(data.y_test)) == list(range(10))
    np.testing.assert_array_equal(datasets.parity(np.array([0, 1, 8])), [[1.0], [-1.0], [1.0]])


def test_bad_idx_files_are_refused_with_their_path(folder):
    name = next(path.name for path in folder.iterdir() if "mnist" in path.name)
    labels = folder / name / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    for content, message in [
        (whole[:-1], "cut short or too long"),
        (b"PNG!" + whole[4:], "not an IDX file"),
        (whole[:6], "not an IDX file"),
        (whole[:-1] + b"\x0a", "has the label 10, but labels are 0 to 9"),
        (idx((4,)), "has 4 labels for the 5 images of train-images-idx3-ubyte.gz"),
    ]:
        labels.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(labels))} .*{message}"):
            datasets.load(name, folder)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte is not there"):
        datasets.load(name, folder)
    labels.write_bytes(whole)
    images = folder / name / "train-images-idx3-ubyte.gz"
    for shape in ((5, 32, 32), (0, 28, 28)):
        images.write_bytes(gzip.compress(idx(shape)))
        with pytest.raises(ValueError, match="not images of 28 × 28"):
            datasets.load(name, folder)
    packed = gzip.compress(idx((5, 28, 28)))
    for content in (packed[:40], b"<html>", packed[:30] + b"\xff" * 10 + packed[40:]):
        images.write_bytes(content)
        with pytest.raises(ValueError, match="not a whole gzip file"):
            datasets.load(name, folder)


def test_bad_cifar10_files_are_refused_with_their_path(cifar10):
    batch = cifar10 / "data_batch_2.bin"
    whole = batch.read_bytes()
    for content, message in [
        (whole[:-1], "6145 bytes, not a whole number of CIFAR-10's records of 3073"),
        (b"\x0a" + whole[1:], "has the label 10"),
    ]:
        batch.write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(batch))} .*{message}"):
            datasets.load("cifar10", cifar10)
    batch.write_bytes(b"")
    assert len(datasets.load("cifar10", cifar10).y_train) == 8
    (cifar10 / "test_batch.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="no test images"):
        datasets.load("cifar10", cifar10)
    (cifar10 / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch.bin is not there"):
        datasets.load("cifar10", cifar10)


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="`name` is 'svhn'; it must be one of 'digits', 'mnist'"):
        datasets.load("svhn")  # pyright: ignore


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_without_a_network_the_error_says_what_to_do(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"127.0.0.1:9/.*refused.*--data-dir"):
        datasets.load(name)
    assert not list((tmp_path / "cache" / "ntkdecay").iterdir())


def test_mnist_is_fetched_once_checked_and_whole_or_not_at_all(server, tmp_path, monkeypatch):
    served, address = server
    packed = {f"{name}-ubyte.gz": gzip.compress(idx(shape)) for name, shape in SHAPES.items()}
    for name, content in packed.items():
        (served / name).write_bytes(content)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in packed.items()}
    serve_from(monkeypatch, "http://127.0.0.1:9/", address, files=sums)
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(packed["t10k-labels-idx1-ubyte.gz"][:-1])
    with pytest.raises(FileNotFoundError, match=r"t10k-labels.*its md5 sum is \w{32}, not \w{32}"):
        datasets.load("mnist")
    assert not list((tmp_path / "cache" / "ntkdecay").iterdir())
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(packed["t10k-labels-idx1-ubyte.gz"])
    np.testing.assert_array_equal(datasets.load("mnist").y_train, np.arange(5))
    assert [path.name for path in (tmp_path / "cache" / "ntkdecay").iterdir()] == ["mnist"]
    serve_from(monkeypatch, "http://127.0.0.1:9/")
    np.testing.assert_array_equal(datasets.load("mnist").y_test, np.arange(3))


@pytest.fixture
def archive(server, cifar10, monkeypatch):
    """CIFAR-10's archive, served; a function that makes it anew."""
    served, address = server

    def make(files=BATCHES):
        archive = served / "cifar-10-binary.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for file in files:
                tar.add(cifar10 / file, f"{cifar10.name}/{file}")
            tar.addfile(tarfile.TarInfo("cifar-10-batches-bin/readme.html"), io.BytesIO())
        sums = {archive.name: hashlib.md5(archive.read_bytes()).hexdigest()}
        serve_from(monkeypatch, address, files=sums)

    make()
    return make


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "ntkdecay"


@pytest.mark.usefixtures("archive")
def test_cifar10_is_fetched_as_an_archive(cifar10, cache):
    np.testing.assert_array_equal(
        datasets.load("cifar10").x_train, datasets.load("cifar10", cifar10).x_train
    )
    assert {path.name for path in (cache / cifar10.name).iterdir()} == {*BATCHES, "md5sums"}


@pytest.mark.parametrize("damage", ["cut short", "a bit flipped", "lost"])
@pytest.mark.usefixtures("archive")
def test_a_damaged_cache_is_fetched_again(damage, cifar10, cache):
    whole = datasets.load("cifar10")
    path = cache / cifar10.name / BATCHES[2]
    content = path.read_bytes()
    if damage == "lost":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[:-5])
    else:
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    with pytest.warns(UserWarning, match=f"{BATCHES[2]}.* It is fetched again"):
        again = datasets.load("cifar10")
    np.testing.assert_array_equal(again.x_train, whole.x_train)
    assert [path.name for path in cache.iterdir()] == [cifar10.name]
    datasets.load("cifar10")  # without a word


def test_a_damaged_cache_that_cannot_be_fetched_again_is_to_be_deleted(
    archive, cifar10, cache, monkeypatch
):
    datasets.load("cifar10")
    path = cache / cifar10.name / BATCHES[2]
    path.write_bytes(b"other")
    serve_from(monkeypatch, "http://127.0.0.1:9/")
    with (
        pytest.warns(UserWarning, match="fetched again"),
        pytest.raises(FileNotFoundError, match=f"delete {re.escape(str(path.parent))}"),
    ):
        datasets.load("cifar10")
    assert path.read_bytes() == b"other"


def test_an_archive_without_a_file_is_no_bare_key_error(archive, cache):
    archive(BATCHES[:-1])
    with pytest.raises(ValueError, match=r"not the archive .*test_batch.bin"):
        datasets.load("cifar10")
    assert not list(cache.iterdir())


def test_what_a_killed_process_left_is_cleared_away(archive, cifar10, cache):
    left = cache / "fetching-killed" / cifar10.name
    left.mkdir(parents=True)
    (left / BATCHES[0]).write_bytes(b"half")
    datasets.load("cifar10")
    assert [path.name for path in cache.iterdir()] == [cifar10.name]


def test_a_download_has_a_limit(archive, cache, monkeypatch):
    monkeypatch.setattr(_download, "_LARGEST", 1 << 12)
    with pytest.raises(FileNotFoundError, match="it is more than 0 MiB"):
        datasets.load("cifar10")
    assert not list(cache.iterdir())


def test_labels_that_are_no_class_are_refused():
    np.testing.assert_array_equal(datasets.one_hot([2, 0], 3), np.eye(3)[[2, 0]])
    for labels, classes in [([-1], 3), ([3], 3), ([1.0], 3), ([True, 2.5], 3)]:
        with pytest.raises((ValueError, TypeError), match="`labels`"):
            datasets.one_hot(labels, classes)


def test_upsampled_images_repeat_or_interpolate_pixels():
    images = datasets.load("digits").x_test[:2]
    nearest = datasets.upsampled(images, 16)
    np.testing.assert_array_equal(nearest, images.repeat(2, 1).repeat(2, 2))
    linear = datasets.upsampled(images, 16, "linear")
    np.testing.assert_allclose(
        linear[:, 1, 1], images[:, :2, :2].reshape(2, 4) @ [[9], [3], [3], [1]] / 16, rtol=1e-6
    )


N, H, W = 400, 5, 6
POSITIONS = jnp.tile(jnp.arange(1.0, H * W + 1).reshape(1, H, W, 1), (N, 1, 1, 2))
flip = jax.jit(jax.vmap(datasets.random_flip, (0, None)))
crop = jax.jit(jax.vmap(datasets.random_crop, (0, None, None)), static_argnums=2)
mix = jax.jit(jax.vmap(datasets.mixup, (0, None, None, None)))
KEYS = jax.random.split(jax.random.key(0), 5)


def test_flip_gives_each_image_or_its_mirror_image_with_probability_one_half():
    images = np.asarray(POSITIONS)
    flipped = np.asarray(flip(KEYS, POSITIONS))
    is_mirrored = (flipped == images[:, :, ::-1]).all((2, 3, 4))
    np.testing.assert_array_equal(is_mirrored, ~(flipped == images).all((2, 3, 4)))
    assert stats.binomtest(int(is_mirrored.sum()), is_mirrored.size).pvalue > 1e-3
    assert (is_mirrored[0] != is_mirrored[1]).any()
    twice = np.asarray(flip(KEYS, flipped[0]))
    assert ((twice == images).all((2, 3, 4)) | (twice == images[:, :, ::-1]).all((2, 3, 4))).all()


def test_each_crop_is_a_window_of_the_padded_image_at_a_uniform_place():
    padding = 2
    padded = np.pad(np.asarray(POSITIONS[0]), ((padding,) * 2, (padding,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (H, W), (0, 1))
    windows = windows.transpose(0, 1, 3, 4, 2).reshape(-1, H * W * 2)
    crops = np.asarray(crop(KEYS, POSITIONS, padding)).reshape(-1, H * W * 2)
    places = (crops[:, None] == windows[None]).all(2)
    np.testing.assert_array_equal(places.sum(1), 1)
    assert windows.shape[0] == 25 and stats.chisquare(places.sum(0)).pvalue > 1e-3
    np.testing.assert_array_equal(crop(KEYS, POSITIONS, 0)[0], POSITIONS)


def test_mixup_mixes_two_images_and_their_labels_in_one_proportion_of_beta():
    images = jnp.arange(1.0 * N).reshape(N, 1, 1, 1) ** 2
    labels = jnp.eye(N)
    mixed, soft = map(np.asarray, mix(KEYS, images, labels, 0.4))
    np.testing.assert_allclose(soft.sum(-1), 1, rtol=1e-14)
    np.testing.assert_allclose(mixed[..., 0, 0, 0], soft @ np.asarray(images).ravel(), rtol=1e-12)
    assert ((soft > 0).sum(-1) <= 2).all()
    own = soft.diagonal(0, 1, 2)
    proportions = own[(soft > 0).sum(-1) == 2]  # or the image met itself, or the proportion is 1
    assert stats.kstest(proportions, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.asarray(mixed).mean(), np.asarray(images).mean(), rtol=0.05)


def test_augmentation_keeps_dtypes_and_refuses_what_it_cannot_read():
    key, x = KEYS[0], jnp.ones((2, 3, 3, 1), jnp.bfloat16)
    for change in (datasets.random_crop, datasets.random_flip):
        assert jax.eval_shape(change, key, x).dtype == x.dtype
    mixed, labels = jax.eval_shape(datasets.mixup, key, x, jnp.eye(2, dtype=jnp.float32), 1.0)
    assert mixed.dtype == x.dtype and labels.dtype == jnp.float32
    with pytest.raises(ValueError, match=r"`images` has shape \(2, 3, 3\); it must be .* 4 axes"):
        datasets.random_flip(key, x[..., 0])
    with pytest.raises(ValueError, match="`padding` is -1"):
        datasets.random_crop(key, x, -1)
    with pytest.raises(ValueError, match="one_hot"):
        datasets.mixup(key, x, jnp.arange(2), 1.0)
    with pytest.raises(TypeError, match="`images` is of dtype uint8"):
        datasets.mixup(key, x.astype(jnp.uint8), jnp.eye(2), 1.0)
    with pytest.raises(ValueError, match="`alpha` is 0"):
        datasets.mixup(key, x, jnp.eye(2), 0.0)
