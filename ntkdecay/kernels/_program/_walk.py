"""The walk through a network's program: each operation understood, or refused with its line."""

from __future__ import annotations

from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from ntkdecay._checks import is_traced
from ntkdecay._cpu_convolutions import Y
from ntkdecay._host import on_host, operation
from ntkdecay._host_rules import NoRule
from ntkdecay.kernels._program._attention import Scores
from ntkdecay.kernels._program._builder import BATCH, local_of
from ntkdecay.kernels._program._layers import Layers
from ntkdecay.kernels._program._source import refusal
from ntkdecay.kernels._program._values import (
    Data,
    Expression,
    Local,
    Parameter,
    Signal,
    uniform,
)

POINTWISE = frozenset(
    [
        "abs",
        "add",
        "and",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "ceil",
        "clamp",
        "convert_element_type",
        "cos",
        "cosh",
        "div",
        "eq",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "is_finite",
        "le",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "not",
        "or",
        "pow",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "sub",
        "tan",
        "tanh",
        "copy",
        "copy_p",
    ]
)
MOVES = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose")
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_NO_CALLS = ("scan", "while", "cond", "custom_vjp_call", "custom_vjp_call_jaxpr")


class Walk(Layers):
    """The nodes of a network, made as its program is walked."""

    def run(self, closed: Any, *arguments: Any) -> list[Any]:
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(v: Any) -> Any:
            return np.asarray(v.val) if hasattr(v, "val") else known[v]

        for equation in jaxpr.eqns:
            values = self._equation(equation, [read(v) for v in equation.invars])
            known |= dict(zip(equation.outvars, values, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if all(map(_is_known, inputs)) and not equation.effects:
            return _known(equation, inputs)
        inner = next((equation.params[key] for key in CALLS if key in equation.params), None)
        if inner is not None and name not in _NO_CALLS:
            closed = inner if hasattr(inner, "consts") else jax.extend.core.ClosedJaxpr(inner, ())
            if name == "custom_jvp_call" and not _differentiates(equation, closed):
                raise refusal(
                    equation,
                    "has a derivative of its own (jax.custom_jvp) that is not that of its value",
                    "functions whose tangent kernel follows from their values",
                )
            return self.run(closed, *inputs)
        if len(equation.outvars) != 1:
            raise refusal(equation, "has several results", "operations with one")
        try:
            return [self._one(name, equation, inputs)]
        except NotImplementedError as error:
            raise refusal(
                equation, f"has no rule ({error})", "what neural-tangents has rules of"
            ) from None

    def _one(self, name: str, equation: Any, inputs: list[Any]) -> Any:
        kinds = [one for one in inputs if not isinstance(one, np.ndarray)]
        if all(isinstance(one, Parameter) for one in kinds):
            return self._parameter(name, equation, inputs)
        if all(isinstance(one, Data) for one in kinds):
            expressions = tuple(one.expression if isinstance(one, Data) else one for one in inputs)
            return Data(Expression(equation, expressions), equation.outvars[0].aval.shape)
        if any(isinstance(one, Scores) for one in kinds):
            return self._of_scores(name, equation, inputs)
        inputs = [self._settled(equation, one) for one in inputs]
        if (
            name == "convolution"
            and equation.params["wanted"] == Y
            and not equation.params["levels"]
        ):
            name = "conv_general_dilated"
        special = {
            "dot_general": self._dense,
            "conv_general_dilated": self._conv,
            "reduce_window_sum": self._pool,
            "reduce_sum": self._sum,
            "concatenate": self._concatenate,
        }.get(name)
        if special is not None:
            return special(equation, inputs)
        if name in MOVES:
            return self._move(name, equation, inputs[0])
        if name in POINTWISE:
            return self._pointwise(name, equation, inputs)
        raise refusal(
            equation,
            "is not an operation of which the infinite-width limit is known here",
            "dense and convolutional layers, functions of one entry, sums, averages over space, "
            "layer norm, reshapes",
        )

    def _parameter(self, name: str, equation: Any, inputs: list[Any]) -> Parameter:
        shape = equation.outvars[0].aval.shape
        leaf = next(one for one in inputs if isinstance(one, Parameter))
        numbers = [one for one in inputs if isinstance(one, np.ndarray)]
        scale = leaf.scale
        if name in ("mul", "div", "neg", "convert_element_type", "copy", "copy_p") and (
            len(inputs) == 1 or (len(numbers) == 1 and uniform(numbers[0]))
        ):
            if name == "div" and inputs[0] is not leaf:
                raise refusal(equation, "divides by a parameter", "parameters times constants")
            factor = float(numbers[0].flat[0]) if numbers else 1.0
            scale *= {"mul": factor, "div": 1 / factor if name == "div" else 1}.get(name, 1.0)
            if shape == leaf.shape:
                return Parameter(leaf.leaf, shape, leaf.own, scale)
        elif name == "transpose":
            axes = equation.params["permutation"]
            return Parameter(leaf.leaf, shape, tuple(leaf.own[a] for a in axes), scale)
        elif name in ("reshape", "squeeze", "expand_dims"):
            if all(own or n == 1 for own, n in zip(leaf.own, leaf.shape, strict=True)):
                return Parameter(leaf.leaf, shape, (True,) * len(shape), scale)
        elif name == "broadcast_in_dim":
            own = [False] * len(shape)
            for old, new in enumerate(equation.params["broadcast_dimensions"]):
                own[new] = leaf.own[old] and leaf.shape[old] == shape[new]
            return Parameter(leaf.leaf, shape, tuple(own), scale)
        raise refusal(
            equation,
            f"acts on the parameter {self.names[leaf.leaf]!r} alone",
            "parameters as drawn, reshaped, transposed, repeated and times constants",
        )

    def _move(self, name: str, equation: Any, value: Any) -> Any:
        shape = equation.outvars[0].aval.shape
        if isinstance(value, Local) and not value.pointwise:
            moved = Expression(equation, (value.expression,))
            return Local(value.base, moved, (None,) * len(shape), shape, False, value.gains)
        tags = self._moved(name, equation, value, shape)
        if tags is None:
            signal = self.signal(equation, value)
            flat = ["batch", *(None,) * (len(shape) - 1)]
            wide = [a for a in range(1, len(shape)) if shape[a] > 1] or [1]
            batch_first = signal.tags[:1] == ("batch",) and len(shape) > 1 and shape[0] == BATCH
            if name != "reshape" or not batch_first or len(wide) != 1:
                raise refusal(
                    equation,
                    "reshapes otherwise than by flattening",
                    "(samples, everything else), and axes of size 1",
                )
            flat[wide[0]] = "channel"
            return self._flatten(signal, shape, tuple(flat))
        if isinstance(value, Signal):
            return Signal(value.node, tags, shape, value.gaussian, value.parts)
        return Local(
            value.base, Expression(equation, (value.expression,)), tags, shape, True, value.gains
        )

    def _moved(self, name: str, equation: Any, value: Any, shape: tuple) -> tuple | None:
        if name == "transpose":
            return tuple(value.tags[a] for a in equation.params["permutation"])
        if name == "broadcast_in_dim":
            tags: list[Any] = [None] * len(shape)
            for old, new in enumerate(equation.params["broadcast_dimensions"]):
                tags[new] = value.tags[old]
            repeated = [n for n, t in zip(shape, tags, strict=True) if t is None and n != 1]
            if repeated:
                raise refusal(equation, "repeats a signal along a new axis", "signals as they are")
            return tuple(tags)
        wide = [(t, n) for t, n in zip(value.tags, value.shape, strict=True) if n > 1]
        if [n for _, n in wide] != [n for n in shape if n > 1]:
            return None
        if name == "squeeze":
            gone = equation.params["dimensions"]
            kept = tuple(t for a, t in enumerate(value.tags) if a not in gone)
            lost = [t for t in value.tags if t not in kept]
            return None if any(isinstance(t, int) for t in lost) else kept
        ones = [t for t, n in zip(value.tags, value.shape, strict=True) if n == 1 and t is not None]
        if any(isinstance(t, int) for t in ones):
            return None
        at, tags = iter(wide), []
        for n in shape:
            tags.append(next(at)[0] if n > 1 else ones.pop() if ones else None)
        return tuple(tags)

    def _pointwise(self, name: str, equation: Any, inputs: list[Any]) -> Any:
        shape = equation.outvars[0].aval.shape
        parameters = [one for one in inputs if isinstance(one, Parameter)]
        signals = [one for one in inputs if isinstance(one, (Signal, Local))]
        if parameters:
            if (
                len(inputs) == 2
                and signals
                and name in ("add", "sub", "mul")
                and not (name == "sub" and inputs[0] is parameters[0])
            ):
                if name == "mul":
                    return self._times(equation, signals[0], parameters[0])
                return self._biased(equation, signals[0], parameters[0])
            raise refusal(
                equation,
                "mixes a parameter into something else than a layer",
                "weights, biases and scales of channels",
            )
        if any(isinstance(one, np.ndarray) and not uniform(one) for one in inputs):
            raise refusal(
                equation,
                "has a constant that differs from entry to entry",
                "constants that are one number",
            )
        if any(isinstance(one, Data) for one in inputs):
            like = signals[0]
            if name not in ("add", "sub") or (isinstance(like, Local) and not like.pointwise):
                raise refusal(
                    equation, "combines a layer with the inputs otherwise than by a sum", "sums"
                )
            inputs = [
                self._entry(equation, one, like.tags) if isinstance(one, Data) else one
                for one in inputs
            ]
            signals = [one for one in inputs if isinstance(one, (Signal, Local))]
        locals_ = [local_of(one) for one in signals]
        first = locals_[0]
        together = all(
            one.base.node == first.base.node and one.base.tags == first.base.tags for one in locals_
        )
        if not together:
            if name not in ("add", "sub", "add_any"):
                raise refusal(
                    equation, "combines two signals otherwise than by a sum", "sums of signals"
                )
            return self._added(equation, signals)
        gains = tuple(gain for one in locals_ for gain in one.gains)
        if gains and name not in ("mul", "neg"):
            raise refusal(
                equation, "follows a scale of channels before it reached its signal", "products"
            )
        pointwise = all(one.pointwise for one in locals_)
        like = next((one for one in locals_ if one.pointwise and one.shape == shape), first)
        if pointwise and any(one.tags != like.tags for one in locals_):
            raise refusal(
                equation, "combines a signal with itself transposed", "functions of one entry"
            )
        tags = like.tags if len(like.tags) == len(shape) else (None,) * len(shape)
        expressions = iter(one.expression for one in locals_)
        arguments = tuple(
            one if isinstance(one, np.ndarray) else next(expressions) for one in inputs
        )
        return Local(first.base, Expression(equation, arguments), tags, shape, pointwise, gains)


def _is_known(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_key(value)


def _is_key(value: Any) -> bool:
    """Whether it is a random key of known bits, of which NumPy has no arrays."""
    is_key = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return is_key and not is_traced(value)


def _known(equation: Any, inputs: list[Any]) -> list[Any]:
    """The results of an operation on constants."""
    try:
        return list(map(np.asarray, operation(equation, inputs)))
    except NoRule:
        with jax.ensure_compile_time_eval():
            given = [one if _is_key(one) else jnp.asarray(one) for one in inputs]
            out = equation.primitive.bind(*given, **equation.params)
        found = out if equation.primitive.multiple_results else [out]
        return [one if _is_key(one) else np.asarray(one) for one in found]


def _differentiates(equation: Any, closed: Any) -> bool:
    """Whether the derivative that a custom rule declares is that of what it computes, at random points."""
    variables = list(dict.fromkeys(v for v in equation.invars if not hasattr(v, "val")))
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]
    if not all(jnp.issubdtype(one.dtype, jnp.floating) for one in shapes):
        return False
    alone = closed.jaxpr.replace(
        constvars=[], invars=variables, outvars=equation.outvars, eqns=[equation]
    )
    declared = jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(alone, ()))

    def computed(*values):
        known = dict(zip(variables, values, strict=True))
        given = (v.val if hasattr(v, "val") else known[v] for v in equation.invars)
        return jax.extend.core.jaxpr_as_fun(closed)(*given)

    rng = np.random.default_rng(0)
    at, along = ([rng.normal(size=v.shape).astype(v.dtype) for v in shapes] for _ in range(2))
    tolerance = 100 * float(jnp.finfo(shapes[0].dtype).eps)
    slopes = [on_host(lambda x, f=f: jax.jvp(f, x, along)[1], at) for f in (declared, computed)]
    return all(
        np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(*slopes, strict=True)
    )
