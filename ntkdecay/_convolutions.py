r"""The convolutions of any network, fast on a CPU, in loops as well, with all derivatives.

.. math:: T(x, w, y) = \sum_{n, p, i, c, o} y_{no}(p)\, w_{ico}\, x_{nc}(p s + i d)

A convolution is ∂T/∂y; its transposes are ∂T/∂x and ∂T/∂w, and each of the three has the other two
as its own. So one primitive, the sum over two of the arrays, takes the place of JAX's in a traced
program. What it becomes is decided where the program is lowered: on a CPU what `_cpu_convolutions`
makes of it, elsewhere JAX's own convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from ntkdecay import _cpu_convolutions
from ntkdecay._cpu_convolutions import W, X, Y
from ntkdecay._program import Program, Text

convolution_p = core.Primitive("convolution")


def fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of pytrees of arrays, with convolutions that are fast on a CPU.

    A function with a rule of its own for its derivative, by custom_jvp or custom_vjp, is made fast
    where it is not differentiated. The rule, in which it is computed as well where it is, runs as
    written, with JAX's own convolutions: as right, and in a loop on a CPU up to a hundred times as slow.
    """

    def call(*args: Any) -> Any:
        closed, out = jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)
        leaves = jax.core.eval_jaxpr(_replaced(closed.jaxpr), closed.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return call


def fast_program(program: Program) -> Program:
    """The same for a function that was read."""
    jaxpr = program.text.jaxpr
    if not _convolves(jaxpr):
        return program
    return Program(Text(_replaced(jaxpr), program.out), program.captured)


def _replaced(jaxpr: core.Jaxpr) -> core.Jaxpr:
    return jaxpr.replace(eqns=[_equation(eqn) for eqn in jaxpr.eqns])


def _equation(eqn: Any) -> Any:
    if eqn.primitive is lax.conv_general_dilated_p and _is_ours(eqn):
        params = {"wanted": Y, "levels": 0, "shape": None, "dtype": None}
        return eqn.replace(primitive=convolution_p, params=eqn.params | params)
    if not any(map(_convolves, eqn.params.values())):
        return eqn
    params = {name: _inner(part) for name, part in eqn.params.items()}
    if callable(params.get("policy")):
        params["policy"] = _Policy(params["policy"])
    return eqn.replace(params=params)


class _Policy(NamedTuple):
    """What `jax.checkpoint` may save, of a policy that knows JAX's own convolution."""

    of: Callable[..., Any]

    def __call__(self, primitive: Any, *args: Any, **params: Any) -> Any:
        ours = primitive is convolution_p
        return self.of(lax.conv_general_dilated_p if ours else primitive, *args, **params)


def _inner(part: Any) -> Any:
    if not _convolves(part):
        return part
    if isinstance(part, (tuple, list)):
        return type(part)(map(_inner, part))
    if isinstance(part, core.ClosedJaxpr):
        return part.replace(jaxpr=_replaced(part.jaxpr))
    return _replaced(part)


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


def _is_ours(eqn: Any) -> bool:
    """Not complex, not empty, no groups of samples, no sharding of its own."""
    avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    return (
        eqn.params["batch_group_count"] == 1
        and eqn.params.get("out_sharding") is None
        and all(jnp.issubdtype(aval.dtype, jnp.floating) for aval in avals)
        and all(0 not in aval.shape for aval in avals)
    )


def by_jax(a: Array, b: Array, *, wanted, levels, shape, dtype, **conv: Any) -> Array:
    """The sum as JAX has it: a convolution or its transpose."""

    def y(x: Array, w: Array) -> Array:
        return lax.conv_general_dilated_p.bind(x, w, **conv)

    def one(a: Array, b: Array) -> Array:
        if wanted == Y:
            return y(a, b)
        along = (lambda x: y(x, a)) if wanted == X else (lambda w: y(a, w))
        return jax.linear_transpose(along, jax.ShapeDtypeStruct(shape, dtype))(b)[0]

    for _ in range(levels):
        one = jax.vmap(one)
    return one(a, b)


def _result(a: Any, b: Any, *, levels, shape, dtype, **params: Any) -> Any:
    """The type of the sum; `shape` and `dtype` are its own, without levels, unless it is ∂T/∂y."""
    if shape is None:
        inner = [jax.ShapeDtypeStruct(v.shape[levels:], v.dtype) for v in (a, b)]
        y = jax.eval_shape(partial(by_jax, levels=0, shape=None, dtype=None, **params), *inner)
        shape, dtype = y.shape, y.dtype
    return a.update(shape=(*a.shape[:levels], *shape), dtype=dtype, weak_type=False)


def _others(wanted: int) -> list[int]:
    return [array for array in (X, W, Y) if array != wanted]


def _transpose(place: int, cotangent: Array, *operands: Any, wanted, levels, **params: Any) -> Any:
    """The sum that has the operand at `place` as its result."""
    names, linear = _others(wanted), operands[place].aval
    arrays = {wanted: cotangent, names[1 - place]: operands[1 - place]}
    asked = names[place]
    params |= {"shape": None, "dtype": None}
    if asked != Y:
        params |= {"shape": linear.shape[levels:], "dtype": linear.dtype}
    return convolution_p.bind(
        *(arrays[name] for name in sorted(arrays)), wanted=asked, levels=levels, **params
    )


def _batch(
    operands: Any, places: Any, *, wanted, levels, shape, **params: Any
) -> tuple[Array, int]:
    """One more level if both have the new axis; else it joins one that the result has as well."""
    if None not in places:
        moved = [jnp.moveaxis(a, i, 0) for a, i in zip(operands, places, strict=True)]
        return convolution_p.bind(
            *moved, wanted=wanted, levels=levels + 1, shape=shape, **params
        ), 0
    place = 0 if places[0] is not None else 1
    with_axis = _others(wanted)[place]
    # n, c and o are axes 0 and 1 of the specs: n of x and y, c of x and w, o of w and y
    axis_in, axis_out = {
        (X, Y): (0, 0), (Y, X): (0, 0), (X, W): (1, 1), (W, X): (1, 1), (W, Y): (0, 1), (Y, W): (1, 0),
    }[with_axis, wanted]  # fmt: skip
    specs = params["dimension_numbers"]
    # within a group: groups are the outer part of c and o
    inside = params["feature_group_count"] > 1 and {with_axis, wanted} != {X, Y}
    axis = levels + specs[with_axis][axis_in]
    a = jnp.moveaxis(operands[place], places[place], axis + inside)
    size = a.shape[axis + inside]
    a = a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])
    axis = specs[wanted][axis_out]
    if shape is not None:
        shape = (*shape[:axis], shape[axis] * size, *shape[axis + 1 :])
    both = (a, operands[1]) if place == 0 else (operands[0], a)
    out = convolution_p.bind(*both, wanted=wanted, levels=levels, shape=shape, **params)
    axis += levels
    split = (-1, size) if inside else (size, -1)
    return out.reshape(*out.shape[:axis], *split, *out.shape[axis + 1 :]), axis + inside


_now = jax.jit(lambda a, b, params: convolution_p.bind(a, b, **dict(params)), static_argnums=2)


@convolution_p.def_impl
def _impl(a: Any, b: Any, **params: Any) -> Array:
    with jax.disable_jit(False):
        return _now(a, b, tuple(params.items()))


convolution_p.def_abstract_eval(_result)
ad.defbilinear(convolution_p, partial(_transpose, 0), partial(_transpose, 1))
batching.primitive_batchers[convolution_p] = _batch
mlir.register_lowering(convolution_p, mlir.lower_fun(by_jax, multiple_results=False))
mlir.register_lowering(
    convolution_p, mlir.lower_fun(_cpu_convolutions.total, multiple_results=False), platform="cpu"
)
