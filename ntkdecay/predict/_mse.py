"""Gradient descent on MSE with L2: training and test points, any time, in closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, optional
from ntkdecay.homogeneity import Degree
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    ORIGIN,
    REDUCTION,
    TIME,
    TRACE_AXES,
    as_array,
    as_float,
    as_matrix,
    kernel,
    network_degree,
    refuse_shape,
)
from ntkdecay.predict._modes import Modes, decompose
from ntkdecay.predict._request import Origin, PredictFn, Reduction, Task, describe
from ntkdecay.predict._response import on_training_set, response
from ntkdecay.predict._schedule import LEARNING_RATE, Pieces, PiecewiseConstant, elapsed, penalty


@checked(
    k_train_train=kernel(),
    y_train=array(),
    l2=penalty(),
    degree=network_degree(),
    reduction=REDUCTION,
    learning_rate=LEARNING_RATE,
    l2_from=ORIGIN,
    trace_axes=TRACE_AXES,
)
def gradient_descent_mse(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    *,
    l2: ArrayLike | PiecewiseConstant,
    degree: float | Degree,
    reduction: Reduction = "mean",
    l2_from: Origin = "origin",
    trace_axes: int | tuple[int, ...] = (-1,),
) -> PredictFn:
    r"""Gradient flow of an infinitely wide network on MSE with L2, in closed form.

    .. math:: \dot f = -e^{-2(k-1)\lambda t}\,\Theta_0\,(f - y) - k\lambda f

    Eq. (1), Theorem 1 of Lewkowycz & Gur-Ari (2020), solved mode by mode (`mode`) in the eigenbasis
    of the training kernel Θ_0 = Σ γ_a ê_a ê_aᵀ. At a test point

    .. math:: f_*(t) = e^{-k\lambda t} f_*(0) + \sum_a (K_* \cdot \hat e_a)\,
              \frac{f_a(t) - e^{-k\lambda t} f_a(0)}{\gamma_a}

    The calling conventions are those of `neural_tangents.predict.gradient_descent_mse`, whose numbers
    `l2=0` gives. The kernel is decomposed here, once; a call of `predict_fn` costs products of matrices.

    Args:
        k_train_train: Θ_0 on the training points, of shape `zip(y_train.shape, y_train.shape)` without
            `trace_axes`.
        y_train: labels, samples on the first axis.
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖², or λ(t) as `PiecewiseConstant`. Traced values are fine: vmap
            over it for a whole path.
        degree: k of the network (`ntkdecay.homogeneity.degree` measures it): 0, 1 or any real > 1.
        reduction: "mean": L = ½ mean (f − y)² over all samples and outputs, neural-tangents' loss;
            "sum": L = ½ Σ (f − y)², the paper's.
        l2_from: "origin": the penalty is on θ; "init": on θ − θ_0. Then the kernel stands still whatever
            the degree, ḟ = −Θ_0 (f − y) − λ(f − f_0), and t = inf is kernel ridge regression of y − f_0.
        trace_axes: output axes that `k_train_train` lacks, along which it is block-diagonal.

    Returns:
        `predict_fn(t=None, fx_train_0=0., fx_test_0=None, k_test_train=None)` giving `fx_train_t`, or
        `(fx_train_t, fx_test_t)` with a test set, or `fx_test_t` alone with `fx_train_0=None`; times of
        shape `t.shape` lead. t=None is t = inf.

    Raises:
        ValueError: if shapes do not fit, the kernel is not finite, symmetric and positive
            semi-definite, or `l2`, `degree`, `learning_rate`, `reduction` or `t` is outside its range.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> predict_fn = predict.gradient_descent_mse(np.eye(2), np.ones((2, 1)), l2=0.01, degree=2, reduction="sum")
    >>> predict_fn(10.0, 0.0).round(3).tolist()
    [[0.977], [0.977]]
    """
    k_train_train, y_train = as_float(k_train_train, y_train)
    task = describe(y_train, l2, degree, reduction, learning_rate, l2_from, trace_axes)
    modes = decompose(k_train_train, task.shape, task.trace_axes, task.outputs)
    return InClosedForm(task, modes)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, repr=False)
class InClosedForm(PredictFn):
    __doc__ = PredictFn.__doc__

    task: Task
    modes: Modes
    of = "gradient_descent_mse"

    @checked(
        t=optional(TIME),
        fx_train_0=optional(array()),
        fx_test_0=optional(array()),
        k_test_train=optional(kernel()),
    )
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: ArrayLike | None = None,
    ) -> Any:
        t, start, start_test = self._asked(t, fx_train_0, fx_test_0, k_test_train)
        if start_test is None:
            return _on_training_points(self, t, start)
        k = as_array(k_test_train, self.task.y.dtype)
        shape = _axes.test_shape(k.shape, self.task.shape, self.task.trace_axes)
        refuse_shape(start_test, shape, "fx_test_0")
        return _on_test_points(self, t, start, start_test, k, shape)


@jax.jit
def _on_training_points(model: InClosedForm, t: Array, start: Array) -> Array:
    task, modes = model.task, model.modes
    start = task.flat(start, task.shape)
    f0, y = (modes.vectors.T @ f for f in (start, task.flat(task.y, task.shape)))
    f0, y = (jnp.zeros_like(f0), y - f0) if task.still else (f0, y)
    f = trained(task.time(t), modes.rates, task.pieces(), f0, y, task.degree)
    f = jnp.einsum("ia,tao->tio", modes.vectors, f)
    return task.restore(f + start[None] if task.still else f, t, task.shape)


@partial(jax.jit, static_argnames="shape")
def _on_test_points(
    model: InClosedForm,
    t: Array,
    start: Array | None,
    start_test: Array,
    k_test_train: Array,
    shape: tuple[int, ...],
) -> Any:
    task, modes = model.task, model.modes
    start_train = task.flat(0.0 if start is None else start, task.shape)
    f0, y = (modes.vectors.T @ f for f in (start_train, task.flat(task.y, task.shape)))
    f0, y = (jnp.zeros_like(f0), y - f0) if task.still else (f0, y)
    time, decay = task.time(t), task.pieces()
    f, far, w = everywhere(time, modes.rates, decay, f0, y, task.degree, modes.rates > 0)
    far = jnp.ones_like(far) if task.still else far
    w = jnp.einsum("ia,tao->tio", modes.vectors, w)
    pulled = jnp.einsum("ni,tio->tno", as_matrix(k_test_train) / modes.outputs, w)
    test = far[..., None] * task.flat(start_test, shape)[None] + pulled
    test = task.restore(test, t, shape)
    if start is None:
        return test
    f = jnp.einsum("ia,tao->tio", modes.vectors, f)
    return task.restore(f + start_train[None] if task.still else f, t, task.shape), test


def composed(piece: Callable, state: Any, decay: Pieces, degree: float) -> Any:
    """The state after all pieces of λ(t)."""
    pieces = (decay, decay.kernel_scale(degree))
    if decay.l2.size == 1:  # a loop would be compiled for nothing
        return piece(state, jax.tree.map(lambda leaf: leaf[0], pieces))[0]
    return jax.lax.scan(piece, state, pieces)[0]


def trained(t: Array, rates: Array, decay: Pieces, f0: Array, y: Array, degree: float) -> Array:
    """Each mode on the training points, (times, m, traced outputs), in the eigenbasis as f_0 and y are."""

    def piece(f: Array, now: tuple[Pieces, Array]) -> tuple[Array, None]:
        (l2, start, end), scale = now
        passed = elapsed(t, start, end)
        kept, learned, _ = on_training_set(passed, rates[None] * scale, l2[None, None], degree)
        return kept[..., None] * f + learned[..., None] * y[None], None

    return composed(piece, jnp.broadcast_to(f0, (t.shape[0], *f0.shape)), decay, degree)


def everywhere(
    t: Array, rates: Array, decay: Pieces, f0: Array, y: Array, degree: float, pulls: Array
) -> tuple[Array, Array, Array]:
    """`trained`, what is left of f_0 far from all training points, (times, 1), and what multiplies K_* ê_a.

    `pulls` says which modes reach other points: those with a gradient. A mode without one, γ = 0, is orthogonal
    to every row of K_*, so that what its limit would carry there is rounding times t.
    """

    def piece(state: tuple[Array, Array, Array], now: tuple[Pieces, Array]):
        (f, far, w), ((l2, start, end), scale) = state, now
        passed = elapsed(t, start, end)
        r = response(passed, rates[None] * scale, l2[None, None], degree)
        pull = r.learned_per_rate[..., None] * y[None] - r.kept_per_rate[..., None] * f
        pull = jnp.where(pulls[None, :, None], pull, 0.0)
        f = r.kept[..., None] * f + r.learned[..., None] * y[None]
        return (f, r.forgotten * far, r.forgotten[..., None] * w + scale * pull), None

    f = jnp.broadcast_to(f0, (t.shape[0], *f0.shape))
    return composed(piece, (f, jnp.ones_like(t), jnp.zeros_like(f)), decay, degree)
