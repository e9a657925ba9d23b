"""A network's own function at any time, to next order in 1/width, from its initialization."""

import math
from typing import Any, Literal

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._arrays import own
from ntkdecay._checks import array, checked, integer, number, optional
from ntkdecay.finite_width._leg import Leg, Settings, compiled, leg_from
from ntkdecay.finite_width._problem import RULES, SQUARES, Loss, problem, same_kind
from ntkdecay.homogeneity import Degree
from ntkdecay.kernels._checks import ApplyFn, exact, read_at


@checked(
    **RULES | {"l2": number(low=0, why="it multiplies ‖θ‖²/2 in the loss")},
    sweeps=integer(low=1),
    restarts=integer(low=0),
)
def next_order(
    apply_fn: ApplyFn,
    params: Any,
    x_train: ArrayLike,
    y_train: ArrayLike,
    *,
    l2: float,
    degree: float | Degree | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    loss: Loss | None = None,
    sweeps: int = 1,
    restarts: int = 0,
) -> "NextOrderFn":
    r"""Gradient flow with L2 of one network, predicted from its initialization to next order in 1/width.

    .. math:: \frac{dK^{(r)}}{dt} = -\sum_j K^{(r+1)}_{\ldots j} \frac{\partial\ell}{\partial f_j}
              - \lambda\, d_r K^{(r)}, \qquad K^{(r+1)} = \nabla K^{(r)} \cdot \nabla f, \qquad d_r = r(k-2) + 2

    The hierarchy of Huang & Yau (2020) with decay, K⁽²⁾ = Θ. Infinite width is its first equation, with the network's own f
    and Θ at initialization; the next order takes K⁽³⁾ and K⁽⁴⁾ too. Neither is formed here: they are what moves the
    network along the path that infinite width's residuals drive it on, and f along this path, with linear response of
    the residuals by Θ, has them and all that a displacement of that size does, kinks of ReLU included. In the weights
    φ = θ e^{λt} the path is that of training without L2:

    .. math:: \dot\varphi = -a^{k-2} J(\varphi)^T \ell'(f_0(t)), \quad
              f(t) = a^k [f(\varphi) - \Theta\, \delta R], \quad
              \delta\dot R = a^{k-2} [\ell'(a^k f(\varphi)) - \ell'(f_0) - a^k \ell'' \Theta\, \delta R], \quad
              a = e^{-\lambda t}

    Unlike gradient flow, this is not stiff: a hundred steps serve any spectrum of Θ. What is left is of order 1/width²
    for smooth activations, where infinite width is off by 1/width, as long as the kernel that decays is above the one
    that features make: until t ≈ ln(width)/(2kλ), `departure_time`.

    Args:
        apply_fn: the network, f(params, x) -> (n, ...), homogeneous of degree k > 0 in its parameters.
        params: pytree of arrays of one floating dtype, at initialization; float64 for small corrections.
        x_train, y_train: the samples and labels of the loss.
        l2: λ >= 0 of L + λ/2 ‖θ‖².
        degree: k, which is verified; None: measured by `ntkdecay.homogeneity.degree`.
        reduction: MSE as ½ mean or ½ sum of (f − y)² over samples and outputs; of no effect on `loss`.
        loss: `loss(fx_train, y_train)`, a number, without the L2 term; None: MSE. Another loss factorizes a matrix of
            (3 × training outputs)² in each of about a hundred steps.
        sweeps: how often the residuals are found and the path is walked. Each gains an order, and in the end it is the flow
            itself, to the 1e-5 of its steps, as long as the kernel is less than twice Θ.
        restarts: how often the network may begin anew from the weights that it has reached, with their kernel, where the
            kernel on the path is 1.5 times the last one or a third less. They reach beyond `departure_time`, where about
            5(k−1)λΔt of them are needed, each at the cost of a kernel.

    Returns:
        `predict_fn(t, x_test=None)`, see `NextOrderFn`.

    Raises:
        TypeError, ValueError: if params and x_train are not of one floating dtype, labels or loss do not suit the
            network, or it is not homogeneous or of another degree; by `predict_fn`, for times at which the error is
            estimated above 30 % of f: |δf| of the last sweep times how far the kernel on the path is from Θ.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import finite_width
    >>> def f(params, x):
    ...     return x @ params[0] @ params[1] / 2
    ...
    >>> params = (jnp.array([[1.0, -0.5, 0.2, 0.7]]), jnp.array([[0.3], [0.8], [-0.6], [1.0]]))
    >>> predict_fn = finite_width.next_order(f, params, jnp.ones((1, 1)), jnp.ones((1, 1)), l2=0.1)
    >>> predict_fn(jnp.array([0.0, 1.0]), jnp.full((3, 1), 2.0)).shape
    (2, 3, 1)
    """
    given = (apply_fn, params, x_train, y_train, l2, degree, reduction, loss)
    return NextOrderFn(first_leg(*given, sweeps), restarts)


