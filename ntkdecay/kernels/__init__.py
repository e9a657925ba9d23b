r"""Kernels of a network: at infinite width, and of given parameters at finite width.

.. math:: \Theta(x, x') = \sum_\mu \partial_\mu f(x)\, \partial_\mu f(x'), \qquad
          K(x, x') = \mathbb{E}_\theta [f(x) f(x')]

The neural tangent kernel (NTK) Θ drives the evolution of f in Theorem 1 of `l2` (Lewkowycz &
Gur-Ari 2020); the NNGP kernel K is the covariance of f at initialization.
"""

from ntkdecay.kernels._analytic import analytic_kernel
from ntkdecay.kernels._empirical import empirical_ntk
from ntkdecay.kernels._interpreted import analytic
from ntkdecay.kernels._products import ntk_vector_product
from ntkdecay.kernels._velocity import Velocity, velocity

__all__ = [
    "Velocity",
    "analytic",
    "analytic_kernel",
    "empirical_ntk",
    "ntk_vector_product",
    "velocity",
]
