"""A user's own convolutional network on a CPU, in training and in kernels: flax, equinox, stax, plain JAX, none of it changed.

Each is one network, two 3 × 3 convolutions of 16 channels and a dense layer, of 32 digits: twenty steps of SGD,
or its empirical NTK; flax's also unpadded, with 32 channels. Beside them the network written in products of patches and
filters; in training also a Python loop over a compiled step, which XLA's fast convolutions serve. Then gradients of one
convolution in groups of channels, in a loop, beside JAX's own.
"""

import functools
import time
from typing import Any

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from ntkdecay import datasets, stax
from ntkdecay._convolutions import fast
from ntkdecay.kernels import empirical_ntk

STEPS = 20
BY_HAND = "products by hand"
NAMES = ("flax", "nnx", "equinox", "stax", "lax")
UNPADDED = (f"unpadded, {BY_HAND}", "unpadded, flax")
GROUPS = (2, 8, 32)  # of 32 channels


class Products(nn.Module):
    """`flax.linen.Conv` of a 3 × 3 filter as one product of patches and filters."""

    features: int
    size: tuple[int, int]
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        shape = *self.size, x.shape[-1], self.features
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        if self.padding == "SAME":
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for axis in (1, 2):
            span = x.shape[axis] - 2
            slices = [lax.slice_in_dim(x, i, i + span, axis=axis) for i in range(3)]
            x = jnp.concatenate(slices, -1)
        y = x @ kernel.swapaxes(0, 1).reshape(-1, self.features)
        return y + bias.reshape(1, 1, 1, -1)


class Network(nn.Module):
    conv: Any
    features: int = 16
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(self.conv(self.features, (3, 3), padding=self.padding)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


def of_flax(key, conv: Any = nn.Conv, **options):
    network = Network(conv, **options)
    return network.init(key, jnp.zeros((1, 8, 8, 1))), network.apply


def of_nnx(key):
    rngs = nnx.Rngs(key)
    relu, flat = nnx.relu, lambda x: x.reshape(len(x), -1)
    conv1, conv2 = (nnx.Conv(c, 16, (3, 3), rngs=rngs) for c in (1, 16))
    graph, params = nnx.split(
        nnx.Sequential(conv1, relu, conv2, relu, flat, nnx.Linear(1024, 10, rngs=rngs))
    )
    return params, lambda p, x: nnx.merge(graph, p)(x)


def of_equinox(key):
    keys = jax.random.split(key, 3)
    layers = [
        eqx.nn.Conv2d(1, 16, 3, padding=1, key=keys[0]),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Conv2d(16, 16, 3, padding=1, key=keys[1]),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(1024, 10, key=keys[2]),
    ]
    params, static = eqx.partition(eqx.nn.Sequential(layers), eqx.is_array)
    return params, lambda p, x: jax.vmap(eqx.combine(p, static))(x.transpose(0, 3, 1, 2))


def of_stax(key):
    conv = stax.Conv(16, (3, 3), padding="SAME", b_std=0.1)
    init, apply_fn, _ = stax.serial(
        conv, stax.Relu(), conv, stax.Relu(), stax.Flatten(), stax.Dense(10, b_std=0.1)
    )
    params = init(key, (1, 8, 8, 1))[1]
    return jax.tree.map(lambda p: p.astype(jnp.float32), params), apply_fn


def of_lax(key):
    shapes = ((3, 3, 1, 16), (3, 3, 16, 16), (1024, 10))
    params = [
        jax.random.normal(k, shape) / np.sqrt(np.prod(shape[:-1]))
        for k, shape in zip(jax.random.split(key, 3), shapes, strict=True)
    ]

    def apply(params, x):
        for w in params[:-1]:
            dimensions = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dimensions)
            x = jax.nn.relu(x)
        return x.reshape(len(x), -1) @ params[-1]

    return params, apply


