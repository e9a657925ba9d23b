"""The walk through a network's program: each operation understood, or refused with its line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._neural_tangents import stax
from ntkdecay.kernels._program import _nodes as nodes
from ntkdecay.kernels._program._nonlinear import layer_of
from ntkdecay.kernels._program._norm import layer_norm_of
from ntkdecay.kernels._program._source import Refused, refusal
from ntkdecay.kernels._program._values import (
    Data,
    Expression,
    Local,
    Parameter,
    Signal,
    uniform,
)

BATCH = 2  # the samples that the program is traced for
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


class Walk:
    """The nodes of a network, made as its program is walked."""

    def __init__(self, laws: tuple[tuple[float, float], ...], names: list[str]) -> None:
        self.laws, self.names = laws, names
        self.nodes: list[nodes.Node] = []
        self.gaussian: list[bool] = []
        self.used: set[int] = set()
        self.made: dict[Any, Signal] = {}

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
        if all(isinstance(one, np.ndarray) for one in inputs) and not equation.effects:
            out = equation.primitive.bind(*map(jnp.asarray, inputs), **equation.params)
            many = equation.primitive.multiple_results
            return [np.asarray(one) for one in (out if many else [out])]
        inner = next((equation.params[key] for key in CALLS if key in equation.params), None)
        if inner is not None and name not in _NO_CALLS:
            closed = inner if hasattr(inner, "consts") else jax.extend.core.ClosedJaxpr(inner, ())
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

    # Parameters

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

    def _use(self, equation: Any, parameter: Parameter, *, random: bool) -> int:
        leaf, name = parameter.leaf, self.names[parameter.leaf]
        if leaf in self.used:
            raise refusal(
                equation, f"uses the parameter {name!r} a second time", "parameters used once each"
            )
        self.used.add(leaf)
        if random and self.laws[leaf][0] != 0:
            raise refusal(
                equation,
                f"adds or contracts the parameter {name!r}, whose entries start as {self.laws[leaf][0]:g}",
                "weights and biases of mean 0",
            )
        return leaf

    # Nodes

    def _node(
        self,
        node: nodes.Node,
        like: Any,
        gaussian: bool,
        parts: frozenset | None = None,
        **new: Any,
    ) -> Signal:
        self.nodes.append(node)
        self.gaussian.append(gaussian)
        number = len(self.nodes) - 1
        parts = frozenset([("node", number)]) if parts is None else parts
        tags, shape = new.get("tags", like and like.tags), new.get("shape", like and like.shape)
        return Signal(number, tags, shape, gaussian, parts)

    def _entry(self, equation: Any, data: Data, tags: tuple) -> Signal:
        """The inputs as a signal, now that it is known which axis is the channels'."""
        key = (id(data), tags)
        if key not in self.made:
            batch = _batch_axis(equation, data)
            if tags[batch] != "batch":
                raise refusal(
                    equation,
                    "takes the samples for something else",
                    "one axis of samples throughout",
                )
            spatial = sorted((t, a) for a, t in enumerate(tags) if isinstance(t, int))
            order = [a for _, a in spatial] + [tags.index("channel")]
            node = nodes.Node(lambda laws: None, (), entry=_entry_of(data, batch, order))
            self.made[key] = self._node(node, None, False, tags=tags, shape=data.shape)
        return self.made[key]

    def _signal(self, equation: Any, value: Any) -> Signal:
        """A function of a signal as a layer."""
        if not isinstance(value, Local):
            return value
        if id(value) in self.made:
            return self.made[id(value)]
        base, local = value.base, value
        if not local.pointwise:
            rule = layer_norm_of(local)
            if rule is None or not base.gaussian:
                raise refusal(
                    equation,
                    "takes a function of statistics of the channels that is not layer norm of a Gaussian signal",
                    "(x − mean)/√(var + ε) and x/√(mean x² + ε) right after a layer with random weights",
                )
            factor, layer = rule
            out = self._node(nodes.layer(layer, base.node), base, True)
        else:
            found = layer_of(lambda v: local.expression(v, scalar=True))
            if found is None:
                raise refusal(
                    equation,
                    "takes a function of one entry that has no rule and is too rough for quadrature",
                    "piecewise linear ones bent at 0, erf, gelu, sin, cos, exp, polynomials, and smooth ones",
                )
            factor, layer = found
            out = base
            if layer is not None:
                if not base.gaussian:
                    raise refusal(
                        equation,
                        "takes a nonlinear function of what is not Gaussian at infinite width",
                        "nonlinearities right after layers with random weights, their sums and averages",
                    )
                out = self._node(nodes.layer(layer, base.node), base, False)
        if factor != 1:
            out = self._node(
                nodes.scaled(factor, out.node),
                out,
                out.gaussian,
                out.parts if layer is None else None,
            )
        out = Signal(out.node, local.tags, local.shape, out.gaussian, out.parts)
        for gain in local.gains:
            out = self._gain(equation, out, gain)
        self.made[id(value)] = out
        self.made[("keep", id(value))] = value  # pyright: ignore[reportArgumentType]
        return out

    # Random linear maps

    def _dense(self, equation: Any, inputs: list[Any]) -> Signal:
        (axes, batches) = equation.params["dimension_numbers"]
        side = 0 if isinstance(inputs[1], Parameter) else 1
        signal, weights = inputs[side], inputs[1 - side]
        if not isinstance(weights, Parameter) or batches[0]:
            raise refusal(
                equation,
                "multiplies two signals, or one by a fixed matrix",
                "a signal times a parameter",
            )
        contracted, rows = axes[side], axes[1 - side]
        free = [a for a in range(len(weights.shape)) if a not in rows]
        if isinstance(signal, Data):
            batch = _batch_axis(equation, signal)
            tags = _tags(signal.shape, batch, contracted[-1])
            signal = self._entry(equation, signal, tags)
        signal = self._signal(equation, signal)
        over = {signal.tags[a] for a in contracted} - {None}
        spatial = {t for t in signal.tags if isinstance(t, int)}
        if over == spatial | {"channel"} and spatial:
            signal = self._flatten(signal, signal.shape, signal.tags)
        elif over != {"channel"}:
            raise refusal(
                equation,
                "contracts axes that are not the channels",
                "weights over the channels, or over all but the samples",
            )
        if len(free) > 1 or not all(weights.own):
            raise refusal(
                equation,
                "has weights that repeat, or several axes of outputs",
                "a matrix of independent weights",
            )
        leaf = self._use(equation, weights, random=True)
        fan_in = math.prod(signal.shape[a] for a in contracted)
        outputs = math.prod(weights.shape[a] for a in free)
        rule = stax.Dense(outputs, weights.scale * math.sqrt(fan_in))[2]
        kept = [None if t in over else t for a, t in enumerate(signal.tags) if a not in contracted]
        new = ["channel"] * len(free)
        tags = tuple(kept + new if side == 0 else new + kept)
        shape = equation.outvars[0].aval.shape
        node = nodes.random_linear(rule, leaf, signal.node)
        return self._node(node, None, True, frozenset([leaf]), tags=tags, shape=shape)

    def _conv(self, equation: Any, inputs: list[Any]) -> Signal:
        signal, weights = inputs
        p = equation.params
        if not isinstance(weights, Parameter) or not all(weights.own):
            raise refusal(
                equation,
                "convolves with something that is no parameter",
                "a signal and a parameter",
            )
        groups = p["feature_group_count"], p["batch_group_count"]
        if groups != (1, 1) or any(d != 1 for d in (*p["rhs_dilation"], *p["lhs_dilation"])):
            raise refusal(
                equation,
                "is dilated, transposed or in groups",
                "plain convolutions, with strides and padding",
            )
        lhs, rhs, out = p["dimension_numbers"]
        if isinstance(signal, Data):
            tags: list[Any] = [None] * len(signal.shape)
            tags[lhs[0]], tags[lhs[1]] = "batch", "channel"
            for i, a in enumerate(sorted(lhs[2:])):
                tags[a] = i
            signal = self._entry(equation, signal, tuple(tags))
        signal = self._signal(equation, signal)
        spatial = [signal.tags[a] for a in lhs[2:]]
        if (
            signal.tags[lhs[0]] != "batch"
            or signal.tags[lhs[1]] != "channel"
            or not all(isinstance(t, int) for t in spatial)
        ):
            raise refusal(
                equation,
                "convolves over axes that are not the pixels'",
                "(samples, pixels, channels) in any order",
            )
        order = np.argsort(spatial)
        window = tuple(weights.shape[rhs[2:][i]] for i in order)
        strides = tuple(p["window_strides"][i] for i in order)
        widths = tuple(tuple(p["padding"][i]) for i in order)
        leaf = self._use(equation, weights, random=True)
        fan_in = math.prod(window) * weights.shape[rhs[1]]
        letters = "HWDXYZ"[: len(window)]
        spec = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        sizes = [signal.shape[a] for a in sorted(lhs[2:], key=lambda a: signal.tags[a])]
        same = tuple(map(tuple, jax.lax.padtype_to_pads(sizes, window, strides, "SAME")))
        source = signal.node
        if widths != same and any(map(any, widths)):
            source = self._padded(equation, signal, widths).node
        padding = "SAME" if widths == same else "VALID"
        rule = stax.Conv(
            weights.shape[rhs[0]],
            window,
            strides,
            padding,
            weights.scale * math.sqrt(fan_in),
            dimension_numbers=spec,
        )[2]
        tags = [None] * len(signal.tags)
        for a, b in zip(lhs, out, strict=True):
            tags[b] = signal.tags[a]
        node = nodes.random_linear(rule, leaf, source)
        return self._node(
            node,
            None,
            True,
            frozenset([leaf]),
            tags=tuple(tags),
            shape=equation.outvars[0].aval.shape,
        )

    def _padded(self, equation: Any, signal: Signal, widths: tuple) -> Signal:
        if min(map(min, widths)) < 0:
            raise refusal(equation, "pads by a negative number", "padding by zeros")
        return self._node(nodes.padded(widths, signal.node), signal, signal.gaussian, signal.parts)

    def _flatten(self, signal: Signal, shape: tuple, tags: tuple) -> Signal:
        node = nodes.layer(stax.Flatten()[2], signal.node)
        spatial = any(isinstance(t, int) for t in signal.tags)
        alone = all(
            n == 1 for n, t in zip(signal.shape, signal.tags, strict=True) if isinstance(t, int)
        )
        gaussian = signal.gaussian and (alone or not spatial)
        return self._node(
            node, None, gaussian, signal.parts if gaussian else None, tags=tags, shape=shape
        )

    # Sums over axes

    def _pool(self, equation: Any, inputs: list[Any]) -> Signal:
        signal, p = self._signal(equation, inputs[0]), equation.params
        sizes, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
        dilated = any(d != 1 for d in (*p["base_dilation"], *p["window_dilation"]))
        at = sorted((t, a) for a, t in enumerate(signal.tags) if isinstance(t, int))
        others = [a for a, t in enumerate(signal.tags) if not isinstance(t, int)]
        if dilated or any(sizes[a] != 1 or strides[a] != 1 or any(pads[a]) for a in others):
            raise refusal(
                equation,
                "sums over windows of samples or channels, or dilated ones",
                "windows of pixels",
            )
        source, widths = signal, tuple(tuple(pads[a]) for _, a in at)
        if any(map(any, widths)):
            source = self._padded(equation, signal, widths)
        rule = stax.SumPool(
            tuple(sizes[a] for _, a in at), tuple(strides[a] for _, a in at), "VALID"
        )[2]
        return self._node(
            nodes.layer(rule, source.node), None, signal.gaussian, signal.parts if signal.gaussian else None,
            tags=signal.tags, shape=equation.outvars[0].aval.shape,
        )  # fmt: skip

    def _sum(self, equation: Any, inputs: list[Any]) -> Any:
        value, axes = inputs[0], equation.params["axes"]
        shape = equation.outvars[0].aval.shape
        tags = [value.tags[a] for a in axes]
        if "batch" in tags:
            raise refusal(
                equation,
                "sums over the samples, as batch norm does: their joint limit has no kernel of two samples",
                "layer norm, or averages over the pixels",
            )
        if "channel" in tags or (isinstance(value, Local) and not value.pointwise):
            local = _local(value)
            return Local(
                local.base,
                Expression(equation, (local.expression,)),
                (None,) * len(shape),
                shape,
                False,
            )
        signal = self._signal(equation, value)
        over = {t for t in tags if t is not None}
        if over != {t for t in signal.tags if isinstance(t, int)}:
            raise refusal(
                equation,
                "sums over some of the pixels' axes",
                "sums over all of them, or over windows",
            )
        kept = tuple(t for a, t in enumerate(signal.tags) if a not in axes)
        node = nodes.layer(stax.GlobalSumPool()[2], signal.node)
        return self._node(
            node,
            None,
            signal.gaussian,
            signal.parts if signal.gaussian else None,
            tags=kept,
            shape=shape,
        )

    # Shapes

    def _move(self, name: str, equation: Any, value: Any) -> Any:
        shape = equation.outvars[0].aval.shape
        if isinstance(value, Local) and not value.pointwise:
            moved = Expression(equation, (value.expression,))
            return Local(value.base, moved, (None,) * len(shape), shape, False, value.gains)
        tags = self._moved(name, equation, value, shape)
        if tags is None:
            signal = self._signal(equation, value)
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

    # Functions of one entry, and of several signals

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
        locals_ = [_local(one) for one in signals]
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

    def _added(self, equation: Any, signals: list[Any]) -> Signal:
        a, b = (self._signal(equation, one) for one in signals)
        if a.tags != b.tags or a.shape != b.shape:
            raise refusal(
                equation, "adds signals of different layout", "signals with the same axes"
            )
        fixed = [any(isinstance(part, tuple) for part in one.parts) for one in (a, b)]
        if a.parts & b.parts or all(fixed):
            raise refusal(
                equation,
                "adds two signals that may depend on each other",
                "sums of which all terms but one end in random weights of their own",
            )
        node = nodes.joined(stax.FanInSum()[2], a.node, b.node)
        return self._node(node, a, a.gaussian and b.gaussian, a.parts | b.parts)

    def _concatenate(self, equation: Any, inputs: list[Any]) -> Signal:
        axis = equation.params["dimension"]
        like = next(one for one in inputs if isinstance(one, (Signal, Local)))
        if (
            any(isinstance(one, (np.ndarray, Parameter)) for one in inputs)
            or like.tags[axis] != "channel"
        ):
            raise refusal(
                equation,
                "concatenates along another axis than the channels",
                "signals side by side",
            )
        signals = [
            self._entry(equation, one, like.tags)
            if isinstance(one, Data)
            else self._signal(equation, one)
            for one in inputs
        ]
        if any(one.tags != like.tags for one in signals):
            raise refusal(
                equation, "concatenates signals of different layout", "signals with the same axes"
            )
        node = nodes.joined(stax.FanInConcat()[2], *(one.node for one in signals))
        return self._node(node, None, False, tags=like.tags, shape=equation.outvars[0].aval.shape)

    def _times(self, equation: Any, value: Any, parameter: Parameter) -> Any:
        if isinstance(value, Local) and not value.pointwise:
            base = value.base
            return Local(
                base,
                value.expression,
                base.tags,
                jnp.broadcast_shapes(value.shape, parameter.shape),
                False,
                (*value.gains, parameter),
            )
        return self._gain(equation, self._signal(equation, value), parameter)

    def _gain(self, equation: Any, signal: Signal, parameter: Parameter) -> Signal:
        self._per_channel(equation, signal, parameter)
        leaf = self._use(equation, parameter, random=False)
        if self.laws[leaf][1] != 0:
            raise refusal(
                equation,
                f"scales channels by the random parameter {self.names[leaf]!r}",
                "scales that start as one number",
            )
        node = nodes.gained(leaf, parameter.scale, signal.node)
        return self._node(node, signal, signal.gaussian, signal.parts if signal.gaussian else None)

    def _biased(self, equation: Any, value: Any, parameter: Parameter) -> Signal:
        signal = self._signal(equation, value)
        self._per_channel(equation, signal, parameter)
        leaf = self._use(equation, parameter, random=True)
        node = nodes.biased(leaf, parameter.scale, signal.node)
        return self._node(node, signal, signal.gaussian, signal.parts | {leaf})

    def _per_channel(self, equation: Any, signal: Signal, parameter: Parameter) -> None:
        pairs = zip(parameter.shape, parameter.own, strict=True)
        varying = [a for a, (n, own) in enumerate(pairs) if own and n > 1]
        tags = signal.tags[-len(parameter.shape) :] if parameter.shape else ()
        over = [tags[a] for a in varying]
        single = "channel" in signal.tags and signal.shape[signal.tags.index("channel")] == 1
        if over != ["channel"] and not (single and not over):
            raise refusal(
                equation,
                "adds or multiplies a parameter that is not one number for each channel",
                "biases and scales of channels",
            )


