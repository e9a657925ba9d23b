r"""Which factors of the Jacobian to use for a network: the structured ones only once they are right.

.. math:: \sum_{\mu \in w} \partial_\mu g(x)\, \partial_\mu g(x') \quad \text{for each weight } w,
          \qquad g = s \cdot f

is computed from the structured factors and from two ordinary gradients, for a random s and two
samples, at parameters and inputs near the caller's.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._at_once import at_once
from ntkdecay._host import on_host
from ntkdecay._program import Program
from ntkdecay._warn import warn
from ntkdecay.kernels._checks import exact
from ntkdecay.kernels._factors import Method, contract, factors
from ntkdecay.kernels._stand_ins import chosen, numbers, stand_ins


def method_for(name: str, f: Program, params: Any, x: Array, apart: bool) -> Method:
    """The factors to use; says once if they are not the structured ones.

    Args:
        f: of one sample if `apart`, else of all of x.
    """
    key = (f.text, apart)
    if key not in _known:
        with at_once(), exact():
            reason = _refusal(f, params, chosen(x, 2 if apart else len(x)), apart)
        if reason is not None:
            warn(
                f"{name}: {reason}; its kernel is computed from the Jacobian, which takes more "
                "time and memory."
            )
        if len(_known) >= 1024:
            _known.clear()
        _known[key] = "structured" if reason is None else "jacobian"
    return _known[key]


_known: dict[Any, Method] = {}


def _refusal(f: Program, params: Any, x: Any, apart: bool) -> str | None:
    """Why the structured factors will not do; None if they are right."""
    tried = stand_ins((f,), (params, x))
    if tried is None:
        return "it depends on traced values other than its arguments, so that it cannot be tried"
    (f,), (params, x) = tried
    try:
        sides = partial(_sides, apart)
        compiled = partial(_compiled, apart)
        both = on_host(sides, f, params, x, compiled=compiled) if apart else compiled(f, params, x)
        ours, gradients = jax.device_get(both)
    except Exception as error:  # whatever a rule that does not fit the network raises
        message = str(error).partition(". ")[0] or type(error).__name__
        return f"neural-tangents' structure rules cannot read it ({message:.200})"
    sizes = [np.max(np.abs(k)) for k in gradients]
    eps = float(np.finfo(x.dtype).eps)
    for k, expected, size in zip(ours, gradients, sizes, strict=True):
        # a gradient that should vanish, as that of a bias before normalization, is all rounding
        if not np.max(np.abs(k - expected)) <= eps**0.5 * size + eps * max(sizes):
            return "neural-tangents' structure rules give another kernel than its gradients"
    return None


def _sides(apart: bool, f: Program, params: Any, x: Array) -> tuple[list, list]:
    """For each leaf, the kernel of s·f from the structured factors and from gradients."""
    seed = jnp.asarray(numbers(0, f.out.shape[1:] if apart else f.out.shape, f.out.dtype))
    found = factors("structured", f, params, x, apart, seed=seed)
    n = len(x) if apart else 1
    shape = (n, 1) if apart else (1,)
    ours = [
        jnp.reshape(contract(u, u, shape, shape, apart, (), ()) + jnp.zeros((), x.dtype), -1)
        for u in found
    ]
    ours = [jnp.broadcast_to(k, (n * n,)).reshape(n, n) for k in ours]
    gradient = jax.grad(lambda p, x: jnp.sum(seed * f(p, x)))
    gradients = jax.vmap(gradient, (None, 0))(params, x[:, None] if apart else x[None])
    flat = [g.reshape(n, -1) for g in jax.tree.leaves(gradients)]
    return ours, [g @ g.T for g in flat]


_compiled = jax.jit(_sides, static_argnums=0)
