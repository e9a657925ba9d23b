"""Images and labels: scikit-learn's digits, which are always there, and MNIST from its standard files.

Pixels are in [0, 1], labels are integers; conversion to what an experiment trains on is `parity` or
the experiment's own.
"""

import gzip
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

Name = Literal["digits", "mnist"]

_MNIST = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Dataset(NamedTuple):
    """Images (n, height, width, channels) with pixels in [0, 1], and integer labels (n,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(name: Name, data_dir: str | os.PathLike | None = None) -> Dataset:
    """A data set by its name.

    Args:
        name: "digits": 1797 images of 8 × 8 in a fixed order, the last 297 for testing; "mnist":
            60,000 + 10,000 images of 28 × 28.
        data_dir: the folder of MNIST's four IDX files (gzipped or not), or one that has them in `mnist/`;
            $NTKDECAY_DATA when not given.

    Raises:
        ValueError: if `name` is unknown or a file is not what its format says.
        FileNotFoundError: if a file is not there.
    """
    if name == "digits":
        return _digits()
    if name == "mnist":
        folder = _folder(name, data_dir)
        arrays = {part: _idx(folder, file) for part, file in _MNIST.items()}
        images = {
            part: array[..., None] / np.float32(255)
            for part, array in arrays.items()
            if array.ndim == 3
        }
        labels = {part: array.astype(np.int64) for part, array in arrays.items() if array.ndim == 1}
        return Dataset(**images, **labels)
    raise ValueError(f'There is no data set {name!r}; there are "digits" and "mnist".')


def parity(labels: np.ndarray) -> np.ndarray:
    """+1 for even digits, −1 for odd ones, of shape (n, 1)."""
    return np.where(labels % 2 == 0, 1.0, -1.0)[:, None]


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.images[order, ..., None] / 16).astype(np.float32), digits.target[order]
    return Dataset(x[:1500], y[:1500], x[1500:], y[1500:])


def _folder(name: str, data_dir: str | os.PathLike | None) -> Path:
    given = data_dir or os.environ.get("NTKDECAY_DATA")
    if not given:
        raise FileNotFoundError(
            f"No folder for {name}: give one as `data_dir` (--data-dir), or set NTKDECAY_DATA to it."
        )
    folder = Path(given)
    return folder / name if (folder / name).is_dir() else folder


def _idx(folder: Path, file: str) -> np.ndarray:
    """An array from an IDX file of bytes: 0, 0, type 8, the number of axes; big-endian sizes; the bytes."""
    found = next((path for path in (folder / file, folder / f"{file}.gz") if path.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder / file} is not there, neither plain nor .gz; is this MNIST's folder?"
        )
    try:
        content = (
            gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
        )
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{found} is not a whole gzip file ({error}); fetch it again.") from error
    ndim = 3 if "idx3" in file else 1
    if content[:4] != bytes((0, 0, 8, ndim)):
        raise ValueError(f"{found} is not an IDX file of bytes with {ndim} axes; fetch it again.")
    shape = np.frombuffer(content, ">u4", ndim, offset=4)
    if len(content) - 4 - 4 * ndim != np.prod(shape):
        raise ValueError(
            f"{found} is cut short or too long for its shape {tuple(map(int, shape))}; fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(shape)
