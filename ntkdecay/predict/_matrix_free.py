"""Gradient descent on MSE with L2 where the kernel is too large to store: products with it are enough."""

import contextlib
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax import ensure_compile_time_eval as at_once
from jax.typing import ArrayLike

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
from ntkdecay.predict._krylov import Krylov, Product, deepen, is_traced, krylov
from ntkdecay.predict._mse import Origin, Reduction, _train, _weights
from ntkdecay.predict._schedule import PiecewiseConstant, pieces

FIRST_DEPTH = 16


class MatrixFreePredictFn(Protocol):
    """`predict_fn(t, fx_train_0, fx_test_0, k_test_train)`, `k_test_train` a product with vectors."""

    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Product | None = None,
    ) -> Any: ...


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
) -> MatrixFreePredictFn:
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
    check_reduction(reduction)
    degree = check_degree(degree)
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    check_origin(l2_from)
    (y_train,) = as_float(y_train)
    learning_rate = jnp.asarray(learning_rate, y_train.dtype)
    decay = pieces(l2, learning_rate, y_train.dtype)
    dtype, traced_axes = y_train.dtype, _axes.canonical(trace_axes, y_train.shape)
    rows = _axes.kept(y_train.shape, traced_axes)
    outputs = math.prod(y_train.shape) if reduction == "mean" else 1
    m = math.prod(rows)
    max_depth = min(max_depth, m)
    given = jax.eval_shape(matvec, jax.ShapeDtypeStruct(rows, dtype))
    if given.shape != rows or given.dtype != dtype:
        raise ValueError(
            f"`matvec` gives {given.dtype}{list(given.shape)} for {dtype}{list(rows)}; with labels of shape "
            f"{y_train.shape} and trace_axes={traced_axes} it must give what it takes."
        )

    def flat_matvec(v: Array) -> Array:
        return matvec(v.reshape(rows)).reshape(-1) / outputs

    still, k = l2_from == "init", 1.0 if l2_from == "init" else degree

    def in_space(space: Krylov, depths: tuple[int, int], time: Array, is_start: bool) -> Array:
        """f and, for test points, w in the coordinates of the space, (depths, 2, times, o, d)."""

        def one(rates: Array, vectors: Array, b: Array) -> Array:
            column, zero = b[:, None], jnp.zeros_like(b)[:, None]
            f0, y = (column, zero) if is_start else (zero, column)
            f0, y = (zero, y - f0) if still else (f0, y)  # as in gradient_descent_mse
            f = _train(time, rates, vectors, decay, f0, y, k)
            return jnp.stack([f, _weights(time, rates, vectors, decay, f0, y, k)[1]])[..., 0]

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

    y = _axes.flatten(y_train, traced_axes)
    labels = krylov(flat_matvec, y, min(FIRST_DEPTH, max_depth))

    def predict_fn(
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Product | None = None,
    ) -> Any:
        nonlocal labels
        check_request(fx_train_0, fx_test_0, k_test_train)
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "gradient-flow time starts at initialization"
        )
        times = jnp.asarray(t, dtype)
        time = (learning_rate * times).reshape(-1, 1)
        given = jnp.asarray(0.0 if fx_train_0 is None else fx_train_0, dtype)
        start = _axes.flatten(check_shape(given, y_train.shape, "fx_train_0"), traced_axes)
        allowed = tolerance * jnp.sqrt(jnp.mean(y**2) + jnp.mean(start**2))
        test_shape: tuple[int, ...] = ()
        k_test: Product | None = None
        if fx_test_0 is not None:
            assert k_test_train is not None
            product = k_test_train
            test_rows = jax.eval_shape(product, jax.ShapeDtypeStruct(rows, dtype)).shape
            if len(test_rows) != len(rows) or test_rows[1:] != rows[1:]:
                raise ValueError(
                    f"`k_test_train` gives {list(test_rows)} for a vector of shape {rows}; it must give (n_test, …) with "
                    "the same axes behind the samples."
                )
            test_shape = (test_rows[0], *y_train.shape[1:])

            def on_columns(w: Array) -> Array:
                columns = jnp.moveaxis(w, 2, 3).reshape(-1, *rows)
                found = jax.vmap(product)(columns).reshape(*w.shape[:2], w.shape[3], -1)
                return jnp.moveaxis(found, 2, 3) / outputs

            k_test = on_columns

        kept, parts = grown(labels, time, False, k_test, allowed)
        labels = labels if is_traced(kept) else kept
        if is_traced(start) or np.any(start):
            with contextlib.nullcontext() if is_traced(labels, start) else at_once():
                space = krylov(flat_matvec, start, min(FIRST_DEPTH, max_depth))
            _, more = grown(space, time, True, k_test, allowed)
            parts = [a + b for a, b in zip(parts, more, strict=True)]

        train = parts[0] + start[None] if still else parts[0]
        fx_train_t = _axes.restore(train, times.shape, y_train.shape, traced_axes)
        if fx_test_0 is None:
            return fx_train_t
        start_test = check_shape(jnp.asarray(fx_test_0, dtype), test_shape, "fx_test_0")
        none = jnp.zeros((1, 1), dtype)
        far, _ = _weights(time, none[0], none, decay, none, none, k)
        far = jnp.ones_like(far) if still else far
        test = parts[1] + far[..., None] * _axes.flatten(start_test, traced_axes)[None]
        fx_test_t = _axes.restore(test, times.shape, test_shape, traced_axes)
        return fx_test_t if fx_train_0 is None else (fx_train_t, fx_test_t)

    return predict_fn
