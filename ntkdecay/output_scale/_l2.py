r"""What L2 does to the lazy limit (beyond the paper).

With the state (a, w) of `ntkdecay.predict`, θ = aθ_0 + J_0ᵀw, and u := αw, gradient flow on the loss
(3) plus λ/2 ‖θ‖² is

.. math:: \dot a = -\lambda a, \qquad \dot u = -\lambda u - a^{k-1} \ell'(F)/n, \qquad
          F = a^{k-1} \Theta_0 u - \alpha (1 - a^k) f_0, \qquad a = e^{-\lambda t}

for a network of degree k: ẇ = −λw − a^{k−1} ∂L/∂f, and ∂L/∂f = ℓ'(F)/(αn). α stands in one place
only, the offset: L2 shrinks f_0, the centring does not follow, and α multiplies the difference.

- λ ∝ α⁰: where f_0 is not 0 the offset grows like α. Training works against it with u ∝ α, w ∝ α⁰:
  parameters move by a fixed share however large α is. L2 has undone the lazy limit.
- λ = Λ/α: the offset tends to a drift, −kΛt f_0, and the kernel no longer decays.
- λ = Λ/α², the scale of the loss itself: both vanish like 1/α. Divided by the loss's own 1/α², the
  penalty is Λ/2 ‖θ‖² beside Σ ℓ/n: L2 is lost where it seems to be kept.
- f_0 = 0, or L2 on θ − θ_0: no offset, and F is the same for every α at one and the same λ: Theorem 1
  of `l2` for f_0 = 0, kernel ridge regression for θ − θ_0. Then θ = a(θ_0 + J_0ᵀu/(aα)): α does what
  width does for Theorem 1, at any width, as long as a ≫ 1/α. The distance falls like 1/α.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape, same_shape
from ntkdecay._checks import Scalar, array, checked, function
from ntkdecay._degree import or_measured, plain_degree
from ntkdecay.homogeneity import Degree
from ntkdecay.output_scale._loss import ALPHA, LABELS, OUTPUTS, Loss, difference, scaled_loss


@checked(loss=function("of outputs and labels"), alpha=ALPHA, fx_train_0=array())
def lazy_loss(loss: Loss, alpha: Scalar, fx_train_0: ArrayLike) -> Loss:
    r"""The loss (3) as a function of f, for the predictors of `ntkdecay.predict`.

    .. math:: L(f) = \frac{1}{\alpha^2 n} \sum \ell(\alpha (f - f_0), y)

    `predict.gradient_descent` and `predict.sgd` (on all samples) with it, with any `l2` and
    `fx_train_0`, give f in the lazy limit; F = α(f − f_0).

    Args:
        loss: ℓ, as in `scaled_loss`.
        alpha: α > 0.
        fx_train_0: f_0 on the training samples, of the shape of the labels, or a scalar.

    Raises:
        ValueError: if α is not positive.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> loss = output_scale.lazy_loss(output_scale.soft_hinge, 2.0, jnp.ones((1, 1)))
    >>> round(float(loss(jnp.ones((1, 1)), jnp.ones((1, 1)))), 4)
    0.25
    """
    total, first = scaled_loss(loss, alpha), jnp.asarray(fx_train_0)

    @checked(fx=OUTPUTS, y=LABELS)
    def lazy_total(fx: Any, y: Any) -> Array:
        if first.ndim:
            same_shape(fx=fx, fx_train_0=first)
        return total(difference(alpha, fx, first), y)

    return lazy_total


@checked(
    t=array(low=0, inf=True),
    fx_0=array(),
    alpha=array(above=0, why=ALPHA.why),
    l2=array(low=0),
    degree=or_measured(array(low=0)),
)
def offset(
    t: ArrayLike, fx_0: ArrayLike, alpha: Scalar, l2: Scalar, degree: Scalar | Degree
) -> Array:
    r"""What L2 adds to the centred output by shrinking f_0.

    .. math:: -\alpha\,(1 - e^{-k\lambda t})\, f_0

    Args:
        t: gradient-flow time (step × learning rate), >= 0.
        fx_0: f_0, broadcast against t.
        alpha: α; l2: λ; degree: k, or what `homogeneity.degree` measured.

    Raises:
        ValueError: if α is not positive.

    >>> from ntkdecay import output_scale
    >>> round(float(output_scale.offset(1.0, 1.0, alpha=10.0, l2=0.1, degree=2)), 4)
    -1.8127
    """
    degree = plain_degree(degree)
    arguments = {"t": t, "fx_0": fx_0, "alpha": alpha, "l2": l2, "degree": degree}
    common_shape(**{name: np.shape(value) for name, value in arguments.items()})
    return _offset(*map(jnp.asarray, arguments.values()))


@jax.jit
def _offset(t: Array, fx_0: Array, alpha: Array, l2: Array, degree: Array) -> Array:
    ndim = max(value.ndim for value in (t, fx_0, alpha, l2, degree))
    t, fx_0, alpha, l2, degree = (
        value.reshape((1,) * (ndim - value.ndim) + value.shape)
        for value in (t, fx_0, alpha, l2, degree)
    )
    return alpha * jnp.expm1(-degree * l2 * t) * fx_0
