"""What every predictor asks of its arguments, each refusal one sentence."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, choice, either, integer, is_traced, number, sequence, shown
from ntkdecay._degree import as_degree, network_degree
from ntkdecay._given import as_array
from ntkdecay._refuse import refuse
from ntkdecay.predict import _axes


class kernel(array):
    """The numbers of a kernel."""

    def __init__(self) -> None:
        super().__init__(
            why="the usual cause of others is an input that is not finite, or an all-zero one under a normalization"
        )

    def __call__(self, name: str, value: Any) -> None:
        if hasattr(value, "ntk") or hasattr(value, "nngp"):
            raise TypeError(
                f"`{name}` is {shown(value)} of neural-tangents; give one array: its .ntk, or its .nngp."
            )
        super().__call__(name, value)


TIME = array(low=0, inf=True, why="gradient-flow time starts at initialization")
L2 = number(low=0, why="it multiplies ‖θ‖²/2 in the loss; vmap over it for a path")
REDUCTION, ORIGIN = choice("mean", "sum"), choice("origin", "init")
TRACE_AXES = either(integer(low=None), sequence(integer(low=None), empty=True))


def float_dtype(*values: ArrayLike) -> Any:
    """The common floating dtype of the arguments (JAX's promotion, Python numbers weak)."""
    known = [
        value if hasattr(value, "dtype") or np.isscalar(value) else np.asarray(value)
        for value in values
    ]
    dtype = jnp.result_type(*known, 1.0)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"Expected real numbers, got {dtype}.")
    return dtype


def as_own(value: Any, dtype: Any) -> Any:
    """`as_array`, and not the caller's memory, in which another number may stand tomorrow."""
    value = as_array(value, dtype)
    return value.copy() if isinstance(value, np.ndarray) else value


def as_float(*values: ArrayLike) -> tuple[Array, ...]:
    """The arguments as arrays of their common floating dtype."""
    dtype = float_dtype(*values)
    return tuple(as_array(value, dtype) for value in values)


def check_degree(degree: Any) -> float:
    """k as a Python float: 0, 1 or any real above 1."""
    network_degree()("degree", degree)
    return as_degree(degree)


def traced_non_negative(value: Any, name: str, meaning: str) -> Any:
    """`value`, refused where it is traced and turns out negative or NaN; a rule has looked at all others."""
    if not is_traced(value):
        return value
    number = jnp.asarray(value)
    return refuse(number, ~(number >= 0).all(), f"`{name}` must be >= 0: {meaning}.")


def check_request(fx_train_0: Any, fx_test_0: Any, k_test_train: Any) -> None:
    """Something must be asked for, and test points need their kernel."""
    if fx_train_0 is None and fx_test_0 is None:
        raise ValueError("`fx_train_0` and `fx_test_0` are both None: there is nothing to predict.")
    if fx_test_0 is not None and k_test_train is None:
        raise ValueError(
            "`k_test_train` is None, but `fx_test_0` needs it: the kernel between test and training points."
        )


def check_ascending(t: Array) -> Array:
    """Times in the order in which a trajectory passes them."""
    flat = t.reshape(-1)
    return refuse(
        t,
        (flat[1:] < flat[:-1]).any(),
        "`t` must be ascending: a trajectory passes its times in order.",
    )


def refuse_kernel_shape(
    k_train_train: Array, y_shape: tuple[int, ...], trace_axes: tuple[int, ...]
) -> None:
    """The kernel has each axis of the labels that is not traced, twice."""
    expected = tuple(size for size in _axes.kept(y_shape, trace_axes) for _ in range(2))
    if k_train_train.shape != expected:
        raise ValueError(
            f"`k_train_train` has shape {k_train_train.shape}, but labels of shape {y_shape} with "
            f"trace_axes={trace_axes} need {expected}: each axis that is not traced, twice."
        )


def symmetric(k: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """(k + kᵀ)/2, or 0 if not finite, and for `refuse_kernel` whether k is finite, its largest k − kᵀ and entry."""
    finite = jnp.isfinite(k).all()
    k = jnp.where(finite, k, 0.0)
    return (k + k.T) / 2, (finite, jnp.abs(k - k.T).max(), jnp.abs(k).max())


def refuse_kernel(value: Any, finite: Any, skew: Any, size: Any) -> Any:
    """`value`, unless the training kernel is not finite or not symmetric."""
    value = refuse(
        value,
        ~finite,
        "`k_train_train` has NaN or infinite entries; the usual cause is an input that is not finite, or an "
        "all-zero one under a normalization.",
    )
    return refuse(
        value,
        skew > jnp.finfo(skew.dtype).eps ** 0.5 * size,
        f"`k_train_train` is not symmetric{_value(' (largest difference {:.3g})', skew)}; the usual cause is a kernel "
        "between two different sets of points.",
    )


def refuse_spectrum(value: Any, least: Any, largest: Any, rows: int) -> Any:
    """`value`, unless the training kernel, of so many rows, has an eigenvalue that is clearly below 0."""
    return refuse(
        value,
        least < -10 * rows * jnp.finfo(least.dtype).eps * largest,
        f"`k_train_train` is not positive semi-definite{_value(': its smallest eigenvalue is {:.3g}', least)}; compute "
        "it in float64, or, if it is a sample estimate, from a larger batch of samples.",
    )


def check_kernel(
    k_train_train: Array, y_shape: tuple[int, ...], trace_axes: tuple[int, ...]
) -> Array:
    """The training kernel as a symmetric matrix over the samples and the outputs that are not in `trace_axes`."""
    refuse_kernel_shape(k_train_train, y_shape, trace_axes)
    k, facts = symmetric(as_matrix(jnp.asarray(k_train_train)))
    return refuse_kernel(k, *facts)


def refuse_shape(value: Array, shape: tuple[int, ...], name: str, hint: str = "") -> None:
    """Outputs are a number for all, or of exactly `shape`."""
    if value.ndim and value.shape != shape:
        raise ValueError(
            f"`{name}` has shape {value.shape}; it must be a scalar or have shape {shape}{hint}."
        )


def as_matrix(kernel: Array) -> Array:
    """A kernel with the axes (a, a', b, b', …) as a matrix over (a, b, …) × (a', b', …)."""
    rows, columns = kernel.shape[::2], kernel.shape[1::2]
    order = (*range(0, kernel.ndim, 2), *range(1, kernel.ndim, 2))
    return kernel.transpose(order).reshape(math.prod(rows), math.prod(columns))


def _value(text: str, number: Any) -> str:
    """`text` with the number in it, where it is known."""
    return "" if is_traced(number) else text.format(float(number))
