"""What JAX would compute, by NumPy: for a few numbers, compiling takes far longer than computing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from ntkdecay._at_once import at_once
from ntkdecay._convolutions import by_jax, convolution_p
from ntkdecay._host_rules import RULES, NoRule

_CALLS = frozenset(
    [
        "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
        "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
    ]
)  # fmt: skip


def on_host(function: Callable, *args: Any, compiled: Callable | None = None) -> Any:
    """function(*args) of pytrees of known numbers, as NumPy arrays.

    With an operation that has no rule here it is compiled after all.

    Args:
        compiled: the same function, compiled; None: compiled for this call.
    """
    closed, out = jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)
    try:
        found = run(closed, jax.tree.leaves(args))
    except NoRule:
        with at_once():
            return jax.tree.map(np.asarray, (compiled or jax.jit(function))(*args))
    return jax.tree.unflatten(jax.tree.structure(out), found)


def run(closed: core.ClosedJaxpr, args: list[Any]) -> list[np.ndarray]:
    """The results of a program; `NoRule` where it has an operation without a rule."""
    jaxpr = closed.jaxpr
    known: dict[Any, np.ndarray] = {}

    def put(variables: Any, values: Any) -> None:
        for v, value in zip(variables, values, strict=True):
            if jnp.issubdtype(v.aval.dtype, jax.dtypes.extended):
                raise NoRule("random keys")
            known[v] = np.asarray(value, v.aval.dtype)
            if known[v].shape != v.aval.shape:
                raise NoRule("an operation that means something else in this release of JAX")

    def read(v: Any) -> np.ndarray:
        is_literal = isinstance(v, core.Literal)
        return np.asarray(v.val, getattr(v.aval, "dtype", None)) if is_literal else known[v]

    put((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *args))
    for equation in jaxpr.eqns:
        put(equation.outvars, operation(equation, list(map(read, equation.invars))))
    return list(map(read, jaxpr.outvars))


def operation(equation: Any, inputs: list[np.ndarray]) -> list[Any]:
    """The results of one equation of a program."""
    name, params = equation.primitive.name, equation.params
    if name in RULES:
        try:
            with np.errstate(all="ignore"):
                found = RULES[name](*inputs, **params)
        except Exception as error:  # another release of JAX may give it other parameters
            raise NoRule(name) from error
        return list(found) if equation.primitive.multiple_results else [found]
    if equation.primitive is convolution_p:
        return run(jax.make_jaxpr(lambda a, b: by_jax(a, b, **params))(*inputs), inputs)
    if name == "scan":
        return _scan(inputs, **params)
    if name == "cond":
        branches = params["branches"]
        return run(branches[int(np.clip(inputs[0], 0, len(branches) - 1))], inputs[1:])
    if name in _CALLS:
        for inner in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            if inner in params:
                program = params[inner]
                closed = (
                    core.ClosedJaxpr(program, ()) if isinstance(program, core.Jaxpr) else program
                )
                return run(closed, inputs)
    raise NoRule(name)


def _scan(inputs: list[Any], *, jaxpr, length, reverse, **params: Any) -> list:
    if "num_consts" in params:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    else:  # since JAX 0.12 as trees of all that goes in
        num_consts, num_carry, _ = (len(list(part)) for part in params["ft_in"].unpack())
    first = num_consts + num_carry
    consts, carry, xs = inputs[:num_consts], inputs[num_consts:first], inputs[first:]
    rows = []
    for i in range(length)[::-1] if reverse else range(length):
        out = run(jaxpr, [*consts, *carry, *(x[i] for x in xs)])
        carry = out[:num_carry]
        rows.append(out[num_carry:])
    if not rows:
        raise NoRule("a loop of no steps")
    return [
        *carry,
        *(np.stack(column[::-1] if reverse else column) for column in zip(*rows, strict=True)),
    ]
