import jax.numpy as jnp
import numpy as np

from ntkdecay import kernels, stax
from surface import EXEMPT, RESULT, Call, call

_, _, KERNEL_FN = stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(2))


def network(params, x):
    return jnp.maximum(x @ params[0], 0) @ params[1]


def loss(fx):
    return 0.5 * jnp.sum((fx - 1) ** 2)


def drawn(other: bool):
    rng = np.random.default_rng(int(other))
    params = [jnp.asarray(rng.normal(size=shape)) for shape in ((5, 4), (4, 2))]
    return params, rng.normal(size=(6, 5)), rng.normal(size=(4, 5))


@call("kernels.analytic_kernel")
def analytic_kernel(other=False):
    _, x1, x2 = drawn(other)
    return Call(kernels.analytic_kernel, {"kernel_fn": KERNEL_FN, "x1": x1, "x2": x2, "tile": 3})


@call("kernels.empirical_ntk")
def empirical_ntk(other=False):
    params, x1, x2 = drawn(other)
    arguments = {"apply_fn": network, "params": params, "x1": x1, "x2": x2, "max_bytes": 4000}
    return Call(kernels.empirical_ntk, arguments)


@call("kernels.ntk_vector_product")
def ntk_vector_product(other=False):
    params, x1, x2 = drawn(other)
    arguments = {"apply_fn": network, "params": params, "x1": x1, "x2": x2, "tile": 3}
    return Call(kernels.ntk_vector_product, arguments)


@call("kernels.ntk_vector_product()")
def product(other=False):
    made = ntk_vector_product(other)()
    return Call(made, {"v": np.full((4, 2), 1.0 + other)}, ("v",))


@call("kernels.velocity")
def velocity(other=False):
    params, x, _ = drawn(other)
    arguments = {"apply_fn": network, "params": params, "x": x, "loss": loss, "l2": 0.1 + other}
    return Call(kernels.velocity, arguments)


EXEMPT["kernels.Velocity"] = RESULT
