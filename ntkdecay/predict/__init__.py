"""Infinitely wide networks under L2: their trajectories from a kernel and labels.

The names and calling conventions are those of `neural_tangents.predict`; `l2` and `degree` are new.
"""

from ntkdecay.predict._ensemble import EnsembleFn, Gaussian, gradient_descent_mse_ensemble
from ntkdecay.predict._mode import mode
from ntkdecay.predict._mse import PredictFn, gradient_descent_mse
from ntkdecay.predict._peak import peak_time
from ntkdecay.predict._quasi_static import quasi_static

__all__ = [
    "EnsembleFn",
    "Gaussian",
    "PredictFn",
    "gradient_descent_mse",
    "gradient_descent_mse_ensemble",
    "mode",
    "peak_time",
    "quasi_static",
]
