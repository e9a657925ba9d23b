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
    check_origin,
    check_request,
    check_shape,
)
from ntkdecay.predict._modes import decompose
from ntkdecay.predict._response import on_training_set, response
from ntkdecay.predict._schedule import Pieces, PiecewiseConstant, pieces

Reduction = Literal["mean", "sum"]
Origin = Literal["origin", "init"]


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
    l2: ArrayLike | PiecewiseConstant,
    degree: float,
    reduction: Reduction = "mean",
    learning_rate: ArrayLike = 1.0,
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
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖², or λ(t) as `PiecewiseConstant`. Traced values are fine: vmap
            over it for a whole path.
        degree: k of the network (`ntkdecay.homogeneity.degree` measures it): 0, 1 or any real > 1.
        reduction: "mean": L = ½ mean (f − y)² over all samples and outputs, neural-tangents' loss;
            "sum": L = ½ Σ (f − y)², the paper's.
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
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
    """
    degree = check_degree(degree)
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    check_origin(l2_from)
    k_train_train, y_train = as_float(k_train_train, y_train)
    dtype = y_train.dtype
    learning_rate = jnp.asarray(learning_rate, dtype)
    decay = pieces(l2, learning_rate, dtype)
    modes = decompose(k_train_train, y_train.shape, trace_axes, reduction)
    y = modes.project(y_train)

    def predict_fn(
        t: ArrayLike | None = None,
        fx_train_0: ArrayLike | None = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: ArrayLike | None = None,
    ) -> Any:
        check_request(fx_train_0, fx_test_0, k_test_train)
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "gradient-flow time starts at initialization"
        )
        times = jnp.asarray(t, dtype)
        time = (learning_rate * times).reshape(-1, 1)
        given = jnp.asarray(0.0 if fx_train_0 is None else fx_train_0, dtype)
        given = check_shape(given, y_train.shape, "fx_train_0")
        start = modes.project(given)
        # L2 from the initialization is a linear model of f − f_0 for the labels y − f_0.
        still = l2_from == "init"
        f0, labels, k = (jnp.zeros_like(start), y - start, 1.0) if still else (start, y, degree)

        fx_train_t = fx_test_t = None
        if fx_train_0 is not None:
            fx = _train(time, modes.rates, modes.vectors, decay, f0, labels, k)
            fx_train_t = modes.restore(fx, times.shape, y_train.shape)
            if still:
                fx_train_t += given.reshape((1,) * times.ndim + given.shape)
        if fx_test_0 is not None:
            k_test_train = jnp.asarray(k_test_train, dtype)
            shape = modes.test_shape(k_test_train.shape, y_train.shape)
            given = check_shape(jnp.asarray(fx_test_0, dtype), shape, "fx_test_0")
            far, w = _weights(time, modes.rates, modes.vectors, decay, f0, labels, k)
            pulled = jnp.einsum("ni,tio->tno", as_matrix(k_test_train) / modes.outputs, w)
            far = jnp.ones_like(far) if still else far
            fx = far[..., None] * modes.flatten(given)[None] + pulled
            fx_test_t = modes.restore(fx, times.shape, shape)
        if fx_test_t is None:
            return fx_train_t
        return fx_test_t if fx_train_t is None else (fx_train_t, fx_test_t)

    return predict_fn


@partial(jax.jit, static_argnums=6)
def _train(
    t: Array, rates: Array, vectors: Array, decay: Pieces, f0: Array, y: Array, degree: float
) -> Array:
    """f on the training points, (times, m, traced outputs)."""

    def piece(f: Array, now: tuple[Pieces, Array]) -> tuple[Array, None]:
        (l2, start, end), scale = now
        elapsed = jnp.maximum(jnp.minimum(t, end) - start, 0)
        kept, learned, _ = on_training_set(elapsed, rates[None] * scale, l2[None, None], degree)
        return kept[..., None] * f + learned[..., None] * y[None], None

    f = jnp.broadcast_to(f0, (t.shape[0], *f0.shape))
    f, _ = jax.lax.scan(piece, f, (decay, decay.kernel_scale(degree)))
    return jnp.einsum("ia,tao->tio", vectors, f)


@partial(jax.jit, static_argnums=6)
def _weights(
    t: Array, rates: Array, vectors: Array, decay: Pieces, f0: Array, y: Array, degree: float
) -> tuple[Array, Array]:
    """What is left of f_0 far from all training points, (times, 1), and what multiplies K_*, (times, m, o)."""

    def piece(state: tuple[Array, Array, Array], now: tuple[Pieces, Array]):
        (f, far, w), ((l2, start, end), scale) = state, now
        elapsed = jnp.maximum(jnp.minimum(t, end) - start, 0)
        r = response(elapsed, rates[None] * scale, l2[None, None], degree)
        pull = r.learned_per_rate[..., None] * y[None] - r.kept_per_rate[..., None] * f
        f = r.kept[..., None] * f + r.learned[..., None] * y[None]
        return (f, r.forgotten * far, r.forgotten[..., None] * w + scale * pull), None

    f = jnp.broadcast_to(f0, (t.shape[0], *f0.shape))
    start = (f, jnp.ones_like(t), jnp.zeros_like(f))
    (_, far, w), _ = jax.lax.scan(piece, start, (decay, decay.kernel_scale(degree)))
    return far, jnp.einsum("ia,tao->tio", vectors, w)
