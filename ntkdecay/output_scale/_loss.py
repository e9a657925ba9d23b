r"""The loss of a scaled and centred output.

.. math:: L(\theta) = \frac{1}{\alpha^2 n} \sum_{(x, y)} \ell(\alpha(f(\theta, x) - f(\theta_0, x)), y)

Equation (3) of `output_scale`. Under gradient flow F moves as it would at any other α, but for what
the kernel of f has moved, (4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import (
    Scalar,
    anything,
    array,
    check_positive,
    checked,
    function,
    integer,
    number,
)
from ntkdecay.output_scale._checks import check_alpha

ApplyFn = Callable[[Any, Any], Array]
Loss = Callable[[Array, Array], Array]


@checked(apply_fn=function("of parameters and inputs"), params_0=anything(), alpha=number(above=0))
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
    check_alpha(alpha)
    return lambda params, x: alpha * (apply_fn(params, x) - apply_fn(params_0, x))


@checked(loss=function("of outputs and labels"), alpha=number(above=0))
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
    check_alpha(alpha)

    def total(fx: Array, y: Array) -> Array:
        if jnp.shape(fx) != jnp.shape(y):
            raise ValueError(
                f"Outputs have shape {jnp.shape(fx)} but labels {jnp.shape(y)}: every output needs its label."
            )
        each = loss(fx, y)
        if each.shape != jnp.shape(fx) or not each.ndim:
            raise ValueError(
                f"`loss` gives shape {each.shape} for outputs of shape {jnp.shape(fx)}; it must give one number "
                "for each, as this function takes the mean."
            )
        return jnp.sum(each) / (len(each) * alpha**2)

    return total


@checked(fx=array(nan=True, inf=True), y=array(), beta=number(above=0))
def soft_hinge(fx: ArrayLike, y: ArrayLike, *, beta: Scalar = 20.0) -> Array:
    r"""The soft hinge loss of each output.

    .. math:: \ell(F, y) = \frac{1}{\beta} \ln(1 + e^{\beta(1 - Fy)})

    Equation (14) of `output_scale`; max(0, 1 − Fy) as β → ∞.

    Args:
        fx: outputs.
        y: labels +1 and −1, of the shape of fx.
        beta: β > 0, 20 in the paper.

    Raises:
        ValueError: if β is not positive or a label, where it is known, is not ±1.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> output_scale.soft_hinge(jnp.array([0.0, 2.0]), jnp.ones(2)).round(3).tolist()
    [1.0, 0.0]
    """
    check_positive("beta", beta, "it is the sharpness of the hinge")
    if not isinstance(y, jax.core.Tracer) and not np.all(np.abs(np.asarray(y)) == 1):
        raise ValueError(
            "`y` has labels other than +1 and −1; `one_against_all` makes them of the numbers of classes."
        )
    return jax.nn.softplus(beta * (1.0 - jnp.asarray(fx) * y)) / beta


@checked(labels=array(low=0, ndim=1), classes=integer(low=1))
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
    if labels.ndim != 1 or not np.isin(labels, np.arange(classes)).all():
        raise ValueError(
            f"`labels` must be (n,) whole numbers from 0 to {classes - 1}; they have shape {labels.shape} and "
            f"values from {labels.min(initial=0)} to {labels.max(initial=0)}."
        )
    return np.where(labels[:, None] == np.arange(classes)[None], 1.0, -1.0)
