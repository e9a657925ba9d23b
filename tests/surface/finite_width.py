import jax.numpy as jnp
import numpy as np

from ntkdecay import finite_width
from surface import EXEMPT, RESULT, Call, call


def network(params, x):
    return jnp.maximum(x @ params[0], 0) @ params[1]


def arguments(other: bool):
    rng = np.random.default_rng(int(other))
    return {
        "apply_fn": network, "params": [jnp.asarray(rng.normal(size=s)) for s in ((3, 4), (4, 2))],
        "x_train": rng.normal(size=(5, 3)), "y_train": rng.normal(size=(5, 2)), "l2": 0.1 + other,
    }  # fmt: skip


@call("finite_width.stationarity")
def stationarity(other=False):
    return Call(finite_width.stationarity, arguments(other) | {"degree": 2}, ("y_train",))


@call("finite_width.attributions")
def attributions(other=False):
    more = {"x_test": np.random.default_rng(9 + other).normal(size=(4, 3)), "tile": 2}
    return Call(finite_width.attributions, arguments(other) | more, ("y_train",))


@call("finite_width.without_l2")
def without_l2(other=False):
    rates = np.full(5, 0.1 + 0.1 * other)
    arguments = {"learning_rate": rates, "l2": 0.3 * rates, "degree": 2.0, "momentum": 0.5}
    return Call(finite_width.without_l2, arguments, ("learning_rate", "l2"))


def predicted(other: bool):
    return arguments(other) | {"l2": 0.3 + 0.01 * other, "degree": 2.0, "loss": loss}


def loss(fx, y):
    return 0.01 * jnp.sum((fx - y) ** 2)


@call("finite_width.next_order")
def next_order(other=False):
    return Call(finite_width.next_order, predicted(other) | {"sweeps": 2}, ("y_train",))


@call("finite_width.next_order()")
def next_order_fn(other=False):
    predict_fn = finite_width.next_order(**predicted(other))
    x_test = np.random.default_rng(9 + other).normal(size=(3, 3))
    return Call(predict_fn, {"t": np.array([0.1, 0.2 + 0.01 * other]), "x_test": x_test})


@call("finite_width.departure_time")
def departure_time(other=False):
    return Call(finite_width.departure_time, predicted(other) | {"factor": 1.5}, ("y_train",))


@call("finite_width.critical_l2")
def critical_l2(other=False):
    given = {name: value for name, value in arguments(other).items() if name != "l2"}
    return Call(finite_width.critical_l2, given | {"starts": 2}, ("y_train",))


for name in ("Attributions", "NextOrderFn", "Stationarity", "WithoutL2"):
    EXEMPT[f"finite_width.{name}"] = RESULT
