"""Warnings that point at the caller's line."""

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


def warn(message: str) -> None:
    """A UserWarning at the line that called into this package, however deep inside it was found."""
    frame, level, found = sys._getframe(1), 2, 2
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            found = level + 1
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=found)
