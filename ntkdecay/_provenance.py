"""Where a result came from: the commit of this package and the versions it ran with."""

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path


@functools.cache
def commit() -> str:
    """The commit of the source tree that this package was imported from, marked when modified."""
    tree = str(Path(__file__).parent)
    command = ["git", "-C", tree, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def versions(*names: str) -> dict[str, str]:
    """Of Python and the packages named."""
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | found
