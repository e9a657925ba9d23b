r"""Networks whose function does not depend on the scale of their weights (k = 0), under weight decay.

.. math:: f(cw) = f(w) \quad\Rightarrow\quad \nabla L(cw) = \nabla L(w)/c, \quad \langle \nabla L, w\rangle = 0

L2 does not shrink such a function. It shrinks the weights, and with them what a step is worth: the
direction w/‖w‖ moves with the effective learning rate η/‖w‖². Li, Lyu & Arora (2020), `intrinsic_lr`: noise
and decay balance it at √(2ηλ)/σ, a time 1/(ηλ) later. Lobacheva et al. (2021), `periodic`: with little
noise it grows until training destabilizes, and begins again. The papers' networks are in `scale_invariant.networks` (flax).
"""

from ntkdecay.scale_invariant._equivalence import (
    Rescaled,
    RescaledAdamW,
    exponential_schedule,
    rescaled,
    rescaled_adamw,
    schedule_without_decay,
)
from ntkdecay.scale_invariant._intrinsic import (
    effective_learning_rate,
    gamma,
    gamma_band,
    gamma_constant_noise,
    gamma_path,
    intrinsic_learning_rate,
    norm_convergence_time,
    relaxation_time,
    stationary_learning_rate,
)
from ntkdecay.scale_invariant._invariance import is_scale_invariant
from ntkdecay.scale_invariant._local_bounds import bounds, power_envelope
from ntkdecay.scale_invariant._metrics import Measured, measured, metrics, step_metrics
from ntkdecay.scale_invariant._norm import (
    cosine_distance,
    equilibrium_learning_rate,
    equilibrium_norm2,
    jump_threshold,
    jump_times,
    norm2_from_gradients,
    norm2_path,
)
from ntkdecay.scale_invariant._periods import Periods, periods
from ntkdecay.scale_invariant._sde import (
    DirectionPath,
    covariance_root,
    direction_sde,
    minibatch_root,
    weights_sde,
)
from ntkdecay.scale_invariant._sequences import (
    Bounds,
    attracting_interval,
    attracts,
    bounding_sequences,
    determined_bounds,
    hop_threshold,
    least_value,
    phi,
    rate_bounds,
    sequence,
    stationary_point,
    turning_point,
)
from ntkdecay.scale_invariant._toy import (
    Trajectory,
    descend,
    flow_ratio,
    lyapunov_exponent,
    toy_loss,
)

__all__ = [
    "Bounds",
    "DirectionPath",
    "Measured",
    "Periods",
    "Rescaled",
    "RescaledAdamW",
    "Trajectory",
    "attracting_interval",
    "attracts",
    "bounding_sequences",
    "bounds",
    "cosine_distance",
    "covariance_root",
    "descend",
    "determined_bounds",
    "direction_sde",
    "effective_learning_rate",
    "equilibrium_learning_rate",
    "equilibrium_norm2",
    "exponential_schedule",
    "flow_ratio",
    "gamma",
    "gamma_band",
    "gamma_constant_noise",
    "gamma_path",
    "hop_threshold",
    "intrinsic_learning_rate",
    "is_scale_invariant",
    "jump_threshold",
    "jump_times",
    "least_value",
    "lyapunov_exponent",
    "measured",
    "metrics",
    "minibatch_root",
    "norm2_from_gradients",
    "norm2_path",
    "norm_convergence_time",
    "periods",
    "phi",
    "power_envelope",
    "rate_bounds",
    "relaxation_time",
    "rescaled",
    "rescaled_adamw",
    "schedule_without_decay",
    "sequence",
    "stationary_learning_rate",
    "stationary_point",
    "step_metrics",
    "toy_loss",
    "turning_point",
    "weights_sde",
]
