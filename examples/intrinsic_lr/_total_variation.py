r"""How far apart the predictions of two ensembles of networks are, and how far chance alone would put them.

.. math:: d = \frac1{|X|}\sum_{x \in X} \tfrac12 \sum_c |\hat p_x(c) - \hat q_x(c)|

The mean over test images of the total variation between the empirical distributions of the predicted class
(Section 6.1 of `intrinsic_lr`). With n trials each it is above 0, by something like n^{−1/2}, when the two
distributions are the same. What is left of it when the trials are dealt out to the two ensembles at random says how much.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Distance(NamedTuple):
    """d, and its distribution when the trials of both are dealt out at random."""

    observed: float
    chance: float
    """Mean of d over the random deals: d between equal distributions, at this number of trials."""
    p: float
    """Share of the deals with d at least the observed (which is one of them)."""

    @property
    def corrected(self) -> float:
        """What is more than chance."""
        return self.observed - self.chance


def total_variation(a: ArrayLike, b: ArrayLike, classes: int = 10) -> Array:
    """d between two ensembles.

    Args:
        a, b: predicted classes, (trials, images) each.
        classes: how many there are.

    Returns:
        d, between 0 and 1.
    """
    p, q = (jnp.mean(jax.nn.one_hot(jnp.asarray(c, int), classes), 0) for c in (a, b))
    return jnp.mean(jnp.sum(jnp.abs(p - q), -1)) / 2


@partial(jax.jit, static_argnames=("classes", "deals"))
def _dealt(both: Array, key: Array, classes: int, deals: int) -> Array:
    """d of random halves of the trials, (deals,)."""
    trials, images = both.shape
    halves = jnp.repeat(jnp.array([2 / trials, -2 / trials]), trials // 2)
    weights = jax.vmap(lambda k: jax.random.permutation(k, halves))(jax.random.split(key, deals))
    difference = weights @ jax.nn.one_hot(both, classes).reshape(trials, -1)
    return jnp.sum(jnp.abs(difference), -1) / (2 * images)


def distance(
    a: ArrayLike, b: ArrayLike, *, classes: int = 10, deals: int = 1000, seed: int = 0
) -> Distance:
    """d with what chance explains of it.

    Args:
        a, b: predicted classes, (trials, images), of equally many trials.
        classes: how many there are; deals: random deals; seed: of these.

    Raises:
        ValueError: if the shapes differ.
    """
    a, b = (np.asarray(c).astype(np.int32) for c in (a, b))
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(
            f"The predictions have shapes {a.shape} and {b.shape}; both must be (trials, images), with as many trials."
        )
    observed = float(total_variation(a, b, classes))
    dealt = np.asarray(_dealt(jnp.concatenate([a, b]), jax.random.key(seed), classes, deals))
    p = (1 + np.sum(dealt >= observed * (1 - 1e-6))) / (1 + deals)
    return Distance(observed, float(dealt.mean()), float(p))
