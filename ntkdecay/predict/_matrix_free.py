"""Gradient descent on MSE with L2 where the kernel is too large to store: products with it are enough."""

import contextlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._at_once import at_once
from ntkdecay._checks import array, checked, function, integer, is_traced, number, optional
from ntkdecay._program import Program, read
from ntkdecay._refuse import refuse
from ntkdecay.homogeneity import Degree
from ntkdecay.predict import _axes, _spaces
from ntkdecay.predict._checks import (
    ORIGIN,
    REDUCTION,
    TIME,
    TRACE_AXES,
    as_float,
    network_degree,
    refuse_shape,
)
from ntkdecay.predict._krylov import Krylov, Product, deepened
from ntkdecay.predict._request import Origin, PredictFn, Reduction, Task, describe
from ntkdecay.predict._schedule import LEARNING_RATE, PiecewiseConstant, penalty

FIRST_DEPTH = 16
FIRST_ROOM = 32
PRODUCT = function("of one vector")


@checked(
    matvec=PRODUCT,
    y_train=array(),
    l2=penalty(),
    degree=network_degree(),
    reduction=REDUCTION,
    learning_rate=LEARNING_RATE,
    l2_from=ORIGIN,
    trace_axes=TRACE_AXES,
    tolerance=number(above=0),
    max_depth=integer(low=1),
)
def gradient_descent_mse_matrix_free(
    matvec: Product,
    y_train: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    *,
    l2: ArrayLike | PiecewiseConstant,
    degree: float | Degree,
    reduction: Reduction = "mean",
    l2_from: Origin = "origin",
    trace_axes: int | tuple[int, ...] = (-1,),
    tolerance: float = 1e-5,
    max_depth: int = 512,
) -> PredictFn:
    r"""`gradient_descent_mse` from products with the kernel.

    .. math:: f(t) = X_t(\Theta_0)\,y + e^{-x_t(\Theta_0)} f(0) \approx
              \|y\|\, Q X_t(T)\, e_1 + \|f(0)\|\, Q' e^{-x_t(T')} e_1

    The solution of eq. (1), Theorem 1 of Lewkowycz & Gur-Ari (2020), is a function of the matrix Θ_0
    applied to the labels and to the start. Lanczos' method, with full reorthogonalization, finds
    Q and the small tridiagonal T by d products with Θ_0; then the closed form on T gives
    all times, every l2 and the test points.

    On the training points the error is bounded. With :math:`f_d = Q(\dots)` and its weights
    :math:`w_d(t)` (f = a f_0 + Θ_0 w, a number a(t)) in the coordinates of Q,

    .. math:: \|f(t) - f_d(t)\| \le \beta_d\, |e_d^\top w_d(t)|

    since 1 − X_t and e^{−x_t} are mixtures of :math:`e^{-s\gamma}`, s >= 0, whose last coordinate
    :math:`e_d^\top e^{-sT} e_1` has one sign for all s. For test points products give no bound; there the error is
    estimated as the distance to what Gauss-Radau's T gives, which puts as much of the labels as the products
    allow where the kernel would not learn. Spaces grow until both, in RMS over points and outputs, are below
    `tolerance` relative to ‖y‖ and ‖f(0)‖ together. They are kept for later calls: more times cost nothing new
    unless they ask for more depth. If `t`, `l2` or `learning_rate` is traced (jit, vmap over l2), the depth cannot
    depend on them and is `max_depth` at once.

    Args:
        matvec: the product of Θ_0 with a vector of the shape of `y_train` without `trace_axes`; it
            must work under `jit` and `vmap`: `kernel_vector_product` for an analytic kernel,
            `ntkdecay.kernels.ntk_vector_product` for a finite network (with `trace_axes=()`).
        y_train, l2, degree, reduction, learning_rate, l2_from, trace_axes: as in
            `gradient_descent_mse`.
        tolerance: what the error may be; at least 10 ε of the dtype, which rounding alone can cost.
        max_depth: the most products with one vector. The memory is that of d to 4d vectors for each traced output,
            and the same again for a start that is not 0.

    Returns:
        `predict_fn` as of `gradient_descent_mse`, but `k_test_train` is the product of the kernel
        between test and training points with a vector, which gives one of shape (n_test, …).

    Raises:
        ValueError: as `gradient_descent_mse`; if a product does not fit; if the error may be above
            `tolerance` at `max_depth` (NaN where it is traced). At t = inf, l2 = 0 that
            is where labels may lie outside of what the kernel learns.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> predict_fn = predict.gradient_descent_mse_matrix_free(
    ...     lambda v: 2 * v, np.ones((2, 1)), l2=0.01, degree=2, reduction="sum")
    >>> predict_fn(10.0).round(3).tolist()
    [[0.988], [0.988]]
    """
    (y_train,) = as_float(y_train)
    least = 10 * float(jnp.finfo(y_train.dtype).eps)
    if tolerance < least:
        raise ValueError(
            f"`tolerance` is {tolerance}; in {y_train.dtype} it must be at least {least:.1g}, which rounding alone can cost."
        )
    task = describe(y_train, l2, degree, reduction, learning_rate, l2_from, trace_axes)
    rows, dtype = _axes.kept(task.shape, task.trace_axes), y_train.dtype
    given = _given(matvec, rows, dtype, "matvec")
    if given.shape != rows or given.dtype != dtype:
        raise ValueError(
            f"`matvec` gives {given.dtype}{list(given.shape)} for {dtype}{list(rows)}; with labels of shape "
            f"{task.shape} and trace_axes={task.trace_axes} it must give what it takes."
        )
    return FromProducts(task, _flat(matvec, task), float(tolerance), int(max_depth))


