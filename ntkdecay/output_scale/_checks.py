"""What this package asks of α."""

from typing import Any

from ntkdecay._checks import check_positive


def check_alpha(alpha: Any) -> None:
    check_positive("alpha", alpha, "it multiplies the output, and 1/α² the loss")
