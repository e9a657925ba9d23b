r"""The loss of a scaled and centred output.

.. math:: L(\theta) = \frac{1}{\alpha^2 n} \sum_{(x, y)} \ell(\alpha(f(\theta, x) - f(\theta_0, x)), y)

Equation (3) of `output_scale`. Under gradient flow F moves as it would at any other α, but for what
the kernel of f has moved, (4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import same_shape
from ntkdecay._checks import (
    Scalar,
    anything,
    array,
    checked,
    function,
    integer,
    is_traced,
    number,
)

ApplyFn = Callable[[Any, Any], Any]
Loss = Callable[[Array, Array], Array]

ALPHA = number(above=0, why="it multiplies the output, and 1/α² the loss")
OUTPUTS, LABELS = array(nan=True, inf=True), array()


@checked(apply_fn=function("of parameters and inputs"), params_0=anything(), alpha=ALPHA)
def centred(apply_fn: ApplyFn, params_0: Any, alpha: Scalar) -> ApplyFn:
    r"""The scaled network, zero at initialization.

    .. math:: F(\theta, x) = \alpha\,(f(\theta, x) - f(\theta_0, x))

    Equation (3) of `output_scale`. At large α the difference loses as many digits as α has.

    Args:
        apply_fn: f(params, x) -> array.
        params_0: θ_0, where training starts.
        alpha: α > 0, which may be traced.

    Raises:
        ValueError: if α is not positive.

    >>> from ntkdecay import output_scale
    >>> f = output_scale.centred(lambda params, x: params * x, 1.0, alpha=10.0)
    >>> float(f(1.5, 2.0))
    10.0
    """

    @checked(params=anything(), x=anything())  # what `apply_fn` takes
    def centred_apply(params: Any, x: Any) -> Array:
        return difference(alpha, apply_fn(params, x), apply_fn(params_0, x))

    return centred_apply


@jax.jit
def difference(alpha: Scalar, fx: Any, fx_0: Any) -> Array:
    """F, from f and f_0 of the same shape or a number."""
    return alpha * (fx - jnp.broadcast_to(fx_0, jnp.shape(fx)))


@checked(loss=function("of outputs and labels"), alpha=ALPHA)
def scaled_loss(loss: Loss, alpha: Scalar) -> Loss:
    r"""The training loss as a function of the scaled output.

    .. math:: L = \frac{1}{\alpha^2 n} \sum_{i=1}^n \sum_o \ell(F_o(x_i), y_{io})

    Equation (3) of `output_scale`, which divides by the number of samples; several outputs add up.

    Args:
        loss: ℓ, `loss(fx, y)` of the shape of its arguments, such as `soft_hinge`.
        alpha: α > 0, which may be traced.

    Returns:
        `total(fx, y)`, a scalar; fx: (n, …) outputs of the `centred` network, y: labels like them.

    Raises:
        ValueError: if α is not positive; from `total` if shapes differ or `loss` has added up.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> loss = output_scale.scaled_loss(output_scale.soft_hinge, alpha=2.0)
    >>> round(float(loss(jnp.zeros((1, 1)), jnp.ones((1, 1)))), 4)
    0.25
    """

    @checked(fx=OUTPUTS, y=LABELS)
    def total(fx: ArrayLike, y: ArrayLike) -> Array:
        same_shape(fx=fx, y=y)
        each = loss(fx, y)  # pyright: ignore[reportArgumentType]
        if np.shape(each) != np.shape(fx) or not np.ndim(each):
            raise ValueError(
                f"`loss` gives shape {np.shape(each)} for outputs of shape {np.shape(fx)}; it must give one number "
                "for each, as this function takes the mean."
            )
        return _mean(each, alpha)

    return total


@jax.jit
def _mean(each: Array, alpha: Scalar) -> Array:
    return jnp.sum(each) / (len(each) * alpha**2)


@checked(fx=OUTPUTS, y=LABELS, beta=number(above=0, why="it is the sharpness of the hinge"))
def soft_hinge(fx: ArrayLike, y: ArrayLike, *, beta: Scalar = 20.0) -> Array:
    r"""The soft hinge loss of each output.

    .. math:: \ell(F, y) = \frac{1}{\beta} \ln(1 + e^{\beta(1 - Fy)})

    Equation (14) of `output_scale`; max(0, 1 − Fy) as β → ∞.

    Args:
        fx: outputs.
        y: labels +1 and −1, of the shape of fx.
        beta: β > 0, 20 in the paper.

    Raises:
        ValueError: if β is not positive, shapes differ, or a label, where it is known, is not ±1.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> output_scale.soft_hinge(jnp.array([0.0, 2.0]), jnp.ones(2)).round(3).tolist()
    [1.0, 0.0]
    """
    if np.ndim(fx) and np.ndim(y):
        same_shape(fx=fx, y=y)
    if not is_traced(y) and not np.all(np.abs(np.asarray(y)) == 1):
        raise ValueError(
            "`y` has labels other than +1 and −1; `one_against_all` makes them of the numbers of classes."
        )
    return _soft_hinge(jnp.asarray(fx), jnp.asarray(y), beta)


@jax.jit
def _soft_hinge(fx: Array, y: Array, beta: Scalar) -> Array:
    return jax.nn.softplus(beta * (1.0 - fx * y)) / beta


@checked(labels=array(low=0, integers=True, ndim=1), classes=integer(low=1))
def one_against_all(labels: ArrayLike, classes: int) -> np.ndarray:
    """Labels for `soft_hinge`: (n, classes), +1 for a sample's own class and −1 for the others.

    Args:
        labels: (n,) integers from 0 to classes − 1.
        classes: how many there are.

    Raises:
        ValueError: if a label is not one of these.

    >>> from ntkdecay import output_scale
    >>> output_scale.one_against_all([0, 2], 3).tolist()
    [[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    labels = np.asarray(labels)
    if labels.max() >= classes:
        raise ValueError(
            f"`labels` go up to {labels.max()}; they must be whole numbers from 0 to {classes - 1}, as `classes` says."
        )
    return np.where(labels[:, None] == np.arange(classes)[None], 1.0, -1.0)
