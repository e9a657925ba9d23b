r"""Late in training, when learning and decay are in balance and the kernel falls slowly.

The flow ḟ = −Θ_t ℓ' − kλf, Θ_t = e^{−ct} Θ_0, c = 2(k−1)λ, relaxes at the rates A = Θ_t ℓ'' + kλ to the point where it
stands still, and is late by what that point moves meanwhile, A ḟ = −ckλf:

.. math:: \Theta_t\, \ell'(f_q) + k\lambda f_q = 0, \qquad f = f_q + c k \lambda A^{-2} f_q.

With f = L d, Θ_0 = LLᵀ, f_q is the least of e^{−ct} ℓ(Ld) + kλ/2 ‖d‖²: convex where the loss is.
"""

from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, function, number, optional
from ntkdecay._degree import as_degree
from ntkdecay._program import Program, read
from ntkdecay.homogeneity import Degree
from ntkdecay.predict._checks import as_own, float_dtype, kernel, network_degree
from ntkdecay.predict._schedule import LEARNING_RATE
from ntkdecay.predict._state import Loss

_NEWTON = 100
_TIMES = 48  # at which is looked where it holds
_LEFT, _LATE = 0.001, 0.08  # of f: what is left of the start, and how late it may be


class _Task(NamedTuple):
    loss: Program
    root: Array  # L, (n, n)
    y: Array
    l2: Array
    degree: Any

    @property
    def fall(self) -> Any:
        """c."""
        return 2 * (self.degree - 1) * self.l2

    @property
    def decay(self) -> Any:
        """kλ."""
        return self.degree * self.l2


class LateTimeFn:
    """f late in training: `predict_fn(t, k_test_train=None)`.

    Args:
        t: time, any shape, >= 0, in the units of `gradient_descent`'s.
        k_test_train: Θ_0 between test and training points: f there is asked too.

    Returns:
        f on the training points, the axes of t before its own; with `k_test_train` the pair with that on the test points.

    Attributes:
        collapse: the time ln(γ/(kλ))/c at which the loss holds f = 0 no faster than it decays, γ the largest eigenvalue of
            Θ_0 ℓ''(0): about there the function collapses; 0 where it is never held.
        valid: from when to when f is within 2 % of the flow that began at f = 0, by its own estimates: what is left of the
            start is below 0.1 % of f, and f is late by less than 8 % of itself. nan where it never is.
    """

    def __init__(self, task: _Task, learning_rate: Array) -> None:
        self._task, self._rate = task, learning_rate

    def __repr__(self) -> str:
        return f"<predict_fn(t, k_test_train=None) of late_time for labels of shape {self._task.y.shape}>"

    @checked(
        t=array(low=0, why="gradient-flow time starts at initialization"),
        k_test_train=optional(array(ndim=2)),
    )
    def __call__(self, t: ArrayLike, k_test_train: ArrayLike | None = None) -> Any:
        task = self._task
        times = as_own(t, task.y.dtype)
        if k_test_train is None:
            return _f(task, self._rate, times)
        k_test = as_own(k_test_train, task.y.dtype)
        if k_test.shape[1:] != task.y.shape[:1]:
            raise ValueError(
                f"`k_test_train` has shape {k_test.shape}; it must be (n_test, {len(task.y)}), as the labels are {task.y.shape}."
            )
        return _f_and_test(task, self._rate, times, k_test)

    @cached_property
    def collapse(self) -> Array:
        return _collapse(self._task) / self._rate

    @cached_property
    def valid(self) -> tuple[Array, Array]:
        start, end = _valid(self._task)
        return start / self._rate, end / self._rate


