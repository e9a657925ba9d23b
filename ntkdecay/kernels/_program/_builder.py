"""The nodes of a network as they are made, and what they need to know of its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._host import on_host
from ntkdecay._neural_tangents import stax
from ntkdecay.kernels._program import _nodes as nodes
from ntkdecay.kernels._program._nonlinear import layer_of
from ntkdecay.kernels._program._norm import layer_norm_of
from ntkdecay.kernels._program._source import refusal
from ntkdecay.kernels._program._values import (
    Data,
    Expression,
    Local,
    Parameter,
    Signal,
)

BATCH = 2  # the samples that the program is traced for


class Builder:
    """The nodes so far, and which parameters they took."""

    def __init__(
        self, laws: tuple[tuple[float, float], ...], names: list[str], points: int
    ) -> None:
        self.laws, self.names, self.points = laws, names, points
        self.cautions: list[str] = []  # why a kernel may be NaN
        self.nodes: list[nodes.Node] = []
        self.gaussian: list[bool] = []
        self.depends: list[frozenset[int]] = []  # the parameters behind each node
        self.used: set[int] = set()
        self.made: dict[Any, Signal] = {}

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
        own = frozenset() if node.leaf is None else frozenset([node.leaf])
        self.depends.append(own.union(*(self.depends[i] for i in node.inputs)))
        parts = frozenset([("node", number)]) if parts is None else parts
        tags, shape = new.get("tags", like and like.tags), new.get("shape", like and like.shape)
        return Signal(number, tags, shape, gaussian, parts)

    def _entry(self, equation: Any, data: Data, tags: tuple) -> Signal:
        """The inputs as a signal, now that it is known which axis is the channels'."""
        key = (data, tags)
        if key not in self.made:
            batch = batch_axis_of(equation, data)
            if tags[batch] != "batch":
                raise refusal(
                    equation,
                    "takes the samples for something else",
                    "one axis of samples throughout",
                )
            spatial = sorted((t, a) for a, t in enumerate(tags) if isinstance(t, int))
            order = [a for _, a in spatial] + [tags.index("channel")]
            node = nodes.Node(lambda laws: None, (), entry=entry_of(data, batch, order))
            self.made[key] = self._node(node, None, False, tags=tags, shape=data.shape)
        return self.made[key]

    def signal(self, equation: Any, value: Any) -> Signal:
        """A function of a signal as a layer."""
        if not isinstance(value, Local):
            return value
        if value in self.made:
            return self.made[value]
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
            # the statistics are numbers in the limit: as linear in the last weights as before
            out = self._node(nodes.layer(layer, base.node), base, True, base.parts)
        else:
            found = layer_of(lambda v: local.expression(v, scalar=True), self.points)
            if found is None:
                raise refusal(
                    equation,
                    "takes a function of one entry that has no rule and is too rough for quadrature",
                    "piecewise linear ones bent at 0, erf, gelu, sin, cos, exp, polynomials, and smooth ones",
                )
            factor, layer, reach = found
            out = base
            if layer is not None:
                if not base.gaussian:
                    raise refusal(
                        equation,
                        "takes a nonlinear function of what is not Gaussian at infinite width",
                        "nonlinearities right after layers with random weights, their sums and averages",
                    )
                node = nodes.layer(layer, base.node)
                if math.isfinite(reach):
                    node = nodes.quadrature(layer, reach, base.node)
                    self.cautions.append(_inexact(self.points, reach))
                out = self._node(node, base, False)
        if factor != 1:
            out = self._node(
                nodes.scaled(factor, out.node),
                out,
                out.gaussian,
                out.parts if layer is None or not local.pointwise else None,
            )
        out = Signal(out.node, local.tags, local.shape, out.gaussian, out.parts)
        for gain in local.gains:
            out = self._gain(equation, out, gain)
        self.made[value] = out
        return out

    def _settled(self, equation: Any, value: Any) -> Any:
        """A layer norm as a layer, as soon as it is whole; anything else as it is."""
        if isinstance(value, Local) and not value.pointwise and layer_norm_of(value) is not None:
            return self.signal(equation, value)
        return value

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


def _inexact(points: int, reach: float) -> str:
    return (
        f"`quadrature` is {points}, which is exact for a function of this network where its argument deviates by {reach:.2g} "
        "or less: give more points, smaller `variances`, or inputs of norm √(their size)."
    )


def local_of(value: Any) -> Local:
    if isinstance(value, Local):
        return value
    return Local(value, Expression(), value.tags, value.shape, True)


def tags_of(shape: tuple, batch: int, channel: int) -> tuple:
    others = [a for a, n in enumerate(shape) if a not in (batch, channel) and n > 1]
    names: dict[int, Any] = {batch: "batch", channel: "channel"}
    names |= {a: i for i, a in enumerate(others)}
    return tuple(names.get(a) for a in range(len(shape)))


def batch_axis_of(equation: Any, data: Data) -> int:
    """The axis along which the samples lie, each a function of its own input alone."""
    leaf = data.expression
    while leaf.equation is not None:
        leaf = next(one for one in leaf.inputs if isinstance(one, Expression))
    shape = input_shape_of(leaf)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    other = x.copy()
    other[1] = rng.normal(size=shape[1:])
    with jax.enable_x64(True):
        a, b = (on_host(partial(data.expression, scalar=False), one) for one in (x, other))
    for axis, size in enumerate(data.shape):
        if size == BATCH:
            changed = [not np.array_equal(np.take(a, i, axis), np.take(b, i, axis)) for i in (0, 1)]
            if changed == [False, True]:
                return axis
    raise refusal(equation, "takes the samples together", "functions of each sample alone")


def input_shape_of(leaf: Expression) -> tuple[int, ...]:
    return leaf.inputs[0] if leaf.inputs else ()


def entry_of(data: Data, batch: int, order: list[int]) -> Callable[[Array], Array]:
    """x -> (n, spatial axes, channels)."""

    def one(sample: Array) -> Array:
        both = data.expression(jnp.stack([sample] * BATCH), scalar=False)
        mine = jnp.moveaxis(both, batch, 0)[0]
        axes = [a - (a > batch) for a in order]
        rest = [a for a in range(mine.ndim) if a not in axes]
        kept = mine.transpose(*axes, *rest)
        return kept.reshape(kept.shape[: len(axes)])

    return jax.vmap(one)
