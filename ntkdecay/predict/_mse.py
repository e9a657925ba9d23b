"""Gradient descent on MSE with L2: training and test points, any time, in closed form."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict import _axes
from ntkdecay.predict._checks import as_float, as_matrix
from ntkdecay.predict._modes import decompose
from ntkdecay.predict._request import Origin, PredictFn, Reduction, describe, predictor
from ntkdecay.predict._response import on_training_set, response
from ntkdecay.predict._schedule import Pieces, PiecewiseConstant


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
    k_train_train, y_train = as_float(k_train_train, y_train)
    task = describe(y_train, l2, degree, reduction, learning_rate, l2_from, trace_axes)
    modes = decompose(k_train_train, y_train.shape, trace_axes, reduction)
    y = modes.vectors.T @ task.y

    def test_side(k_test_train: ArrayLike) -> tuple[Array, tuple[int, ...]]:
        k = jnp.asarray(k_test_train, y.dtype)
        return as_matrix(k) / task.outputs, _axes.test_shape(k.shape, task.shape, task.trace_axes)

    def solve(time: Array, start: Array, k_test: Array | None, wants_train: bool) -> Any:
        f0 = modes.vectors.T @ start
        f0, labels = (jnp.zeros_like(f0), y - f0) if task.still else (f0, y)
        arguments = time, modes.rates, modes.vectors, task.decay, f0, labels, task.degree
        train = _train(*arguments) if wants_train else None
        if k_test is None:
            return train, None, None
        far, w = _weights(*arguments)
        return train, far, jnp.einsum("ni,tio->tno", k_test, w)

    return predictor(task, test_side, solve)


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
