"""When to stop and how much to decay: the least expected test error over t, over λ, or over both."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, number, optional
from ntkdecay._degree import as_degree, network_degree
from ntkdecay.homogeneity import Degree
from ntkdecay.predict._checks import as_own, float_dtype
from ntkdecay.risk._curve import Population, curve
from ntkdecay.risk._filter import Pieces
from ntkdecay.risk._learning_curve import population

_SIDE, _ZOOMED = 32, 9  # of the grid, and of those around its best cell
_ZOOMS, _CLOSER = 6, 0.45  # each closer by this
_SLOWEST = 1e-9  # of the largest eigenvalue: rates that no training time resolves


class Best(NamedTuple):
    """The least expected test error, each of the shape of `n`.

    Args:
        t: when to stop, in gradient-flow time; inf: not at all.
        l2: λ; 0 where none is best.
        error: the error there.
    """

    t: Array
    l2: Array
    error: Array


@checked(
    eigenvalues=array(low=0, ndim=1),
    coefficients=array(ndim=(1, 2)),
    n=array(above=0),
    degree=network_degree(),
    noise=array(low=0, ndim=0),
    multiplicity=array(low=0, ndim=(0, 1)),
    t=optional(number(above=0, inf=True)),
    l2=optional(number(low=0)),
)
def best(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    n: ArrayLike,
    *,
    degree: float | Degree,
    noise: ArrayLike = 0.0,
    multiplicity: ArrayLike = 1.0,
    t: float | None = None,
    l2: float | None = None,
) -> Best:
    r"""The stopping time and the λ of the least expected test error of `learning_curve`.

    .. math:: \min_{t > 0,\; \lambda \ge 0} E_n(t, \lambda)

    With `l2=0` it is early stopping, with degree 1 and `t=inf` kernel ridge regression of ridge nλ. The search is a grid in the
    logarithms, from 1/(4Λ_max) to 1e9/Λ_max for times and the like for λ, laid anew around its best cell, beside λ = 0
    and, for degree 1, t = inf.

    Args:
        eigenvalues, coefficients, n, degree, noise, multiplicity: as for `learning_curve`.
        t: the time, where it is given; None: the best one.
        l2: λ, where it is given; None: the best one.

    Returns:
        `Best(t, l2, error)`; a time or λ is known to a few digits, as the error is flat there, the error to 1e-6.

    Raises:
        ValueError: as `learning_curve`.

    >>> import numpy as np
    >>> from ntkdecay import risk
    >>> i = np.arange(1.0, 101)
    >>> stopped = risk.best(i**-2, np.ones(100), 30, degree=2, noise=0.3, l2=0.0)
    >>> round(float(stopped.error), 3)
    0.119
    """
    k = as_degree(degree)
    if k == 0:
        raise ValueError(
            "`degree` is 0, whose kernel grows under L2: there is no equilibrium without noise of SGD."
        )
    dtype = float_dtype(eigenvalues, coefficients, n, noise, multiplicity)
    people = population(eigenvalues, coefficients, noise, multiplicity, dtype)
    sizes = as_own(n, dtype)
    tried = [(t, l2)]
    if l2 is None:
        tried.append((t, 0.0))
    if t is None and k == 1:
        tried.append((np.inf, l2))
    tried = [(a, b) for a, b in tried if not (a == np.inf and (b == 0.0 or k != 1))]
    if not tried:
        raise ValueError(
            "`t` is inf where `l2` is 0 or `degree` is not 1: give a time, or None for the best one."
        )
    given = tuple(tuple(as_own(np.nan if x is None else x, dtype) for x in pair) for pair in tried)
    free = tuple((a is None, b is None) for a, b in tried)
    with jax.numpy_rank_promotion("allow"):
        return _least(people, sizes, given, k, free)


@partial(jax.jit, static_argnames=("degree", "free"))
def _least(people: Population, n: Array, given: Any, degree: float, free: Any) -> Best:
    """The least of the searches, each with what is given to it and which axes are free."""
    searches = [
        _search(people, n.reshape(-1), pair, degree, axes)
        for pair, axes in zip(given, free, strict=True)
    ]
    each = jax.tree.map(lambda *parts: jnp.stack(parts), *searches)
    at = jnp.argmin(each.error, 0)[None]
    return jax.tree.map(lambda x: jnp.take_along_axis(x, at, 0)[0].reshape(n.shape), each)


def _alike(t: Array, l2: Array) -> Pieces:
    """λ that does not change, of the shape of t."""
    return Pieces(l2[None], jnp.zeros_like(t)[None], jnp.full_like(t, jnp.inf)[None])


def _search(
    people: Population, n: Array, given: tuple[Array, Array], degree: float, free: tuple[bool, bool]
) -> Best:
    """Of each n (sizes,), over the axes that are free; the others are given."""
    top = people.eigenvalues.max()
    slow, fast = jnp.log(_SLOWEST * top), jnp.log(4 * top)

    def errors(n: Array, windows: Any, side: int) -> tuple[Array, list[Array]]:
        """On a grid, (sizes, times, rates), and its axes."""
        axes = [
            jnp.exp(jnp.linspace(low, high, side)) if is_free else x[None]
            for x, (low, high), is_free in zip(given, windows, free, strict=True)
        ]
        times, rates = (x.reshape(-1) for x in jnp.meshgrid(*axes, indexing="ij"))
        found = curve(people, n, times, _alike(times, rates), degree)
        found = jnp.where(jnp.isnan(found), jnp.inf, found)
        return found.reshape(-1, *map(len, axes)), axes

    windows = [(-fast, -slow), (slow, fast)]
    coarse, axes = errors(n, windows, _SIDE)
    steps = [(high - low) / (_SIDE - 1) for low, high in windows]
    # in a valley that runs between the cells the nearest cell says little: each row's own minimum, by a parabola
    at_rate = jnp.argmin(_dips(coarse), -1)
    at_time = jnp.argmin(jnp.take_along_axis(coarse, at_rate[:, None, None], 2)[..., 0], 1)

    def refined(args: tuple[Array, Array, Array]) -> Best:
        n, time, rate = args

        def zoom(carry: tuple[Best, Array], _: None) -> tuple[tuple[Best, Array], None]:
            best, width = carry
            middles = [jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny)) for x in best[:2]]
            ends = [
                (middle - width * step, middle + width * step)
                for middle, step in zip(middles, steps, strict=True)
            ]
            found, (times, rates) = errors(n[None], ends, _ZOOMED)
            i, j = jnp.unravel_index(jnp.argmin(found), found.shape[1:])
            here = Best(times[i], rates[j], found[0, i, j])
            best = jax.tree.map(lambda a, b: jnp.where(here.error < best.error, a, b), here, best)
            return (best, width * _CLOSER), None

        first = Best(axes[0][time], axes[1][rate], jnp.asarray(jnp.inf, top.dtype))
        return lax.scan(zoom, (first, jnp.ones((), top.dtype)), length=_ZOOMS)[0][0]

    return lax.map(refined, (n, at_time, at_rate))


def _dips(errors: Array) -> Array:
    """The least of a parabola through the smallest of the times and its neighbours, (sizes, rates) of (sizes, times, rates)."""
    if errors.shape[1] < 3:
        return errors.min(1)
    at = jnp.clip(jnp.argmin(errors, 1, keepdims=True), 1, errors.shape[1] - 2)
    left, middle, right = (jnp.take_along_axis(errors, at + i, 1)[:, 0] for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    dip = middle - (left - right) ** 2 / (8 * jnp.where(bend > 0, bend, jnp.inf))
    return jnp.where(middle <= jnp.minimum(left, right), dip, errors.min(1))
