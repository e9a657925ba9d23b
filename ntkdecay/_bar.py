"""What every `progress` argument may be."""

from ntkdecay._checks import either, flag, optional, text

PROGRESS = optional(either(flag(), text()))


def title(progress: str | bool | None) -> str | None:
    """The bar's name, "" for a bar without one, None for no bar."""
    return progress if isinstance(progress, str) else "" if progress else None
