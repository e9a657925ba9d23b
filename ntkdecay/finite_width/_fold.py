r"""The λ at which L2 kills a network of degree k > 2, where it dies at a fold far from f = 0.

Where L + λ/2 ‖θ‖² is stationary, θ is a stationary point of L among parameters of its norm r, and

.. math:: \lambda(r) = -\frac{1}{r} \frac{d}{dr} \min_{\|\theta\| = r} L = -\frac{\theta\cdot\nabla L}{r^2}.

The norm parametrizes the branch through its folds, of which there is one for each feature that a network loses: λ(r) is 0
at large norms, where all is learned, and ∝ r^(k−2) at small ones. Its largest value is the λ beyond which nothing is left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize, minimize_scalar

from ntkdecay.finite_width._problem import Problem

_RATIO = 0.9  # of neighbouring norms on the branch
_LEARNED = 0.1  # of `Point.slope`: where the descent begins
_POINTS = 400


class Point(NamedTuple):
    """The least loss at one norm.

    Args:
        direction: θ/r, flat.
        l2: λ(r), of which it is the stationary point.
        slope: d ln(L(0) − L)/d ln r over k; 0 where all is learned, 1 where f is as small as to be linear in the loss.
    """

    direction: np.ndarray
    l2: float
    slope: float


def fold(task: Problem, start: Any) -> float:
    """The largest λ on the branch of least losses from the direction `start` on, by falling norm."""
    flat, _ = ravel_pytree(start)
    norm = float(jnp.linalg.norm(flat))
    least = _least(task)
    point = least(norm, np.asarray(flat, float))
    for _ in range(_POINTS):
        if point.slope < _LEARNED:
            break
        norm /= _RATIO
        point = least(norm, point.direction)
    k = float(task.degree)
    lost = 1 - (k - 2) / (8 * (k - 1))  # half way from the fold of one mode to no loss at all
    norms, points = [norm], [point]
    while points[-1].slope < lost and len(points) < _POINTS:
        norms.append(norms[-1] * _RATIO)
        points.append(least(norms[-1], points[-1].direction))
    best = int(np.argmax([p.l2 for p in points]))
    peak = minimize_scalar(
        lambda log_norm: -least(np.exp(log_norm), points[best].direction).l2,
        bounds=(np.log(norms[best] * _RATIO), np.log(norms[best] / _RATIO)),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return max(points[best].l2, -float(peak.fun))  # type: ignore[union-attr]


def _least(task: Problem) -> Callable[[float, np.ndarray], Point]:
    """The least loss at a norm, descended to from a direction."""
    zero = float(task.loss(jnp.zeros(task.f.out.shape, task.x.dtype), task.y))
    settings = {"maxiter": 2000, "ftol": 0.0, "gtol": float(np.finfo(task.x.dtype).eps) ** 0.5}

    def least(norm: float, direction: np.ndarray) -> Point:
        def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope, _ = _on_sphere(task, jnp.asarray(x, task.x.dtype), norm)
            return float(value) / zero, np.asarray(slope, float) / zero

        found = minimize(
            value_and_slope, direction, jac=True, method="L-BFGS-B", options=settings
        ).x
        found = found / np.linalg.norm(found)
        value, _, l2 = _on_sphere(task, jnp.asarray(found, task.x.dtype), norm)
        gained = zero - float(value)
        slope = float(l2) * norm**2 / (float(task.degree) * gained) if gained > 0 else 1.0
        return Point(found, float(l2), slope)

    return least


@jax.jit
def _on_sphere(task: Problem, x: Any, norm: Any) -> Any:
    """L at the parameters of this norm in the direction x, its gradient in x, and λ = −θ·∇L/‖θ‖²."""
    _, unravel = ravel_pytree(task.params)

    def loss(theta: Any) -> Any:
        return task.loss(task.outputs(unravel(theta)), task.y)

    theta, pull = jax.vjp(lambda x: x * (norm / jnp.linalg.norm(x)), x)
    value, slope = jax.value_and_grad(loss)(theta)
    return value, pull(slope)[0], -jnp.vdot(theta, slope) / norm**2
