"""What an import needs that a plain install leaves out."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Names the extra of ntkdecay that a missing module belongs to."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "ntkdecay"):
            raise
        raise ModuleNotFoundError(
            f"This part of ntkdecay needs {missing}: pip install 'ntkdecay[{name}]'.",
            name=error.name,
        ) from None