MAKERS = {
    BY_HAND: functools.partial(of_flax, conv=Products),
    "flax": of_flax,
    "nnx": of_nnx,
    "equinox": of_equinox,
    "stax": of_stax,
    "lax": of_lax,
    UNPADDED[0]: functools.partial(of_flax, conv=Products, features=32, padding="VALID"),
    UNPADDED[1]: functools.partial(of_flax, features=32, padding="VALID"),
}


def batch():
    digits = datasets.load("digits")
    return jnp.asarray(digits.x_train[:32], jnp.float32), jnp.asarray(digits.y_train[:32])


def training(name):
    params, apply_fn = MAKERS.get(name, of_flax)(jax.random.key(0))
    if name in (*NAMES, UNPADDED[1]):
        apply_fn = fast(apply_fn)
    x, y = batch()

    def step(params, _):
        def loss(p):
            fx = apply_fn(p, x)
            return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()

        gradient = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), None

    if name == "a loop over a step":
        compiled = jax.jit(step)

        def run():
            p = params
            for _ in range(STEPS):
                p, _ = compiled(p, None)
            return p

        return run
    whole = jax.jit(lambda p: lax.scan(step, p, None, STEPS)[0])
    return lambda: whole(params)


def kernel(trace_axes, name):
    params, apply_fn = MAKERS[name](jax.random.key(0))
    x, _ = batch()
    ntk = jax.jit(lambda p: empirical_ntk(apply_fn, p, x, trace_axes=trace_axes))
    return lambda: ntk(params)


def grouped(name):
    """Gradients of a convolution by its image and its filter, in a loop."""
    groups, _, way = name.partition(" groups, ")
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(16, 8, 8, 32)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 3, 32 // int(groups), 32)), jnp.float32) / 9

    def half_square(x, w):
        options = {
            "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
            "feature_group_count": int(groups),
        }
        return 0.5 * jnp.mean(lax.conv_general_dilated(x, w, (1, 1), "SAME", **options) ** 2)

    gradient = jax.grad(fast(half_square) if way == "ours" else half_square, (0, 1))

    def step(both, _):
        return jax.tree.map(lambda a, g: a - 0.1 * g, both, gradient(*both)), None

    whole = jax.jit(lambda both: lax.scan(step, both, None, 2)[0])
    return lambda: whole((x, w))


GROUPED = [f"{groups} groups, {way}" for groups in GROUPS for way in ("ours", "JAX's own")]
CASES = {
    "training": (training, (BY_HAND, *NAMES, "a loop over a step", "flax, as it is")),
    "kernel": (functools.partial(kernel, (-1,)), (BY_HAND, *NAMES)),
    "kernel, all outputs": (functools.partial(kernel, ()), (BY_HAND, *NAMES)),
    "training, unpadded": (training, UNPADDED),
    "kernel, unpadded": (functools.partial(kernel, (-1,)), UNPADDED),
    "groups": (grouped, tuple(GROUPED)),
}


@pytest.fixture(scope="module", params=CASES)
def interleaved(request):
    """Least seconds of 15 rounds, the runs taking turns, so that what else the machine does meets all."""
    make, names = CASES[request.param]
    with jax.numpy_rank_promotion("allow"):
        runs = {name: make(name) for name in names}
        seconds = dict.fromkeys(names, np.inf)
        for round_ in range(16):
            for name, run in runs.items():
                start = time.perf_counter()
                jax.block_until_ready(run())
                if round_:  # the first one compiles
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
    return request.param, runs, seconds


def test_convolutions(benchmark, interleaved):
    """One benchmark a case, of its first run; the table has all."""
    case, runs, seconds = interleaved
    first = next(iter(seconds))
    benchmark.group = case
    for name in seconds:
        other = first if case != "groups" else name.partition(",")[0] + ", JAX's own"
        ratio = seconds[name] / seconds[other]
        benchmark.extra_info[name] = ratio
        print(f"\n{case}: {name}: {1e3 * seconds[name]:.2f} ms, {ratio:.2f} times {other}")
    benchmark.pedantic(lambda: jax.block_until_ready(runs[first]()), rounds=3)
