"""The standard files, read by their format; what is wrong with them said in one sentence."""

import gzip

import numpy as np
import pytest

from ntkdecay import datasets

SHAPES = {
    "train-images-idx3": (5, 28, 28),
    "train-labels-idx1": (5,),
    "t10k-images-idx3": (3, 28, 28),
    "t10k-labels-idx1": (3,),
}


def idx(shape) -> bytes:
    array = np.arange(np.prod(shape)).astype(np.uint8) % 10
    return bytes((0, 0, 8, len(shape))) + np.asarray(shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    for i, (name, shape) in enumerate(SHAPES.items()):
        content, path = idx(shape), tmp_path / "mnist" / f"{name}-ubyte"
        path.parent.mkdir(exist_ok=True)
        if i % 2:
            path.write_bytes(content)
        else:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_mnist_is_read_plain_or_gzipped_from_either_folder(folder, monkeypatch):
    data = datasets.load("mnist", folder)
    assert data.x_train.shape == (5, 28, 28, 1) and data.x_train.dtype == np.float32
    assert data.x_train.max() == np.float32(9 / 255)
    np.testing.assert_array_equal(data.y_test, [0, 1, 2])
    monkeypatch.setenv("NTKDECAY_DATA", str(folder / "mnist"))
    np.testing.assert_array_equal(datasets.load("mnist").x_test, data.x_test)


def test_digits_are_always_the_same():
    data = datasets.load("digits")
    assert data.x_train.shape == (1500, 8, 8, 1) and data.x_test.shape == (297, 8, 8, 1)
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert sorted(np.unique(data.y_test)) == list(range(10))
    np.testing.assert_array_equal(datasets.parity(np.array([0, 1, 8])), [[1.0], [-1.0], [1.0]])


def test_bad_files_are_refused(folder, monkeypatch):
    labels = folder / "mnist" / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    for content, message in [
        (whole[:-1], "cut short or too long"),
        (b"PNG!" + whole[4:], "not an IDX file"),
    ]:
        labels.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            datasets.load("mnist", folder)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte is not there"):
        datasets.load("mnist", folder)
    images = folder / "mnist" / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:40])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        datasets.load("mnist", folder)
    monkeypatch.delenv("NTKDECAY_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="--data-dir"):
        datasets.load("mnist")
    with pytest.raises(ValueError, match="no data set 'svhn'"):
        datasets.load("svhn")  # pyright: ignore
