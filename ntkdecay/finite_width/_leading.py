r"""The leading order, in the weights φ = θ/a that do not shrink, at the stages of an implicit Runge-Kutta method.

.. math:: \varphi = \varphi_0 - J_0^T R, \qquad \dot R = a^{k-2}\, \ell'(f_0(t)), \qquad f_0(t) = a^k (f(0) - \Theta R)

`ntkdecay.predict` has it: R = −w/a of its state. What is driven by it is integrated by three-stage Radau IIA collocation
(order 5, stiffly stable) on a mesh that grows in proportion to time.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ntkdecay import predict
from ntkdecay._host import on_host
from ntkdecay.finite_width._problem import Loss, Problem

Numbers = NDArray[Any]

_ROOT = math.sqrt(6)
RADAU = np.array(
    [
        [(88 - 7 * _ROOT) / 360, (296 - 169 * _ROOT) / 1800, (-2 + 3 * _ROOT) / 225],
        [(296 + 169 * _ROOT) / 1800, (88 + 7 * _ROOT) / 360, (-2 - 3 * _ROOT) / 225],
        [(16 - _ROOT) / 36, (16 + _ROOT) / 36, 1 / 9],
    ]
)
_STAGES = RADAU.sum(1)
SIZE = 256  # one program serves up to so many steps
_GROWTH, _FIRST, _DECAY = 1.15, 0.03, 0.25  # of steps: their ratio, the first × γ, the longest × kλ


class Leading(NamedTuple):
    """The leading order at the stages of every step; outputs are flat.

    Args:
        steps: (steps,), their lengths; ends: (steps,), when they end.
        a: (steps, 3), e^{−λt}; speed: (steps, 3, outputs), Ṙ.
    """

    steps: Numbers
    ends: Numbers
    a: Numbers
    speed: Numbers


class Kernel(NamedTuple):
    """Θ of the training outputs, (outputs, outputs), with its eigenvalues and eigenvectors."""

    matrix: Numbers
    values: Numbers
    vectors: Numbers


def leading_order(
    task: Problem, loss: Loss, kernel: Any, flat: Kernel, start: Any, asked: Numbers
) -> Leading:
    """The leading order until the last of the times asked, each of which ends a step.

    Args:
        loss: as it was given, of (fx, y); kernel: Θ as `empirical_ntk(trace_axes=())` gives it; flat: the same as a matrix.
        start: f(0) on the training points.
        asked: ascending, > 0.
    """
    l2, k = float(task.l2), float(task.degree)
    curvature = on_host(lambda f: jax.jvp(task.slope, (f,), (jnp.ones_like(f),))[1], start)
    rate = max(float(flat.values[-1] * np.abs(curvature).max()), 1e-300)
    mesh = _mesh(asked, rate, k * l2)
    steps = np.diff(mesh)
    times = mesh[:-1, None] + steps[:, None] * _STAGES
    padded = np.full(3 * SIZE * math.ceil(len(steps) / SIZE), times[-1, -1])
    padded[: times.size] = times.ravel()
    fine = task.x.dtype == np.float64
    rtol, atol = (1e-8, 1e-10) if fine else (None, None)
    predict_fn = predict.gradient_descent(
        loss, kernel, task.y, l2=l2, degree=k, trace_axes=(), rtol=rtol, atol=atol
    )
    weights = np.asarray(predict_fn(padded, predict.State(start)).weights, float)
    a = np.exp(-l2 * times)[..., None]
    moved = weights.reshape(padded.size, -1)[: times.size].reshape(*times.shape, -1) / a
    fx = np.asarray(start, float).ravel() + moved @ flat.matrix
    return Leading(steps, mesh[1:], a[..., 0], a ** (k - 2) * slopes(task, a**k * fx))


def slopes(task: Problem, outputs: Numbers) -> Numbers:
    """ℓ' at outputs (steps, 3, outputs) of the training points, which are flat."""
    rows = outputs.reshape(-1, *task.f.out.shape).astype(task.x.dtype)
    found = on_host(jax.vmap(task.slope), rows)
    return np.asarray(found, float).reshape(outputs.shape)


def _mesh(asked: Numbers, rate: float, decay: float) -> Numbers:
    """0 and times that grow geometrically from 1/rate on, with those that are asked among them."""
    longest = _DECAY / decay if decay else np.inf
    mesh, step = [0.0], min(_FIRST / rate, longest)
    while mesh[-1] < asked[-1]:
        mesh.append(mesh[-1] + step)
        step = min(max(step, (_GROWTH - 1) * mesh[-1]), longest)
    return np.unique(np.concatenate([mesh[:-1], asked]))
