"""Operations on signals as layers: weights, biases, sums, pooling."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from ntkdecay._neural_tangents import stax
from ntkdecay.kernels._program import _nodes as nodes
from ntkdecay.kernels._program._attention import Attention
from ntkdecay.kernels._program._builder import batch_axis_of, local_of, tags_of
from ntkdecay.kernels._program._source import refusal
from ntkdecay.kernels._program._values import (
    Data,
    Expression,
    Local,
    Parameter,
    Signal,
)


class Layers(Attention):
    """One method for each kind of layer."""

    def _dense(self, equation: Any, inputs: list[Any]) -> Any:
        if all(isinstance(one, (Signal, Local)) for one in inputs):
            return self._scored(equation, inputs)
        (axes, batches) = equation.params["dimension_numbers"]
        side = 0 if isinstance(inputs[1], (Parameter, np.ndarray)) else 1
        signal, weights = inputs[side], inputs[1 - side]
        if not isinstance(weights, (Parameter, np.ndarray)) or batches[0]:
            raise refusal(
                equation,
                "multiplies a signal by what is neither parameters nor constants",
                "a signal times a matrix, and attention",
            )
        contracted, rows = axes[side], axes[1 - side]
        free = [a for a in range(len(weights.shape)) if a not in rows]
        if isinstance(signal, Data):
            batch = batch_axis_of(equation, signal)
            tags = tags_of(signal.shape, batch, contracted[-1])
            signal = self._entry(equation, signal, tags)
        signal = self.signal(equation, signal)
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
        if len(free) > 1 or (isinstance(weights, Parameter) and not all(weights.own)):
            raise refusal(
                equation,
                "has weights that repeat, or several axes of outputs",
                "a matrix of independent weights",
            )
        kept = [None if t in over else t for a, t in enumerate(signal.tags) if a not in contracted]
        new = ["channel"] * len(free)
        tags = tuple(kept + new if side == 0 else new + kept)
        shape = equation.outvars[0].aval.shape
        outputs = math.prod(weights.shape[a] for a in free)
        if isinstance(weights, np.ndarray):
            factor = self._fixed(equation, signal, np.asarray(weights, float), rows, outputs)
            node = nodes.untrained(factor, outputs, signal.node)
            return self._node(node, None, False, tags=tags, shape=shape)
        leaf = self._use(equation, weights, random=True)
        fan_in = math.prod(signal.shape[a] for a in contracted)
        rule = stax.Dense(outputs, weights.scale * math.sqrt(fan_in))[2]
        node = nodes.random_linear(rule, leaf, signal.node)
        return self._node(node, None, True, frozenset([leaf]), tags=tags, shape=shape)

    def _fixed(
        self, equation: Any, signal: Signal, matrix: np.ndarray, rows: tuple, outputs: int
    ) -> float:
        """The root of what a constant matrix W makes of a kernel: ‖W‖²/outputs, as channels are alike and independent.

        Where their mean is not 0 it is that of a random W, whose columns sum to about 0.
        """
        norm2, sums2 = (matrix**2).sum(), (matrix.sum(rows) ** 2).sum()
        if not signal.gaussian and sums2 > norm2 * (1 + 6 * math.sqrt(2 / outputs)):
            raise refusal(
                equation,
                "multiplies channels of which the mean is not 0 by a fixed matrix whose columns do not sum to about 0",
                "a matrix of random entries of mean 0, as a frozen last layer has",
            )
        return math.sqrt(norm2 / outputs)

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
        signal = self.signal(equation, signal)
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

    def _pool(self, equation: Any, inputs: list[Any]) -> Signal:
        signal, p = self.signal(equation, inputs[0]), equation.params
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
            local = local_of(value)
            return Local(
                local.base,
                Expression(equation, (local.expression,)),
                (None,) * len(shape),
                shape,
                False,
            )
        signal = self.signal(equation, value)
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
            else self.signal(equation, one)
            for one in inputs
        ]
        if any(one.tags != like.tags for one in signals):
            raise refusal(
                equation, "concatenates signals of different layout", "signals with the same axes"
            )
        node = nodes.joined(stax.FanInConcat()[2], *(one.node for one in signals))
        return self._node(node, None, False, tags=like.tags, shape=equation.outvars[0].aval.shape)

    def _added(self, equation: Any, signals: list[Any]) -> Signal:
        a, b = (self.signal(equation, one) for one in signals)
        if a.tags != b.tags or a.shape != b.shape:
            raise refusal(
                equation, "adds signals of different layout", "signals with the same axes"
            )
        fixed = [any(isinstance(part, tuple) for part in one.parts) for one in (a, b)]
        behind = frozenset(
            leaf
            for one, other in ((a, b), (b, a))
            for part in one.parts
            if isinstance(part, tuple)
            for leaf in self.depends[part[1]] & other.parts
        )
        if a.parts & b.parts or all(fixed) or behind:
            raise refusal(
                equation,
                "adds two signals that may depend on each other",
                "sums of which all terms but one end in random weights of their own",
            )
        node = nodes.joined(stax.FanInSum()[2], a.node, b.node)
        return self._node(node, a, a.gaussian and b.gaussian, a.parts | b.parts)

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
        return self._gain(equation, self.signal(equation, value), parameter)

    def _biased(self, equation: Any, value: Any, parameter: Parameter) -> Signal:
        signal = self.signal(equation, value)
        self._per_channel(equation, signal, parameter)
        leaf = self._use(equation, parameter, random=True)
        node = nodes.biased(leaf, parameter.scale, signal.node)
        return self._node(node, signal, signal.gaussian, signal.parts | {leaf})
