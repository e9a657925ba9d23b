"""Members as a labelled grid."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ntkdecay.training._progress import DIVERGED, DONE, RUNNING, Progress

ABSENT = -1
STATUS = {DONE: "done", DIVERGED: "diverged", RUNNING: "running", ABSENT: "absent"}

ATTRIBUTES = {
    "step": ("steps made", "steps"),
    "last_step": ("last step measured", "steps"),
    "status": ("how it ended", ""),
    "members_per_batch": ("members of the block that it was advanced in", ""),
    "key": ("hash of the member's program, data and cell", ""),
    "seed": ("seed of initialization and batches", ""),
    "l2": ("λ of L + λ/2 ‖θ‖²", ""),
    "learning_rate": ("η", "time/step"),
    "loss": ("L on the training samples, without the L2 term", ""),
    "total_loss": ("L + λ/2 ‖θ‖² on the training samples", ""),
    "accuracy": ("share of right answers on the training samples", ""),
    "test_loss": ("L on the test samples", ""),
    "test_accuracy": ("share of right answers on the test samples", ""),
    "norm2": ("‖θ‖²", ""),
    "gradient_norm": ("‖∇L‖", ""),
    "effective_learning_rate": ("η/‖θ‖²", "time/step"),
}
"""Long names and units. Time is step × learning rate; what has no unit is a pure number."""


def dataset(
    axes: Mapping[str, np.ndarray],
    progress: Progress,
    attributes: Mapping[str, Any],
    keys: np.ndarray | None = None,
) -> xr.Dataset:
    """Members in the order of the grid, over the grid and `step`."""
    dims, sizes = tuple(axes), tuple(len(values) for values in axes.values())
    return labelled(dims, sizes, {n: (n, v) for n, v in axes.items()}, progress, attributes, keys)


def labelled(
    dims: tuple[str, ...],
    sizes: tuple[int, ...],
    coordinates: Mapping[str, Any],
    progress: Progress,
    attributes: Mapping[str, Any],
    keys: np.ndarray | None,
) -> xr.Dataset:
    variables: dict[str, Any] = {
        name: (
            (*dims, "step", *(f"{name}_{i}" for i in range(values.ndim - 2))),
            values.reshape(*sizes, *values.shape[1:]),
        )
        for name, values in progress.records.items()
    }
    status = np.array([STATUS[code] for code in progress.status.tolist()])
    one_each = {
        "status": status,
        "last_step": progress.reached,
        "members_per_batch": progress.width,
    } | ({} if keys is None else {"key": keys.astype(str)})
    variables |= {name: (dims, values.reshape(sizes)) for name, values in one_each.items()}
    found = xr.Dataset(variables, dict(coordinates) | {"step": progress.steps}, dict(attributes))
    for name in found.variables:
        long_name, units = ATTRIBUTES.get(str(name), ("", ""))
        given = {"long_name": long_name, "units": units or "1"} if long_name else {}
        found[name].attrs.update(given)
    return found
