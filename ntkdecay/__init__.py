"""What L2 regularization (weight decay) does to the training of wide neural networks.

A k-homogeneous, infinitely wide network trained with L2 has a kernel that decays as
exp(−2(k−1)λt): its function learns in time 1/γ, then decays in time 1/λ.

- `ntkdecay.kernels`: the neural tangent kernel of a network, analytic or empirical
- `ntkdecay.homogeneity`: the degree k of a network
- `ntkdecay.predict`: the trajectories of infinitely wide networks under L2
- `ntkdecay.stax`: neural-tangents' layers, as (init, apply, kernel) triples
- `ntkdecay.training`: finite networks, trained
- `ntkdecay.datasets`: images and labels
- `ntkdecay.report`: a figure, its numbers and its claims, saved together (imported by name)
"""

from ntkdecay import datasets, homogeneity, kernels, predict, training
from ntkdecay._neural_tangents import stax

__all__ = ["datasets", "homogeneity", "kernels", "predict", "stax", "training"]
