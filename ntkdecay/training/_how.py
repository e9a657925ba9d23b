"""Where and how members are trained."""

import os
from typing import Any, NamedTuple

from ntkdecay.training._places import Places


class How(NamedTuple):
    """Where and how members are trained: nothing here changes what they are."""

    places: Places
    members_per_batch: int | None
    store: str | os.PathLike[str] | None
    save_seconds: float
    return_params: bool
    title: str | None
    bar: Any
