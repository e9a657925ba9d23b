r"""The λ(t) of the least expected test error: a few instants at which weights shrink, and no L2 between them.

In driven time dτ = A dt, A = e^{−2(k−1)∫λ}, what is learned of a mode at the end is, for every degree,

.. math:: h(\gamma) = \gamma \int_0^{\tau} e^{-\gamma v}\, w(v)\, dv, \qquad w(v) = e^{-k \int \lambda}
          \text{ over the last } v,

and w may be any function that falls from 1: h is any mixture of the filters 1 − e^{−γτ} of early stopping. The error is
a convex quadratic form in h, so that the best mixture is a quadratic program; its derivative is analytic in τ, which
leaves finitely many times in it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.optimize import nnls

from ntkdecay._checks import array, checked, number
from ntkdecay.predict._checks import as_own, float_dtype
from ntkdecay.risk._curve import Population, contour, forms
from ntkdecay.risk._learning_curve import population


class BestSchedule(NamedTuple):
    """The mixture of stopping times of the least expected test error.

    Args:
        stopping: the times τ_j that are tried, ascending, (times,).
        weights: μ_j >= 0 of each, of sum 1; most are 0.
        error: of the mixture.
        early_stopping: the error at each of the times alone, (times,).
    """

    stopping: Array
    weights: Array
    error: Array
    early_stopping: Array


@checked(
    eigenvalues=array(low=0, ndim=1),
    coefficients=array(ndim=(1, 2)),
    n=number(above=0),
    noise=array(low=0, ndim=0),
    multiplicity=array(low=0, ndim=(0, 1)),
    stopping=array(above=0, ndim=1),
)
def best_schedule(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    n: float,
    *,
    stopping: ArrayLike,
    noise: ArrayLike = 0.0,
    multiplicity: ArrayLike = 1.0,
) -> BestSchedule:
    r"""The least expected test error that any λ(t) >= 0 and stopping time can give, of any degree k >= 1.

    .. math:: \min_{\mu \ge 0,\, \sum \mu = 1} E\Big[h = \sum_j \mu_j (1 - e^{-\gamma \tau_j})\Big]

    As a schedule: train without L2 for max τ in all, in driven time; when τ_j of it are left, multiply f by
    W_{j+1}/W_j and so the weights by (W_{j+1}/W_j)^{1/k}, with W_j = Σ_{i ≥ j} μ_i. No constant λ, no ridge and no
    stopping time is better.

    Args:
        eigenvalues, coefficients, noise, multiplicity: as for `learning_curve`; n: one number of samples.
        stopping: the times that may be mixed, ascending: some hundred in equal ratios, from 1/Λ_max to the longest
            training.

    Returns:
        `BestSchedule(stopping, weights, error, early_stopping)`. Neighbouring times hardly differ, so that one instant
        may stand as two neighbours.

    Raises:
        ValueError: as `learning_curve`; for times that are not ascending.

    >>> import numpy as np
    >>> from ntkdecay import risk
    >>> i = np.arange(1.0, 101)
    >>> found = risk.best_schedule(i**-2, np.ones(100), 30, stopping=np.geomspace(1, 1e4, 40), noise=0.3)
    >>> bool(found.error <= found.early_stopping.min())
    True
    """
    dtype = float_dtype(eigenvalues, coefficients, noise, multiplicity, stopping)
    people = population(eigenvalues, coefficients, noise, multiplicity, dtype)
    times = as_own(stopping, dtype)
    if not np.all(np.diff(np.asarray(times, float)) > 0):
        raise ValueError(
            "`stopping` is not ascending; it is the times that may be mixed, each once."
        )
    with jax.numpy_rank_promotion("allow"):
        matrix = np.asarray(_mixed(people, as_own(n, dtype), times), float)
    matrix = (matrix + matrix.T) / 2
    alone = matrix.diagonal()
    # its root, in units of the least error: min ‖Rμ‖² on the simplex is a least-squares problem with a row for Σμ = 1
    values, vectors = np.linalg.eigh(matrix / alone.min())
    root = vectors * np.sqrt(np.maximum(values, 0))
    weights, _ = nnls(
        np.vstack([root.T, np.ones(len(alone))]), np.append(np.zeros(len(alone)), 1.0), maxiter=100 * len(alone)
    )  # fmt: skip
    weights /= weights.sum()
    error = weights @ matrix @ weights
    found = (times, weights, error, alone)
    return BestSchedule(*(jnp.asarray(x, dtype) for x in found))


@jax.jit
def _mixed(people: Population, n: Array, times: Array) -> Array:
    """The errors' form in mixtures of stopping times, (times, times)."""
    z, dz = contour(*people.reach(n, 1 / times.max()))
    h = -jnp.expm1(-z * times[:, None])
    return forms(z, people, n).errors(z, dz, h, pairs=True)
