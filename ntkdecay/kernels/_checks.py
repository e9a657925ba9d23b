"""What the functions of this package ask of their arguments."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

ApplyFn = Callable[[Any, Any], Array]


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """neural-tangents promotes ranks; a kernel's small eigenvalues do not survive TF32 products."""
    config: Any = jax.config
    precision = config.jax_default_matmul_precision or "highest"
    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision(precision):
        yield


def check_dtypes(params: Any, **inputs: Any) -> np.dtype:
    """The one floating dtype of params and inputs."""
    leaves = [("params", leaf) for leaf in jax.tree.leaves(params)]
    leaves += [(name, x) for name, x in inputs.items() if x is not None]
    first = None
    for name, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name} holds {type(leaf).__name__ if dtype is None else dtype}; a kernel needs "
                "arrays of a floating dtype."
            )
        first = first or (name, dtype)
        if dtype != first[1]:
            raise TypeError(
                f"{name} is {dtype} but {first[0]} is {first[1]}: convert one of them, so that "
                "the kernel's precision is the one you chose."
            )
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(
                f"{name} is {dtype}, which JAX would silently round: enable jax_enable_x64 or "
                "convert to float32."
            )
    assert first is not None
    return first[1]


def check_network(
    apply_fn: ApplyFn, params: Any, **inputs: Any
) -> tuple[jax.ShapeDtypeStruct, list[Any]]:
    """The shape of f(x1), and the inputs as arrays; they must suit each other."""
    dtype = check_dtypes(params, **inputs)
    arrays = [None if x is None else jnp.asarray(x) for x in inputs.values()]
    x = arrays[0]
    assert x is not None
    leaves, treedef = jax.tree.flatten(params)
    out = _output(apply_fn, treedef, tuple(leaf.shape for leaf in leaves), x.shape, dtype)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"apply_fn gives {out} for {x.shape[0]} samples; it must give one array whose axis 0 "
            "is the sample: wrap a function of one sample in jax.vmap."
        )
    if out.dtype != dtype:
        raise TypeError(
            f"apply_fn gives {out.dtype} for {dtype} inputs: it casts inside, usually by a layer "
            "with a dtype of its own."
        )
    return out, arrays


@functools.lru_cache(maxsize=1024)
def _output(apply_fn: ApplyFn, treedef: Any, shapes: tuple, x_shape: tuple, dtype: Any) -> Any:
    params = treedef.unflatten([jax.ShapeDtypeStruct(shape, dtype) for shape in shapes])
    with exact():
        return jax.eval_shape(apply_fn, params, jax.ShapeDtypeStruct(x_shape, dtype))


def check_tile(tile: int | None) -> None:
    if tile is not None and tile < 1:
        raise ValueError(f"tile is {tile}; allowed are None and a number of samples >= 1.")


def canonical_axes(axes: int | Sequence[int], ndim: int, name: str) -> tuple[int, ...]:
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(not -ndim <= axis < ndim for axis in axes):
        raise ValueError(f"{name}={axes} does not fit apply_fn's output, which has {ndim} axes.")
    return tuple(sorted({axis % ndim for axis in axes}))
