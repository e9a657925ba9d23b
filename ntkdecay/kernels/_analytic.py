"""Kernels at infinite width."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, choice, function, integer, optional
from ntkdecay._tiles import by_tiles
from ntkdecay.kernels._checks import check_dtypes, exact


@checked(
    kernel_fn=function("of x1, x2 and get"),
    x1=array(),
    x2=optional(array()),
    get=choice("ntk", "nngp"),
    tile=optional(integer(low=1)),
)
def analytic_kernel(
    kernel_fn: Callable,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    get: Literal["ntk", "nngp"] = "ntk",
    *,
    tile: int | None = None,
) -> Array:
    r"""The NTK or NNGP kernel of an infinitely wide network.

    .. math:: \Theta(x, x') = \lim_{n \to \infty}
              \frac{1}{O} \sum_{o, \mu} \partial_\mu f_o(x)\, \partial_\mu f_o(x')

    over O outputs, and likewise the NNGP kernel E[f f']. The kernel of Theorem 1 of `l2` at t = 0.

    Args:
        kernel_fn: the third function of a network from `ntkdecay.stax`.
        x1: (n1, ...), floating; x2: (n2, ...), or None for x1, and then exactly symmetric.
        get: which kernel.
        tile: compute the kernel in blocks of tile × tile samples; None: in one.

    Returns:
        (n1, n2), in float64 if JAX has it enabled, whatever the dtype of the inputs. Where two
        samples coincide the NTK of a ReLU network is exact to the square root of the precision
        only, 1e-8 in float64, as neural-tangents computes it.

    Raises:
        TypeError: if an input is not floating.
        ValueError: if JAX would round the inputs, or the network's output is not (n, O).

    >>> import numpy as np
    >>> from ntkdecay import kernels, stax
    >>> _, _, kernel_fn = stax.Dense(1, b_std=None)
    >>> kernels.analytic_kernel(kernel_fn, np.eye(2)).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    check_dtypes((), x1=x1, x2=x2)
    x1, x2 = jnp.asarray(x1), None if x2 is None else jnp.asarray(x2)
    if x2 is not None and x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"`x2` has samples of shape {x2.shape[1:]}, `x1` of shape {x1.shape[1:]}: both go "
            "through one network."
        )
    return _analytic_kernel(x1, x2, kernel_fn, get, tile)


@partial(jax.jit, static_argnames=("kernel_fn", "get", "tile"))
def _analytic_kernel(x1, x2, kernel_fn, get, tile):
    def kernel(a: Array, b: Array | None) -> Array:
        k = kernel_fn(a, b, get)
        if k.ndim != 2:
            raise ValueError(
                f"kernel_fn gives a kernel of shape {k.shape}, not (n1, n2): end the network with "
                "Flatten or GlobalAvgPool so that its output is (n, outputs)."
            )
        return k

    with exact():
        return by_tiles(kernel, (1, 0), x1, x2, tile)
