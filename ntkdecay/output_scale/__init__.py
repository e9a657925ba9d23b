r"""Lazy and active training by the scale of a network's output, and optimizers that do not see it.

.. math:: F = \alpha\,(f(\theta, x) - f(\theta_0, x)), \qquad
          L(\theta) = \frac{1}{\alpha^2 n} \sum_{(x, y)} \ell(F(\theta, x), y)

Equation (3) of `output_scale` (Kanoh & Sugiyama 2021, after Chizat et al. 2019). The larger α, the
less the parameters move. Gradients are of order 1/α, and an adaptive optimizer takes that for a
property of the problem: its learning rate becomes a function of α. The rescaled optimizers do not.
"""

from ntkdecay.output_scale._l2 import lazy_loss, offset
from ntkdecay.output_scale._loss import centred, one_against_all, scaled_loss, soft_hinge
from ntkdecay.output_scale._movement import kernel_movement, parameter_movement, sign_consistency
from ntkdecay.output_scale._network import TwoLayer, on_sphere, scaled_softplus, two_layer
from ntkdecay.output_scale._optimizers import (
    critical_alpha,
    effective_learning_rate,
    rescaled,
    rescaled_adam,
    rescaled_rmsprop,
    scale_by_rescaled_adam,
    scale_by_rescaled_rms,
    second_moment,
)

__all__ = [
    "TwoLayer",
    "centred",
    "critical_alpha",
    "effective_learning_rate",
    "kernel_movement",
    "lazy_loss",
    "offset",
    "on_sphere",
    "one_against_all",
    "parameter_movement",
    "rescaled",
    "rescaled_adam",
    "rescaled_rmsprop",
    "scale_by_rescaled_adam",
    "scale_by_rescaled_rms",
    "scaled_loss",
    "scaled_softplus",
    "second_moment",
    "sign_consistency",
    "soft_hinge",
    "two_layer",
]
