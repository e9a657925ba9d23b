r"""Networks of finite width under L2: what holds of them exactly, and what infinite width leaves out.

A network that is homogeneous of degree k, of any width, on L + λ/2 ‖θ‖² is stationary only where
:math:`f(x) = -\Theta_\theta(x, X)\, \ell' / (k\lambda)`, with the kernel of its own parameters; and its training
is that of another without L2, whose output shrinks and whose learning rate grows. The next order in 1/width is
predicted from its initialization, and the time at which no order helps: its kernel stops to decay.
"""

from ntkdecay.finite_width._critical import critical_l2
from ntkdecay.finite_width._departure import departure_time
from ntkdecay.finite_width._next_order import NextOrderFn, next_order
from ntkdecay.finite_width._stationary import (
    Attributions,
    Stationarity,
    attributions,
    stationarity,
)
from ntkdecay.finite_width._without_l2 import WithoutL2, without_l2

__all__ = [
    "Attributions",
    "NextOrderFn",
    "Stationarity",
    "WithoutL2",
    "attributions",
    "critical_l2",
    "departure_time",
    "next_order",
    "stationarity",
    "without_l2",
]
