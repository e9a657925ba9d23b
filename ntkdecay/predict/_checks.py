"""What every predictor asks of its arguments, each refusal one sentence."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict import _axes


def as_float(*values: ArrayLike) -> tuple[Array, ...]:
    """The arguments as arrays of their common floating dtype (JAX's promotion, Python numbers weak)."""
    known = [
        value if hasattr(value, "dtype") or np.isscalar(value) else np.asarray(value)
        for value in values
    ]
    dtype = jnp.result_type(*known, 1.0)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"Expected real numbers, got {dtype}.")
    return tuple(jnp.asarray(value, dtype) for value in known)


def is_traced(*values: Any) -> bool:
    """Whether any array in `values` is known only when the program runs."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def check_degree(degree: float) -> float:
    """k as a Python float: 0, 1 or any real above 1."""
    if is_traced(degree):
        raise TypeError(
            "`degree` must be a Python number: the closed form is chosen by it at trace time."
        )
    value = float(degree)
    if not (value in (0.0, 1.0) or 1.0 < value < math.inf):
        raise ValueError(
            f"`degree` is {degree}; allowed are 0 (scale invariant), 1 (linear in its parameters) and any real "
            "above 1 (a deep network: the number of its weight layers)."
        )
    return value


def refuse(value: Any, wrong: Any, message: str) -> Any:
    """`value`, unless `wrong`: then a ValueError, at the call if that is known there, else when it runs."""
    if is_traced(wrong):
        import equinox  # a quarter of a second, for traced arguments only

        return equinox.error_if(value, wrong, message)
    if wrong:
        raise ValueError(message)
    return value


def check_non_negative(value: Any, name: str, meaning: str) -> Any:
    """`value`, refused where negative or NaN."""
    number = value if is_traced(value) else np.asarray(value)
    least = (
        "" if is_traced(value) or not number.size else f", but its smallest entry is {number.min()}"
    )
    return refuse(value, ~(number >= 0).all(), f"`{name}` must be >= 0: {meaning}{least}.")


def check_l2(l2: Any) -> Any:
    """λ, one number >= 0, or one for each layer."""
    if isinstance(l2, Mapping):
        return {layer: check_l2(one) for layer, one in l2.items()}
    if np.shape(l2):
        raise ValueError(
            f"`l2` has shape {np.shape(l2)}; it must be a number here: vmap over it for a path."
        )
    return check_non_negative(l2, "l2", "it multiplies ‖θ‖²/2 in the loss")


def check_momentum(momentum: Any) -> Any:
    """β, or None."""
    if momentum is None:
        return None
    beta = momentum if is_traced(momentum) else np.asarray(momentum)
    message = "`momentum` must be in [0, 1): it is the fraction of the last step that is kept."
    return refuse(momentum, ~((beta >= 0) & (beta < 1)).all(), message)


def check_origin(l2_from: str) -> None:
    """What the penalty is measured from."""
    if l2_from not in ("origin", "init"):
        raise ValueError(
            f'`l2_from` is {l2_from!r}; allowed are "origin" (L2 on θ) and "init" (on θ − θ_0).'
        )


def check_reduction(reduction: str) -> None:
    """How the loss adds up."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f'`reduction` is {reduction!r}; allowed are "mean" and "sum".')


def check_request(fx_train_0: Any, fx_test_0: Any, k_test_train: Any) -> None:
    """Something must be asked for, and test points need their kernel."""
    if fx_train_0 is None and fx_test_0 is None:
        raise ValueError("`fx_train_0` and `fx_test_0` are both None: there is nothing to predict.")
    if fx_test_0 is not None and k_test_train is None:
        raise ValueError(
            "`fx_test_0` needs `k_test_train`, the kernel between test and training points."
        )


def check_ascending(t: Array) -> Array:
    """Times in the order in which a trajectory passes them."""
    flat = t.reshape(-1)
    return refuse(
        t,
        (flat[1:] < flat[:-1]).any(),
        "`t` must be ascending: a trajectory passes its times in order.",
    )


def check_kernel(
    k_train_train: Array, y_shape: tuple[int, ...], trace_axes: tuple[int, ...]
) -> Array:
    """The training kernel as a symmetric matrix over the samples and the outputs that are not in `trace_axes`."""
    kept = _axes.kept(y_shape, trace_axes)
    expected = tuple(size for size in kept for _ in range(2))
    if k_train_train.shape != expected:
        raise ValueError(
            f"`k_train_train` has shape {k_train_train.shape}, but labels of shape {y_shape} with "
            f"trace_axes={trace_axes} need {expected}: each axis that is not traced, twice."
        )
    k = as_matrix(k_train_train)
    k = refuse(
        k,
        ~jnp.isfinite(k).all(),
        "`k_train_train` has NaN or infinite entries; the usual cause is an input that is not finite, or an "
        "all-zero one under a normalization.",
    )
    size = jnp.abs(k).max(initial=0.0)
    skew = jnp.abs(k - k.T).max(initial=0.0)
    return refuse(
        (k + k.T) / 2,
        skew > jnp.sqrt(jnp.finfo(k.dtype).eps) * size,
        f"`k_train_train` is not symmetric{_value(' (largest difference {:.3g})', skew)}; the usual cause is a kernel "
        "between two different sets of points.",
    )


def check_spectrum(eigenvalues: Array) -> Array:
    """Eigenvalues in ascending order, those below 0 by rounding set to 0, those clearly below refused."""
    tolerance = (
        10
        * eigenvalues.size
        * jnp.finfo(eigenvalues.dtype).eps
        * jnp.abs(eigenvalues).max(initial=0.0)
    )
    least = eigenvalues.min(initial=0.0)
    return refuse(
        jnp.maximum(eigenvalues, 0.0),
        least < -tolerance,
        f"`k_train_train` is not positive semi-definite{_value(': its smallest eigenvalue is {:.3g}', least)}; compute "
        "it in float64, or, if it is a sample estimate, from a larger batch of samples.",
    )


def check_shape(value: Array, shape: tuple[int, ...], name: str) -> Array:
    """`value` broadcast from a scalar, or of exactly `shape`."""
    if value.ndim and value.shape != shape:
        raise ValueError(
            f"`{name}` has shape {value.shape}; it must be a scalar or have shape {shape}."
        )
    return jnp.broadcast_to(value, shape)


def as_matrix(kernel: Array) -> Array:
    """A kernel with the axes (a, a', b, b', …) as a matrix over (a, b, …) × (a', b', …)."""
    rows, columns = kernel.shape[::2], kernel.shape[1::2]
    order = (*range(0, kernel.ndim, 2), *range(1, kernel.ndim, 2))
    return kernel.transpose(order).reshape(math.prod(rows), math.prod(columns))


def _value(text: str, number: Any) -> str:
    """`text` with the number in it, where it is known."""
    return "" if is_traced(number) else text.format(float(number))
