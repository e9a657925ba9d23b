r"""The two-layer network of `output_scale`, Section 3.

.. math:: \hat z = d^{-1/2} W^0 x, \qquad z = \sigma(\hat z), \qquad f = h^{-1/2} W^1 z

Equations (11)–(13), with weights N(0, 1), inputs with Σ x_i² = d, and a softplus scaled so that the
variance of f at initialization is 1, as that of ẑ is.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.integrate import quad

from ntkdecay._checks import array, check_positive, checked, integer, number

Weights = tuple[Array, Array]  # W⁰, (d, h), and W¹, (h, outputs)


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


@checked(width=integer(low=1), outputs=integer(low=1), beta=number(above=0))
@functools.cache
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
    check_positive("width", width, "a number of hidden units")
    check_positive("outputs", outputs, "a number of outputs")
    activation = scaled_softplus(beta)

    def init(key: Array, x: ArrayLike | jax.ShapeDtypeStruct) -> Weights:
        first, last = jax.random.split(key)
        d = int(np.prod(np.shape(x)[1:]))
        return jax.random.normal(first, (d, width)), jax.random.normal(last, (width, outputs))

    def preactivations(params: Weights, x: ArrayLike) -> Array:
        flat = _flat(x)
        return flat @ params[0] / np.sqrt(flat.shape[1])

    def apply(params: Weights, x: ArrayLike) -> Array:
        return activation(preactivations(params, x)) @ params[1] / np.sqrt(width)

    return TwoLayer(init, apply, preactivations)


@checked(beta=number(above=0))
@functools.cache
def scaled_softplus(beta: float = 5.0) -> Callable[[Array], Array]:
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
    check_positive("beta", beta, "it is the sharpness of the softplus")

    def square(x: float) -> float:
        return (np.logaddexp(0.0, beta * x) / beta) ** 2 * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    exact = {"epsabs": 0.0, "epsrel": 1e-13, "limit": 200}
    halves = [quad(square, *ends, **exact)[0] for ends in ((-np.inf, 0.0), (0.0, np.inf))]
    a = 1 / np.sqrt(sum(halves))
    return lambda x: float(a / beta) * jax.nn.softplus(beta * x)


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
    flat = _flat(x)
    norm = jnp.linalg.norm(flat, axis=1, keepdims=True)
    if not isinstance(norm, jax.core.Tracer) and not np.all(np.asarray(norm) > 0):
        raise ValueError(
            "`x` has a sample that is all zeros, which has no direction; leave it out."
        )
    return flat * (np.sqrt(flat.shape[1]) / norm)


def _flat(x: ArrayLike) -> Array:
    """(n, …) as (n, d)."""
    x = jnp.asarray(x)
    return x.reshape(len(x), -1)
