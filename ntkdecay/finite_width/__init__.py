r"""Networks of finite width under L2: what holds of them exactly, and what infinite width leaves out.

A network that is homogeneous of degree k, of any width, on L + λ/2 ‖θ‖² is stationary only where
:math:`f(x) = -\Theta_\theta(x, X)\, \ell' / (k\lambda)`, with the kernel of its own parameters.
"""

from ntkdecay.finite_width._stationary import (
    Attributions,
    Stationarity,
    attributions,
    stationarity,
)

__all__ = ["Attributions", "Stationarity", "attributions", "stationarity"]
