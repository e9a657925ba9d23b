"""Results on disk, under the hash of what produced them.

A file is written beside its final name, synchronized and renamed: it is there whole or not at all,
and of two processes that write the same one the last wins with the same content. Arrays and JSON only: nothing is
unpickled.
"""

import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_META = "__meta__"


def digest(texts: Iterable[str], arrays: Iterable[Any]) -> str:
    """The name of a configuration: SHA-256 of its texts and of its arrays' types, shapes and bytes."""
    total = hashlib.sha256()
    for text in texts:
        total.update(len(text).to_bytes(8, "big") + text.encode())
    for array in arrays:
        array = np.ascontiguousarray(array)
        total.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()[:32]


def write(path: Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Arrays of any JAX dtype, and what JSON can hold, in one file."""
    stored = {name: _plain(array) for name, array in arrays.items()}
    types = {name: str(np.asarray(array).dtype) for name, array in stored.items()}
    bits = {
        name: array if array.dtype.isbuiltin == 1 else array.view(np.uint8)
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


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """What `write` wrote; None where there is no such file or it is not whole."""
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            header = json.loads(file[_META].tobytes())
            arrays = {
                name: file[name].view(jnp.dtype(kind)) for name, kind in header["types"].items()
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays, header["meta"]


def flat(tree: Any, prefix: str) -> dict[str, Any]:
    """The leaves of a tree by number."""
    return {f"{prefix}{i}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def unflat(arrays: Mapping[str, np.ndarray], prefix: str, like: Any) -> Any:
    """The tree of `flat`, of the structure of `like` (arrays or their shapes)."""
    leaves, structure = jax.tree.flatten(like)

    def leaf(array: np.ndarray, template: Any) -> Any:
        is_key = jnp.issubdtype(template.dtype, jax.dtypes.prng_key)
        return jax.random.wrap_key_data(jnp.asarray(array)) if is_key else array

    return jax.tree.unflatten(
        structure, [leaf(arrays[f"{prefix}{i}"], template) for i, template in enumerate(leaves)]
    )


def _plain(array: Any) -> np.ndarray:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.ascontiguousarray(array)
