"""Gradient descent on MSE with L2 where the kernel is too large to store: products with it are enough."""

import contextlib
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax import ensure_compile_time_eval as at_once
from jax.typing import ArrayLike

from ntkdecay._checks import is_traced
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    as_float,
    check_degree,
    check_non_negative,
    check_origin,
    check_reduction,
    check_request,
    check_shape,
    refuse,
)
from ntkdecay.predict._krylov import Krylov, Product, deepen, krylov
from ntkdecay.predict._mse import everywhere, trained
from ntkdecay.predict._request import Origin, Reduction, Task, describe
from ntkdecay.predict._schedule import Pieces, PiecewiseConstant, penalty

FIRST_DEPTH = 16


def gradient_descent_mse_matrix_free(
    matvec: Product,
    y_train: ArrayLike,
    *,
    l2: ArrayLike | PiecewiseConstant,
    degree: float,
    reduction: Reduction = "mean",
    learning_rate: ArrayLike = 1.0,
    l2_from: Origin = "origin",
    trace_axes: int | tuple[int, ...] = (-1,),
    tolerance: float = 1e-5,
    max_depth: int = 512,
) -> Any:
    r"""`gradient_descent_mse` from products with the kernel.

    .. math:: f(t) = X_t(\Theta_0)\,y + e^{-x_t(\Theta_0)} f(0) \approx
              \|y\|\, Q X_t(T)\, e_1 + \|f(0)\|\, Q' e^{-x_t(T')} e_1

    The solution of eq. (1), Theorem 1 of Lewkowycz & Gur-Ari (2020), is a function of the matrix Θ_0
    applied to the labels and to the start. Lanczos' method, with full reorthogonalization, finds
    Q and the small tridiagonal T by d products with Θ_0; then `gradient_descent_mse` on T gives
    all times, every l2 and the test points.

    The error is estimated as the distance to what 3/4 of the space gives: the largest over t of
    ‖f_d(t) − f_{3d/4}(t)‖, relative to ‖y‖ and ‖f(0)‖ together, both in RMS over points and outputs.
    Spaces double until it is below `tolerance`. They are kept for later calls: more times cost nothing
    new unless they ask for more depth. If `t`, `l2` or `learning_rate` is traced (jit, vmap over l2), the depth
    cannot depend on them and is `max_depth` at once.

    Args:
        matvec: the product of Θ_0 with a vector of the shape of `y_train` without `trace_axes`; it
            must work under `vmap`: `kernel_vector_product` for an analytic kernel,
            `ntkdecay.kernels.ntk_vector_product` for a finite network (with `trace_axes=()`).
        y_train, l2, degree, reduction, learning_rate, l2_from, trace_axes: as in
            `gradient_descent_mse`.
        tolerance: what the estimated error may be, > 0.
        max_depth: the most products with one vector. The memory is d vectors for each traced output,
            and the same again for a start that is not 0.

    Returns:
        `predict_fn` as of `gradient_descent_mse`, but `k_test_train` is the product of the kernel
        between test and training points with a vector, which gives one of shape (n_test, …).

    Raises:
        ValueError: as `gradient_descent_mse`; if a product does not fit; if the estimated error is above
            `tolerance` at `max_depth` (an error at run time where it is traced).
    """
    if not tolerance > 0:
        raise ValueError(f"`tolerance` is {tolerance}; it must be > 0.")
    if max_depth < 1:
        raise ValueError(f"`max_depth` is {max_depth}; it must be >= 1.")
    (y_train,) = as_float(y_train)
    check_degree(degree)
    penalty()("l2", l2)
    check_non_negative(learning_rate, "learning_rate", "it turns steps into gradient-flow time")
    check_origin(l2_from)
    check_reduction(reduction)
    task = describe(y_train, l2, degree, reduction, learning_rate, l2_from, trace_axes)
    y, dtype, decay = task.flat(task.y, task.shape), y_train.dtype, task.pieces()
    rows = _axes.kept(task.shape, task.trace_axes)
    m = math.prod(rows)
    max_depth = min(max_depth, m)
    given = jax.eval_shape(matvec, jax.ShapeDtypeStruct(rows, dtype))
    if given.shape != rows or given.dtype != dtype:
        raise ValueError(
            f"`matvec` gives {given.dtype}{list(given.shape)} for {dtype}{list(rows)}; with labels of shape "
            f"{task.shape} and trace_axes={task.trace_axes} it must give what it takes."
        )

    def flat_matvec(v: Array) -> Array:
        return matvec(v.reshape(rows)).reshape(-1) / task.outputs

    def in_space(space: Krylov, depths: tuple[int, int], time: Array, is_start: bool) -> Array:
        """f and, for test points, w in the coordinates of the space, (depths, 2, times, o, d)."""

        def one(rates: Array, vectors: Array, b: Array) -> Array:
            column, zero = b[:, None], jnp.zeros_like(b)[:, None]
            f0, y = (column, zero) if is_start else (zero, column)
            f0, y = (zero, y - f0) if task.still else (f0, y)
            arguments = time, rates, vectors, decay, f0, y, task.degree
            return jnp.stack([_train(*arguments), _weights(*arguments)[1]])[..., 0]

        ritz = (jnp.stack(parts) for parts in zip(*map(space.ritz, depths), strict=True))
        return jnp.moveaxis(jax.vmap(jax.vmap(one))(*ritz), 1, 3)[..., : space.depth]

    def grown(
        space: Krylov, time: Array, is_start: bool, k_test: Product | None, allowed: Array
    ) -> tuple[Krylov, list[Array]]:
        """The space, deep enough, and its part of f on training and test points, (times, points, o)."""
        depth = max_depth if is_traced(time, decay) else space.depth
        while True:
            with contextlib.nullcontext() if is_traced(labels, space) else at_once():
                space = deepen(flat_matvec, space, depth) if depth > space.depth else space
            best, less = in_space(space, (depth, max(1, 3 * depth // 4)), time, is_start)
            # (answer and what 3/4 of the space lacks of it, times, m, o)
            both = jnp.einsum("xytod,odm->yxtmo", jnp.stack([best, best - less]), space.basis)
            parts = [both[0]] if k_test is None else [both[0], k_test(both[1])]
            error = (
                jnp.stack([(p[1] ** 2).mean((1, 2)).max(initial=0.0) for p in parts]).max() ** 0.5
            )
            wrong = (error > allowed) & (depth < m)
            if is_traced(wrong) or not wrong or depth == max_depth:
                break
            depth = min(max_depth, 2 * depth)
        message = (
            f"The estimated error of the Krylov spaces is above `tolerance` = {tolerance} at `max_depth` = {max_depth}: "
            "raise one of them, or ask for earlier times or a larger l2, where f depends on fewer modes."
        )
        return space, [refuse(p[0], wrong, message) for p in parts]

    labels = krylov(flat_matvec, y, min(FIRST_DEPTH, max_depth))

    def test_side(product: Product) -> tuple[Product, tuple[int, ...]]:
        test_rows = jax.eval_shape(product, jax.ShapeDtypeStruct(rows, dtype)).shape
        if len(test_rows) != len(rows) or test_rows[1:] != rows[1:]:
            raise ValueError(
                f"`k_test_train` gives {list(test_rows)} for a vector of shape {rows}; it must give (n_test, …) with "
                "the same axes behind the samples."
            )

        def on_columns(w: Array) -> Array:
            columns = jnp.moveaxis(w, 2, 3).reshape(-1, *rows)
            found = jax.vmap(product)(columns).reshape(*w.shape[:2], w.shape[3], -1)
            return jnp.moveaxis(found, 2, 3) / task.outputs

        return on_columns, (test_rows[0], *task.shape[1:])

    def solve(time: Array, start: Array, k_test: Product | None, _) -> Any:
        nonlocal labels
        allowed = tolerance * jnp.sqrt(jnp.mean(y**2) + jnp.mean(start**2))
        kept, parts = grown(labels, time, False, k_test, allowed)
        labels = labels if is_traced(kept) else kept
        if is_traced(start) or np.any(start):
            with contextlib.nullcontext() if is_traced(labels, start) else at_once():
                space = krylov(flat_matvec, start, min(FIRST_DEPTH, max_depth))
            _, more = grown(space, time, True, k_test, allowed)
            parts = [a + b for a, b in zip(parts, more, strict=True)]
        if k_test is None:
            return parts[0], None, None
        none = jnp.zeros((1, 1), dtype)
        far, _ = _weights(time, none[0], none, decay, none, none, task.degree)
        return parts[0], far, parts[1]

    return _predictor(task, test_side, solve)


@partial(jax.jit, static_argnums=6)
def _train(t: Array, rates: Array, vectors: Array, decay: Pieces, f0: Any, y: Any, k: float) -> Any:
    return jnp.einsum("ia,tao->tio", vectors, trained(t, rates, decay, f0, y, k))


@partial(jax.jit, static_argnums=6)
def _weights(
    t: Array, rates: Array, vectors: Array, decay: Pieces, f0: Any, y: Any, k: float
) -> Any:
    _, far, w = everywhere(t, rates, decay, f0, y, k, rates > 0)
    return far, jnp.einsum("ia,tao->tio", vectors, w)


def _predictor(task: Task, test_side: Any, solve: Any) -> Any:
    """The `predict_fn` around a way to solve the task.

    `test_side(k_test_train)` gives what `solve` needs of it and the shape of the outputs on the test set;
    `solve(time, start, test, wants_train)` gives f on the training points (of a `still` task: less `start`),
    (times, m, o), what multiplies f_0 on test points, (times, 1), and the rest of f there; None for what was
    not asked.
    """
    dtype = task.y.dtype

    def predict_fn(
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any:
        check_request(fx_train_0, fx_test_0, k_test_train)
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "gradient-flow time starts at initialization"
        )
        times = jnp.asarray(t, dtype)
        time = (jnp.asarray(task.learning_rate) * times).reshape(-1, 1)
        start = flat(0.0 if fx_train_0 is None else fx_train_0, task.shape, "fx_train_0")
        test, shape = (None, ()) if fx_test_0 is None else test_side(k_test_train)
        start_test = None if fx_test_0 is None else flat(fx_test_0, shape, "fx_test_0")
        fx_train, far, pulled = solve(time, start, test, fx_train_0 is not None)
        if fx_train is not None:
            fx_train = fx_train + start[None] if task.still else fx_train
            fx_train = _axes.restore(fx_train, times.shape, task.shape, task.trace_axes)
        if start_test is None:
            return fx_train
        far = jnp.ones_like(far) if task.still else far
        fx_test = far[..., None] * start_test[None] + pulled
        fx_test = _axes.restore(fx_test, times.shape, shape, task.trace_axes)
        return fx_test if fx_train_0 is None else (fx_train, fx_test)

    def flat(f: ArrayLike, shape: tuple[int, ...], name: str) -> Array:
        return _axes.flatten(check_shape(jnp.asarray(f, dtype), shape, name), task.trace_axes)

    return predict_fn
