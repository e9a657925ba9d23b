import numpy as np

from ntkdecay import deep_linear
from surface import EXEMPT, RESULT, Call, call


def data(other: bool, outputs: bool = False):
    rng = np.random.default_rng(int(other))
    x = rng.normal(size=(6, 3))
    if outputs:
        x = np.linalg.qr(x)[0]
    y = rng.normal(size=(6, 2)) if outputs else rng.normal(size=6)
    return {"x": x, "y": y, "depth": 2, "beta": 0.5 + 0.1 * other}


@call("deep_linear.normalization")
def normalization(other=False):
    arguments = {"width": 25 + other, "depth": 2, "parameterization": "ntk"}
    return Call(deep_linear.normalization, arguments)


@call("deep_linear.fixed_points")
def fixed_points(other=False):
    return Call(deep_linear.fixed_points, data(other) | {"l2": 0.05}, ("x", "y"))


@call("deep_linear.fixed_points_per_mode")
def fixed_points_per_mode(other=False):
    return Call(deep_linear.fixed_points_per_mode, data(other, outputs=True) | {"l2": 0.05}, ("y",))


@call("deep_linear.critical_l2")
def critical_l2(other=False):
    return Call(deep_linear.critical_l2, data(other), ("x", "y"))


EXEMPT["deep_linear.FixedPoint"] = RESULT
