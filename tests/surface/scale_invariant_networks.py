import jax
import numpy as np

from ntkdecay.scale_invariant import networks
from surface import Call, call

TINY = networks.fc(2, width=3, norm="layer")
FROZEN = {
    "norm": "group", "groups": 2, "epsilon": 1e-8, "head_norm": 5.0, "head_seed": 1,
}  # fmt: skip


@call("scale_invariant.networks.cnn")
def cnn(other=False):
    more = {"channels": (4, 4), "pooled": (0,), **FROZEN}
    return Call(networks.cnn, {"outputs": 2 + other} | more)


@call("scale_invariant.networks.fc")
def fc(other=False):
    more = {"width": 4, "depth": 2, **FROZEN}
    return Call(networks.fc, {"outputs": 2 + other} | more)


@call("scale_invariant.networks.conv_net")
def conv_net(other=False):
    return Call(networks.conv_net, {"outputs": 2 + other, "width": 4} | FROZEN)


@call("scale_invariant.networks.pre_resnet")
def pre_resnet(other=False):
    return Call(networks.pre_resnet, {"depth": 8, "outputs": 2 + other, "width": 4} | FROZEN)


@call("scale_invariant.networks.resnet_18")
def resnet_18(other=False):
    return Call(networks.resnet_18, {"outputs": 2 + other, "width": 4} | FROZEN)


@call("scale_invariant.networks.fc().init")
def init(other=False):
    arguments = {"key": jax.random.key(other), "x": np.zeros((3, 5)), "w_std": 1.0 + other}
    return Call(TINY.init, arguments)


@call("scale_invariant.networks.fc().apply")
def apply(other=False):
    return Call(TINY.apply, {"params": init(other)(), "x": np.full((3, 5), 1.0 + other)})
