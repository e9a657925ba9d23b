"""The ensemble of all initializations: Gaussian at every time, its mean and covariance under L2."""

from collections import namedtuple
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._at_once import at_once
from ntkdecay._checks import anything, array, checked, flag, function, is_traced, optional, tree
from ntkdecay._programs import program_of
from ntkdecay.homogeneity import Degree
from ntkdecay.kernels._checks import exact
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    REDUCTION,
    TIME,
    TRACE_AXES,
    as_array,
    as_float,
    as_matrix,
    network_degree,
    traced_non_negative,
)
from ntkdecay.predict._modes import Modes, decompose
from ntkdecay.predict._mse import everywhere
from ntkdecay.predict._request import Reduction, Task, describe
from ntkdecay.predict._schedule import LEARNING_RATE, PiecewiseConstant, penalty

Regime = Literal["nngp", "ntk"]
INPUTS = tree(what="inputs of `kernel_fn`, an array or a tree of arrays of a floating dtype")


class Gaussian(NamedTuple):
    """Outputs of the ensemble on some points."""

    mean: Array  # of the shape of the outputs, times first
    covariance: Array  # of the shape of a kernel between the points, times first


@checked(
    kernel_fn=function("of two sets of inputs, the third of a network's"),
    x_train=INPUTS,
    y_train=array(),
    l2=penalty(),
    degree=network_degree(),
    reduction=REDUCTION,
    learning_rate=LEARNING_RATE,
    trace_axes=TRACE_AXES,
    kernel_fn_train_train_kwargs=anything(),
)
def gradient_descent_mse_ensemble(
    kernel_fn: Callable[..., Any],
    x_train: Any,
    y_train: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    *,
    l2: ArrayLike | PiecewiseConstant,
    degree: float | Degree,
    reduction: Reduction = "mean",
    trace_axes: int | tuple[int, ...] = (-1,),
    **kernel_fn_train_train_kwargs: Any,
) -> "EnsembleFn":
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
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖², θ the trained parameters, or λ(t) as `PiecewiseConstant`.
        degree: k of the network when all layers are trained: 0, 1 or any real > 1.
        reduction: "mean": L = ½ mean (f − y)² over all samples and outputs; "sum": L = ½ Σ (f − y)².
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

    >>> import numpy as np
    >>> from ntkdecay import predict, stax
    >>> _, _, kernel_fn = stax.serial(stax.Dense(1, b_std=None), stax.Relu(), stax.Dense(1, b_std=None))
    >>> x, y = np.eye(2), np.ones((2, 1))
    >>> predict_fn = predict.gradient_descent_mse_ensemble(kernel_fn, x, y, l2=0.01, degree=2)
    >>> mean, covariance = predict_fn(10.0, x_test=x[:1], get="ntk", compute_cov=True)
    >>> mean.shape, covariance.shape
    ((1, 1), (1, 1))
    """
    (y_train,) = as_float(y_train)
    task = describe(y_train, l2, degree, reduction, learning_rate, "origin", trace_axes)
    samples = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(x_train)}
    if samples != {task.shape[:1]}:
        counts = " and ".join(str(*one) for one in samples)
        raise ValueError(
            f"`x_train` has {counts or 'no'} samples and `y_train` {task.shape[0]}; there must be a label for each."
        )
    return EnsembleFn(task, kernel_fn, x_train, kernel_fn_train_train_kwargs)


class EnsembleFn:
    """The ensemble at any time: `predict_fn(t, x_test, get, compute_cov)`, as in neural_tangents.predict.

    Args:
        t: time, any shape, >= 0 or inf; None is inf.
        x_test: test inputs; None: the training points.
        get: "ntk", "nngp", a tuple of them, or None for both.
        compute_cov: whether the covariance is asked too.
        **kernel_fn_test_test_kwargs: passed to `kernel_fn`; what is not given is as for the training kernel.

    Returns:
        The mean, or `Gaussian(mean, covariance)`; a namedtuple of these where `get` is not one name.
    """

    def __init__(
        self, task: Task, kernel_fn: Callable[..., Any], x_train: Any, kwargs: dict[str, Any]
    ) -> None:
        self._task, self._kernel_fn, self._x_train, self._kwargs = task, kernel_fn, x_train, kwargs
        self._known: dict[str, Any] = {}

    def __repr__(self) -> str:
        return (
            "<predict_fn(t=None, x_test=None, get=None, compute_cov=False) of gradient_descent_mse_ensemble for labels "
            f"of shape {self._task.shape}, degree={self._task.degree:g}>"
        )

    @overload
    def __call__(
        self,
        t: ArrayLike | None,
        x_test: Any,
        get: Regime,
        compute_cov: Literal[False] = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None,
        x_test: Any,
        get: Regime,
        compute_cov: Literal[True],
        **kernel_fn_test_test_kwargs: Any,
    ) -> Gaussian: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None = None,
        x_test: Any = None,
        get: Regime | tuple[Regime, ...] | None = None,
        compute_cov: bool = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Any: ...
    @checked(
        t=optional(TIME),
        x_test=optional(INPUTS),
        get=anything(),
        compute_cov=flag(),
        kernel_fn_test_test_kwargs=anything(),
    )
    def __call__(
        self,
        t: ArrayLike | None = None,
        x_test: Any = None,
        get: Regime | tuple[Regime, ...] | None = None,
        compute_cov: bool = False,
        **kernel_fn_test_test_kwargs: Any,
    ) -> Any:
        task, regimes = self._task, _regimes(get)
        t = jnp.inf if t is None else t
        t = traced_non_negative(t, "t", "gradient-flow time starts at initialization")
        needed = tuple(
            name for name in ("nngp", "ntk") if name in regimes or (compute_cov and name == "nngp")
        )
        train = self._once(needed, lambda names: self._kernels(self._kwargs, (names,))[0])
        modes = self._once(
            tuple(f"modes of {regime}" for regime in regimes),
            lambda names: {
                name: decompose(train[name.split()[-1]], task.shape, task.trace_axes, task.outputs)
                for name in names
            },
        )
        between = within = None
        if x_test is not None:
            mixed, test = _combine(self._kwargs, kernel_fn_test_test_kwargs)
            asked = (needed, ("nngp",) if compute_cov else ())
            between, within = self._kernels((mixed, test), asked, x_test)
        seen = train if between is None else between
        shapes = tuple(
            _axes.test_shape(seen[regime].shape, task.shape, task.trace_axes) for regime in regimes
        )
        found = _gaussian(
            task,
            tuple(modes.values()),
            as_array(t, task.y.dtype),
            train,
            between,
            within,
            regimes,
            shapes,
            bool(compute_cov),
        )
        return found[0] if isinstance(get, str) else _gaussians(regimes)(*found)

    def _once(self, names: tuple[str, ...], make: Callable[[tuple[str, ...]], dict]) -> dict:
        """What is not known yet is made, and kept unless the training set is traced."""
        if is_traced(self._x_train, self._kwargs):
            return make(names)
        with at_once():  # under jit too: XLA is slow at folding constants
            missing = tuple(name for name in names if name not in self._known)
            self._known.update(make(missing) if missing else {})
        return {name: self._known[name] for name in names}

    def _kernels(
        self, kwargs: Any, get: tuple[tuple[str, ...], ...], x_test: Any = None
    ) -> tuple[dict[str, Array], ...]:
        """The training kernels, or, given test points, those between test and training points and among the former."""
        leaves, tree = jax.tree.flatten((self._x_train, x_test, kwargs))
        fixed = tuple(
            None if isinstance(leaf, (np.ndarray, Array, float)) else leaf for leaf in leaves
        )
        numbers = [leaf if rest is None else None for leaf, rest in zip(leaves, fixed, strict=True)]
        arguments = numbers, (tree, fixed, get, self._task.y.dtype)
        try:
            return program_of(self._kernel_fn, _evaluate, 1)(*arguments)
        except OUTSIDE_OF_JAX:
            if is_traced(leaves):
                raise
            return _evaluate(self._kernel_fn, *arguments)


# what a kernel function raises that cannot be traced: it is called as it is
OUTSIDE_OF_JAX = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _evaluate(kernel_fn: Callable[..., Any], numbers: list, fixed: Any) -> tuple[dict, ...]:
    tree, rest, get, dtype = fixed
    leaves = [b if a is None else a for a, b in zip(numbers, rest, strict=True)]
    x_train, x_test, kwargs = jax.tree.unflatten(tree, leaves)
    pairs = ((x_train, None, kwargs),)
    if x_test is not None:
        pairs = ((x_test, x_train, kwargs[0]), (x_test, None, kwargs[1]))

    def kernels(x1: Any, x2: Any, kwargs: dict, names: tuple[str, ...]) -> dict[str, Array]:
        if not names:
            return {}
        with exact():
            found = kernel_fn(x1, x2, names, **kwargs)
        return {name: jnp.asarray(getattr(found, name), dtype) for name in names}

    return tuple(kernels(*pair, names) for pair, names in zip(pairs, get, strict=True))


@partial(jax.jit, static_argnums=(6, 7, 8))
def _gaussian(
    task: Task,
    modes: tuple[Modes, ...],
    t: Array,
    train: dict[str, Array],
    between: dict[str, Array] | None,
    within: dict[str, Array] | None,
    regimes: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
    compute_cov: bool,
) -> tuple[Array | Gaussian, ...]:
    time, decay, flat = task.time(t), task.pieces(), task.flat(task.y, task.shape)

    def one(regime: str, modes: Modes, shape: tuple[int, ...]) -> Array | Gaussian:
        degree = 1.0 if regime == "nngp" else task.degree
        seen = (train if between is None else between)[regime]
        pull = as_matrix(seen) / task.outputs @ modes.vectors
        # each mode from f_0 = 1 to y = 0, and from 0 to 1
        units = jnp.eye(2, dtype=task.y.dtype)
        start, goal = (jnp.broadcast_to(one, (modes.rates.size, 2)) for one in units)
        f, forgotten, w = everywhere(time, modes.rates, decay, start, goal, degree, modes.rates > 0)
        mean = jnp.einsum("na,tao->tno", pull, w[..., 1:] * (modes.vectors.T @ flat)[None])
        mean = task.restore(mean, t, shape)
        if not compute_cov:
            return mean
        nngp = modes.vectors.T @ as_matrix(train["nngp"])
        if between is None or within is None:  # what is kept of f(0), without cancellation
            p = modes.vectors[None] * f[:, None, :, 0]
            cov = jnp.einsum("tna,ab,tmb->tnm", p, nngp @ modes.vectors, p)
        else:  # P Kᵀ and P K Pᵀ with P = pull · V ψ Vᵀ, K in the eigenbasis
            forgotten = forgotten[..., None]
            p = -pull[None] * w[:, None, :, 0]
            crossed = jnp.einsum("tna,am->tnm", p, modes.vectors.T @ as_matrix(between["nngp"]).T)
            crossed = crossed + jnp.swapaxes(crossed, 1, 2)
            quadratic = jnp.einsum("tna,ab,tmb->tnm", p, nngp @ modes.vectors, p)
            own = forgotten**2 * as_matrix(within["nngp"])[None]
            cov = own - forgotten * crossed + quadratic
        return Gaussian(mean, _as_kernel(cov, t.shape, seen.shape[::2]))

    return tuple(one(*which) for which in zip(regimes, modes, shapes, strict=True))


def _as_kernel(cov: Array, t_shape: tuple[int, ...], kept: tuple[int, ...]) -> Array:
    """(times, rows, rows) with each axis of the rows beside its twin."""
    order = [axis + i * len(kept) for axis in range(len(kept)) for i in range(2)]
    cov = cov.reshape(t_shape + kept + kept)
    return cov.transpose(*range(len(t_shape)), *(len(t_shape) + axis for axis in order))


def _regimes(get: Any) -> tuple[str, ...]:
    names = ("nngp", "ntk") if get is None else (get,) if isinstance(get, str) else get
    names = tuple(str(name).lower() for name in names) if isinstance(names, (tuple, list)) else ()
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
