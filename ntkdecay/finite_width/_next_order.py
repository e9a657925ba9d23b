"""A network's own function at any time, to next order in 1/width, from its initialization."""

import math
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._arrays import own
from ntkdecay._checks import array, checked, integer, number, optional
from ntkdecay._host import on_host
from ntkdecay._program import Program
from ntkdecay.finite_width._leading import Kernel, Leading, Numbers, leading_order
from ntkdecay.finite_width._path import Mended, Path, mended, path
from ntkdecay.finite_width._problem import RULES, SQUARES, Loss, Problem, problem, same_kind
from ntkdecay.homogeneity import Degree
from ntkdecay.kernels._checks import ApplyFn, exact, read_at
from ntkdecay.kernels._empirical import empirical_ntk
from ntkdecay.predict._checks import as_matrix


@checked(
    **RULES | {"l2": number(low=0, why="it multiplies ‖θ‖²/2 in the loss")},
    sweeps=integer(low=1),
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
            itself; what a sweep changes is about the error of those before it.

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
    task = problem(apply_fn, params, x_train, y_train, l2, degree, reduction, loss)
    kernel = np.asarray(empirical_ntk(apply_fn, params, task.x, trace_axes=()))
    matrix: Any = as_matrix(kernel)  # pyright: ignore[reportArgumentType]
    values, vectors = np.linalg.eigh(matrix)
    flat = Kernel(matrix, np.maximum(values, 0.0), vectors)
    curvature = None
    if loss is None:
        curvature = 1.0 / math.prod(task.f.out.shape) if reduction == "mean" else 1.0
    with exact():
        start = own(on_host(_outputs, task.f, params, task.x, compiled=_compiled))
    settings = Settings(apply_fn, loss or SQUARES[reduction], curvature, sweeps)
    return NextOrderFn(settings, task, kernel, flat, start)


class Settings(NamedTuple):
    """How a network is predicted."""

    apply_fn: ApplyFn
    loss: Loss
    curvature: float | None  # ∂²L/∂f² where it is one number
    sweeps: int


class NextOrderFn:
    """f of one network at any time: `predict_fn(t, x_test=None)`.

    Args:
        t: gradient-flow time, any shape, >= 0.
        x_test: (n, ...), where f is asked; None: on the training points.

    Returns:
        f, the axes of t before its own.
    """

    def __init__(
        self, settings: Settings, task: Problem, kernel: Any, flat: Kernel, start: Array
    ) -> None:
        self._settings, self._task, self._kernel = settings, task, kernel
        self._flat, self._start = flat, start

    @property
    def degree(self) -> float:
        """k of the network."""
        return float(self._task.degree)

    def __repr__(self) -> str:
        return (
            f"<predict_fn(t, x_test=None) of next_order for outputs of shape {self._task.f.out.shape}, "
            f"degree={self.degree:g}, l2={float(self._task.l2):g}>"
        )

    @checked(
        t=array(low=0, why="gradient-flow time starts at initialization"), x_test=optional(array())
    )
    def __call__(self, t: ArrayLike, x_test: ArrayLike | None = None) -> Array:
        task, apply_fn = self._task, self._settings.apply_fn
        times, test = np.asarray(t, float), None
        kernel, shape = self._flat.matrix, self._start.shape
        if x_test is not None:
            x = same_kind(task, x_test)
            f = read_at(apply_fn, task.params, x, len(x))
            between = empirical_ntk(apply_fn, task.params, x, task.x, trace_axes=())
            matrix: Any = np.asarray(between, float)
            kernel, shape, test = np.asarray(as_matrix(matrix)), f.out.shape, (f, x)
        asked = np.unique(times[times > 0])
        found = np.empty((1 + asked.size, math.prod(shape)))
        if asked.size:
            walk = self.walk(asked, test)
            ends = np.searchsorted(walk.leading.ends, asked)
            self._refuse(walk, ends)
            there = walk.path.fx[:, -1] if test is None else walk.path.fx_test
            shrunk = walk.leading.a[ends, -1][:, None] ** self.degree
            found[0] = np.asarray(self._start).ravel() if test is None else walk.path.first
            found[1:] = shrunk * (there[ends] - walk.missing.r[ends] @ kernel.T)
        else:
            with exact():
                f, x = (task.f, task.x) if test is None else test
                found[0] = np.asarray(_compiled(f, task.params, x)).ravel()
        rows = np.searchsorted(asked, times) + (times > 0)
        return own(found[rows].reshape(*times.shape, *shape).astype(task.x.dtype))

    def _refuse(self, walk: "Walk", ends: Numbers) -> None:
        """No answer where the last sweep's change, by a kernel that is no longer Θ, may be as wrong as f is large."""
        strength = walk.strength()[:, -1]
        shrunk = walk.leading.a[:, -1] ** self.degree
        change = walk.missing.fx[:, -1]
        with np.errstate(all="ignore"):
            size = shrunk * np.sqrt(np.mean((walk.path.fx[:, -1] + change) ** 2, 1))
            error = shrunk * np.sqrt(np.mean(change**2, 1)) * np.abs(strength - 1)
            wrong = ~(error < _LARGEST * size)
        if wrong[ends].any():
            first = int(np.argmax(wrong))
            raise ValueError(
                f"`t` is {walk.leading.ends[ends[-1]]:.3g}; from {walk.leading.ends[first]:.3g} on, where the kernel is "
                f"{strength[first]:.2g} times the one that decays, the estimated error is above "
                f"{100 * _LARGEST:.0f} % of f: ask for earlier times, near `departure_time`, or more `sweeps`."
            )

    def walk(self, asked: Numbers, test: tuple[Program, Any] | None = None) -> "Walk":
        """The last sweep, to the last of ascending times, each of which ends a step."""
        task, settings = self._task, self._settings
        leading = leading_order(task, settings.loss, self._kernel, self._flat, self._start, asked)
        speed = leading.speed
        for left in reversed(range(settings.sweeps)):
            seen = path(task, leading, speed, None if left else test)
            missing = mended(task, self._flat, leading, speed, seen.fx, settings.curvature)
            if left:
                speed = speed + missing.speed
        return Walk(leading, speed, seen, missing, self._flat)


_LARGEST = 0.3  # of errors, relative to f


class Walk(NamedTuple):
    """A sweep: the residuals' Ṙ = `speed`, the path that it gives and what is missing in it."""

    leading: Leading
    speed: Numbers
    path: Path
    missing: Mended
    kernel: Kernel

    def strength(self) -> Numbers:
        """The kernel on the path relative to Θ, in the direction in which it moves f: ‖J(φ)ᵀṘ‖²/‖J_0ᵀṘ‖², (steps, 3)."""
        flat = np.einsum("tsx,xy,tsy->ts", self.speed, self.kernel.matrix, self.speed)
        return self.path.push / np.maximum(flat, np.finfo(float).tiny)


def _outputs(f: Program, params: Any, x: Any) -> Array:
    return f(params, x)


_compiled = jax.jit(_outputs)
