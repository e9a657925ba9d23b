"""All that a store holds, without the scripts that made it."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from ntkdecay._checks import checked
from ntkdecay.training._dataset import ABSENT, STATUS, dataset, labelled
from ntkdecay.training._members import Shard, reading
from ntkdecay.training._progress import RUNNING, Progress
from ntkdecay.training._rules import folder

SPARSE = 8  # cells of a grid for each member that it has, above which it is a list


class _Program(NamedTuple):
    """The members of one program: of several entries of a member the one that has come furthest."""

    keys: np.ndarray
    cells: dict[str, np.ndarray]
    progress: Progress
    attributes: dict[str, str]


@checked(store=folder())
def load(store: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """Every run that a store holds, finished or not, the oldest first.

    A run is all members of one program (same functions, constants and data, on the same versions and device), whichever
    calls asked for them.

    Args:
        store: the folder that `sweep` or `train` was given.

    Returns:
        The programs' keys and their `xarray.Dataset`, as `sweep` returns them: over the product of its members' values and `step`,
        `status` "running" for an unfinished member and "absent" for a cell that nobody asked for; over `member`, with the values
        as coordinates, where the product would be mostly absent. Long names and units are the variables' attributes;
        `title` (the name of the progress bar), `date` (of the last writing), `commit`, `versions` and `device` the dataset's.

    Raises:
        ValueError, TypeError: if there is no such folder.

    >>> import tempfile
    >>> from ntkdecay import training
    >>> training.load(tempfile.mkdtemp())  # a store that nothing was written to yet
    {}
    """
    if not Path(store).is_dir():
        raise ValueError(
            f"`store` must be a folder that `sweep` wrote to; there is none at {store}."
        )

    def together(shards: list[Shard]) -> dict[str, _Program]:
        groups: dict[str, list[Shard]] = {}
        for shard in shards:
            groups.setdefault(shard.file.meta["program"], []).append(shard)
        return {key: _together(shards) for key, shards in groups.items()}

    programs = reading(Path(store), "*.npz", together)
    dated = sorted(programs, key=lambda key: programs[key].attributes["date"])
    return {key: _labelled(key, programs[key]) for key in dated}


def listing(store: str | os.PathLike[str]) -> str:
    """What a store holds, and what is unfinished, in a line or two for each run."""
    runs = load(store)
    files = [file for file in Path(store).glob("*.npz") if not file.name.startswith(".")]
    size = sum(file.stat().st_size for file in files)
    lines = [f"{store}: {len(runs)} runs in {len(files)} files, {size / 2**20:.1f} MiB"]
    for key, data in runs.items():
        status = data["status"].to_numpy().ravel()
        counts = {name: int((status == name).sum()) for name in STATUS.values()}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        axes = " × ".join(f"{n} {data.sizes[n]}" for n in data["status"].dims) or "one member"
        about = data.attrs
        lines.append(
            f"{key[:8]}  {about['date']}  {about['title'] or '(no title)'}: {axes}: {said}"
        )
        running = status == STATUS[RUNNING]
        if running.any():
            at = data["last_step"].to_numpy().ravel()[running]
            lines.append(f"          unfinished: measured up to step {at.min()} to {at.max()}")
        names = [str(name) for name in data.data_vars if "step" in data[name].dims]
        lines.append(
            f"          {', '.join(names)} at {data.sizes['step']} steps to {int(data['step'][-1])}"
        )
        lines.append(f"          {about['versions']}; commit {about['commit']}; {about['device']}")
    return "\n".join(lines)


def _together(shards: list[Shard]) -> _Program:
    best: dict[bytes, tuple[tuple, int, int]] = {}
    for number, shard in enumerate(shards):
        entries = shard.progress
        for row, key in enumerate(shard.keys):
            score = (
                int(entries.at[row]),
                bool(entries.status[row] != RUNNING),
                int(entries.measured[row].sum()),
            )
            if key not in best or score > best[key][0]:
                best[key] = score, number, row
    used = sorted({number for _, number, _ in best.values()})
    steps = np.unique(np.concatenate([shards[n].progress.steps for n in used]))
    members = Progress.fresh(steps, np.zeros(len(best), np.int64))
    keys = np.array(list(best), "S32")
    values: dict[str, dict[int, float]] = {}
    for number in used:
        here = [(m, row) for m, (_, n, row) in enumerate(best.values()) if n == number]
        to, rows = (np.array(column) for column in zip(*here, strict=True))
        shard = shards[number]
        members.put(to, shard.full().take(rows).on(steps))
        for name in shard.file.names("cell/"):
            table = shard[f"cell/{name}"]
            values.setdefault(name, {}).update(zip(to.tolist(), table[rows], strict=True))
    everyone = range(len(best))
    cells = {
        n: np.array([of[m] for m in everyone]) for n, of in values.items() if len(of) == len(best)
    }
    latest = max((shard.file.meta for shard in shards), key=lambda meta: meta["date"])
    title = next((s.file.meta["title"] for s in reversed(shards) if s.file.meta["title"]), "")
    attributes = {
        "title": title, "date": latest["date"], "commit": latest["commit"], "device": latest["device"],
        "versions": ", ".join(f"{name} {number}" for name, number in latest["versions"].items()),
    }  # fmt: skip
    names = [name for name in latest["axes"] if name in cells]
    names += [n for n in sorted(cells) if n not in names and len(np.unique(cells[n])) > 1]
    return _Program(keys, {name: cells[name] for name in names}, members, attributes)


def _labelled(key: str, program: _Program) -> xr.Dataset:
    attributes = program.attributes | {"program": key}
    found = program.progress
    axes = {name: np.unique(values) for name, values in program.cells.items()}
    sizes = tuple(len(values) for values in axes.values())
    cells, members = int(np.prod(sizes, dtype=float)), len(found.budget)
    at = [np.searchsorted(axes[name], program.cells[name]) for name in axes]
    place = np.ravel_multi_index(tuple(at), sizes) if axes else np.zeros(members, int)
    if cells > SPARSE * members or len(np.unique(place)) < members:
        columns = {name: ("member", values) for name, values in program.cells.items()}
        return labelled(("member",), (members,), columns, found, attributes, program.keys)
    whole = Progress.fresh(found.steps, np.zeros(cells, np.int64))
    whole.status[:] = ABSENT
    whole.put(place, found)
    keys = np.zeros(cells, "S32")
    keys[place] = program.keys
    return dataset(axes, whole, attributes, keys)
