"""Calls as users make them: images, tiles of which the last is ragged, schedules, stores."""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay import homogeneity, kernels, training
from surface import CALLS, Call, harder

KEPT = []  # folders, as long as the process


def convolution(x, w):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=dimensions)


def network(params, x):
    h = jax.nn.relu(convolution(x, params["conv"]) + params["bias"])
    h = jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
    return jax.nn.gelu(convolution(h, params["more"]), approximate=False).mean((1, 2)) @ params["w"]


def without_bias(params, x):
    h = jax.nn.relu(convolution(x, params["conv"]))
    return jax.nn.relu(convolution(h, params["more"])).mean((1, 2)) @ params["w"]


SHAPES = {"conv": (3, 3, 2, 5), "bias": (1, 1, 1, 5), "more": (2, 2, 5, 4), "w": (4, 3)}


def init(key):
    keys = dict(zip(SHAPES, jax.random.split(key, len(SHAPES)), strict=True))
    return {name: 0.3 * jax.random.normal(keys[name], shape) for name, shape in SHAPES.items()}


def drawn(other, seed=0):
    rng = np.random.default_rng(2 * seed + other)
    params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    return params, rng.normal(size=(7, 6, 6, 2)), rng.normal(size=(5, 6, 6, 2))


@harder("kernels.analytic of images")
def analytic(other=False):
    params, x1, x2 = drawn(other)
    variances = {"conv": 0.1 + other, "bias": 0.2, "more": 0.1, "w": 0.3}
    arguments = {"apply_fn": network, "params": params, "x1": x1, "x2": x2, "variances": variances}
    return Call(kernels.analytic, arguments)


@harder("kernels.analytic of images, checked and by tiles")
def analytic_checked(other=False):
    params, x1, _ = drawn(other)
    arguments = {
        "apply_fn": network,
        "params": params,
        "x1": x1,
        "init": init,
        "tile": 3,
        "check": True,
    }
    return Call(kernels.analytic, arguments | {"key": jax.random.key(int(other))})


@harder("kernels.empirical_ntk of images")
def empirical(other=False):
    params, x1, x2 = drawn(other)
    arguments = {"apply_fn": network, "params": params, "x1": x1, "x2": x2}
    return Call(kernels.empirical_ntk, arguments)


@harder("kernels.empirical_ntk of images, by tiles")
def empirical_tiled(other=False):
    return Call(kernels.empirical_ntk, empirical(other).arguments | {"tile": 3})


@harder("kernels.empirical_ntk of images, within bytes")
def empirical_bounded(other=False):
    return Call(kernels.empirical_ntk, empirical(other).arguments | {"max_bytes": 60_000})


@harder("homogeneity.lemma_1 of images")
def lemma_1(other=False):
    params, x, _ = drawn(other)
    arguments = {"apply_fn": without_bias, "params": params, "x": x, "degree": 3.0 + other}
    return Call(
        homogeneity.lemma_1, arguments | {"directions": [drawn(other, s)[0] for s in (1, 2)]}
    )


def loss(fx, y):
    return jnp.mean((fx - y) ** 2)


def scheduled(learning_rate):
    return optax.sgd(optax.cosine_decay_schedule(learning_rate, 20), momentum=0.9)


OPTIMIZER = scheduled(0.1)


def options(other):
    rng, (_, x, x_test) = np.random.default_rng(int(other)), drawn(other)
    KEPT.append(tempfile.TemporaryDirectory())
    return {
        "apply_fn": network, "loss": loss, "x": x, "y": rng.normal(size=(7, 3)), "x_test": x_test,
        "y_test": rng.normal(size=(5, 3)), "steps": 4, "record": 3, "batch_size": 3, "store": KEPT[-1].name,
    }  # fmt: skip


@harder("training.sweep of images, with a store")
def sweep(other=False):
    grid = {"learning_rate": [0.1 + other, 0.2], "l2": [0.0, 0.1 + other], "seed": [0, 1 + other]}
    own = {"init": init, "optimizer": scheduled, "grid": grid}
    return Call(training.sweep, options(other) | own)


@harder("training.train of images, with a schedule and a store")
def train(other=False):
    own = {"params": drawn(other)[0], "optimizer": OPTIMIZER, "l2": 0.1 + other, "seed": int(other)}
    return Call(training.train, options(other) | own)


@harder("training.train of images in bfloat16")
def low(other=False):
    call = train(other)
    return call._replace(arguments=call.arguments | {"compute_dtype": jnp.bfloat16})


@harder("scale_invariant.direction_sde along one path for every dt")
def direction_sde(other=False):
    call = CALLS["scale_invariant.direction_sde"](other)
    return call._replace(arguments=call.arguments | {"tol": 0.1})
