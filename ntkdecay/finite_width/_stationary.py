r"""Stationary points of homogeneous networks under L2, at any width.

Where :math:`\nabla f\, \ell' + \lambda\theta = g`, the product with ∇f(x) and Euler's identity θ·∇f = k f give

.. math:: f(x) = -\frac{\Theta_\theta(x, X)\, \ell'}{k\lambda} + \frac{\nabla f(x) \cdot g}{k\lambda}

for any parameters; at a stationary point g = 0, and f is a sum over training samples.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._arrays import own
from ntkdecay._checks import array, checked, choice, integer, is_traced, optional
from ntkdecay._program import Program
from ntkdecay.finite_width._problem import RULES, Loss, Problem, norm, problem, same_kind
from ntkdecay.homogeneity import Degree
from ntkdecay.kernels._checks import ApplyFn, exact, read_at
from ntkdecay.kernels._empirical import empirical_ntk


class Stationarity(NamedTuple):
    """How far a network is from a stationary point: 0 at one, 1 where one of two forces is alone.

    Args:
        gradient: ‖∇L + λθ‖ relative to the larger of ‖∇L‖ and ‖λθ‖.
        function: ‖Θℓ' + kλf‖ on the training points relative to the larger of ‖Θℓ'‖ and ‖kλf‖.
    """

    gradient: Array
    function: Array


class Attributions(NamedTuple):
    """f(x) = Σ `shares` + `rest`, at any parameters.

    Args:
        shares: −Θ(x, x_i) ℓ'_i/(kλ) of each training sample, of the shape of f(x) and one axis (n_train,) more.
        rest: ∇f(x)·(∇L + λθ)/(kλ), of the shape of f(x); 0 at a stationary point.
    """

    shares: Array
    rest: Array


@checked(**RULES)
def stationarity(
    apply_fn: ApplyFn,
    params: Any,
    x_train: ArrayLike,
    y_train: ArrayLike,
    *,
    l2: float,
    degree: float | Degree | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    loss: Loss | None = None,
) -> Stationarity:
    r"""How far a network is from a stationary point of L + λ/2 ‖θ‖², in its weights and in its function.

    .. math:: \nabla L + \lambda\theta = 0 \quad\Rightarrow\quad f = -\Theta_\theta\, \ell' / (k\lambda)

    For MSE (`reduction="sum"`) the right side is f = Θ(Θ + kλ)^{−1} y with the kernel of the network's own, trained
    parameters. `function` is that of the weights times ∇f, and so is never far from 0 where `gradient` is 0.

    Args:
        apply_fn: the network, f(params, x) -> (n, ...), homogeneous of degree k > 0 in its parameters.
        params: pytree of arrays of one floating dtype.
        x_train, y_train: the samples and labels of the loss.
        l2: λ > 0.
        degree: k, which is verified; None: measured by `ntkdecay.homogeneity.degree`.
        reduction: MSE as ½ mean or ½ sum of (f − y)² over samples and outputs; of no effect on `loss`.
        loss: `loss(fx_train, y_train)`, a number, without the L2 term; None: MSE.

    Returns:
        `Stationarity(gradient, function)`, two numbers.

    Raises:
        TypeError, ValueError: if params and x_train are not of one floating dtype, labels or loss do not suit the
            network, or it is not homogeneous or of another degree.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import finite_width
    >>> def f(params, x):
    ...     return x * params[0] * params[1]
    ...
    >>> params = jnp.full(2, jnp.sqrt(0.5))
    >>> found = finite_width.stationarity(f, params, jnp.ones((1, 1)), jnp.ones((1, 1)), l2=0.5)
    >>> bool(found.gradient < 1e-6), bool(found.function < 1e-6)
    (True, True)
    """
    task = problem(apply_fn, params, x_train, y_train, l2, degree, reduction, loss)
    with exact():
        return _stationarity(task)


@jax.jit
def _stationarity(task: Problem) -> Stationarity:
    fx, gradient = _gradient(task)
    decay = jax.tree.map(lambda p: task.l2 * p, task.params)
    pull = jax.jvp(task.outputs, (task.params,), (gradient,))[1]  # Θℓ'
    return Stationarity(_relative(gradient, decay), _relative(pull, task.l2 * task.degree * fx))


def _gradient(task: Problem) -> tuple[Array, Any]:
    """f and ∇L = ∇f ℓ'."""
    fx, pullback = jax.vjp(task.outputs, task.params)
    return fx, pullback(task.slope(fx))[0]


