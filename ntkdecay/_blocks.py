"""Blocks of parameters: a label for each array, as `optax.multi_transform` takes them."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.tree_util import keystr

from ntkdecay._checks import Rule, shown

Blocks = Any  # a tree of labels, a prefix of params'; a function of params that gives one; None


class block_labels(Rule):
    """Labels of params' arrays."""

    refuses = frozenset({"none"})

    @property
    def asks(self) -> str:
        return "a tree of labels like `params` or a prefix of it, or a function of `params` that gives one"

    def __call__(self, name: str, value: Any) -> None:
        labels = [] if callable(value) else jax.tree.leaves(value)
        if not callable(value) and (
            not labels or not all(isinstance(one, (str, int)) for one in labels)
        ):
            raise TypeError(f"`{name}` is {shown(value)}; it must be {self.asks}.")


def blocks_of(params: Any, blocks: Blocks) -> tuple[tuple[Hashable, ...], tuple[int, ...]]:
    """The labels, and which one each array of `params` has; by default the entries of its first level with several."""
    labels = _each(params, _first_level(params) if blocks is None else blocks)
    names = tuple(dict.fromkeys(labels))
    return names, tuple(names.index(label) for label in labels)


def _first_level(params: Any) -> Callable[[Any], Any]:
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    depth = 0
    while len(paths) > 1 and len({path[: depth + 1] for path in paths}) == 1:
        depth += 1

    def labels(tree: Any) -> Any:
        return jax.tree.map_with_path(
            lambda path, _: keystr(path[depth : depth + 1], simple=True), tree
        )

    return labels


def _each(params: Any, blocks: Blocks) -> list[Hashable]:
    labels = blocks(params) if callable(blocks) else blocks
    try:
        return jax.tree.leaves(
            jax.tree.map(lambda label, part: jax.tree.map(lambda _: label, part), labels, params)
        )
    except (TypeError, ValueError):
        raise ValueError(
            f"`blocks` is {shown(labels)}, whose structure is no prefix of that of `params`: one label for each of its "
            "parts, as {'body': 'slow', 'head': 'fast'}."
        ) from None
