import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay import output_scale
from surface import EXEMPT, RESULT, Call, call
from surface.optimizers import tree, updated

NET = output_scale.two_layer(width=4, outputs=2)
ADAM = {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "eps_root": 0.0}
OWN = optax.GradientTransformation(optax.adam(0.1).init, jax.jit(optax.adam(0.1).update))
RMS = {"decay": 0.99, "eps": 1e-6, "initial_scale": 0.1}


def alpha(other: bool):
    return 2.0 + other


def drawn(other: bool, *shape: int, seed: int = 0):
    return np.random.default_rng(seed + 10 * other).normal(size=shape)


def params(other: bool, seed: int = 0):
    return tuple(jnp.asarray(drawn(other, *shape, seed=seed)) for shape in ((3, 4), (4, 2)))


def outputs(other: bool):
    return {"fx": drawn(other, 5, 2), "y": np.sign(drawn(other, 5, 2, seed=1))}


def network(params, x):
    return jnp.maximum(x @ params[0], 0) @ params[1]


@call("output_scale.centred")
def centred(other=False):
    arguments = {"apply_fn": network, "params_0": params(other), "alpha": alpha(other)}
    return Call(output_scale.centred, arguments)


@call("output_scale.centred()")
def centred_network(other=False):
    arguments = {"params": params(other, 1), "x": drawn(other, 5, 3)}
    return Call(centred(other)(), arguments)


@call("output_scale.scaled_loss")
def scaled_loss(other=False):
    arguments = {"loss": output_scale.soft_hinge, "alpha": alpha(other)}
    return Call(output_scale.scaled_loss, arguments)


@call("output_scale.scaled_loss()")
def total(other=False):
    return Call(scaled_loss(other)(), outputs(other), ("fx", "y"))


@call("output_scale.lazy_loss")
def lazy_loss(other=False):
    arguments = scaled_loss(other).arguments | {"fx_train_0": drawn(other, 5, 2, seed=2)}
    return Call(output_scale.lazy_loss, arguments)


@call("output_scale.lazy_loss()")
def lazy_total(other=False):
    return Call(lazy_loss(other)(), outputs(other), ("fx", "y"))


@call("output_scale.offset")
def offset(other=False):
    arguments = {
        "t": np.arange(3.0) + other,
        "fx_0": drawn(other, 3),
        "l2": 0.1 + other,
        "degree": 2,
    }
    return Call(output_scale.offset, arguments | {"alpha": alpha(other)}, ("fx_0",))


@call("output_scale.soft_hinge")
def soft_hinge(other=False):
    return Call(output_scale.soft_hinge, outputs(other) | {"beta": 20.0 + other}, ("y",))


@call("output_scale.one_against_all")
def one_against_all(other=False):
    arguments = {"labels": np.array([0, 2, 1 + other]), "classes": 3}
    return Call(output_scale.one_against_all, arguments)


@call("output_scale.sign_consistency")
def sign_consistency(other=False):
    arguments = {"before": drawn(other, 5, 4), "after": drawn(other, 5, 4, seed=1)}
    return Call(output_scale.sign_consistency, arguments, ("before", "after"))


@call("output_scale.parameter_movement")
def parameter_movement(other=False):
    arguments = {"params": tree(other), "params_0": tree(other, 1)}
    return Call(output_scale.parameter_movement, arguments, ("params", "params_0"))


@call("output_scale.kernel_movement")
def kernel_movement(other=False):
    arguments = {"params": params(other), "params_0": params(other, 1), "x": drawn(other, 5, 3)}
    return Call(output_scale.kernel_movement, arguments | {"apply_fn": network})


@call("output_scale.on_sphere")
def on_sphere(other=False):
    return Call(output_scale.on_sphere, {"x": drawn(other, 5, 3)})


@call("output_scale.scaled_softplus")
def scaled_softplus(other=False):
    return Call(output_scale.scaled_softplus, {"beta": 5.0 + other})


@call("output_scale.scaled_softplus()")
def activation(other=False):
    return Call(output_scale.scaled_softplus(5.0), {"x": drawn(other, 3)})


@call("output_scale.two_layer")
def two_layer(other=False):
    arguments = {"width": 4 + other, "outputs": 2, "beta": 5.0 + other}
    return Call(output_scale.two_layer, arguments)


@call("output_scale.two_layer().init")
def init(other=False):
    return Call(NET.init, {"key": jax.random.key(other), "x": drawn(other, 5, 3)})


@call("output_scale.two_layer().apply")
def apply(other=False):
    return Call(NET.apply, {"params": params(other), "x": drawn(other, 5, 3)})


@call("output_scale.two_layer().preactivations")
def preactivations(other=False):
    return Call(NET.preactivations, {"params": params(other), "x": drawn(other, 5, 3)})


@call("output_scale.rescaled")
def rescaled(other=False):
    return Call(output_scale.rescaled, {"optimizer": OWN, "alpha": alpha(other)})


@call("output_scale.scale_by_rescaled_rms")
def scale_by_rescaled_rms(other=False):
    return Call(output_scale.scale_by_rescaled_rms, {"alpha": alpha(other)} | RMS)


@call("output_scale.rescaled_rmsprop")
def rescaled_rmsprop(other=False):
    arguments = {"learning_rate": 0.1 + other, "alpha": alpha(other), "momentum": 0.9} | RMS
    return Call(output_scale.rescaled_rmsprop, arguments)


@call("output_scale.scale_by_rescaled_adam")
def scale_by_rescaled_adam(other=False):
    return Call(output_scale.scale_by_rescaled_adam, {"alpha": alpha(other)} | ADAM)


@call("output_scale.rescaled_adam")
def rescaled_adam(other=False):
    arguments = {"learning_rate": 0.1 + other, "alpha": alpha(other)} | ADAM
    return Call(output_scale.rescaled_adam, arguments)


for factory in (
    rescaled,
    scale_by_rescaled_rms,
    rescaled_rmsprop,
    scale_by_rescaled_adam,
    rescaled_adam,
):
    name = f"output_scale.{factory.__name__}()"

    @call(f"{name}.init")
    def init_of(other=False, factory=factory):
        return Call(factory(other)().init, {"params": tree(other)})

    @call(f"{name}.update")
    def update_of(other=False, factory=factory):
        return updated(factory(other)(), other)


@call("output_scale.effective_learning_rate")
def effective_learning_rate(other=False):
    arguments = {"updates": tree(other), "gradient": tree(other, 1)}
    return Call(output_scale.effective_learning_rate, arguments, ("updates", "gradient"))


@call("output_scale.second_moment")
def second_moment(other=False):
    arguments = {"gradient": tree(other), "steps": 3 + other, "decay": 0.9 + 0.01 * other}
    return Call(output_scale.second_moment, arguments)


@call("output_scale.critical_alpha")
def critical_alpha(other=False):
    arguments = {"v": tree(other) ** 2, "alpha": alpha(other), "eps": 1e-8 * (1 + other)}
    return Call(output_scale.critical_alpha, arguments)


EXEMPT["output_scale.TwoLayer"] = RESULT
