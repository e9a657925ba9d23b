"""How long the steps of `sgd` may be."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, flag, number, optional
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import L2, REDUCTION, TRACE_AXES, as_float, kernel
from ntkdecay.predict._modes import decompose
from ntkdecay.predict._request import Reduction
from ntkdecay.predict._schedule import constant


@checked(
    k_train_train=kernel(),
    y_train=array(),
    momentum=optional(number(low=0, below=1, why="the fraction of the last step that is kept")),
    l2=constant(L2, "give the largest λ of the schedule"),
    nesterov=flag(),
    reduction=REDUCTION,
    trace_axes=TRACE_AXES,
)
def max_learning_rate(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    momentum: ArrayLike | None = None,
    *,
    l2: ArrayLike,
    nesterov: bool = False,
    reduction: Reduction = "mean",
    trace_axes: int | tuple[int, ...] = (-1,),
) -> Array:
    r"""The learning rate up to which full-batch steps on MSE with L2 are stable.

    .. math:: \eta_\max = \frac{2 (1 + \beta)}{\gamma_\max + \lambda}, \qquad
              \eta_\max = \frac{2 (1 + \beta)}{(1 + 2\beta)(\gamma_\max + \lambda)} \text{ with Nesterov's momentum}

    of `sgd`, whose w moves in the largest mode of the kernel as in a parabola of curvature γ_max + λ. That is its
    curvature at t = 0: a network of degree k > 1 has it fall with the kernel, so that longer steps may become
    stable; at k = 0 it rises, and in the end no learning rate is stable. At `l2=0` it is neural-tangents' function of
    the same name. Minibatches are stable for less.

    Args:
        k_train_train, y_train, l2, reduction, trace_axes: as in `gradient_descent_mse`.
        momentum, nesterov: as in `sgd`.

    Returns:
        η_max, a scalar, infinite where nothing moves. Differentiable in `l2`, over which vmap runs.

    Raises:
        ValueError: as `gradient_descent_mse`.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> float(predict.max_learning_rate(np.eye(2), np.ones((2, 1)), l2=0.5))
    2.0
    """
    k_train_train, y_train = as_float(k_train_train, y_train)
    outputs = math.prod(y_train.shape) if reduction == "mean" else 1
    traced = _axes.canonical(trace_axes, y_train.shape)
    modes = decompose(k_train_train, y_train.shape, traced, outputs)
    return _limit(modes.rates, l2, 0.0 if momentum is None else momentum, bool(nesterov))


@partial(jax.jit, static_argnums=3)
def _limit(rates: Array, l2: ArrayLike, momentum: ArrayLike, nesterov: bool) -> Array:
    curvature = rates.max() + jnp.asarray(l2, rates.dtype)
    beta = jnp.asarray(momentum, rates.dtype)
    return 2 * (1 + beta) / ((1 + 2 * beta if nesterov else 1) * curvature)
