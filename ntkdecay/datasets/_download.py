"""The standard files, fetched once into a cache and checked by the sums that their authors publish."""

import contextlib
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from ntkdecay._warn import warn
from ntkdecay.datasets._files import CIFAR

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

T = TypeVar("T")
_FETCHING, _SUMS = "fetching-", "md5sums"
_LARGEST = 256 << 20  # bytes of a file; CIFAR's archives have 170 million


class Source(NamedTuple):
    """Where a data set's files are: any of the mirrors, with the md5 sum of each file."""

    folder: str
    mirrors: tuple[str, ...]
    files: dict[str, str]


SOURCES = {
    "mnist": Source(
        "mnist",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Source(
        "fashion_mnist",
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Source(
        "cifar-10-batches-bin",
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
    "cifar100": Source(
        "cifar-100-binary",
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
    ),
}


def fetched(name: str, read: Callable[[Path], T]) -> T:
    """What `read` makes of the data set's folder in the cache, which appears there whole or not at all.

    It is fetched when it is not there, and again, once, when it is damaged.

    Raises:
        FileNotFoundError: if no mirror gave the right file; says what to do without a network.
    """
    folder = _cache() / SOURCES[name].folder
    if not folder.is_dir():
        _fetch_to(folder, name)
        return read(folder)
    try:
        _check_sums(folder)
        return read(folder)
    except (ValueError, OSError) as damage:
        warn(f"{damage} It is fetched again.")
        try:
            _fetch_to(folder, name, damaged=True)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"The cache is damaged ({damage}); delete {folder}. {error}"
            ) from None
        return read(folder)


def _fetch_to(folder: Path, name: str, damaged: bool = False) -> None:
    source = SOURCES[name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder.parent):
        if folder.is_dir() and not damaged:  # another process was first
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_FETCHING) as temporary:
            new = Path(temporary) / source.folder
            new.mkdir()
            for file, md5 in source.files.items():
                failures = _failures(source.mirrors, new / file, md5)
                if failures is not None:
                    raise FileNotFoundError(
                        f"{name} could not be fetched to {folder} ({'; '.join(failures)}): give the "
                        "folder of its files as `data_dir` (--data-dir), or set NTKDECAY_DATA to it."
                    )
                if file.endswith(".tar.gz"):
                    _unpack(new / file, CIFAR[name].train + CIFAR[name].test)
            sums = "".join(f"{_md5(path)}  {path.name}\n" for path in sorted(new.iterdir()))
            (new / _SUMS).write_text(sums)
            if damaged:
                folder.rename(Path(temporary) / "damaged")
            new.rename(folder)


@contextlib.contextmanager
def _alone_in(cache: Path) -> Iterator[None]:
    """One process at a time fetches, and clears away what killed ones left behind."""
    handle = os.open(cache, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
            for left in cache.glob(f"{_FETCHING}*"):
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(handle)


def _check_sums(folder: Path) -> None:
    """As the files were when they were fetched."""
    if not (folder / _SUMS).is_file():  # a folder from elsewhere
        return
    for line in (folder / _SUMS).read_text().splitlines():
        md5, _, file = line.partition("  ")
        if _md5(folder / file) != md5:
            raise ValueError(f"{folder / file} has changed since it was fetched.")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _new_md5).hexdigest()


def _new_md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ntkdecay"


def _failures(mirrors: tuple[str, ...], path: Path, md5: str) -> list[str] | None:
    """None once a mirror gave the file with this sum, else what each of them did."""
    failures = []
    for url in (mirror + path.name for mirror in mirrors):
        try:
            found = _fetch(url, path)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error}")
            continue
        if found == md5:
            return None
        failures.append(f"{url}: its md5 sum is {found}, not {md5}")
    return failures


def _fetch(url: str, path: Path) -> str:
    """Write what `url` holds to the path; its md5 sum."""
    digest, size = _new_md5(), 0
    with (
        urllib.request.urlopen(url, timeout=30) as response,
        path.open("wb") as file,
        tqdm(
            total=response.length, desc=path.name, unit="B", unit_scale=True, unit_divisor=1024
        ) as bar,
    ):
        while part := response.read(1 << 16):
            file.write(part)
            digest.update(part)
            size += len(part)
            if size > _LARGEST:
                raise OSError(f"it is more than {_LARGEST >> 20} MiB, and no file of this data set")
            bar.update(len(part))
    return digest.hexdigest()


def _unpack(archive: Path, files: Iterable[str]) -> None:
    """Put the archive's files, of the folder named like its own, in its place."""
    try:
        with tarfile.open(archive) as tar:
            for file in files:
                member = tar.getmember(f"{archive.parent.name}/{file}")
                member.name = file
                tar.extract(member, archive.parent, filter="data")
    except (KeyError, tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{archive.name} is not the archive that was asked for ({str(error).strip(chr(34))})."
        ) from None
    archive.unlink()