@checked(
    loss=function("of (fx, y)"),
    k_train_train=kernel(),
    y_train=array(ndim=2),
    l2=number(above=0, why="it multiplies ‖θ‖²/2 in the loss"),
    degree=network_degree(),
    learning_rate=LEARNING_RATE,
)
def late_time(
    loss: Loss,
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    *,
    l2: ArrayLike,
    degree: float | Degree,
) -> LateTimeFn:
    r"""Late training of an infinitely wide network under L2, where its loss and its decay are in balance: softmax above all.

    .. math:: \Theta_t\, \frac{\partial L}{\partial f} + k\lambda f_q = 0, \qquad
              f = f_q + 2(k-1)k\lambda^2\, (\Theta_t\, \ell'' + k\lambda)^{-2} f_q, \qquad \Theta_t = e^{-2(k-1)\lambda t}\Theta_0

    After `gradient_descent` has forgotten its start, at any t without the way there, to next order in how slowly the
    kernel falls. One logit, label 1: γe^{−2(k−1)λt} σ(−f) = kλf, so that f falls almost linearly,
    f ≈ ln(γ/(kλf)) − 2(k−1)λt, and collapses when γe^{−2(k−1)λt} is down to some kλ.

    Args:
        loss: `loss(fx_train, y_train)`, a scalar, convex in f, without the L2 term.
        k_train_train: Θ_0 on the training points, (n, n); y_train: labels, (n, outputs), of the shape of f.
        learning_rate: multiplies every rate. l2: λ > 0. degree: k > 1 of the network.

    Returns:
        `predict_fn(t, k_test_train=None)`, with `predict_fn.collapse` and `predict_fn.valid`, the times between which it is
        within 2 % of the flow. It solves systems of n × outputs unknowns at each time, one after the other.

    Raises:
        ValueError: for degree 1 or 0, whose kernel does not fall; for shapes that do not fit.

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from ntkdecay import predict
    >>> def cross_entropy(fx, y):
    ...     return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))
    ...
    >>> predict_fn = predict.late_time(cross_entropy, np.eye(2), np.eye(2), l2=1e-5, degree=2)
    >>> f = predict_fn([1e5, 2e5])
    >>> round(float(f[0, 0, 0] - f[1, 0, 0]), 2)
    0.85
    """
    k = as_degree(degree)
    if k <= 1:
        raise ValueError(
            f"`degree` is {k:g}, whose kernel does not fall: the flow comes to rest, which `gradient_descent` gives at t = None."
        )
    dtype = float_dtype(k_train_train, y_train)
    theta, y, strength = (as_own(one, dtype) for one in (k_train_train, y_train, l2))
    if theta.shape != (len(y), len(y)):
        raise ValueError(
            f"`k_train_train` has shape {theta.shape} and `y_train` {y.shape}; they must be (n, n) and (n, outputs)."
        )
    program = read(loss, y, y)
    if getattr(program.out, "shape", None) != ():
        raise ValueError(f"`loss` gives {program.out}; it must give one number.")
    return LateTimeFn(_Task(program, _root(theta), y, strength, as_own(k, dtype)), as_own(learning_rate, dtype))  # fmt: skip


@jax.jit
def _root(theta: Array) -> Array:
    values, vectors = jnp.linalg.eigh((theta + theta.T) / 2)
    return vectors * jnp.sqrt(jnp.maximum(values, 0))[None]


def _curvature(task: _Task, f: Array) -> Array:
    """ℓ'' at f, (n, outputs, n, outputs)."""
    return jax.hessian(lambda f: task.loss(f, task.y))(f)


def _rates(task: _Task, f: Array, scale: Array) -> Array:
    """Lᵀ Θ_t-scaled ℓ'' L + kλ, symmetric, in which f's relaxation is A."""
    size = f.size
    held = jnp.einsum("ia,icjd,jb->acbd", task.root, _curvature(task, f), task.root)
    return scale * held.reshape(size, size) + task.decay * jnp.eye(size, dtype=f.dtype)


def _balance(task: _Task, scale: Array) -> Array:
    """d of f_q = L d, by Newton's steps, halved until they descend."""
    tiny = jnp.finfo(task.y.dtype).eps

    def objective(d: Array) -> Array:
        return scale * task.loss(task.root @ d, task.y) + task.decay / 2 * jnp.sum(d**2)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, d, _ = state
        value, slope = jax.value_and_grad(objective)(d)
        whole = -jnp.linalg.solve(_rates(task, task.root @ d, scale), slope.reshape(-1))
        whole = whole.reshape(d.shape)
        gain = -jnp.vdot(slope, whole)

        def too_long(share: Array) -> Array:
            descends = objective(d + share * whole) <= value - 1e-4 * share * gain
            return ~descends & (share > 1e-6) & (gain > tiny * jnp.abs(value))

        share = lax.while_loop(too_long, lambda share: share / 2, jnp.ones((), d.dtype))
        return i + 1, d + share * whole, gain > tiny * jnp.abs(value)

    first = jnp.array(0), jnp.zeros_like(task.y), jnp.array(True)
    return lax.while_loop(lambda s: (s[0] < _NEWTON) & s[2], step, first)[1]


