r"""A CPU's convolutions, of any network, as products of patches and filters.

.. math:: y_o(p) = \sum_{i,c} w_{ico}\, x_c(p s + i d)

XLA's CPU compiler brings convolutions into the form that its fast library knows in a program's entry,
but not in loops, where all training is. So the program that JAX traces of a function is read, and a
product put in place of each convolution, in its branches and loops as well. Derivatives follow.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core

_MOST_POSITIONS = 64  # of a filter: as many slices are quick to compile


def by_products(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of pytrees of arrays; on a CPU with products in the place of convolutions.

    The rule of a function with a derivative of its own is left as it is.
    """

    def call(*args: Any) -> Any:
        if jax.default_backend() != "cpu":
            return function(*args)
        closed, out = jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)
        leaves = _evaluated(closed.jaxpr, closed.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return call


def _evaluated(jaxpr: Any, consts: Any, *args: Any) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    for eqn in jaxpr.eqns:
        if eqn.primitive is lax.conv_general_dilated_p and _is_ours(eqn):
            out = [convolution(*map(read, eqn.invars), **eqn.params)]
        else:
            if any(map(_convolves, eqn.params.values())):
                eqn = eqn.replace(params={name: _rewritten(p) for name, p in eqn.params.items()})
            taken = list(dict.fromkeys(v for v in eqn.invars if not isinstance(v, core.Literal)))
            alone = jaxpr.replace(  # so that JAX binds it as it does itself
                constvars=[],
                invars=taken,
                outvars=eqn.outvars,
                eqns=[eqn],
                debug_info=jaxpr.debug_info.with_unknown_names(),
            )
            out = jax.core.eval_jaxpr(alone, (), *map(read, taken))
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _is_ours(eqn: Any) -> bool:
    spec = eqn.params["dimension_numbers"].rhs_spec
    filter_ = eqn.invars[1].aval
    positions = 1
    for axis in spec[2:]:
        positions *= filter_.shape[axis]
    return (
        eqn.params["batch_group_count"] == 1
        and 0 < positions <= _MOST_POSITIONS
        and jnp.issubdtype(filter_.dtype, jnp.floating)
        and 0 not in (*eqn.invars[0].aval.shape, *filter_.shape, *eqn.outvars[0].aval.shape)
    )


def _convolves(part: Any) -> bool:
    """Whether a parameter of an equation is, or holds, a program with a convolution."""
    if isinstance(part, (tuple, list)):
        return any(map(_convolves, part))
    if isinstance(part, core.ClosedJaxpr):
        part = part.jaxpr
    return isinstance(part, core.Jaxpr) and any(
        eqn.primitive is lax.conv_general_dilated_p or any(map(_convolves, eqn.params.values()))
        for eqn in part.eqns
    )


def _rewritten(part: Any) -> Any:
    if not _convolves(part):
        return part
    if isinstance(part, (tuple, list)):
        return type(part)(map(_rewritten, part))
    closed = part if isinstance(part, core.ClosedJaxpr) else core.ClosedJaxpr(part, ())
    shapes = [
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type)
        for v in closed.jaxpr.invars
    ]
    inner = jax.make_jaxpr(lambda *args: _evaluated(closed.jaxpr, closed.consts, *args))(*shapes)
    return inner if part is closed else inner.jaxpr


def convolution(
    x: Array,
    w: Array,
    *,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Array:
    """`lax.conv_general_dilated` with these parameters.

    Patches are gathered along one axis after the other: six slices for a 3 × 3 filter, not nine.
    """
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    space = range(1, x.ndim - 1)
    x = x.transpose(lhs_spec[0], *lhs_spec[2:], lhs_spec[1])
    w = w.transpose(*reversed(rhs_spec[2:]), rhs_spec[1], rhs_spec[0])
    config = [(low, high, d - 1) for (low, high), d in zip(padding, lhs_dilation, strict=True)]
    if any(any(one) for one in config):
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    channels = x.shape[-1]
    lengths = reversed(w.shape[:-2])
    for axis, count, s, d in zip(space, lengths, window_strides, rhs_dilation, strict=True):
        x = _shifts(x, axis, count, s, d)
    groups, features = feature_group_count, w.shape[-1]
    kept = x.shape[:-1]
    options = {"precision": precision, "preferred_element_type": preferred_element_type}
    if groups == 1:
        w = w.reshape(-1, features)
        y = lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())), **options)
    else:
        x = x.reshape(-1, x.shape[-1] // channels, groups, channels // groups)
        w = w.reshape(x.shape[1], channels // groups, groups, features // groups)
        y = lax.dot_general(x, w, (((1, 3), (0, 1)), ((2,), (2,))), **options)
        y = y.swapaxes(0, 1).reshape(*kept, features)
    places = (out_spec[0], *out_spec[2:], out_spec[1])
    return y.transpose([places.index(i) for i in range(y.ndim)])


def _shifts(x: Array, axis: int, count: int, stride: int, dilation: int) -> Array:
    """As many copies of x as a filter is long, each further along the axis, joined as channels."""
    reach = (count - 1) * dilation + 1
    span = (x.shape[axis] - reach) // stride * stride + 1
    starts = itertools.islice(itertools.count(0, dilation), count)
    slices = [lax.slice_in_dim(x, i, i + span, stride, axis) for i in starts]
    return slices[0] if count == 1 else jnp.concatenate(slices, -1)
