import jax.numpy as jnp
import numpy as np

from ntkdecay import kernels
from surface import Call, call


def network(params, x):
    return jnp.maximum(x @ params["w1"] + params["b1"], 0) @ params["w2"]


@call("kernels.analytic")
def analytic(other=False):
    rng = np.random.default_rng(int(other))
    params = {"w1": jnp.ones((3, 8)), "b1": jnp.zeros(8), "w2": jnp.ones((8, 1))}
    arguments = {
        "apply_fn": network,
        "params": params,
        "x1": rng.normal(size=(4, 3)).astype(params["w1"].dtype),
        "x2": rng.normal(size=(2, 3)).astype(params["w1"].dtype),
        "get": "ntk",
        "variances": {"w1": 0.5 + other, "b1": 0.1, "w2": 0.25},
        "init": None,
        "key": None,
        "tile": 2,
        "max_bytes": None,
        "progress": None,
        "check": False,
    }
    return Call(kernels.analytic, arguments)
