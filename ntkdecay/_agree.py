"""What arguments ask of each other, one sentence each; `_checks` has what each is asked by itself."""

from typing import Any

import jax
import numpy as np


def common_shape(**shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which the named ones broadcast."""
    try:
        return np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"`{name}` of {shape}" for name, shape in shapes.items())
        raise ValueError(f"These shapes do not broadcast together: {listed}.") from None


def same_shape(**arrays: Any) -> None:
    """The named arrays have one shape."""
    if len({np.shape(value) for value in arrays.values()}) > 1:
        listed = ", ".join(f"`{name}` of {np.shape(value)}" for name, value in arrays.items())
        raise ValueError(
            f"These shapes differ, but each entry of one belongs to one of the other: {listed}."
        )


def alike(**trees: Any) -> None:
    """The two named trees have one structure and arrays of the same shapes; the first may hold None in their place."""
    (name, tree), (other_name, other) = trees.items()
    leaves, structure = jax.tree.flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)
    try:
        partners = structure.flatten_up_to(other)
    except ValueError:
        raise ValueError(
            f"`{name}` and `{other_name}` are trees of different structure; each array of one belongs to one of the "
            "other."
        ) from None
    for (path, leaf), partner in zip(leaves, partners, strict=True):
        if leaf is not None and np.shape(leaf) != np.shape(partner):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"`{name}{where}` has shape {np.shape(leaf)} and `{other_name}{where}` {np.shape(partner)}; they must be "
                "the same."
            )
