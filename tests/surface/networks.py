import jax
import numpy as np

from ntkdecay import networks
from surface import EXEMPT, RESULT, Call, call

TINY = networks.fully_connected((4,), 2)


@call("networks.fully_connected")
def fully_connected(other=False):
    return Call(networks.fully_connected, {"widths": (4, 3 + other), "outputs": 2})


@call("networks.cnn")
def cnn(other=False):
    return Call(networks.cnn, {"outputs": 2 + other, "batch_norm": True})


@call("networks.wide_resnet")
def wide_resnet(other=False):
    return Call(networks.wide_resnet, {"depth": 16 + 6 * other})


@call("networks.fully_connected().init")
def init(other=False):
    arguments = {"key": jax.random.key(other), "x": np.zeros((3, 5)), "w_std": 1.0 + other}
    return Call(TINY.init, arguments)


@call("networks.fully_connected().apply")
def apply(other=False):
    return Call(TINY.apply, {"params": init(other)(), "x": np.full((3, 5), 1.0 + other)})


EXEMPT["networks.Network"] = RESULT