def _local(value: Any) -> Local:
    if isinstance(value, Local):
        return value
    return Local(value, Expression(), value.tags, value.shape, True)


def _tags(shape: tuple, batch: int, channel: int) -> tuple:
    others = [a for a, n in enumerate(shape) if a not in (batch, channel) and n > 1]
    names: dict[int, Any] = {batch: "batch", channel: "channel"}
    names |= {a: i for i, a in enumerate(others)}
    return tuple(names.get(a) for a in range(len(shape)))


def _batch_axis(equation: Any, data: Data) -> int:
    """The axis along which the samples lie, each a function of its own input alone."""
    leaf = data.expression
    while leaf.equation is not None:
        leaf = next(one for one in leaf.inputs if isinstance(one, Expression))
    shape = data_input_shape(leaf)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    other = x.copy()
    other[1] = rng.normal(size=shape[1:])
    with jax.enable_x64(True):
        a, b = (np.asarray(data.expression(jnp.asarray(one), scalar=False)) for one in (x, other))
    for axis, size in enumerate(data.shape):
        if size == BATCH:
            changed = [not np.array_equal(np.take(a, i, axis), np.take(b, i, axis)) for i in (0, 1)]
            if changed == [False, True]:
                return axis
    raise refusal(equation, "takes the samples together", "functions of each sample alone")


def data_input_shape(leaf: Expression) -> tuple[int, ...]:
    return leaf.inputs[0] if leaf.inputs else ()


def _entry_of(data: Data, batch: int, order: list[int]) -> Callable[[Array], Array]:
    """x -> (n, spatial axes, channels)."""

    def one(sample: Array) -> Array:
        both = data.expression(jnp.stack([sample] * BATCH), scalar=False)
        mine = jnp.moveaxis(both, batch, 0)[0]
        axes = [a - (a > batch) for a in order]
        rest = [a for a in range(mine.ndim) if a not in axes]
        kept = mine.transpose(*axes, *rest)
        return kept.reshape(kept.shape[: len(axes)])

    return jax.vmap(one)


__all__ = ["BATCH", "Refused", "Walk"]
