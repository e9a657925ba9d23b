"""What L2 regularization (weight decay) does to the training of wide neural networks.

A k-homogeneous, infinitely wide network trained with L2 has a kernel that decays as
exp(−2(k−1)λt): its function learns in time 1/γ, then decays in time 1/λ.

- `ntkdecay.kernels`: the neural tangent kernel of a network, analytic or empirical
- `ntkdecay.homogeneity`: the degree k of a network
- `ntkdecay.predict`: the trajectories of infinitely wide networks under L2
- `ntkdecay.finite_width`: what holds exactly at any width, and the next order in 1/width
- `ntkdecay.risk`: the expected test error of infinitely wide networks under L2
- `ntkdecay.power_counting`: the power of the width in a correlation function
- `ntkdecay.deep_linear`: the fixed points of deep linear networks
- `ntkdecay.networks`: the papers' networks at finite width (needs the extra `examples`)
- `ntkdecay.training`: finite networks, trained
- `ntkdecay.optimizers`: SGD with L2, AutoL2 and the rule λ = c/T, for any optax loop
- `ntkdecay.weight_decay`: its time scale, equilibrium norms and rotation, and how λ moves with batch, width and length
- `ntkdecay.scale_invariant`: networks that do not feel the scale of their weights (k = 0): the
  intrinsic learning rate, its SDE, equilibrium, jumps and periods
- `ntkdecay.output_scale`: lazy and active training by the output's scale α, and optimizers for it
- `ntkdecay.datasets`: images and labels
- `ntkdecay.stax`: neural-tangents' layers, as (init, apply, kernel) triples
- `ntkdecay.symbolic`: the papers' statements, checked (needs the extra `symbolic`)
- `ntkdecay.citation`: BibTeX of the papers behind what was used
- `ntkdecay.report`: a figure, its numbers and its claims, saved together (needs the extra `examples`)

A module is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ntkdecay._citation import citation

if TYPE_CHECKING:
    from neural_tangents import stax

    from ntkdecay import (
        datasets,
        deep_linear,
        finite_width,
        homogeneity,
        kernels,
        networks,
        optimizers,
        output_scale,
        power_counting,
        predict,
        report,
        risk,
        scale_invariant,
        symbolic,
        training,
        weight_decay,
    )

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "citation",
    "datasets",
    "deep_linear",
    "finite_width",
    "homogeneity",
    "kernels",
    "networks",
    "optimizers",
    "output_scale",
    "power_counting",
    "predict",
    "report",
    "risk",
    "scale_invariant",
    "stax",
    "symbolic",
    "training",
    "weight_decay",
]


def __getattr__(name: str) -> Any:
    if name == "stax":
        from ntkdecay._neural_tangents import stax

        return stax
    if name in __all__:
        return importlib.import_module(f"ntkdecay.{name}")
    raise AttributeError(f"module 'ntkdecay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
