"""The spectrum of a network's kernel over a sphere, level by level of spherical harmonics."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import comb, eval_gegenbauer

from ntkdecay._checks import checked, function, integer, number
from ntkdecay.kernels import analytic_kernel


class Levels(NamedTuple):
    """Eigenvalues of harmonics of degree 0, 1, …, and of what is left of the kernel.

    Args:
        eigenvalues: Λ_l of each of the modes of a level, (levels + 1,).
        multiplicity: how many modes a level has, (levels + 1,); of the last, which stands for all higher ones, as many
            as give the kernel's trace.
    """

    eigenvalues: Array
    multiplicity: Array


@checked(
    kernel_fn=function("of stax"),
    dimension=integer(low=3),
    levels=integer(low=1, high=200),
    norm=number(above=0),
)
def sphere_spectrum(
    kernel_fn: Any, dimension: int, *, levels: int = 30, norm: float = 1.0
) -> Levels:
    r"""The spectrum of an infinitely wide network's NTK over inputs uniform on a sphere.

    .. math:: \Lambda_l = \frac{\int_0^\pi \Theta(\cos\vartheta)\, P_l(\cos\vartheta) \sin^{d-2}\vartheta\, d\vartheta}
                               {\int_0^\pi \sin^{d-2}\vartheta\, d\vartheta}, \qquad
              N_l = \frac{2l + d - 2}{l} \binom{l + d - 3}{l - 1}

    (Funk and Hecke), where P_l is the Gegenbauer polynomial with P_l(1) = 1: of a kernel that depends on the angle alone,
    as that of fully connected layers does. A target Σ_l b_l √N_l P_l(e·x) has Σ b_l² for its variance, and
    `learning_curve` takes b_l/√Λ_l for its coefficients.

    Args:
        kernel_fn: of `ntkdecay.stax`, for inputs of shape (n, `dimension`).
        dimension: d >= 3 of the space; levels: how many degrees of harmonics, from 0 on; norm: of the inputs.

    Returns:
        `Levels(eigenvalues, multiplicity)`, in float64 where JAX has it; eigenvalues below rounding are raised to it.

    Raises:
        TypeError, ValueError: for arguments outside these ranges.

    >>> from ntkdecay import risk, stax
    >>> kernel_fn = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))[2]
    >>> values, multiplicity = risk.sphere_spectrum(kernel_fn, 5, levels=3)
    >>> multiplicity[:3].tolist()
    [1.0, 5.0, 14.0]
    """
    nodes, weights = np.polynomial.legendre.leggauss(4 * levels + 200)
    angle = (nodes + 1) * np.pi / 2
    weights = weights * np.sin(angle) ** (dimension - 2)
    x = np.zeros((len(angle) + 1, dimension))
    x[0, 0], x[1:, 0], x[1:, 1] = 1, np.cos(angle), np.sin(angle)
    profile = np.asarray(
        analytic_kernel(kernel_fn, jnp.asarray(norm * x[:1]), jnp.asarray(norm * x))
    )[0]
    degrees, order = np.arange(levels + 2)[:, None], (dimension - 2) / 2
    harmonics = eval_gegenbauer(degrees, order, np.cos(angle)) / eval_gegenbauer(
        degrees, order, 1.0
    )
    values = harmonics @ (profile[1:] * weights) / weights.sum()
    values = np.maximum(values, np.finfo(profile.dtype).eps * profile[0])
    level = np.arange(1, levels)
    multiplicity = (2 * level + dimension - 2) / level * comb(level + dimension - 3, level - 1)
    multiplicity = np.concatenate([[1], multiplicity])
    rest = profile[0] - values[:levels] @ multiplicity
    tail = values[levels:].max()
    values = np.concatenate([values[:levels], [tail]])
    multiplicity = np.concatenate([multiplicity, [max(rest, 0.0) / tail]])
    return Levels(jnp.asarray(values), jnp.asarray(multiplicity))
