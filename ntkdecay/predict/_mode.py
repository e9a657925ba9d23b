"""One eigenmode under L2, in closed form."""

from functools import partial

import jax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape
from ntkdecay._checks import array, checked
from ntkdecay.homogeneity import Degree
from ntkdecay.predict._checks import (
    TIME,
    as_degree,
    as_float,
    network_degree,
    traced_non_negative,
)
from ntkdecay.predict._response import Prepared, on_training_set_prepared, prepare
from ntkdecay.predict._schedule import constant


@checked(
    t=TIME,
    eigenvalue=array(low=0, why="a kernel is positive semi-definite"),
    l2=constant(
        array(low=0, why="it multiplies ‖θ‖²/2 in the loss"),
        "`gradient_descent_mse` on the kernel [[γ]] takes `PiecewiseConstant`",
    ),
    degree=network_degree(),
    f0=array(),
    y=array(),
)
def mode(
    t: ArrayLike,
    eigenvalue: ArrayLike,
    l2: ArrayLike,
    degree: float | Degree,
    f0: ArrayLike = 0.0,
    y: ArrayLike = 1.0,
) -> Array:
    r"""One eigenmode of an infinitely wide network trained on MSE with L2.

    .. math:: f(t) = y\,G_s(u_t) + (u_t/u_0)^{1-s} e^{u_t-u_0} (f_0 - y\,G_s(u_0)), \qquad
              u_t = \frac{\gamma e^{-ct}}{c}, \quad c = 2(k-1)\lambda, \quad s = \frac{k-2}{2(k-1)}

    Closed form of eq. (3), Theorem 2 of Lewkowycz & Gur-Ari (2020), with G_s of `quasi_static`: the
    first term tracks the decaying kernel, the second is the transient. k = 1 is the linear model; at
    k = 0 the kernel grows: f = y + (f_0 − y) exp(−γ(e^{2λt} − 1)/(2λ)). λ = 0 and γ = 0 are limits
    like any other. jit, vmap and grad work with respect to every argument but `degree`.

    Args:
        t: gradient-flow time (step × learning rate), any shape; >= 0 or inf.
        eigenvalue: γ >= 0 of the kernel at t = 0, broadcast against `t`.
        l2: λ >= 0 of the loss's λ/2 ‖θ‖².
        degree: k of the network: 0, 1, or any real > 1.
        f0, y: the function and the label in this mode.

    Returns:
        f(t), of the broadcast shape and dtype of the arguments. The error in float64 is below
        1e-12·max(|f0|, |y|) for γ/λ from 1e-12 to 1e12.

    Raises:
        ValueError: if `degree` is outside its range, `t`, `eigenvalue` or `l2` is negative, or shapes do not
            broadcast.

    >>> from ntkdecay import predict
    >>> round(float(predict.mode(10.0, eigenvalue=1.0, l2=0.01, degree=2)), 4)
    0.9766
    """
    t = traced_non_negative(t, "t", "gradient-flow time starts at initialization")
    eigenvalue = traced_non_negative(eigenvalue, "eigenvalue", "a kernel is positive semi-definite")
    l2 = traced_non_negative(l2, "l2", "it multiplies ‖θ‖²/2 in the loss")
    arguments = as_float(t, eigenvalue, l2, f0, y)
    names = ("t", "eigenvalue", "l2", "f0", "y")
    shapes = (argument.shape for argument in arguments)
    ndim = len(common_shape(**dict(zip(names, shapes, strict=True))))
    t, eigenvalue, l2, f0, y = (
        argument.reshape((1,) * (ndim - argument.ndim) + argument.shape) for argument in arguments
    )
    k = as_degree(degree)
    return _mode(t, eigenvalue, l2, f0, y, prepare(t, eigenvalue, l2, k), k)


@partial(jax.jit, static_argnums=6)
def _mode(
    t: Array,
    eigenvalue: Array,
    l2: Array,
    f0: Array,
    y: Array,
    prepared: Prepared | None,
    degree: float,
) -> Array:
    kept, learned, _ = on_training_set_prepared(t, eigenvalue, l2, degree, prepared)
    return kept * f0 + learned * y
