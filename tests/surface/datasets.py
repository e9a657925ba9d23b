import jax
import numpy as np

from ntkdecay import datasets
from surface import EXEMPT, RESULT, Call, call


def batch(other: bool):
    rng = np.random.default_rng(int(other))
    return {"key": jax.random.key(other), "images": rng.random((4, 5, 5, 1))}


@call("datasets.load")
def load(other=False):
    del other
    return Call(datasets.load, {"name": "digits"})


@call("datasets.classes")
def classes(other=False):
    return Call(datasets.classes, {"name": "cifar100" if other else "mnist"})


@call("datasets.standardized")
def standardized(other=False):
    data = datasets.load("digits")
    return Call(datasets.standardized, {"data": data, "samples": 50 + other, "test_samples": 20})


@call("datasets.one_hot")
def one_hot(other=False):
    return Call(datasets.one_hot, {"labels": np.array([0, 1 + other]), "classes": 3})


@call("datasets.parity")
def parity(other=False):
    return Call(datasets.parity, {"labels": np.array([0, 1 + other])})


@call("datasets.upsampled")
def upsampled(other=False):
    return Call(datasets.upsampled, {"images": batch(other)["images"], "size": 10})


@call("datasets.random_flip")
def random_flip(other=False):
    return Call(datasets.random_flip, batch(other))


@call("datasets.random_crop")
def random_crop(other=False):
    return Call(datasets.random_crop, batch(other))


@call("datasets.mixup")
def mixup(other=False):
    more = {"labels": np.eye(4), "alpha": 0.5 + other}
    return Call(datasets.mixup, batch(other) | more, ("labels",))


EXEMPT["datasets.Dataset"] = RESULT
EXEMPT["datasets.Name"] = "a type"
