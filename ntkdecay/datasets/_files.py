"""The standard files, read by their format: IDX of the MNIST family, the binary version of CIFAR."""

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


class Cifar(NamedTuple):
    """A binary version: files of records of label bytes, the last of them the class, and 3 × 32 × 32 bytes."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    classes: int


CIFAR = {
    "cifar10": Cifar(
        "CIFAR-10", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), 1, 10
    ),
    "cifar100": Cifar("CIFAR-100", ("train.bin",), ("test.bin",), 2, 100),
}


class Dataset(NamedTuple):
    """Images (n, height, width, channels) with pixels in [0, 1], and integer labels (n,)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __repr__(self) -> str:
        """Shapes and dtypes."""
        parts = self._asdict().items()
        told = ", ".join(f"{name}: {np.asarray(a).dtype}{list(np.shape(a))}" for name, a in parts)
        return f"Dataset({told})"


def idx_dataset(folder: Path) -> Dataset:
    """The four IDX files of MNIST or Fashion-MNIST, each plain or gzipped."""
    paths = {part: _found(folder / file) for part, file in IDX.items()}
    arrays = {part: _idx(path, 3 if part.startswith("x") else 1) for part, path in paths.items()}
    for split in ("train", "test"):
        images, labels = (part + split for part in ("x_", "y_"))
        if not arrays[images].size or arrays[images].shape[1:] != (28, 28):
            raise ValueError(
                f"{paths[images]} holds an array of shape {arrays[images].shape}, not images of "
                "28 × 28; fetch it again."
            )
        if len(arrays[labels]) != len(arrays[images]):
            raise ValueError(
                f"{paths[labels]} has {len(arrays[labels])} labels for the {len(arrays[images])} "
                f"images of {paths[images].name}; take both from one place."
            )
        _check_labels(paths[labels], arrays[labels], 10)
    return Dataset(
        _pixels(arrays["x_train"][..., None]),
        arrays["y_train"].astype(np.int64),
        _pixels(arrays["x_test"][..., None]),
        arrays["y_test"].astype(np.int64),
    )


def cifar_dataset(folder: Path, kind: Cifar) -> Dataset:
    """The binary version of CIFAR-10 or CIFAR-100; its pixels have their channels first."""
    splits = []
    for split, files in (("train", kind.train), ("test", kind.test)):
        records = np.concatenate([_records(folder / file, kind) for file in files])
        if not len(records):
            raise ValueError(f"{folder} has no {split} images; fetch {kind.name} again.")
        images = records[:, kind.labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        splits += [_pixels(images), records[:, kind.labels - 1].astype(np.int64)]
    return Dataset(*splits)


def _records(path: Path, kind: Cifar) -> np.ndarray:
    content = np.frombuffer(_content(path, f"{kind.name}'s binary version"), np.uint8)
    size = kind.labels + 3 * 32 * 32
    if content.size % size:
        raise ValueError(
            f"{path} has {content.size} bytes, not a whole number of {kind.name}'s records of {size}; "
            "fetch it again, in the binary version."
        )
    records = content.reshape(-1, size)
    _check_labels(path, records[:, kind.labels - 1], kind.classes)
    return records


def _found(path: Path) -> Path:
    """The file or its gzipped form."""
    packed = path.with_name(path.name + ".gz")
    return packed if packed.exists() and not path.exists() else path


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{path} is not there; the folder given must hold the files of {what}."
        ) from None


def _idx(path: Path, ndim: int) -> np.ndarray:
    """An array from an IDX file of bytes: 0, 0, type 8, the number of axes; big-endian sizes; the bytes."""
    content = _content(path, "this data set, plain or .gz")
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path} is not a whole gzip file ({error}); fetch it again."
            ) from error
    start = 4 + 4 * ndim
    if content[:4] != bytes((0, 0, 8, ndim)) or len(content) < start:
        raise ValueError(f"{path} is not an IDX file of bytes with {ndim} axes; fetch it again.")
    shape = tuple(map(int, np.frombuffer(content, ">u4", ndim, offset=4)))
    if len(content) - start != math.prod(shape):
        raise ValueError(f"{path} is cut short or too long for its shape {shape}; fetch it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    if labels.size and labels.max() >= classes:
        raise ValueError(
            f"{path} has the label {labels.max()}, but labels are 0 to {classes - 1}: it is another file, or "
            "spoiled; fetch it again."
        )


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.divide(images, 255, dtype=np.float32, order="C")
