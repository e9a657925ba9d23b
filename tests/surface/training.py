import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay import training
from surface import EXEMPT, RESULT, Call, call


def init(key):
    return {"w": jax.random.normal(key, (3, 2))}


def apply_fn(params, x):
    return x @ params["w"]


def loss(fx, y):
    return jnp.mean((fx - y) ** 2)


def optimizer(learning_rate):
    return optax.sgd(learning_rate)


def augment(key, x, y):
    del key
    return -x, y


OPTIMIZER = optax.sgd(0.1)


def samples(other: bool):
    rng = np.random.default_rng(int(other))
    return {
        "x": rng.normal(size=(8, 3)), "y": rng.normal(size=(8, 2)),
        "x_test": rng.normal(size=(4, 3)), "y_test": rng.normal(size=(4, 2)),
    }  # fmt: skip


def options(other: bool):
    return samples(other) | {
        "apply_fn": apply_fn, "loss": loss, "steps": 3, "record": [0, 2], "batch_size": 4, "augment": augment,
        "metrics": ["loss", "test_accuracy"], "eval_batch_size": 3, "devices": jax.local_devices()[:1],
    }  # fmt: skip


@call("training.sweep")
def sweep(other=False):
    grid = {
        "learning_rate": np.array([0.1, 0.2 + other]),
        "l2": np.array([0.1 * other]),
        "seed": [0, 1],
    }
    own = {"init": init, "optimizer": optimizer, "grid": grid, "return_params": True}
    return Call(training.sweep, options(other) | own, ("y", "y_test"))


@call("training.train")
def train(other=False):
    params = {"w": jnp.full((3, 2), 0.5 + other)}
    own = {"params": params, "optimizer": OPTIMIZER, "l2": 0.1 + other, "seed": int(other)}
    return Call(training.train, options(other) | own, ("y", "y_test"))


@functools.cache
def store(other: bool):
    folder = tempfile.TemporaryDirectory()
    sweep(other)(store=folder.name)
    return folder


@call("training.load")
def load(other=False):
    return Call(training.load, {"store": store(other).name})


@call("training.accuracy")
def accuracy(other=False):
    fx = np.random.default_rng(int(other)).normal(size=(6, 3))
    return Call(training.accuracy, {"fx": fx, "y": np.array([0, 1, 2, 0, 1, 1 + other])}, ("y",))


@call("training.init_key")
def init_key(other=False):
    return Call(training.init_key, {"seed": 3 + other})


@call("training.estimate")
def estimate(other=False):
    arguments = dict(sweep(other).arguments)
    del arguments["return_params"]
    return Call(training.estimate, arguments | {"device": "H100"}, ("y", "y_test"))


@call("training.estimating")
def estimating(other=False):
    return Call(training.estimating, {"device": "H100", "share": 0.4 + 0.1 * other})


EXEMPT["training.Estimate"] = RESULT
EXEMPT["training.Run"] = RESULT
EXEMPT["training.Snapshot"] = "what a metric is given, made by the package alone"