class FromProducts(PredictFn):
    __doc__ = PredictFn.__doc__
    of = "gradient_descent_mse_matrix_free"

    def __init__(self, task: Task, product: Program, tolerance: float, max_depth: int) -> None:
        self.task, self._product, self._tolerance = task, product, tolerance
        self._max_depth = min(max_depth, product.out.shape[0])
        self._labels = self._begun(task.y)

    @checked(
        t=optional(TIME),
        fx_train_0=optional(array()),
        fx_test_0=optional(array()),
        k_test_train=optional(PRODUCT),
    )
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Product | None = None,
    ) -> Any:
        t, start, start_test = self._asked(t, fx_train_0, fx_test_0, k_test_train)
        k_test, shape = None, ()
        if start_test is not None:
            k_test, shape = _test_side(k_test_train, self.task)
            refuse_shape(start_test, shape, "fx_test_0")
        asked = _spaces.Asked(self.task, t, start, k_test)
        starts = start is not None and (is_traced(start) or np.any(start))
        allowed = self._tolerance / (1 + starts)
        labels, part = self._grown(self._labels, asked, False, allowed)
        if not is_traced(labels):
            self._labels = labels
        parts = [part]
        if starts:
            parts.append(self._grown(self._begun(start), asked, True, allowed)[1])
        return _spaces.answer(asked, start_test, parts, shape)

    def _begun(self, f: Any) -> Krylov:
        with contextlib.nullcontext() if is_traced(f) else at_once():
            return _spaces.begun(self.task, f, self._room(FIRST_DEPTH))

    def _room(self, depth: int) -> int:
        """For so many vectors, of few sizes: each is a program."""
        room = FIRST_ROOM
        while room < depth:
            room *= 4
        return min(room, self._max_depth)

    def _grown(
        self, space: Krylov, asked: _spaces.Asked, is_start: bool, allowed: float
    ) -> tuple[Krylov, _spaces.Part]:
        """The space, deep enough for what is asked, and its part of f."""
        most = self._max_depth
        if is_traced(space, asked, self._product):
            with contextlib.nullcontext() if is_traced(space, self._product) else at_once():
                space, modes = deepened(self._product, space, most, most)
            found, part = _spaces.found(space, modes, asked, is_start, allowed)
        else:
            depth = max(int(space.depth), min(FIRST_DEPTH, most))
            while True:
                room = max(self._room(depth), space.capacity)
                with at_once():
                    space, found, part = _spaces.explored(
                        self._product, space, asked, is_start, allowed, depth, room
                    )
                found = jax.device_get(found)
                if not found.sound or found.error <= allowed or depth == most:
                    break
                depth = min(most, depth + max(8, depth // 2))
        part = refuse(
            part,
            ~found.finite,
            "`matvec` gives NaN or infinite entries; the usual cause is an input that is not finite, or an all-zero "
            "one under a normalization.",
        )
        part = refuse(
            part,
            found.indefinite,
            "`matvec` is not the product with a positive semi-definite matrix; compute the kernel in float64, or, if it "
            "is a sample estimate, from a larger batch of samples.",
        )
        part = refuse(
            part,
            found.error > allowed,
            f"The error of the Krylov spaces may be above `tolerance` = {self._tolerance} at `max_depth` = {most}: "
            "raise one of them, ask for earlier times or a larger l2, where f depends on fewer modes, or compute in float64.",
        )
        return space, part


def _given(product: Product, rows: tuple[int, ...], dtype: Any, name: str) -> Any:
    """Shape and dtype of what a product gives."""
    try:
        return jax.eval_shape(product, jax.ShapeDtypeStruct(rows, dtype))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"`{name}` does not take a vector of {dtype}{list(rows)}, the shape of `y_train` without trace_axes: {reason}"
        ) from error


def _flat(matvec: Product, task: Task) -> Program:
    """Products with Θ_0 over what the loss divides it by, of vectors (m,)."""
    rows, dtype = _axes.kept(task.shape, task.trace_axes), task.y.dtype

    def flat(v: Array) -> Array:
        return matvec(v.reshape(rows)).reshape(-1) / task.outputs

    return read(flat, jax.ShapeDtypeStruct((math.prod(rows),), dtype))


def _test_side(product: Any, task: Task) -> tuple[Program, tuple[int, ...]]:
    """`_flat` of the kernel between test and training points, and the shape of the outputs on the test points."""
    rows = _axes.kept(task.shape, task.trace_axes)
    given = _given(product, rows, task.y.dtype, "k_test_train").shape
    if len(given) != len(rows) or given[1:] != rows[1:]:
        raise ValueError(
            f"`k_test_train` gives {list(given)} for a vector of shape {rows}; it must give (n_test, …) with "
            "the same axes behind the samples."
        )
    return _flat(product, task), (given[0], *task.shape[1:])
