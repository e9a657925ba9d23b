import numpy as np

from ntkdecay import risk, stax
from surface import EXEMPT, RESULT, Call, call

KERNEL_FN = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))[2]


@call("risk.learning_curve")
def learning_curve(other=False):
    i = np.arange(1.0, 6.0)
    arguments = {
        "eigenvalues": (i + other) ** -2, "coefficients": i**-1.0, "n": np.array([3.0, 8.0 + other]),
        "t": np.array([1.0, 20.0]), "l2": np.array([0.1, 0.2 + other]), "degree": 2, "noise": 0.1,
        "multiplicity": np.array([1.0, 2.0, 3.0, 1.0, 2.0 + other]),
    }  # fmt: skip
    return Call(risk.learning_curve, arguments, ("coefficients",))


@call("risk.spectrum")
def spectrum(other=False):
    root = np.random.default_rng(int(other)).normal(size=(4, 6))
    return Call(risk.spectrum, {"kernel": root @ root.T, "y": root[:, 0]}, ("y",))


@call("risk.best")
def best(other=False):
    more = {"n": np.array([3.0, 8.0 + other]), "degree": 2, "t": 5.0 + other, "l2": 0.1 + other, "multiplicity": np.ones(5)}  # fmt: skip
    return Call(risk.best, {**population(other), **more}, ("coefficients",))


@call("risk.best_schedule")
def best_schedule(other=False):
    more = {"n": 8.0 + other, "stopping": np.array([1.0, 3.0, 10.0 + other]), "multiplicity": np.ones(5)}  # fmt: skip
    return Call(risk.best_schedule, {**population(other), **more}, ("coefficients",))


def population(other):
    i = np.arange(1.0, 6.0)
    return {"eigenvalues": (i + other) ** -2, "coefficients": i**-1.0, "noise": 0.1}


@call("risk.sphere_spectrum")
def sphere_spectrum(other=False):
    arguments = {"kernel_fn": KERNEL_FN, "dimension": 4, "levels": 3, "norm": 1.0 + other}
    return Call(risk.sphere_spectrum, arguments)


EXEMPT["risk.Best"] = RESULT
EXEMPT["risk.BestSchedule"] = RESULT
EXEMPT["risk.Levels"] = RESULT
EXEMPT["risk.Spectrum"] = RESULT
