r"""Which factors of the Jacobian to use for a network: the structured ones only once they are right.

.. math:: \sum_{\mu \in w} \partial_\mu g(x)\, \partial_\mu g(x') \quad \text{for each weight } w,
          \qquad g = s \cdot f

is computed from the structured factors and from two ordinary gradients, for a random s and two
samples. A structure does not depend on values: parameters and inputs near the caller's, or others
where these are traced, stand in for them, with no exact zeros that would hide a weight's part.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ntkdecay.kernels._checks import ApplyFn, exact
from ntkdecay.kernels._factors import Method, contract, factors


def method_for(apply_fn: ApplyFn, params: Any, x: Array, apart: bool) -> Method:
    """The factors to use; says once if they are not the structured ones.

    Raises:
        ValueError: if `apart` and the output for a sample depends on the rest of the batch.
    """
    leaves, treedef = jax.tree.flatten(params)
    shape = x.shape[1:] if apart else x.shape
    shapes = tuple(leaf.shape for leaf in leaves)
    key = (apply_fn, treedef, shapes, shape, x.dtype, apart)
    if key not in _known:
        with jax.ensure_compile_time_eval(), exact():
            x = x[jnp.array([0, -1])] if apart else x
            stand_ins, x = _generic((params, x))
            reason = _refusal(apply_fn, stand_ins, x, apart)
        if reason is not None:
            warnings.warn(
                f"{getattr(apply_fn, '__name__', apply_fn)}: {reason}; its kernel is computed from "
                "the Jacobian, which takes more time and memory.",
                stacklevel=3,
            )
        if len(_known) >= 1024:
            _known.clear()
        _known[key] = "structured" if reason is None else "jacobian"
    return _known[key]


_known: dict[Any, Method] = {}


def _refusal(apply_fn: ApplyFn, params: Any, x: Array, apart: bool) -> str | None:
    """Why the structured factors will not do; None if they are right."""
    try:
        ours, gradients, meeting = _compare(apply_fn, params, x, apart)
    except Exception as error:  # whatever a rule that does not fit the network raises
        if apart:
            _check_samples_apart(*_meeting(apply_fn, params, x))
        message = str(error).partition(". ")[0] or type(error).__name__
        return f"neural-tangents' structure rules cannot read it ({message:.200})"
    if apart:
        _check_samples_apart(*meeting)
    if any(isinstance(k, Tracer) for k in (*ours, *gradients)):
        return "it depends on traced values other than its arguments, so that it cannot be tried"
    sizes = [np.max(np.abs(k)) for k in gradients]
    eps = float(np.finfo(x.dtype).eps)
    for k, expected, size in zip(ours, gradients, sizes, strict=True):
        # a gradient that should vanish, as that of a bias before normalization, is all rounding
        if not np.max(np.abs(k - expected)) <= eps**0.5 * size + eps * max(sizes):
            return "neural-tangents' structure rules give another kernel than its gradients"
    return None


@functools.partial(jax.jit, static_argnums=(0, 3))
def _compare(apply_fn: ApplyFn, params: Any, x: Array, apart: bool) -> tuple[list, list, tuple]:
    """For each leaf, the kernel of s·f from the structured factors and from gradients; `_meeting`."""
    out = jax.eval_shape(apply_fn, params, x)
    seed = jnp.asarray(_numbers(0, out.shape[1:] if apart else out.shape, out.dtype))
    found = factors("structured", apply_fn, params, x, apart, seed=seed)
    n = len(x) if apart else 1
    shape = (n, 1) if apart else (1,)
    ours = [
        jnp.reshape(contract(u, u, shape, shape, apart, (), ()) + jnp.zeros((), x.dtype), -1)
        for u in found
    ]
    ours = [jnp.broadcast_to(k, (n * n,)).reshape(n, n) for k in ours]
    gradient = jax.grad(lambda p, x: jnp.sum(seed * apply_fn(p, x)))
    gradients = jax.vmap(gradient, (None, 0))(params, x[:, None] if apart else x[None])
    flat = [g.reshape(n, -1) for g in jax.tree.leaves(gradients)]
    expected = [g @ g.T for g in flat]
    return ours, expected, _meeting(apply_fn, params, x) if apart else ()


@functools.partial(jax.jit, static_argnums=0)
def _meeting(apply_fn: ApplyFn, params: Any, x: Array) -> tuple[Array, Array]:
    """How far the outputs for x differ from those of its samples one by one, and their size."""
    together = apply_fn(params, x)
    alone = jax.vmap(lambda x: apply_fn(params, x[None])[0])(x)
    return jnp.max(jnp.abs(together - alone)), jnp.max(jnp.abs(together))


def _check_samples_apart(difference: Array, size: Array) -> None:
    if isinstance(difference, Tracer) or not jnp.isfinite(size):
        return
    if not difference <= jnp.finfo(size.dtype).eps ** 0.5 * size:  # nor NaN, 0/0 in a batch of 1
        raise ValueError(
            f"apply_fn's output for a sample changes by {float(difference):.1e} with the rest of "
            "the batch, usually by batch normalization with batch statistics: pass vmap_axes=None."
        )


def _generic(tree: Any) -> Any:
    """The arrays of tree with every number moved a little, and those that are zero or traced set."""

    def move(i: int, x: Array) -> Array:
        numbers = _numbers(i, x.shape, x.dtype)
        if isinstance(x, Tracer):
            return jnp.asarray(numbers)
        x_ = np.asarray(x)
        return jnp.asarray(np.where(x_ == 0, numbers, x_ * (1 + numbers / 8)))

    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([move(i, x) for i, x in enumerate(leaves)])


def _numbers(seed: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uniform numbers of variance one."""
    return np.random.default_rng(seed).uniform(-(3**0.5), 3**0.5, shape).astype(dtype)
