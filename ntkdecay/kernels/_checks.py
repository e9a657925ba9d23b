"""What the functions of this package ask of their arguments."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._arrays import own
from ntkdecay._convolutions import fast_program
from ntkdecay._program import Program, read

ApplyFn = Callable[[Any, Any], Any]


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
                f"`{name}` holds {type(leaf).__name__ if dtype is None else dtype}; a kernel needs "
                "arrays of a floating dtype."
            )
        first = first or (name, dtype)
        if dtype != first[1]:
            raise TypeError(
                f"`{name}` is {dtype} but `{first[0]}` is {first[1]}: convert one of them, so that "
                "the kernel's precision is the one you chose."
            )
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(
                f"`{name}` is {dtype}, which JAX would silently round: enable jax_enable_x64 or "
                "convert to float32."
            )
    assert first is not None
    return first[1]


class Network(NamedTuple):
    """A network as it was read: at one sample if its samples are apart, else at those of x1, x2.

    Attributes:
        f1, f2: programs of (params, x).
        out: the shape of f(x1).
        arrays: the inputs.
    """

    f1: Program
    f2: Program
    out: jax.ShapeDtypeStruct
    arrays: list[Any]


def check_network(apply_fn: ApplyFn, params: Any, apart: bool, **inputs: Any) -> Network:
    """The network as read now, and the inputs as arrays; they must suit each other."""
    dtype = check_dtypes(params, **inputs)
    arrays = [None if x is None else own(x) for x in inputs.values()]
    x1, x2 = (*arrays, None)[:2]
    assert x1 is not None
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"`x2` has samples of shape {x2.shape[1:]}, `x1` of shape {x1.shape[1:]}: both go "
            "through one network."
        )
    f1 = f2 = _checked(apply_fn, params, x1, apart)
    if not apart and x2 is not None:
        f2 = _checked(apply_fn, params, x2, apart)
    out = f1.out
    if out.dtype != dtype:
        raise TypeError(
            f"`apply_fn` gives {out.dtype} for {dtype} inputs: it casts inside, usually by a layer "
            "with a dtype of its own."
        )
    return Network(f1, f2, out.update(shape=(len(x1), *out.shape[1:])), arrays)


def _checked(apply_fn: ApplyFn, params: Any, x: Array, apart: bool) -> Program:
    """The network for one sample, or all, that gives an array of as many."""
    if apart and len(x) > 1:
        try:
            single = read_at(apply_fn, params, x, 1)
        except Exception:  # whatever a network raises that does not take one
            single = None
        if single is not None and _suits(single.out, 1):
            return single
    found = read_at(apply_fn, params, x, len(x))
    if not _suits(found.out, len(x)):
        raise ValueError(
            f"`apply_fn` gives {found.out} for {len(x)} samples; it must give one array whose axis 0 "
            "is the sample: wrap a function of one sample in jax.vmap."
        )
    if apart and len(x) > 1:
        raise ValueError(
            "`apply_fn`'s output for a sample needs the rest of the batch, for it does not take "
            "one sample alone: pass vmap_axes=None."
        )
    return found


def _suits(out: Any, n: int) -> bool:
    return isinstance(out, jax.ShapeDtypeStruct) and out.shape[:1] == (n,)


def read_at(apply_fn: ApplyFn, params: Any, x: Array, n: int) -> Program:
    """The network for n samples like those of x."""
    with exact():
        samples = jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype)
        return fast_program(read(apply_fn, params, samples))


def name_of(apply_fn: ApplyFn) -> str:
    return str(getattr(apply_fn, "__name__", apply_fn))


def canonical_axes(axes: Any, ndim: int, name: str) -> tuple[int, ...]:
    axes = (int(axes),) if np.ndim(axes) == 0 else tuple(int(axis) for axis in axes)
    if any(not -ndim <= axis < ndim for axis in axes):
        raise ValueError(f"`{name}`={axes} does not fit apply_fn's output, which has {ndim} axes.")
    found = sorted({axis % ndim for axis in axes})
    if len(found) < len(axes):
        raise ValueError(f"`{name}`={axes} names an axis twice, of an output with {ndim} axes.")
    return tuple(found)
