"""Layer norm, recognized by what its program does to random numbers."""

from functools import partial
from typing import Any

import jax
import numpy as np

from ntkdecay._host import on_host
from ntkdecay._neural_tangents import stax
from ntkdecay.kernels._program._values import Local


def layer_norm_of(local: Local) -> tuple[float, Any] | None:
    r"""(a, layer) with f = a (x − mean)/√(var + ε) or a x/√(mean x² + ε), or None."""
    base = local.base
    if local.shape != base.shape or "channel" not in base.tags:
        return None
    channel = base.tags.index("channel")
    spatial = [a for a, t in enumerate(base.tags) if isinstance(t, int)]
    x = np.random.default_rng(0).normal(size=base.shape)
    scales = (1e-6, 1e-3, 1.0)
    with jax.enable_x64(True):
        outs = [on_host(partial(local.expression, scalar=False), s * x) for s in scales]
    order = sorted(spatial, key=lambda a: base.tags[a])
    for over in ((channel,), (channel, *spatial)):
        for centred in (True, False):
            found = _fit(x, outs, scales, over, centred)
            if found is not None:
                names = [-1] + [1 + order.index(a) for a in over[1:]]
                return found[0], stax.LayerNorm(tuple(names), found[1])[2]
    return None


def _fit(
    x: Any, outs: list, scales: tuple, over: tuple, centred: bool
) -> tuple[float, float] | None:
    z = x - x.mean(over, keepdims=True) if centred else x
    v = (z**2).mean(over, keepdims=True)
    # (z s / f)² = (s² v + ε)/a²: two scales give a and ε, the third confirms them
    with np.errstate(all="ignore"):
        ratios = [np.median((s * z / f) ** 2 / 1.0) for s, f in zip(scales, outs, strict=True)]
        level = [
            np.median((s * z / f) ** 2 - (s**2) * v) for s, f in zip(scales, outs, strict=True)
        ]
    if not np.isfinite(ratios).all():
        return None
    eps = max(float(level[0]), 0.0)
    for s, f in zip(scales, outs, strict=True):
        expected = s * z / np.sqrt(s**2 * v + eps)
        if not np.allclose(f, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max()):
            return None
    return 1.0, eps
