"""Infinitely wide networks under L2: their trajectories from a kernel and labels.

The names and calling conventions are those of `neural_tangents.predict`; `l2` and `degree` are new.
"""

from ntkdecay.predict._ensemble import EnsembleFn, Gaussian, gradient_descent_mse_ensemble
from ntkdecay.predict._flow import gradient_descent
from ntkdecay.predict._kernel_product import kernel_vector_product
from ntkdecay.predict._late_time import LateTimeFn, late_time
from ntkdecay.predict._matrix_free import gradient_descent_mse_matrix_free
from ntkdecay.predict._mode import mode
from ntkdecay.predict._mse import gradient_descent_mse
from ntkdecay.predict._peak import peak_time
from ntkdecay.predict._predictor import PredictFnState
from ntkdecay.predict._quasi_static import quasi_static
from ntkdecay.predict._request import PredictFn
from ntkdecay.predict._schedule import PiecewiseConstant
from ntkdecay.predict._sgd import sgd
from ntkdecay.predict._sgd_moments import SgdMomentsFn, sgd_moments
from ntkdecay.predict._stable import max_learning_rate
from ntkdecay.predict._state import State

__all__ = [
    "EnsembleFn",
    "Gaussian",
    "LateTimeFn",
    "PiecewiseConstant",
    "PredictFn",
    "PredictFnState",
    "SgdMomentsFn",
    "State",
    "gradient_descent",
    "gradient_descent_mse",
    "gradient_descent_mse_ensemble",
    "gradient_descent_mse_matrix_free",
    "kernel_vector_product",
    "late_time",
    "max_learning_rate",
    "mode",
    "peak_time",
    "quasi_static",
    "sgd",
    "sgd_moments",
]
