"""The law of each parameter at initialization: mean and variance of its entries."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from ntkdecay._at_once import at_once
from ntkdecay._program import Program

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


def given_key(key: Any) -> Any:
    return jax.random.key(0) if key is None else key


def measured(params: Any, init: Program, key: Any) -> Laws:
    """From draws of init(key): each leaf constant, or of independent entries of mean 0 alike."""
    same = jax.tree.structure(init.out) == jax.tree.structure(params)
    if not same or jax.tree.map(np.shape, init.out) != jax.tree.map(np.shape, params):
        raise ValueError("`init` gives parameters of another tree or other shapes than `params`.")
    with at_once():
        leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(_drawn(init, key))]
    return tuple(_measured(name, leaf) for name, leaf in zip(names_of(params), leaves, strict=True))


@jax.jit
def _drawn(init: Program, key: Any) -> Any:
    return jax.vmap(init)(jax.random.split(given_key(key), DRAWS))


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
