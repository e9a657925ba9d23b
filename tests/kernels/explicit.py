"""The kernel by its definition, as the tests compare with it."""

import functools

import jax
import numpy as np


@functools.partial(jax.jit, static_argnums=0)
def jacobians(f, params, x):
    """∂f/∂w of shape (n, O, size of w) for each leaf w; f is flattened to (n, O)."""
    with jax.numpy_rank_promotion("allow"):
        leaves = jax.tree.leaves(jax.jacrev(lambda p: f(p, x).reshape(len(x), -1))(params))
    return [j.reshape(*j.shape[:2], -1) for j in leaves]


def explicit_layers(f, params, x1, x2):
    """[(n1, n2, O, O)] for each leaf."""
    left = jacobians(f, params, x1)
    right = left if x2 is x1 else jacobians(f, params, x2)
    both = zip(left, right, strict=True)
    return [np.einsum("aop,bqp->aboq", a, b, optimize=True) for a, b in both]


def explicit_ntk(f, params, x1, x2):
    """(n1, n2, O, O)."""
    return sum(explicit_layers(f, params, x1, x2))