def _relative(a: Any, b: Any) -> Array:
    """‖a + b‖ relative to the larger of ‖a‖ and ‖b‖; 0 where both are."""
    largest = jnp.maximum(norm(a), norm(b))
    whole = norm(jax.tree.map(jnp.add, a, b))
    return jnp.where(largest > 0, whole / jnp.where(largest > 0, largest, 1.0), 0.0)


@checked(
    **RULES, x_test=optional(array()), vmap_axes=choice(0, None), tile=optional(integer(low=1))
)
def attributions(
    apply_fn: ApplyFn,
    params: Any,
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_test: ArrayLike | None = None,
    *,
    l2: float,
    degree: float | Degree | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    loss: Loss | None = None,
    vmap_axes: Literal[0] | None = 0,
    tile: int | None = None,
) -> Attributions:
    r"""Each training sample's share of f(x), exact at stationary points of L + λ/2 ‖θ‖².

    .. math:: f(x) = -\frac{1}{k\lambda} \sum_i \Theta_\theta(x, x_i)\, \ell'_i
                     + \frac{\nabla f(x) \cdot (\nabla L + \lambda\theta)}{k\lambda}

    The representation of a trained network by its training samples, with the kernel of its own parameters: no limit
    of width is taken. The last term says how much of f(x) has not come to rest.

    Args:
        apply_fn, params, x_train, y_train, l2, degree, reduction, loss: as for `stationarity`.
        x_test: x, (n, ...); None: x_train.
        vmap_axes: as for `ntkdecay.kernels.empirical_ntk`.
        tile: take so many of x at a time, each with all training samples; None: all. Their kernel has
            tile × n_train × outputs² entries.

    Returns:
        `Attributions(shares, rest)`: shares of the shape of f(x) and one axis (n_train,) more.

    Raises:
        TypeError, ValueError: as `stationarity` and `ntkdecay.kernels.empirical_ntk`.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import finite_width
    >>> def f(params, x):
    ...     return x * params[0] * params[1]
    ...
    >>> params = jnp.full(2, jnp.sqrt(0.5))
    >>> x, y = jnp.ones((1, 1)), jnp.ones((1, 1))
    >>> shares, rest = finite_width.attributions(f, params, x, y, 2 * x, l2=0.5)
    >>> round(float(shares[0, 0, 0]), 6), bool(abs(rest[0, 0]) < 1e-6)
    (1.0, True)
    """
    task = problem(apply_fn, params, x_train, y_train, l2, degree, reduction, loss)
    x = task.x if x_test is None else same_kind(task, x_test)
    program = read_at(apply_fn, params, x, len(x))
    with exact():
        slope, rest = _slope_and_rest(task, program, x)
    if tile is None or is_traced(x, task.params):
        tile = len(x)
    known, shares = x if tile == len(x) else np.asarray(x), []
    for start in range(0, len(x), tile):
        rows = known[start : start + tile]
        kernel = empirical_ntk(apply_fn, params, rows, task.x, trace_axes=(), vmap_axes=vmap_axes)
        with exact():
            shares.append(_shares(kernel, slope))
    return Attributions(shares[0] if len(shares) == 1 else own(np.concatenate(shares)), rest)


@jax.jit
def _slope_and_rest(task: Problem, f: Program, x: Array) -> tuple[Array, Array]:
    """−ℓ'/(kλ) on the training points, and ∇f(x)·(∇L + λθ)/(kλ)."""
    fx, gradient = _gradient(task)
    whole = jax.tree.map(lambda g, p: g + task.l2 * p, gradient, task.params)
    moved = jax.jvp(lambda p: f(p, x), (task.params,), (whole,))[1]
    strength = task.degree * task.l2
    return -task.slope(fx) / strength, moved / strength


@jax.jit
def _shares(kernel: Array, weights: Array) -> Array:
    """Σ over the outputs of a training sample: Θ of (n, n_train, o, o', …) with weights (n_train, o', …)."""
    axes = range(2 * weights.ndim)
    return jnp.einsum(kernel, axes, weights, axes[1::2], [*axes[::2], 1])
