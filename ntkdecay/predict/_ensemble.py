"""The ensemble of all initializations: Gaussian at every time, its mean and covariance under L2."""

from collections import namedtuple
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.kernels._checks import exact
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    as_float,
    as_matrix,
    check_degree,
    check_l2,
    check_non_negative,
    is_traced,
)
from ntkdecay.predict._modes import Modes, decompose
from ntkdecay.predict._request import Reduction
from ntkdecay.predict._response import on_training_set, response

Regime = Literal["nngp", "ntk"]


class Gaussian(NamedTuple):
    """Outputs of the ensemble on some points."""

    mean: Array  # of the shape of the outputs, times first
    covariance: Array  # of the shape of a kernel between the points, times first


class EnsembleFn(Protocol):
    """`predict_fn(t, x_test, get, compute_cov)`, as in neural_tangents.predict."""

    def __call__(
        self,
        t: ArrayLike | None = None,
        x_test: Any = None,
        get: Regime | tuple[Regime, ...] | None = None,
        compute_cov: bool = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Any: ...


def gradient_descent_mse_ensemble(
    kernel_fn: Callable[..., Any],
    x_train: Any,
    y_train: ArrayLike,
    *,
    l2: ArrayLike,
    degree: float,
    reduction: Reduction = "mean",
    learning_rate: ArrayLike = 1.0,
    trace_axes: int | tuple[int, ...] = (-1,),
    **kernel_fn_train_train_kwargs: Any,
) -> EnsembleFn:
    r"""Mean and covariance of infinitely wide networks trained on MSE with L2 from all initializations.

    .. math:: f_*(t) = \varphi f_*(0) + K_* [X(\Theta_0)\,y - \psi(\Theta_0)\,f(0)], \qquad
              f(0) \sim \mathcal N(0, \mathcal K)

    with the responses φ = e^{−kλt}, X/γ and ψ = (φ − e^{−x})/γ of `gradient_descent_mse` and its
    kernel between test and training points K_*: Theorem 1 of Lewkowycz & Gur-Ari (2020), affine in
    f(0), over whose NNGP covariance 𝒦 is averaged. So, with P = K_* ψ(Θ_0),

    .. math:: \mathrm{mean} = K_* X(\Theta_0)\,y, \qquad \mathrm{cov} = \varphi^2 \mathcal K_{**}
              - \varphi (P \mathcal K_* ^\top + \mathcal K_* P^\top) + P \mathcal K P^\top

    - "ntk": all layers are trained and decayed; Θ_0 is the NTK and k = `degree`.
    - "nngp": the last layer alone is trained, from its initialization, and decayed; Θ_0 is the NNGP
      kernel. L2 does not touch the frozen layers below. The network is linear in what is trained, so
      its degree is 1 whatever `degree` is: at t = inf the mean is ridge regression with the NNGP kernel
      and nothing of f(0) is left (without L2 what the data do not fix stays).

    The calling conventions are those of `neural_tangents.predict.gradient_descent_mse_ensemble`, whose
    numbers `l2=0` gives. A kernel is computed and decomposed when it is first needed, once.

    Args:
        kernel_fn: `kernel_fn(x1, x2, get, **kwargs)` giving a namedtuple of the kernels in the tuple
            `get`: the third function of a network from `ntkdecay.stax`, or any that approximates it.
        x_train: training inputs.
        y_train: labels, samples on the first axis.
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖², θ the trained parameters.
        degree: k of the network when all layers are trained: 0, 1 or any real > 1.
        reduction: "mean": L = ½ mean (f − y)² over all samples and outputs; "sum": L = ½ Σ (f − y)².
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
        trace_axes: output axes that the kernels lack, along which they are block-diagonal.
        **kernel_fn_train_train_kwargs: passed to `kernel_fn` for the training kernel.

    Returns:
        `predict_fn(t=None, x_test=None, get=None, compute_cov=False, **kernel_fn_test_test_kwargs)`
        giving the mean, of shape `t.shape + (n_test, …)`, or the pair (mean, covariance), the latter
        of shape `t.shape + (n_test, n_test, …)`: one for each output along `trace_axes`. t=None is
        t = inf; x_test=None means the training points; a tuple `get` gives a namedtuple, and None
        stands for ("nngp", "ntk"). Keyword arguments that are pairs of arrays are combined for the
        test-train kernel, all others must be those of the training kernel.

    Raises:
        ValueError: as `gradient_descent_mse`, or if `get` or a keyword argument is not understood.
    """
    degree = check_degree(degree)
    l2 = check_l2(l2)
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    (y_train,) = as_float(y_train)
    known: dict[str, Any] = {}
    traced = is_traced(x_train, kernel_fn_train_train_kwargs)

    def kernels(x1: Any, x2: Any, get: tuple[str, ...], kwargs: dict) -> dict[str, Array]:
        with exact():
            found = kernel_fn(x1, x2, get, **kwargs)
        return {name: jnp.asarray(getattr(found, name), y_train.dtype) for name in get}

    def once(names: tuple[str, ...], make: Callable[[tuple[str, ...]], dict]) -> dict[str, Any]:
        """What is not known yet is made, and kept unless the training set is traced."""
        if traced:
            return make(names)
        with jax.ensure_compile_time_eval():  # under jit too: XLA is slow at folding constants
            missing = tuple(name for name in names if name not in known)
            known.update(make(missing) if missing else {})
        return {name: known[name] for name in names}

    def predict_fn(
        t: ArrayLike | None = None,
        x_test: Any = None,
        get: Regime | tuple[Regime, ...] | None = None,
        compute_cov: bool = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Any:
        regimes = _regimes(get)
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "gradient-flow time starts at initialization"
        )
        times = jnp.asarray(t, y_train.dtype)
        time = (jnp.asarray(learning_rate, y_train.dtype) * times).reshape(-1, 1)
        needed = tuple(
            name for name in ("nngp", "ntk") if name in regimes or (compute_cov and name == "nngp")
        )
        train = once(
            needed, lambda names: kernels(x_train, None, names, kernel_fn_train_train_kwargs)
        )
        if x_test is None:
            between, within = train, {}
        else:
            mixed, test = _combine(kernel_fn_train_train_kwargs, kernel_fn_test_test_kwargs)
            between = kernels(x_test, x_train, needed, mixed)
            within = kernels(x_test, None, ("nngp",), test) if compute_cov else {}

        def one(regime: str) -> Array | Gaussian:
            modes: Modes = once(
                (f"modes of {regime}",),
                lambda names: {
                    names[0]: decompose(train[regime], y_train.shape, trace_axes, reduction)
                },
            )[f"modes of {regime}"]
            shape = _axes.test_shape(between[regime].shape, y_train.shape, modes.trace_axes)
            k = 1.0 if regime == "nngp" else degree
            pull = as_matrix(between[regime]) / modes.outputs
            strength = jnp.asarray(l2, y_train.dtype)
            mean = _mean(
                time, modes.rates, modes.vectors, strength, pull, modes.project(y_train), k
            )
            mean = _axes.restore(mean, times.shape, shape, modes.trace_axes)
            if not compute_cov:
                return mean
            if x_test is None:
                nngp = as_matrix(train["nngp"])
                cov = _train_covariance(time, modes.rates, modes.vectors, strength, nngp, k)
            else:
                nngp = (as_matrix(part["nngp"]) for part in (train, between, within))
                cov = _test_covariance(time, modes.rates, modes.vectors, strength, pull, *nngp, k)
            return Gaussian(mean, _as_kernel(cov, times.shape, between[regime].shape[::2]))

        found = [one(regime) for regime in regimes]
        return found[0] if isinstance(get, str) else _gaussians(regimes)(*found)

    return predict_fn


@partial(jax.jit, static_argnums=6)
def _mean(
    t: Array, rates: Array, vectors: Array, l2: Array, pull: Array, y: Array, degree: float
) -> Array:
    """(times, rows of the test set, traced outputs)."""
    learned = response(t, rates[None], l2[None, None], degree).learned_per_rate
    return jnp.einsum("na,tao->tno", pull @ vectors, learned[..., None] * y[None])


@partial(jax.jit, static_argnums=5)
def _train_covariance(
    t: Array, rates: Array, vectors: Array, l2: Array, nngp: Array, degree: float
) -> Array:
    """(times, rows, rows): what is kept of f(0), without the cancellation at test points."""
    kept, _, _ = on_training_set(t, rates[None], l2[None, None], degree)
    p = vectors[None] * kept[:, None, :]
    return jnp.einsum("tna,ab,tmb->tnm", p, vectors.T @ nngp @ vectors, p)


@partial(jax.jit, static_argnums=8)
def _test_covariance(
    t: Array,
    rates: Array,
    vectors: Array,
    l2: Array,
    pull: Array,
    nngp: Array,
    nngp_between: Array,
    nngp_within: Array,
    degree: float,
) -> Array:
    """(times, rows of the test set, rows of the test set)."""
    r = response(t, rates[None], l2[None, None], degree)
    forgotten = r.forgotten[..., None]
    # P Kᵀ and P K Pᵀ with P = pull · V ψ Vᵀ, K in the eigenbasis
    p = (pull @ vectors)[None] * r.kept_per_rate[:, None, :]
    crossed = jnp.einsum("tna,am->tnm", p, vectors.T @ nngp_between.T)
    quadratic = jnp.einsum("tna,ab,tmb->tnm", p, vectors.T @ nngp @ vectors, p)
    crossed = crossed + jnp.swapaxes(crossed, 1, 2)
    return forgotten**2 * nngp_within[None] - forgotten * crossed + quadratic


def _as_kernel(cov: Array, t_shape: tuple[int, ...], kept: tuple[int, ...]) -> Array:
    """(times, rows, rows) with each axis of the rows beside its twin."""
    order = [axis + i * len(kept) for axis in range(len(kept)) for i in range(2)]
    cov = cov.reshape(t_shape + kept + kept)
    return cov.transpose(*range(len(t_shape)), *(len(t_shape) + axis for axis in order))


def _regimes(get: Any) -> tuple[str, ...]:
    names = ("nngp", "ntk") if get is None else (get,) if isinstance(get, str) else tuple(get)
    names = tuple(name.lower() for name in names)
    if not names or len(set(names)) < len(names) or not set(names) <= {"nngp", "ntk"}:
        raise ValueError(
            f'`get` is {get!r}; allowed are "nngp", "ntk", a tuple of them without repetition, and None.'
        )
    return names


@lru_cache
def _gaussians(regimes: tuple[str, ...]) -> Any:
    return namedtuple("Gaussians", regimes)


def _combine(train: dict[str, Any], test: dict[str, Any]) -> tuple[dict, dict]:
    """Keyword arguments of `kernel_fn` for (test, train) and for (test, test), by neural-tangents' rules."""

    def is_arrays(value: Any) -> bool:
        return all(isinstance(leaf, (np.ndarray, Array)) for leaf in jax.tree.leaves(value))

    between = dict(train)
    for name, value in test.items():
        if name not in train:
            raise ValueError(
                f"The keyword argument `{name}` of `kernel_fn` was not given for the training kernel."
            )
        pair = all(isinstance(v, tuple) and len(v) == 2 for v in (value, train[name]))
        if not (is_arrays(value) and is_arrays(train[name])):
            if value != train[name]:
                raise ValueError(
                    f"The keyword argument `{name}` of `kernel_fn` is {value!r} for the test kernel but "
                    f"{train[name]!r} for the training kernel; only arrays may differ."
                )
        elif pair:
            value = (value[0], train[name][0])
        between[name] = value
    return between, train | test
