from functools import partial

import jax.numpy as jnp

from ntkdecay import predict
from surface import Call, call
from surface.predict_trajectories import data


def product(k):
    return partial(jnp.matmul, jnp.asarray(k))


@call("predict.gradient_descent_mse_matrix_free")
def gradient_descent_mse_matrix_free(other=False):
    k, _, y, _ = data(other)
    arguments = {
        "matvec": product(k), "y_train": y, "l2": 0.01 + 0.1 * other, "degree": 2,
        "learning_rate": 0.5 + 0.1 * other,
    }  # fmt: skip
    return Call(predict.gradient_descent_mse_matrix_free, arguments, ("y_train",))


@call("predict.gradient_descent_mse_matrix_free()")
def from_products(other=False):
    _, k_test, _, start = data(other)
    asked = {
        "t": jnp.array([1.0, 4.0 + other]), "fx_train_0": start[:5], "fx_test_0": start[5:],
        "k_test_train": product(k_test),
    }  # fmt: skip
    return Call(gradient_descent_mse_matrix_free(other)(), asked, ("fx_train_0", "fx_test_0"))
