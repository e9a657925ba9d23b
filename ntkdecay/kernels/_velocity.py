"""How the kernel of a network moves under gradient flow with L2."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, choice, function, integer, number, optional, tree
from ntkdecay._degree import or_measured, plain_degree
from ntkdecay._program import read
from ntkdecay._tiles import by_tiles
from ntkdecay.homogeneity import Degree
from ntkdecay.homogeneity import degree as measured_degree
from ntkdecay.kernels._apart import check_apart
from ntkdecay.kernels._checks import ApplyFn, canonical_axes, check_network, exact, name_of
from ntkdecay.kernels._choice import method_for
from ntkdecay.kernels._empirical import AXES, ntk_of
from ntkdecay.kernels._factors import transposition


class Velocity(NamedTuple):
    """dΘ/dt in the parts of (S5): `total` = `decay` + `t` + `t` with x and x' exchanged."""

    total: Array
    decay: Array
    t: Array


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x=array(),
    loss=function("of f(x)"),
    l2=number(low=0),
    degree=optional(or_measured(number(low=0))),
    trace_axes=AXES,
    vmap_axes=choice(0, None),
    tile=optional(integer(low=1)),
)
def velocity(
    apply_fn: ApplyFn,
    params: Any,
    x: ArrayLike,
    loss: Callable[[Array], Array],
    l2: float,
    *,
    degree: float | Degree | None = None,
    trace_axes: int | Sequence[int] = (-1,),
    vmap_axes: Literal[0] | None = 0,
    tile: int | None = None,
) -> Velocity:
    r"""The velocity of the neural tangent kernel under gradient flow with L2.

    .. math:: \frac{d\Theta(x, x')}{dt} = -2(k-1)\lambda\, \Theta(x, x') + T(x, x') + T(x', x)

        T(x, x') = -\sum_{x'' \in S} \partial_{\mu\nu} f(x)\, \partial_\mu f(x')\,
                   \partial_\nu f(x'')\, \ell'(x'')

    (S5) and (S6) of `l2` (SM B), for a k-homogeneous network. T is what finite width adds to
    Theorem 1. It is the derivative of the left factor of Θ alone along −∂L: no third-order tensor
    is formed.

    Args:
        apply_fn, params, vmap_axes, tile: as for `empirical_ntk`.
        x: (n, ...), the training set S, between whose samples the kernel is taken.
        loss: L(f(x)), a sum over samples, without the L2 term; its derivative is ℓ'.
        l2: λ of L + λ/2 ‖θ‖².
        degree: k, a number or as `ntkdecay.homogeneity.degree` measures it, which None lets it do.
        trace_axes: axes of f over which the kernel is averaged.

    Returns:
        `Velocity(total, decay, t)`, each of the shape of the kernel.

    Raises:
        TypeError, ValueError: as `empirical_ntk`, and if the network is not homogeneous.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import kernels
    >>> def f(params, x):
    ...     return x @ params[0] @ params[1]
    ...
    >>> params = (jnp.eye(2), jnp.ones((2, 1)))
    >>> velocity = kernels.velocity(f, params, jnp.ones((1, 2)), jnp.sum, l2=0.1, degree=2)
    >>> velocity.decay.round(3).tolist()  # −2(k − 1)λΘ
    [[-1.2]]
    """
    apart = vmap_axes == 0
    f, _, out, (batch,) = check_network(apply_fn, params, apart, x=x)
    trace = canonical_axes(trace_axes, out.ndim, "trace_axes")
    if tile is not None and not (apart and 0 not in trace):
        raise ValueError(f"`tile`={tile} needs vmap_axes=0 and axis 0 outside trace_axes.")
    if apart:
        check_apart(apply_fn, f, params, batch)
    loss_ = read(loss, out)
    if loss_.out.shape != ():
        raise ValueError(
            f"`loss` gives an array of shape {loss_.out.shape} for f(x); it must give one number."
        )
    if degree is None:
        degree = measured_degree(apply_fn, params, batch)
    method = method_for(name_of(apply_fn), f, params, batch, apart)
    return _velocity(method, apart, trace, tile, f, loss_, params, batch, l2, plain_degree(degree))


@partial(jax.jit, static_argnums=range(4))
def _velocity(method, apart, trace, tile, f, loss, params, x, l2, degree) -> Velocity:
    def outputs(p: Any) -> Array:
        return jax.vmap(lambda x: f(p, x[None])[0])(x) if apart else f(p, x)

    with exact():
        gradient = jax.grad(lambda p: loss(outputs(p)))(params)
    descent = jax.tree.map(jnp.negative, gradient)

    def theta_and_t(a: Array, b: Array | None) -> tuple[Array, Array]:
        def theta(left: Any) -> Array:
            other = a if b is None else b
            return ntk_of(method, apart, trace, (), None, (f, f), left, a, params, other)

        return jax.jvp(theta, (params,), (descent,))

    axes = transposition(len(f.out.shape), trace, ())
    with exact():
        theta, t = by_tiles(theta_and_t, axes, x, x, tile)
    decay = -2 * (degree - 1) * l2 * (theta + theta.transpose(axes)) / 2
    return Velocity(decay + t + t.transpose(axes), decay, t)