class _Late(NamedTuple):
    """At one time: d of f_q, its delay δ, and A in the coordinates of d."""

    d: Array
    delay: Array
    rates: Array


def _late(task: _Task, t: Array) -> _Late:
    scale = jnp.exp(-task.fall * t)
    d = _balance(task, scale)
    rates = _rates(task, task.root @ d, scale)
    twice = jnp.linalg.solve(rates, jnp.linalg.solve(rates, d.reshape(-1)))
    return _Late(d, task.fall * task.decay * twice.reshape(d.shape), rates)


@jax.jit
def _f(task: _Task, learning_rate: Array, t: Array) -> Array:
    def at(t: Array) -> Array:
        late = _late(task, t)
        return task.root @ (late.d + late.delay)

    return lax.map(at, learning_rate * t.reshape(-1)).reshape(*t.shape, *task.y.shape)


@jax.jit
def _f_and_test(task: _Task, learning_rate: Array, t: Array, k_test: Array) -> tuple[Array, Array]:
    """By weights w of the training points, f = Θ_0 w: Lᵀw = d, without a division by small eigenvalues."""

    def at(t: Array) -> tuple[Array, Array]:
        late, scale = _late(task, t), jnp.exp(-task.fall * t)
        f = task.root @ late.d
        curvature = _curvature(task, f)

        def solved(w: Array, p: Array) -> Array:
            """w of A^{−1} d, from w of d and p = A^{−1} d itself: kλ p = d − Lᵀ ℓ'' L p."""
            return (w - scale * jnp.einsum("icjd,jd->ic", curvature, task.root @ p)) / task.decay

        w = -scale * jax.grad(lambda f: task.loss(f, task.y))(f) / task.decay
        once = jnp.linalg.solve(late.rates, late.d.reshape(-1)).reshape(f.shape)
        twice = late.delay / (task.fall * task.decay)
        w_late = task.fall * task.decay * solved(solved(w, once), twice)
        return f + task.root @ late.delay, k_test @ (w + w_late)

    f, test = lax.map(at, learning_rate * t.reshape(-1))
    return f.reshape(*t.shape, *f.shape[1:]), test.reshape(*t.shape, *test.shape[1:])


@jax.jit
def _collapse(task: _Task) -> Array:
    held = _rates(task, jnp.zeros_like(task.y), jnp.ones((), task.y.dtype))
    fastest = jnp.linalg.eigvalsh(held)[-1] - task.decay
    return jnp.maximum(jnp.log(fastest / task.decay), 0.0) / task.fall


@jax.jit
def _valid(task: _Task) -> tuple[Array, Array]:
    """The first and the last time of a grid up to the collapse."""
    times = jnp.maximum(_collapse(task), 1 / task.fall) * jnp.geomspace(1e-3, 1.2, _TIMES)
    start = _balance(task, jnp.ones((), task.y.dtype)).reshape(-1)  # what a flow from 0 lacks

    def at(t: Array) -> tuple[Array, Array]:
        late = _late(task, t)
        rates, vectors = jnp.linalg.eigh(late.rates)
        left = vectors @ (jnp.exp(-rates * t) * (vectors.T @ start))
        f, left, delay = (
            jnp.linalg.norm(task.root @ x.reshape(late.d.shape)) for x in (late.d, left, late.delay)
        )
        return left < _LEFT * f, delay < _LATE * f

    forgotten, in_time = lax.map(at, times)
    # forgotten from a time on, and not late up to another
    first = times.size - jnp.argmin(jnp.append(forgotten[::-1], False))
    last = jnp.argmin(jnp.append(in_time, False)) - 1
    holds = (first <= last) & (first < times.size)
    return jnp.where(holds, times[first % times.size], jnp.nan), jnp.where(
        holds, times[last], jnp.nan
    )
