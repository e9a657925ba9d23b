"""Which code runs: what a figure's provenance and a store's files say of it."""

import importlib.metadata
import json
import subprocess
from pathlib import Path

DIRTY = "-dirty"


def source() -> str:
    """The commit of the code that runs, ``-dirty`` where package or examples differ from it.

    Of an installed copy: the commit that its installer wrote down, else its release.
    """
    try:
        # not a clone around an installed copy
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = _git("status", "--porcelain", "--", ":(top)ntkdecay", ":(top)examples")
        return _git("rev-parse", "--short=12", "HEAD") + (DIRTY if changed else "")
    except (OSError, subprocess.CalledProcessError):
        installed = importlib.metadata.distribution("ntkdecay")
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    return commit[:12] or f"release {installed.version}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