def first_leg(
    apply_fn: ApplyFn,
    params: Any,
    x_train: ArrayLike,
    y_train: ArrayLike,
    l2: float,
    degree: float | Degree | None,
    reduction: Literal["mean", "sum"],
    loss: Loss | None,
    sweeps: int = 1,
) -> Leg:
    """The network at the start."""
    task = problem(apply_fn, params, x_train, y_train, l2, degree, reduction, loss)
    curvature = None
    if loss is None:
        curvature = 1.0 / math.prod(task.f.out.shape) if reduction == "mean" else 1.0
    settings = Settings(apply_fn, loss or SQUARES[reduction], curvature, sweeps)
    return leg_from(settings, task)


class NextOrderFn:
    """f of one network at any time: `predict_fn(t, x_test=None)`.

    Args:
        t: gradient-flow time, any shape, >= 0.
        x_test: (n, ...), where f is asked; None: on the training points.

    Returns:
        f, the axes of t before its own.
    """

    def __init__(self, leg: Leg, restarts: int) -> None:
        self._leg, self._restarts = leg, restarts

    def __repr__(self) -> str:
        task = self._leg.task
        return (
            f"<predict_fn(t, x_test=None) of next_order for outputs of shape {task.f.out.shape}, "
            f"degree={float(task.degree):g}, l2={float(task.l2):g}>"
        )

    @checked(
        t=array(low=0, why="gradient-flow time starts at initialization"), x_test=optional(array())
    )
    def __call__(self, t: ArrayLike, x_test: ArrayLike | None = None) -> Array:
        leg = self._leg
        times, test = np.asarray(t, float), None
        if x_test is not None:
            x = same_kind(leg.task, x_test)
            test = read_at(leg.settings.apply_fn, leg.task.params, x, len(x)), x
        f, x = test or (leg.task.f, leg.task.x)
        asked = np.unique(times[times > 0])
        first, found = None, []
        for left in reversed(range(self._restarts + 1)):
            if not asked.size:
                break
            walk = leg.walk(asked - leg.since, test)
            until = walk.kept() if left else len(walk.leading.ends)
            here = asked - leg.since <= walk.leading.ends[until - 1]
            rows = np.searchsorted(walk.leading.ends, asked[here] - leg.since)
            leg.refuse(walk, rows)
            found.append(leg.outputs(walk, rows, test))
            if first is None:
                first = leg.start if test is None else walk.path.first
            asked = asked[~here]
            leg = leg.after(walk, until) if asked.size else leg
        if first is None:
            with exact():
                first = compiled(f, leg.task.params, x)
        found = np.concatenate([np.reshape(first, (1, -1)), *found])
        rows = np.searchsorted(np.unique(times[times > 0]), times) + (times > 0)
        return own(found[rows].reshape(*times.shape, *f.out.shape).astype(leg.task.x.dtype))
