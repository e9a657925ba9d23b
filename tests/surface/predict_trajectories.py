import jax
import jax.numpy as jnp
import numpy as np

from ntkdecay import predict
from surface import EXEMPT, Call, call


def cross_entropy(fx, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))


def data(other: bool):
    rng = np.random.default_rng(int(other))
    a = rng.normal(size=(7, 12))
    k = a @ a.T / 12
    return k[:5, :5], k[5:, :5], np.eye(2)[rng.integers(0, 2, 5)], rng.normal(size=(7, 2))


def flow_arguments(other: bool):
    k, _, y, _ = data(other)
    return {
        "loss": cross_entropy, "k_train_train": k, "y_train": y, "l2": 0.01 + 0.1 * other, "degree": 2,
        "learning_rate": 0.5 + 0.1 * other, "momentum": 0.5 - 0.1 * other,
    }  # fmt: skip


def steps_arguments(other: bool):
    batches = np.random.default_rng(int(other)).integers(0, 5, (4, 3))
    return flow_arguments(other) | {"nesterov": True, "batches": batches}


def asked(other: bool):
    _, k_test, _, start = data(other)
    return {
        "t": np.array([1.0, 4.0 + other]), "fx_train_or_state_0": start[:5], "fx_test_0": start[5:],
        "k_test_train": k_test,
    }  # fmt: skip


@call("predict.gradient_descent")
def gradient_descent(other=False):
    return Call(predict.gradient_descent, flow_arguments(other), ("y_train",))


@call("predict.gradient_descent()")
def flow(other=False):
    predict_fn = predict.gradient_descent(**flow_arguments(other))
    return Call(predict_fn, asked(other), ("fx_train_or_state_0", "fx_test_0"))


@call("predict.sgd")
def sgd(other=False):
    return Call(predict.sgd, steps_arguments(other), ("y_train",))


@call("predict.sgd()")
def steps(other=False):
    predict_fn = predict.sgd(**steps_arguments(other))
    return Call(predict_fn, asked(other), ("fx_train_or_state_0", "fx_test_0"))


def late_arguments(other: bool):
    k, _, y, _ = data(other)
    return {"loss": cross_entropy, "k_train_train": k, "y_train": y, "l2": 1e-4 + 1e-5 * other, "degree": 2, "learning_rate": 0.5}  # fmt: skip


@call("predict.late_time")
def late_time(other=False):
    return Call(predict.late_time, late_arguments(other), ("y_train",))


@call("predict.late_time()")
def late_time_fn(other=False):
    _, k_test, _, _ = data(other)
    predict_fn = predict.late_time(**late_arguments(other))
    return Call(predict_fn, {"t": np.array([1e3, 1e4 + other]), "k_test_train": k_test})


EXEMPT["predict.LateTimeFn"] = "made by `late_time` alone"


def moments_arguments(other: bool):
    k, _, y, _ = data(other)
    return {"k_train_train": k, "y_train": y, "learning_rate": 0.5 + 0.1 * other, "l2": 0.01, "degree": 2, "batch_size": 2, "replace": True}  # fmt: skip


@call("predict.sgd_moments")
def sgd_moments(other=False):
    return Call(predict.sgd_moments, moments_arguments(other), ("y_train",))


@call("predict.sgd_moments()")
def sgd_moments_fn(other=False):
    _, k_test, _, start = data(other)
    predict_fn = predict.sgd_moments(**moments_arguments(other))
    given = {"t": np.array([1, 4 + other]), "fx_train_0": start[:5], "fx_test_0": start[5:], "k_test_train": k_test}  # fmt: skip
    return Call(predict_fn, given)


EXEMPT["predict.SgdMomentsFn"] = "made by `sgd_moments` alone"
