r"""The two-layer network of `output_scale`, Section 3.

.. math:: \hat z = d^{-1/2} W^0 x, \qquad z = \sigma(\hat z), \qquad f = h^{-1/2} W^1 z

Equations (11)–(13), with weights N(0, 1), inputs with Σ x_i² = d, and a softplus scaled so that the
variance of f at initialization is 1, as that of ẑ is.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.integrate import quad

from ntkdecay._checks import (
    array,
    checked,
    either,
    instance,
    integer,
    is_traced,
    prng_key,
    tree,
)

Weights = tuple[Array, Array]  # W⁰, (d, h), and W¹, (h, outputs)


class _sharpness(array):
    """β, known at trace time: the softplus is scaled by a quadrature."""

    def __call__(self, name: str, value: Any) -> None:
        if is_traced(value):
            raise TypeError(
                f"`{name}` is traced; it must be a Python number, as its quadrature is made at trace time."
            )
        super().__call__(name, value)


SHARPNESS = _sharpness(above=0, ndim=0, why="it is the sharpness of the softplus")
WEIGHTS, INPUTS = (
    tree(nan=True, what="(W⁰, W¹), two arrays of a floating dtype"),
    array(nan=True, inf=True),
)
SHAPED = either(INPUTS, instance(jax.ShapeDtypeStruct, "a jax.ShapeDtypeStruct"))


class TwoLayer(NamedTuple):
    """Functions of a two-layer network.

    Attributes:
        init: `init(key, x) -> (W⁰, W¹)`, of shapes (d, h) and (h, outputs), in JAX's default
            floating dtype; of `x` only the shape is used.
        apply: `apply(params, x) -> f`, (n, outputs), from x: (n, …), whose other axes are one.
        preactivations: `preactivations(params, x) -> ẑ`, (n, h): the hidden features.
    """

    init: Callable[..., Weights]
    apply: Callable[[Weights, ArrayLike], Array]
    preactivations: Callable[[Weights, ArrayLike], Array]


@checked(width=integer(low=1), outputs=integer(low=1), beta=SHARPNESS)
def two_layer(width: int = 1000, outputs: int = 10, beta: float = 5.0) -> TwoLayer:
    """The network (11)–(13) of `output_scale`, without biases; equal arguments give the same functions.

    Args:
        width: h.
        outputs: number of outputs.
        beta: β of `scaled_softplus`.

    Raises:
        ValueError: if an argument is not positive.

    >>> import jax
    >>> from ntkdecay import output_scale
    >>> network = output_scale.two_layer(8, 3)
    >>> network.apply(network.init(jax.random.key(0), jax.numpy.ones((2, 5))), jax.numpy.ones((2, 5))).shape
    (2, 3)
    """
    return _two_layer(int(width), int(outputs), float(beta))


@functools.cache
def _two_layer(width: int, outputs: int, beta: float) -> TwoLayer:
    scale = _scale(beta)

    @checked(key=prng_key(), x=SHAPED)
    def init(key: Array, x: ArrayLike | jax.ShapeDtypeStruct) -> Weights:
        return _drawn(key, math.prod(np.shape(x)[1:]), width, outputs)

    @checked(params=WEIGHTS, x=INPUTS)
    def preactivations(params: Weights, x: ArrayLike) -> Array:
        return _preactivations(params[0], _suiting(params, x, width, outputs))

    @checked(params=WEIGHTS, x=INPUTS)
    def apply(params: Weights, x: ArrayLike) -> Array:
        return _apply(params, _suiting(params, x, width, outputs), scale, beta)

    return TwoLayer(init, apply, preactivations)


def _suiting(params: Weights, x: ArrayLike, width: int, outputs: int) -> Array:
    """The inputs as an array, of samples that the weights take."""
    x = jnp.asarray(x)
    expected = [(math.prod(x.shape[1:]), width), (width, outputs)]
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    if not isinstance(params, (tuple, list)) or shapes != expected:
        raise ValueError(
            f"`params` has arrays of shapes {shapes}; with `x` of shape {x.shape} they must be {expected}."
        )
    return x


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _drawn(key: Array, d: int, width: int, outputs: int) -> Weights:
    first, last = jax.random.split(key)
    return jax.random.normal(first, (d, width)), jax.random.normal(last, (width, outputs))


@jax.jit
def _preactivations(weights: Array, x: Array) -> Array:
    flat = x.reshape(len(x), -1)
    return flat @ weights / math.sqrt(flat.shape[1])


@jax.jit
def _apply(params: Weights, x: Array, scale: float, beta: float) -> Array:
    hidden = _softplus(_preactivations(params[0], x), scale, beta)
    return hidden @ params[1] / math.sqrt(len(params[1]))


@checked(beta=SHARPNESS)
def scaled_softplus(beta: float = 5.0) -> Callable[[ArrayLike], Array]:
    r"""The activation of `output_scale`, of mean square 1 under a standard normal.

    .. math:: \sigma(x) = \frac{a}{\beta} \ln(1 + e^{\beta x}), \qquad
              a^{-2} = \int \frac{\ln^2(1 + e^{\beta x})}{\beta^2}\, \frac{e^{-x^2/2}}{\sqrt{2\pi}}\, dx

    The paper finds a by a Monte Carlo method; here it is a quadrature, exact to rounding. a = √2, that of
    ReLU, as β → ∞, and 1.40438 at the paper's β = 5.

    Args:
        beta: β > 0, a Python number.

    Raises:
        ValueError: if β is not positive.

    >>> from ntkdecay import output_scale
    >>> round(float(output_scale.scaled_softplus(1.0)(0.0)), 3)
    0.722
    """
    return _scaled_softplus(float(beta))


@functools.cache
def _scaled_softplus(beta: float) -> Callable[[ArrayLike], Array]:
    scale = _scale(beta)

    @checked(x=INPUTS)
    def activation(x: ArrayLike) -> Array:
        return _softplus(jnp.asarray(x), scale, beta)

    return activation


@jax.jit
def _softplus(x: Array, scale: float, beta: float) -> Array:
    return scale * jax.nn.softplus(beta * x)


@functools.cache
def _scale(beta: float) -> float:
    """a/β."""

    def square(x: float) -> float:
        return (np.logaddexp(0.0, beta * x) / beta) ** 2 * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    exact = {"epsabs": 0.0, "epsrel": 1e-13, "limit": 200}
    halves = [quad(square, *ends, **exact)[0] for ends in ((-np.inf, 0.0), (0.0, np.inf))]
    return float(1 / np.sqrt(sum(halves)) / beta)


@checked(x=array())
def on_sphere(x: ArrayLike) -> Array:
    """Samples as vectors with Σ x_i² = d: (n, …) to (n, d), Section 3 of `output_scale`.

    Raises:
        ValueError: if a sample is zero, where that is known.

    >>> import numpy as np
    >>> from ntkdecay import output_scale
    >>> output_scale.on_sphere(np.array([[3.0, 4.0]])).round(3).tolist()
    [[0.849, 1.131]]
    """
    flat, norm = _on_sphere(jnp.asarray(x))
    if not is_traced(norm) and not np.all(np.asarray(norm) > 0):
        raise ValueError(
            "`x` has a sample that is all zeros, which has no direction; leave it out."
        )
    return flat


@jax.jit
def _on_sphere(x: Array) -> tuple[Array, Array]:
    flat = x.reshape(len(x), -1)
    norm = jnp.linalg.norm(flat, axis=1, keepdims=True)
    return flat * (math.sqrt(flat.shape[1]) / norm), norm
