r"""The expected test error of infinitely wide networks under L2, from the spectrum of their kernel.

What training has learned at time t is a spectral filter h_t of the kernel on n training points. Over draws of these
its error follows from the kernel's eigenvalues Λ_i over the population and the target's coefficients c_i alone.
"""

from ntkdecay.risk._best import Best, best
from ntkdecay.risk._best_schedule import BestSchedule, best_schedule
from ntkdecay.risk._learning_curve import Spectrum, learning_curve, spectrum
from ntkdecay.risk._sphere import Levels, sphere_spectrum

__all__ = [
    "Best",
    "BestSchedule",
    "Levels",
    "Spectrum",
    "best",
    "best_schedule",
    "learning_curve",
    "spectrum",
    "sphere_spectrum",
]
