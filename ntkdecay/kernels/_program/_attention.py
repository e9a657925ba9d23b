r"""Self-attention, as far as its infinite-width limit is a deterministic map.

With weights G = ζ(c q·k) over the positions of a sample, (s, t), and values v,

.. math:: f(s) = \sum_t G_{st} v(t), \qquad K_f(x, x') = G(x)\, K_v(x, x')\, G(x')^T

and the same of Θ (Hron et al. 2020, with c ∝ 1/d for d channels of the keys). Then q·k/d is its mean: the keys'
covariance where queries are keys, 0 where they are independent; derivatives by their weights vanish. With c ∝ 1/√d scores
stay random, and there is no closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay._neural_tangents import requirement, stax
from ntkdecay.kernels._program import _nodes as nodes
from ntkdecay.kernels._program._builder import BATCH, Builder
from ntkdecay.kernels._program._nonlinear import layer_of
from ntkdecay.kernels._program._source import refusal
from ntkdecay.kernels._program._values import Expression, Local, Signal, uniform

_SCALES = ("mul", "div", "neg", "convert_element_type", "copy", "copy_p")
_EVERY_PAIR = requirement(stax.GlobalSelfAttention(1, 1, 1, 1)[2])
_FLUCTUATES = (
    "`apply_fn` has attention whose scores fluctuate by a half or more, as those of unit queries and keys times 1/√channels "
    "do: they stay random at infinite width, without a closed form; times 1/channels they do not."
)
_UNDERSTOOD = "functions ζ of c q·k over one axis of positions, queries that are keys or independent of them, c = O(1/channels)"


@dataclass(frozen=True, eq=False)
class Scores:
    """A function of the scores of all pairs of positions of a sample, (samples, s, t) as they are made.

    Until `expression` is more than its argument it is scale · q·k, of so many channels.
    """

    queries: Signal  # the keys, or independent of them
    keys: Signal
    scale: float
    channels: int
    expression: Expression
    shape: tuple[int, ...]


class Attention(Builder):
    """Products of two signals."""

    def _scored(self, equation: Any, inputs: list[Any]) -> Scores:
        """q·k, over the channels."""
        (axes, batches) = equation.params["dimension_numbers"]
        (q, first), (k, second) = (self._linear(equation, one) for one in inputs)
        alike = all(
            [one.tags[a] for a in axis] == ["channel"]
            and [one.tags[a] for a in batch] == ["batch"]
            and sorted(map(str, one.tags)) == ["0", "batch", "channel"]
            for one, axis, batch in zip((q, k), axes, batches, strict=True)
        )
        if not (alike and q.gaussian and k.gaussian):
            raise refusal(equation, "multiplies two signals otherwise than attention", _UNDERSTOOD)
        if q.node != k.node and (q.parts & k.parts or self._behind(q, k) or self._behind(k, q)):
            raise refusal(
                equation, "scores keys by queries that partly depend on them", _UNDERSTOOD
            )
        channels = q.shape[q.tags.index("channel")]
        shape = equation.outvars[0].aval.shape
        return Scores(q, k, first * second, channels, Expression(), shape)

    def _behind(self, one: Signal, other: Signal) -> bool:
        """Whether `one` is made of weights that `other` ends in."""
        return bool(self.depends[one.node] & other.parts)

    def _linear(self, equation: Any, value: Any) -> tuple[Signal, float]:
        """A signal and the number before it."""
        if isinstance(value, Local) and value.pointwise and not value.gains:
            found = layer_of(lambda v: value.expression(v, scalar=True), self.points)
            if found is not None and found[1] is None:
                moved = replace(value.base, tags=value.tags, shape=value.shape)
                return moved, found[0]
        return self.signal(equation, value), 1.0

    def _of_scores(self, name: str, equation: Any, inputs: list[Any]) -> Any:
        """Any function of a sample's scores; and the sum over the values that they weigh."""
        scores = next(one for one in inputs if isinstance(one, Scores))
        if name == "dot_general" and not all(isinstance(one, Scores) for one in inputs):
            return self._attended(equation, inputs)
        numbers = [one for one in inputs if isinstance(one, np.ndarray)]
        if any(
            not isinstance(one, np.ndarray)
            and not (isinstance(one, Scores) and one.keys.node == scores.keys.node)
            for one in inputs
        ):
            raise refusal(equation, "mixes attention's scores with something else", _UNDERSTOOD)
        shape = equation.outvars[0].aval.shape
        raw = scores.expression.equation is None
        if (
            raw
            and name in _SCALES
            and len(inputs) == 1 + len(numbers)
            and all(map(uniform, numbers))
        ):
            factor = float(numbers[0].flat[0]) if numbers else 1.0
            if name != "div" or inputs[0] is scores:
                factor = 1 / factor if name == "div" else -1.0 if name == "neg" else factor
                return replace(scores, scale=scores.scale * factor)
        arguments = tuple(one.expression if isinstance(one, Scores) else one for one in inputs)
        return replace(scores, expression=Expression(equation, arguments), shape=shape)

    def _attended(self, equation: Any, inputs: list[Any]) -> Signal:
        side = 0 if isinstance(inputs[0], Scores) else 1
        scores, values = inputs[side], self.signal(equation, inputs[1 - side])
        (axes, batches) = equation.params["dimension_numbers"]
        contracted, over = axes[side], [values.tags[a] for a in axes[1 - side]]
        positions = scores.keys.shape[scores.keys.tags.index(0)]
        if (
            scores.shape != (BATCH, positions, positions)
            or batches[side] != (0,)
            or [values.tags[a] for a in batches[1 - side]] != ["batch"]
            or contracted not in ((1,), (2,))
            or over != [0]
            or sorted(map(str, values.tags)) != ["0", "batch", "channel"]
        ):
            raise refusal(equation, "weighs something else than a sample's positions", _UNDERSTOOD)
        tags = ("batch", 0, "channel") if side == 0 else ("batch", "channel", 0)
        weights = weights_of(equation, scores, contracted == (1,))
        fluctuation = abs(scores.scale) * math.sqrt(scores.channels)
        sources = scores.queries.node, scores.keys.node, values.node
        node = nodes.attention(weights, fluctuation, _EVERY_PAIR, *sources)
        self.cautions.append(_FLUCTUATES)
        parts = values.parts if values.gaussian else None
        return self._node(
            node, None, values.gaussian, parts, tags=tags, shape=equation.outvars[0].aval.shape
        )


def weights_of(equation: Any, scores: Scores, transposed: bool) -> Any:
    """Covariances of the keys, (n, s, t), to weights."""
    factor = scores.scale * scores.channels if scores.queries.node == scores.keys.node else 0.0

    def one(covariance: Array) -> Array:
        both = scores.expression(jnp.stack([factor * covariance] * BATCH), scalar=False)
        return both[0].T if transposed else both[0]

    rng = np.random.default_rng(0)
    x = rng.normal(size=scores.shape)
    other = np.stack([x[0], rng.normal(size=x.shape[1:])])
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        a, b = (np.asarray(scores.expression(jnp.asarray(v), scalar=False)) for v in (x, other))
    if not np.array_equal(a[0], b[0]):
        raise refusal(equation, "weighs positions by the scores of other samples", _UNDERSTOOD)
    return jax.vmap(one)
