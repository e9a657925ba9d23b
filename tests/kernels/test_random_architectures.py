"""Networks drawn at random: their kernel is the product of their Jacobians, their degree the one that was built."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explicit import explicit_ntk
from jax import Array, lax

from ntkdecay import homogeneity
from ntkdecay.kernels import empirical_ntk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*from the Jacobian:UserWarning"),
]
DRAWN, AT_ONCE = 200, 20


class Stage(NamedTuple):
    """Part of a network: (params, x) -> x, its arrays, and its degree k ↦ that of what comes out; None: it has none."""

    f: Callable[[list[Array], Array], Array]
    shapes: tuple[tuple[int, ...], ...]
    degree: Callable[[int], int | None]


def deeper(by: int) -> Callable[[int], int]:
    return lambda k: k + by


def conv(w: Array, x: Array, **options: Any) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1, 1), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, w, dimension_numbers=layout, **options)


def windows(x: Array, initial: float, reducer: Any) -> Array:
    return lax.reduce_window(x, initial, reducer, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def on_images(rng: np.random.Generator, c: int) -> tuple[Stage, int]:
    """A stage of images with c channels, and how many come out."""
    new = int(rng.integers(2, 4))
    match rng.choice(["conv", "strided", "depthwise", "residual", "max", "mean", "dilated"]):
        case "conv":
            return Stage(lambda p, x: conv(p[0], x), ((3, 3, c, new),), deeper(1)), new
        case "strided":
            strides = {"window_strides": (2, 1), "padding": ((1, 2), (0, 1))}
            return Stage(lambda p, x: conv(p[0], x, **strides), ((3, 2, c, new),), deeper(1)), new
        case "dilated":
            spread = {"rhs_dilation": (1, 2)}
            return Stage(lambda p, x: conv(p[0], x, **spread), ((2, 2, c, new),), deeper(1)), new
        case "depthwise":
            shape, groups = (2, 2, 1, 2 * c), {"feature_group_count": c}
            return Stage(lambda p, x: conv(p[0], x, **groups), (shape,), deeper(1)), 2 * c
        case "residual":
            shapes = ((1, 1, c, new), (3, 3, c, new))

            def both(p: list[Array], x: Array) -> Array:
                return conv(p[0], x) + conv(p[1], jax.nn.relu(x))

            return Stage(both, shapes, deeper(1)), new
        case "max":
            return Stage(lambda p, x: windows(x, -jnp.inf, lax.max), (), deeper(0)), c
        case _:
            return Stage(lambda p, x: windows(x, 0.0, lax.add) / 4, (), deeper(0)), c


def on_vectors(rng: np.random.Generator, c: int) -> tuple[Stage, int]:
    """A stage of vectors with c entries, and how many come out."""
    new = int(rng.integers(2, 5))
    kinds = ["dense", "residual", "shared", "gated", "split", "normalized", "scan", "bias", "tanh"]
    match rng.choice(kinds, p=[0.2, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05]):
        case "dense":
            return Stage(lambda p, x: x @ p[0], ((c, new),), deeper(1)), new
        case "residual":
            skip = Stage(lambda p, x: x @ p[0] + jax.nn.relu(x) @ p[1], ((c, new),) * 2, deeper(1))
            return skip, new
        case "shared":
            return Stage(lambda p, x: jnp.abs(x @ p[0]) @ p[0].T, ((c, new),), deeper(2)), c
        case "gated":
            shapes = ((c, new), (c, new))
            gate = Stage(lambda p, x: (x @ p[0]) * (x @ p[1]), shapes, lambda k: 2 * k + 2)
            return gate, new
        case "split":

            def parts(p: list[Array], x: Array) -> Array:
                return jnp.concatenate([x[:, :1] @ p[0], jnp.sort(x, -1) @ p[1]], -1)

            return Stage(parts, ((1, 2), (c, new)), deeper(1)), new + 2
        case "normalized":
            return Stage(
                lambda p, x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), (), lambda k: 0
            ), c
        case "scan":

            def layers(p: list[Array], x: Array) -> Array:
                return lax.scan(lambda h, w: (jax.nn.relu(h @ w) + h @ w, None), x, p[0])[0]

            return Stage(layers, ((2, c, c),), deeper(2)), c
        case "bias":
            shapes = ((c, new), (new,))
            return Stage(lambda p, x: x @ p[0] + p[1], shapes, lambda k: 1 if k == 0 else None), new
        case _:
            return Stage(lambda p, x: jnp.tanh(x), (), lambda k: 0 if k == 0 else None), c


def on_any(rng: np.random.Generator, c: int) -> tuple[Stage, int]:
    function = (jax.nn.relu, jnp.abs, lambda x: jnp.where(x > 0, x, 0.2 * x))[rng.integers(3)]
    return Stage(lambda p, x: function(x), (), deeper(0)), c


def drawn(seed: int) -> tuple[Callable[[Any, Array], Array], list[list[Array]], Array, int | None]:
    """A network, its parameters, its inputs and its degree: None, if some of its terms have another."""
    rng = np.random.default_rng(seed)
    images, stages, degree = bool(rng.integers(2)), [], 0
    x = rng.normal(size=(3, 6, 6, 2) if images else (3, 5))
    c = x.shape[-1]
    for kind in [on_images] * int(images and rng.integers(1, 3)):
        for draw in (kind, on_any):
            stage, c = draw(rng, c)
            stages.append(stage)
    if images:
        stages.append(Stage(lambda p, x: x.mean((1, 2)), (), deeper(0)))
    for _ in range(rng.integers(1, 4)):
        for draw in (on_vectors, on_any):
            stage, c = draw(rng, c)
            stages.append(stage)
    stages.append(Stage(lambda p, x: x @ p[0], ((c, 2),), deeper(1)))
    for stage in stages:
        degree = None if degree is None else stage.degree(degree)
    params = [[jnp.asarray(rng.normal(size=s)) for s in stage.shapes] for stage in stages]

    def network(params: list[list[Array]], x: Array) -> Array:
        for stage, own in zip(stages, params, strict=True):
            x = stage.f(own, x)
        return x

    return network, params, jnp.asarray(x), degree


@pytest.fixture
def _quickly():
    """Each program runs once: to optimize it takes longer than it does."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.usefixtures("_quickly")
@pytest.mark.parametrize("first", range(0, DRAWN, AT_ONCE))
def test_the_kernel_is_the_jacobians_and_the_degree_is_the_one_built(first):
    for seed in range(first, first + AT_ONCE):
        f, params, x, degree = drawn(seed)
        k = empirical_ntk(f, params, x, trace_axes=())
        expected = explicit_ntk(f, params, x, x)
        np.testing.assert_allclose(
            k, expected, rtol=1e-9, atol=1e-11 * abs(expected).max(), err_msg=f"seed {seed}"
        )
        if degree is None or not expected.any():
            reason = "is not homogeneous" if expected.any() else "its degree cannot be seen"
            with pytest.raises(ValueError, match=reason):
                homogeneity.degree(f, params, x)
        else:
            measured = homogeneity.degree(f, params, x).degree
            assert measured == pytest.approx(degree, abs=1e-8), f"seed {seed}"


def test_the_networks_differ_and_have_many_degrees():
    degrees = [drawn(seed)[3] for seed in range(DRAWN)]
    assert len(set(degrees)) >= 10 and 20 <= degrees.count(None) <= 80
