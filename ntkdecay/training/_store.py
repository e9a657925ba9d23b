"""Arrays and what JSON can hold, in a file that is there whole or not at all.

It is written beside its final name, synchronized and renamed. Nothing is unpickled.
"""

import errno
import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ntkdecay.training._program import plain

_META = "__meta__"
_STALE = 3600.0  # seconds after which a draft is a killed process's


def write(path: Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Arrays of any JAX dtype and a JSON header; raises OSError where the place cannot take them."""
    stored = {name: plain(array) for name, array in arrays.items()}
    types = {name: str(array.dtype) for name, array in stored.items()}
    bits = {
        name: array
        if array.dtype.isbuiltin == 1 or array.dtype.kind == "S"
        else array.view(np.uint8)
        for name, array in stored.items()
    }
    header = json.dumps({"types": types, "meta": meta}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as file:
            np.savez(file, **bits, **{_META: np.frombuffer(header, np.uint8)})  # pyright: ignore
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


class File:
    """What `write` wrote, read array by array as asked for, from the one file that the name stood for when opened.

    Raises anything at all where the file is damaged: a checksum guards every array.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = path.open("rb")
        try:
            self._file = np.load(self._content, allow_pickle=False)
            header = json.loads(self._file[_META].tobytes())
            self._types, self.meta = header["types"], header["meta"]
        except BaseException:
            self._content.close()
            raise

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: Any) -> None:
        self._content.close()

    def __getitem__(self, name: str) -> np.ndarray:
        array, kind = self._file[name], self._types[name]
        return array if str(array.dtype) == kind else array.view(jnp.dtype(kind))

    def names(self, prefix: str) -> list[str]:
        """What follows the prefix in the arrays' names."""
        return [name.removeprefix(prefix) for name in self._types if name.startswith(prefix)]


def probe(folder: Path, size: int) -> None:
    """Write and remove a file of so many bytes, and the drafts that killed processes left; raises OSError where that does not work."""
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f".probe.{os.getpid()}.{uuid.uuid4().hex}"
    try:
        with trial.open("wb") as file:
            file.write(b"\0")
            file.flush()
            _reserve(file.fileno(), size)
    finally:
        trial.unlink(missing_ok=True)
    for draft in folder.glob(".*.npz.*"):
        try:
            if time.time() - draft.stat().st_mtime > _STALE:
                draft.unlink(missing_ok=True)
        except OSError:
            continue


def _reserve(file: int, size: int) -> None:
    """Ask for the space, where the system can say at once whether it has it."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, max(size, 1))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
