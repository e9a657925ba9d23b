"""The refusal of an operation, with the line of the user's code that made it."""

from typing import Any

import jax.extend.source_info_util

_LIBRARIES = (
    "site-packages",
    "dist-packages",
    "<frozen",
    "<string>",
    "ntkdecay/kernels",
    "/lib/python",
)


class Refused(ValueError):
    """The program is not understood."""


def refusal(equation: Any, why: str, understood: str) -> Refused:
    """One sentence: the operation, where it comes from, what is wrong with it and what would do."""
    return Refused(
        f"`apply_fn` has an operation {equation.primitive.name!r} at {_place(equation)} that {why}; "
        f"understood are {understood}."
    )


def _place(equation: Any) -> str:
    """The innermost line that is in no library; else the innermost one outside of JAX."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not any(part in frame.file_name for part in _LIBRARIES):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return jax.extend.source_info_util.summarize(equation.source_info) or "a line that is not known"
