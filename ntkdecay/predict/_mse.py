"""Gradient descent on MSE with L2: training and test points, any time, in closed form."""

from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict._checks import (
    as_float,
    as_matrix,
    check_degree,
    check_non_negative,
    check_shape,
)
from ntkdecay.predict._modes import decompose
from ntkdecay.predict._response import on_training_set, response

Reduction = Literal["mean", "sum"]


class PredictFn(Protocol):
    """`predict_fn(t, fx_train_0, fx_test_0, k_test_train)`, as in neural_tangents.predict."""

    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: ArrayLike | None = None,
    ) -> Any: ...


def gradient_descent_mse(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    *,
    l2: ArrayLike,
    degree: float,
    reduction: Reduction = "mean",
    learning_rate: ArrayLike = 1.0,
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
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖². Traced values are fine: vmap over it for a whole path.
        degree: k of the network (`ntkdecay.homogeneity.degree` measures it): 0, 1 or any real > 1.
        reduction: "mean": L = ½ mean (f − y)² over all samples and outputs, neural-tangents' loss;
            "sum": L = ½ Σ (f − y)², the paper's.
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
        trace_axes: output axes that `k_train_train` lacks, along which it is block-diagonal.

    Returns:
        `predict_fn(t=None, fx_train_0=0., fx_test_0=None, k_test_train=None)` giving `fx_train_t`, or
        `(fx_train_t, fx_test_t)` with a test set, or `fx_test_t` alone with `fx_train_0=None`; times of
        shape `t.shape` lead. t=None is t = inf.

    Raises:
        ValueError: if shapes do not fit, the kernel is not finite, symmetric and positive
            semi-definite, or `l2`, `degree`, `learning_rate`, `reduction` or `t` is outside its range.
    """
    degree = check_degree(degree)
    l2 = check_non_negative(l2, "l2", "it multiplies ‖θ‖²/2 in the loss")
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    k_train_train, y_train = as_float(k_train_train, y_train)
    l2, learning_rate = (jnp.asarray(value, y_train.dtype) for value in (l2, learning_rate))
    modes = decompose(k_train_train, y_train.shape, trace_axes, reduction)
    y = modes.project(y_train)

    def predict_fn(
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: ArrayLike | None = None,
    ) -> Any:
        if fx_train_0 is None and fx_test_0 is None:
            raise ValueError(
                "`fx_train_0` and `fx_test_0` are both None: there is nothing to predict."
            )
        if fx_test_0 is not None and k_test_train is None:
            raise ValueError(
                "`fx_test_0` needs `k_test_train`, the kernel between test and training points."
            )
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "gradient-flow time starts at initialization"
        )
        times = jnp.asarray(t, y.dtype)
        start = modes.project(
            check_shape(
                jnp.asarray(0.0 if fx_train_0 is None else fx_train_0, y.dtype),
                y_train.shape,
                "fx_train_0",
            )
        )
        time = (learning_rate * times).reshape(-1, 1)

        fx_train_t = fx_test_t = None
        if fx_train_0 is not None:
            fx_train_t = _train(time, modes.rates, modes.vectors, l2, start, y, degree)
            fx_train_t = modes.restore(fx_train_t, times.shape, y_train.shape)
        if fx_test_0 is not None:
            k_test_train = jnp.asarray(k_test_train, y.dtype)
            test_shape = modes.test_shape(k_test_train.shape, y_train.shape)
            start_test = check_shape(jnp.asarray(fx_test_0, y.dtype), test_shape, "fx_test_0")
            fx_test_t = _test(
                time,
                modes.rates,
                modes.vectors,
                l2,
                start,
                y,
                modes.flatten(start_test),
                as_matrix(k_test_train) / modes.outputs,
                degree,
            )
            fx_test_t = modes.restore(fx_test_t, times.shape, test_shape)
        if fx_test_t is None:
            return fx_train_t
        return fx_test_t if fx_train_t is None else (fx_train_t, fx_test_t)

    return predict_fn


@partial(jax.jit, static_argnums=6)
def _train(
    t: Array, rates: Array, vectors: Array, l2: Array, f0: Array, y: Array, degree: float
) -> Array:
    """(times, kernel rows, traced outputs)."""
    kept, learned, _ = on_training_set(t, rates[None], l2[None, None], degree)
    f = kept[..., None] * f0[None] + learned[..., None] * y[None]
    return jnp.einsum("ia,tao->tio", vectors, f)


@partial(jax.jit, static_argnums=8)
def _test(
    t: Array,
    rates: Array,
    vectors: Array,
    l2: Array,
    f0: Array,
    y: Array,
    f_test_0: Array,
    k_test_train: Array,
    degree: float,
) -> Array:
    """(times, kernel rows of the test set, traced outputs)."""
    r = response(t, rates[None], l2[None, None], degree)
    w = r.learned_per_rate[..., None] * y[None] - r.kept_per_rate[..., None] * f0[None]
    pulled = jnp.einsum("ni,tio->tno", k_test_train, jnp.einsum("ia,tao->tio", vectors, w))
    return r.forgotten[..., None] * f_test_0[None] + pulled
