"""optax transformations whose arguments are held to rules, and whose update is one program whatever the numbers in it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay._agree import alike
from ntkdecay._checks import Rule, anything, checked, flag, is_traced, optional, shown, tree

Make = Callable[..., optax.GradientTransformation]

LIKE_PARAMS = tree(nan=True, empty=True)


class transformation(Rule):
    """An optimizer of optax."""

    refuses = flag().refuses

    @property
    def asks(self) -> str:
        return "an optax transformation, as optax.adam(1e-3)"

    def __call__(self, name: str, value: Any) -> None:
        if not (isinstance(value, optax.GradientTransformation) and all(map(callable, value))):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


class state_of(Rule):
    """An optimizer's state: a tuple of some kind that holds real numbers."""

    refuses = flag().refuses - {"nan", "inf", "negative"}

    def __init__(self, kind: type) -> None:
        self.kind = kind

    @property
    def asks(self) -> str:
        what = "the state" if self.kind is tuple else f"the {self.kind.__name__}"
        return f"{what} that `init` or the last step gave"

    def __call__(self, name: str, value: Any) -> None:
        if not isinstance(value, self.kind):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")
        dtypes = (getattr(leaf, "dtype", type(leaf)) for leaf in jax.tree.leaves(value))
        if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes):
            raise TypeError(f"`{name}` holds complex numbers; it must be {self.asks}.")


def guarded(made: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The transformation, which says in one sentence what it is not given as it should."""
    made = optax.with_extra_args_support(made)

    @checked(params=LIKE_PARAMS)
    def init(params: Any) -> Any:
        return made.init(params)

    @checked(
        updates=LIKE_PARAMS,
        state=state_of(tuple),
        params=optional(LIKE_PARAMS),
        extra_args=anything(),
    )
    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        if params is not None:
            alike(updates=updates, params=params)
        return made.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init, update)


def piece(make: Make, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """`make(**settings)`, guarded. Without schedules among them all its updates are one program, given the numbers.

    A schedule is called as it is: it may not be traceable, or read what has changed since the last step.
    """
    made = make(**settings)
    if any(callable(value) and not is_traced(value) for value in settings.values()):
        return guarded(made)
    options = {n: v for n, v in settings.items() if v is None or isinstance(v, (bool, np.bool_))}
    numbers = {name: value for name, value in settings.items() if name not in options}
    run = _program(make, tuple(options.items()))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return run(numbers, updates, state, params)

    return guarded(optax.GradientTransformation(made.init, update))


@lru_cache
def _program(make: Make, options: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    def update(numbers: dict[str, Any], updates: Any, state: Any, params: Any) -> Any:
        return make(**dict(options), **numbers).update(updates, state, params)

    return jax.jit(update)
