"""The law of each parameter at initialization: mean and variance of its entries."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Laws = tuple[tuple[float, float], ...]  # (mean, variance) of each leaf

DRAWS = 64


def names_of(params: Any) -> list[str]:
    """ "Dense_0/kernel", one for each leaf."""
    paths = [path for path, _ in jax.tree.leaves_with_path(params)]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def given(params: Any, variances: Any) -> Laws:
    """From a tree like params, or from rules {pattern of a leaf's name: variance}, the first that fits."""
    leaves, names = jax.tree.leaves(params), names_of(params)
    if jax.tree.structure(variances) == jax.tree.structure(params):
        values = jax.tree.leaves(variances)
    elif isinstance(variances, Mapping) and all(isinstance(key, str) for key in variances):
        values = []
        for name in names:
            fits = [v for pattern, v in variances.items() if fnmatchcase(name, pattern)]
            if not fits:
                raise ValueError(
                    f"`variances` has no rule for the parameter {name!r}; its rules are {list(variances)}."
                )
            values.append(fits[0])
    else:
        raise ValueError(
            "`variances` is neither a tree like `params`, one number for each of its arrays, nor rules "
            "{pattern: variance} by their names."
        )
    return tuple(_law(name, leaf, v) for name, leaf, v in zip(names, leaves, values, strict=True))


def _law(name: str, leaf: Any, variance: Any) -> tuple[float, float]:
    number = np.asarray(variance) if np.ndim(variance) == 0 else None
    if number is None or number.dtype.kind not in "fiu" or not 0 <= number < np.inf:
        raise ValueError(
            f"`variances` has {variance!r} for {name!r}; a variance is one number >= 0, finite."
        )
    if number > 0:
        return 0.0, float(number)
    leaf = np.asarray(leaf)
    if leaf.size and not (leaf == leaf.flat[0]).all():
        raise ValueError(
            f"`variances` is 0 for {name!r}, whose entries in `params` differ; a leaf that is not "
            "random is one number, as 0 of a bias or 1 of a normalization's scale."
        )
    return float(leaf.flat[0]) if leaf.size else 0.0, 0.0


def measured(params: Any, init: Callable, key: Any) -> Laws:
    """From draws of init(key): each leaf constant, or of independent entries of mean 0 alike."""
    drawn = jax.vmap(init)(jax.random.split(key, DRAWS))
    like = jax.tree.map(jnp.shape, params)
    shapes = jax.tree.map(lambda leaf: leaf.shape[1:], drawn)
    if jax.tree.structure(drawn) != jax.tree.structure(params) or shapes != like:
        raise ValueError("`init` gives parameters of another tree or other shapes than `params`.")
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(drawn)]
    return tuple(_measured(name, leaf) for name, leaf in zip(names_of(params), leaves, strict=True))


def _measured(name: str, draws: np.ndarray) -> tuple[float, float]:
    if (draws == draws.flat[0]).all():
        return float(draws.flat[0]), 0.0
    variance = float((draws**2).mean())
    error = float((draws**2).std()) / np.sqrt(draws.size)
    if abs(draws.mean()) > 6 * np.sqrt(variance / draws.size):
        raise ValueError(
            f"`init` draws {name!r} with a mean of {draws.mean():.3g}; the theory asks for 0."
        )
    per_entry = (draws**2).mean(0)
    spread = np.sqrt((draws**2).var() / len(draws))
    if np.abs(per_entry - variance).max() > 9 * spread + error:
        raise ValueError(
            f"`init` draws the entries of {name!r} with different variances; the theory asks for one."
        )
    for axis in range(1, draws.ndim):
        if draws.shape[axis] > 1 and draws[0].size > draws.shape[axis]:
            norms = (draws**2).mean(axis=tuple(a for a in range(1, draws.ndim) if a != axis))
            terms = draws[0].size / draws.shape[axis]
            ratio = norms.var() * terms / (draws**2).var()
            if not _within(ratio, norms.size):
                raise ValueError(
                    f"`init` draws {name!r} with entries that depend on each other (as orthogonal weights do): "
                    "give independent ones, whose sums of squares fluctuate freely."
                )
    return 0.0, variance


def _within(ratio: float, samples: int) -> bool:
    slack = 8 * np.sqrt(3 / samples)
    return 1 / (1.3 + slack) < ratio < 1.5 + slack
