"""Networks of finite width: one run, or a whole grid of runs in one compiled program.

What is measured on the way is named in `METRICS`; a function of a `Snapshot` measures anything else.

- `loss`, `test_loss`: L on all training or test samples, without the L2 term
- `total_loss`: L + λ/2 ‖θ‖² on the training samples
- `accuracy`, `test_accuracy`: the share of right answers, by `training.accuracy`
- `norm2`: ‖θ‖², over all parameters
- `gradient_norm`: ‖∇L‖ on all training samples, without the L2 term
- `effective_learning_rate`: η/‖θ‖², of a grid with `learning_rate`
"""

from ntkdecay.training._cost import DEVICES, Estimate, estimating
from ntkdecay.training._estimate import estimate
from ntkdecay.training._load import load
from ntkdecay.training._metrics import METRICS, Snapshot, accuracy
from ntkdecay.training._problem import init_key
from ntkdecay.training._sweep import sweep
from ntkdecay.training._train import Run, train

__all__ = [
    "DEVICES",
    "METRICS",
    "Estimate",
    "Run",
    "Snapshot",
    "accuracy",
    "estimate",
    "estimating",
    "init_key",
    "load",
    "sweep",
    "train",
]
