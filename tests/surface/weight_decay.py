import jax.numpy as jnp

from ntkdecay import weight_decay
from surface import Call, call


@call("weight_decay.timescale")
def timescale(other=False):
    arguments = {"learning_rate": 1e-3 + other, "weight_decay": jnp.array([0.1, 0.2 + other])}
    return Call(weight_decay.timescale, arguments | {"batch_size": 8.0, "dataset_size": 100.0})


@call("weight_decay.adamw_equilibrium")
def adamw_equilibrium(other=False):
    arguments = {"learning_rate": 1e-3, "weight_decay": 0.1 + other, "size": 64.0, "b1": 0.9}
    return Call(weight_decay.adamw_equilibrium, arguments)


@call("weight_decay.sgd_equilibrium")
def sgd_equilibrium(other=False):
    arguments = {"learning_rate": 0.1, "l2": 5e-4 + other, "gradient_norm": 1.0, "momentum": 0.9}
    return Call(weight_decay.sgd_equilibrium, arguments)


@call("weight_decay.transferred")
def transferred(other=False):
    arguments = {"weight_decay": 0.1 + other, "learning_rate": 0.5, "batch_size": 4.0}
    return Call(weight_decay.transferred, arguments | {"samples": 2.0, "width": 8.0})
