import jax.numpy as jnp
import numpy as np

from ntkdecay import optimizers
from surface import EXEMPT, RESULT, Call, call


def numbers(other: bool):
    return {"learning_rate": 0.1 + other, "l2": 0.01 + other, "momentum": 0.5 + 0.1 * other}


def falling(other: bool):
    return {"factor": 10.0 - other, "refractory": 0.1 + other}


def tree(other: bool, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed + 2 * other).normal(size=(3, 2)))


def updated(optimizer, other: bool, **measured):
    params = tree(other)
    arguments = {"updates": tree(other, 1), "state": optimizer.init(params), "params": params}
    return Call(optimizer.update, arguments | measured, ("updates", "params"))


@call("optimizers.sgd")
def sgd(other=False):
    return Call(optimizers.sgd, numbers(other))


@call("optimizers.sgd().init")
def sgd_init(other=False):
    return Call(sgd(other)().init, {"params": tree(other)})


@call("optimizers.sgd().update")
def sgd_update(other=False):
    return updated(sgd(other)(), other)


@call("optimizers.auto_l2")
def auto_l2(other=False):
    return Call(optimizers.auto_l2, {"l2": 0.1 + other, "every": 5, "patience": 2} | falling(other))


@call("optimizers.auto_l2().init")
def auto_l2_init(other=False):
    return Call(auto_l2(other)().init, {"params": tree(other)})


@call("optimizers.auto_l2().update")
def auto_l2_update(other=False):
    return updated(auto_l2(other)(), other, value=1.0 + other, error=0.5 + other)


@call("optimizers.auto_l2_state")
def auto_l2_state(other=False):
    return Call(optimizers.auto_l2_state, {"l2": 0.1 + other, "patience": 2, "dtype": np.float64})


@call("optimizers.auto_l2_rule")
def auto_l2_rule(other=False):
    arguments = {"state": auto_l2_state(other)(), "loss": 1.0 + other, "error": 0.5 + other}
    return Call(optimizers.auto_l2_rule, arguments | falling(other))


@call("optimizers.measure_c")
def measure_c(other=False):
    arguments = {"l2": np.array([0.1, 0.2 + other]), "time": np.array([10.0, 6.0 + other])}
    return Call(optimizers.measure_c, arguments | {"learning_rate": 0.1 + other})


@call("optimizers.optimal_l2")
def optimal_l2(other=False):
    arguments = {"c": 0.0066 + other, "time": np.array([100.0, 200.0]), "decays": [60.0, 120.0]}
    return Call(optimizers.optimal_l2, arguments | {"learning_rate": 0.1 + other})


EXEMPT["optimizers.AutoL2State"] = "made by `auto_l2_state`"
EXEMPT["optimizers.Coefficient"] = RESULT
