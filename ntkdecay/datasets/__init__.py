"""Images and labels: scikit-learn's digits, which are always there, and the standard files of others.

Pixels are in [0, 1], labels are integers; conversion to what an experiment trains on is `parity`,
`upsampled` or the experiment's own. `random_flip`, `random_crop` and `mixup` change images at random.
"""

import os
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import Rule, array, checked, choice, integer, optional, path, shown
from ntkdecay._extras import extra
from ntkdecay.datasets._augment import mixup, random_crop, random_flip
from ntkdecay.datasets._download import SOURCES, fetched
from ntkdecay.datasets._files import CIFAR, Dataset, cifar_dataset, idx_dataset

__all__ = [
    "Dataset",
    "Name",
    "classes",
    "load",
    "mixup",
    "one_hot",
    "parity",
    "random_crop",
    "random_flip",
    "standardized",
    "upsampled",
]

Name = Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"]


@checked(name=choice(*get_args(Name)), data_dir=optional(path()))
def load(name: Name, data_dir: str | os.PathLike | None = None) -> Dataset:
    """A data set by its name.

    "digits": 1797 images of 8 × 8 in a fixed order, the last 297 for testing; "mnist" and
    "fashion_mnist": 60,000 + 10,000 images of 28 × 28; "cifar10" and "cifar100" (the fine labels):
    50,000 + 10,000 of 32 × 32 × 3.

    Args:
        name: one of these.
        data_dir: the folder that has the standard files in `mnist/`, `fashion_mnist/` (four IDX files,
            gzipped or not), `cifar-10-batches-bin/` or `cifar-100-binary/` (the binary versions), or that folder itself;
            $NTKDECAY_DATA when not given. Without either, the files are fetched once into
            $XDG_CACHE_HOME/ntkdecay (~/.cache/ntkdecay) and checked by their published sums.

    Raises:
        ValueError: if `name` is unknown or a file is not what its format says.
        FileNotFoundError: if a file is not there, and could not be fetched.

    >>> from ntkdecay import datasets
    >>> datasets.load("digits").x_train.shape
    (1500, 8, 8, 1)
    """
    if name == "digits":
        return _digits()

    def read(folder: Path) -> Dataset:
        return cifar_dataset(folder, CIFAR[name]) if name in CIFAR else idx_dataset(folder)

    given = data_dir or os.environ.get("NTKDECAY_DATA")
    return read(_folder(name, given)) if given else fetched(name, read)


@checked(name=choice(*get_args(Name)))
def classes(name: Name) -> int:
    """How many classes a data set has.

    >>> from ntkdecay import datasets
    >>> datasets.classes("cifar100")
    100
    """
    return CIFAR[name].classes if name in CIFAR else 10


class _Data(Rule):
    """Images and their labels."""

    refuses = frozenset({"text", "none", "mapping", "object", "complex", "nan", "inf"})

    def __call__(self, name: str, value: Any) -> None:
        if not isinstance(value, Dataset):
            raise TypeError(f"`{name}` is {shown(value)}; it must be a datasets.Dataset.")
        for part, given in value._asdict().items():
            rule = array(ndim=4) if part.startswith("x") else array(ndim=1, integers=True)
            rule(f"{name}.{part}", given)


@checked(
    data=_Data(),
    samples=integer(low=1),
    test_samples=integer(low=1),
)
def standardized(data: Dataset, samples: int, test_samples: int) -> Dataset:
    """The first images, of mean 0 and variance 1 over all training pixels, in float32.

    Training images that are not trained on join the test images where these are too few.

    Args:
        data: from `load`.
        samples, test_samples: how many to train and to test on.

    Raises:
        ValueError: if there are fewer images.

    >>> from ntkdecay import datasets
    >>> digits = datasets.standardized(datasets.load("digits"), 100, 50)
    >>> digits.x_train.shape, digits.x_test.shape
    ((100, 8, 8, 1), (50, 8, 8, 1))
    """
    x_test = np.concatenate([data.x_test, data.x_train[samples:]])[:test_samples]
    y_test = np.concatenate([data.y_test, data.y_train[samples:]])[:test_samples]
    if len(data.x_train) < samples or len(x_test) < test_samples:
        raise ValueError(
            f"`data` has {len(data.x_train)} + {len(data.x_test)} images, fewer than the {samples} + {test_samples} "
            "asked for by `samples` and `test_samples`."
        )
    mean, deviation = data.x_train.mean(), data.x_train.std()
    if not deviation:
        raise ValueError(f"`data` has training images that are all {mean}: their variance is 0.")
    x, x_test = (
        ((images - mean) / deviation).astype(np.float32)
        for images in (data.x_train[:samples], x_test)
    )
    return Dataset(x, data.y_train[:samples], x_test, y_test)


@checked(labels=array(low=0, integers=True, empty=True, ndim=1), classes=integer(low=1))
def one_hot(labels: ArrayLike, classes: int = 10) -> np.ndarray:
    """1 at the label's place, else 0: (n, classes), float32.

    Raises:
        ValueError: if a label is not one of 0, …, classes − 1.

    >>> import numpy as np
    >>> from ntkdecay import datasets
    >>> datasets.one_hot(np.array([0, 2]), 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    labels = np.asarray(labels)
    if labels.size and labels.max() >= classes:
        raise ValueError(
            f"`labels` has {labels.max()}, but of {classes} `classes` the last is {classes - 1}."
        )
    return np.eye(classes, dtype=np.float32)[labels.astype(int)]


@checked(labels=array(integers=True, empty=True, ndim=1))
def parity(labels: ArrayLike) -> np.ndarray:
    """+1 for even digits, −1 for odd ones, of shape (n, 1).

    >>> import numpy as np
    >>> from ntkdecay import datasets
    >>> datasets.parity(np.array([3, 8])).tolist()
    [[-1.0], [1.0]]
    """
    return np.where(np.asarray(labels) % 2 == 0, 1.0, -1.0)[:, None]


@checked(images=array(ndim=4), size=integer(low=1), method=choice("nearest", "linear"))
def upsampled(
    images: ArrayLike, size: int, method: Literal["nearest", "linear"] = "nearest"
) -> Array:
    """Images of size × size pixels: digits for a network that wants larger images.

    Args:
        images: (n, height, width, channels).
        size: height and width to give.
        method: "nearest" repeats pixels, "linear" interpolates between them.

    >>> import numpy as np
    >>> from ntkdecay import datasets
    >>> datasets.upsampled(np.zeros((2, 8, 8, 1)), 16).shape
    (2, 16, 16, 1)
    """
    n, *_, channels = np.shape(images)
    return jax.image.resize(images, (n, size, size, channels), method)


def _digits() -> Dataset:
    with extra("examples"):
        from sklearn.datasets import load_digits

    digits: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.images[order, ..., None] / 16).astype(np.float32), digits.target[order]
    return Dataset(x[:1500], y[:1500], x[1500:], y[1500:])


def _folder(name: str, given: str | os.PathLike) -> Path:
    folder = Path(given) / SOURCES[name].folder
    if folder.is_dir():
        return folder
    if "mnist" in name and ("fashion" in name) != ("fashion" in Path(given).name.lower()):
        raise FileNotFoundError(
            f"{folder} is not there, and {given} is not taken for it: MNIST and Fashion-MNIST name "
            'their files alike, so that only a folder of Fashion-MNIST may have "fashion" in its name.'
        )
    return Path(given)
