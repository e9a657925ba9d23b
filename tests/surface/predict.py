import numpy as np

from ntkdecay import predict, stax
from surface import EXEMPT, RESULT, Call, call

_, _, KERNEL_FN = stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(2))


def data(other: bool):
    rng = np.random.default_rng(int(other))
    a = rng.normal(size=(7, 12))
    k = a @ a.T / 12
    return k[:5, :5], k[5:, :5], rng.normal(size=(5, 2)), rng.normal(size=(7, 2))


def inputs(other: bool):
    return np.random.default_rng(int(other)).normal(size=(7, 3))


def learned(other: bool):
    k, _, y, _ = data(other)
    rates = {"l2": 0.01 + 0.1 * other, "degree": 2, "learning_rate": 0.5 + 0.1 * other}
    return {"k_train_train": k, "y_train": y} | rates


@call("predict.mode")
def mode(other=False):
    arguments = {
        "t": np.array([0.0, 1.0, 30.0 + other]), "eigenvalue": 1.0 + other, "l2": 0.01 + other, "degree": 2,
        "f0": np.array([0.1, 0.2, 0.3 + other]), "y": 1.0 + other,
    }  # fmt: skip
    return Call(predict.mode, arguments, ("f0",))


@call("predict.quasi_static")
def quasi_static(other=False):
    return Call(predict.quasi_static, {"u": np.array([0.0, 0.3 + other, 5.0]), "degree": 3})


@call("predict.peak_time")
def peak_time(other=False):
    _, _, _, start = data(other)
    arguments = learned(other) | {"fx_train_0": 0.1 * start[:5]}
    return Call(predict.peak_time, arguments, ("y_train", "fx_train_0"))


@call("predict.max_learning_rate")
def max_learning_rate(other=False):
    k, _, y, _ = data(other)
    arguments = {"k_train_train": k, "y_train": y, "momentum": 0.5 + 0.1 * other, "l2": 0.1 + other}
    return Call(predict.max_learning_rate, arguments, ("y_train",))


@call("predict.gradient_descent_mse")
def gradient_descent_mse(other=False):
    return Call(predict.gradient_descent_mse, learned(other), ("k_train_train", "y_train"))


@call("predict.gradient_descent_mse()")
def mse(other=False):
    _, k_test, _, start = data(other)
    arguments = {
        "t": np.array([1.0, 4.0 + other]), "fx_train_0": start[:5], "fx_test_0": start[5:], "k_test_train": k_test,
    }  # fmt: skip
    made = predict.gradient_descent_mse(**learned(other))
    return Call(made, arguments, ("fx_train_0", "fx_test_0", "k_test_train"))


@call("predict.gradient_descent_mse() with λ(t)")
def mse_with_pieces(other=False):
    l2 = predict.PiecewiseConstant([0.1, 0.01 + other], [2.0 + other])
    made = predict.gradient_descent_mse(**learned(other) | {"l2": l2})
    return Call(made, mse(other).arguments)


@call("predict.gradient_descent_mse_ensemble")
def ensemble(other=False):
    task = learned(other)
    del task["k_train_train"]
    arguments = task | {"kernel_fn": KERNEL_FN, "x_train": inputs(other)[:5]}
    return Call(predict.gradient_descent_mse_ensemble, arguments, ("x_train", "y_train"))


@call("predict.gradient_descent_mse_ensemble()")
def gaussian(other=False):
    arguments = {"t": 1.0 + other, "x_test": inputs(other)[5:], "get": "ntk", "compute_cov": True}
    return Call(ensemble(other)(), arguments)


@call("predict.kernel_vector_product")
def kernel_vector_product(other=False):
    x = inputs(other)
    arguments = {"kernel_fn": KERNEL_FN, "x1": x[:5], "x2": x[5:], "get": "ntk", "tile": 2}
    return Call(predict.kernel_vector_product, arguments)


@call("predict.kernel_vector_product()")
def product(other=False):
    return Call(kernel_vector_product(other)(), {"v": np.array([1.0, 0.5 + other])}, ("v",))


EXEMPT["predict.EnsembleFn"] = "made by `gradient_descent_mse_ensemble` alone"
EXEMPT["predict.PredictFn"] = "the predictors of `gradient_descent_mse`, made by it alone"
EXEMPT["predict.PredictFnState"] = "those of `gradient_descent` and `sgd`, likewise"
EXEMPT["predict.Gaussian"] = RESULT
EXEMPT["predict.State"] = "a tree, for vmap of anything: the predictor that is given it looks at it"
EXEMPT["predict.PiecewiseConstant"] = EXEMPT["predict.State"]
