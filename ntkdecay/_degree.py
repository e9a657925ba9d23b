"""The degree k of a network, as a number or as `homogeneity.degree` measured it."""

import math
from typing import Any

from ntkdecay._checks import Rule, integer, is_traced, number, shown
from ntkdecay.homogeneity import Degree


class network_degree(Rule):
    """k: 0, 1 or any real above 1, or what `homogeneity.degree` measured."""

    refuses = integer.refuses | {"negative", "empty"}

    @property
    def asks(self) -> str:
        return (
            "0 (scale invariant), 1 (linear in its parameters) or any real above 1 (a deep network: the number of "
            "its weight layers)"
        )

    def __call__(self, name: str, value: Any) -> None:
        if is_traced(value):
            raise TypeError(
                f"`{name}` is traced; it must be a Python number: the closed form is chosen by it at trace time."
            )
        if not isinstance(value, Degree):
            number(nan=True, inf=True, why=self.asks)(name, value)
        k = as_degree(value)
        if not (k in (0.0, 1.0) or 1.0 < k < math.inf):
            raise ValueError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


class or_measured(Rule):
    """What a rule asks, or what `homogeneity.degree` measured."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.refuses = rule, rule.refuses

    @property
    def asks(self) -> str:
        return self.rule.asks

    def __call__(self, name: str, value: Any) -> None:
        self.rule(name, plain_degree(value))


def plain_degree(value: Any) -> Any:
    """A number as it is, traced or not; of a measured degree `as_degree`."""
    return as_degree(value) if isinstance(value, Degree) else value


def as_degree(value: Any) -> float:
    """k as a Python float; a measured one that rounding has moved off 0, off 1 or off a whole number is put back."""
    measured = isinstance(value, Degree)
    k = float(value.degree if measured else value)
    near = max(1e-6, value.residual) if measured else 1e-6
    whole = float(round(k)) if math.isfinite(k) else k
    # of plain numbers those alone that mean nothing else: just above 1 a degree is a degree
    meant = measured or k < 1 or k - 1 < 1e-15
    return whole if meant and abs(k - whole) <= near else k
