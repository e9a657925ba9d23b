import jax.numpy as jnp
import numpy as np

from ntkdecay import homogeneity
from surface import EXEMPT, RESULT, Call, call


def network(params, x):
    return jnp.maximum(x @ params[0], 0) @ params[1]


def arguments(other: bool):
    rng = np.random.default_rng(int(other))
    params = [jnp.asarray(rng.normal(size=shape)) for shape in ((5, 4), (4, 2))]
    return {"apply_fn": network, "params": params, "x": rng.normal(size=(6, 5))}


@call("homogeneity.degree")
def degree(other=False):
    return Call(homogeneity.degree, arguments(other) | {"tolerance": 1e-6 * (1 + other)})


@call("homogeneity.degrees")
def degrees(other=False):
    return Call(homogeneity.degrees, arguments(other) | {"tolerance": 1e-6 * (1 + other)})


@call("homogeneity.lemma_1")
def lemma_1(other=False):
    more = {"degree": 2.0 + other, "directions": [arguments(not other)["params"]]}
    return Call(homogeneity.lemma_1, arguments(other) | more)


EXEMPT["homogeneity.Degree"] = RESULT
