r"""Fixed points of deep linear networks trained with L2: all of them, with their stability.

For f(x) = β W_L … W_0 x with L = `depth`, the loss ½ Σ (f − y)² + (λ/2)‖θ‖² is stationary exactly
where the end-to-end vector is zero or the ridge solution

.. math:: v = (X^T X + I/\rho)^{-1} X^T y, \quad \rho = \frac{\beta^2}{\lambda} \tilde f^L, \quad
          \tilde f = \frac1\lambda \sum_i \frac{\rho\kappa_i \tilde y_i^2}{(1+\rho\kappa_i)^2}

(κ_i, ỹ_i: the spectrum of XXᵀ and the labels in its basis). It is (S20) of Lewkowycz & Gur-Ari
(2020) with the condition that the residuals and f belong together. Read as λ(ρ) it is explicit,

.. math:: (L + 1) \ln\lambda = \ln\beta^2 - \psi(\ln\rho), \qquad
          \psi(s) = s - L \ln \sum_i \frac{\kappa_i \tilde y_i^2 e^s}{(1 + \kappa_i e^s)^2},

so fixed points are the roots of one scalar function, pairs are born where ψ' = 0, and a root is
stable exactly where ψ' > 0. The network enters only through λ^{L+1}/β²: with β = n^{−L/2} (NTK) λ
scales as n^{−L/(L+1)}, with β = 1 (standard) as 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from ntkdecay._checks import array, checked, choice, integer, number

__all__ = [
    "FixedPoint",
    "critical_l2",
    "fixed_points",
    "fixed_points_per_mode",
    "normalization",
]

Array = NDArray[Any]


@dataclass(frozen=True)
class FixedPoint:
    """One stationary network, up to rotations of its hidden layers.

    Args:
        v: end-to-end weights: f(x) = v·x, shape (d,); (d, outputs) for one of several modes.
        ridge: ρ of the self-consistent ridge 1/ρ; 0 where v = 0.
        scale: ‖W_l‖_F, the same for each layer.
        loss: ½ Σ (f − y)², without the L2 term.
        eigenvalue: the smallest eigenvalue of the Hessian off the directions that rotate hidden
            layers (those have eigenvalue 0).
    """

    v: Array
    ridge: float
    scale: float
    loss: float
    eigenvalue: float

    @property
    def stable(self) -> bool:
        """Whether gradient descent with small steps returns to it."""
        return self.eigenvalue > 0


@checked(
    width=integer(low=1),
    depth=integer(low=1, why="the number of hidden layers"),
    parameterization=choice("ntk", "standard"),
)
def normalization(
    width: int, depth: int, parameterization: Literal["ntk", "standard"] = "ntk"
) -> float:
    """β of f = β W_L … W_0 x: n^{−L/2} (NTK) or 1 (standard); SM B.1 of Lewkowycz & Gur-Ari.

    Raises:
        ValueError: for a width or depth below 1, or another parameterization.

    >>> from ntkdecay import deep_linear
    >>> deep_linear.normalization(width=100, depth=2)
    0.01
    """
    return width ** (-depth / 2) if parameterization == "ntk" else 1.0


@checked(
    x=array(ndim=2),
    y=array(ndim=(1, 2)),
    l2=number(above=0, why="without it every interpolating network is stationary"),
    depth=integer(low=1, why="the number of hidden layers"),
    beta=number(above=0),
)
def fixed_points(
    x: ArrayLike, y: ArrayLike, *, l2: float, depth: int, beta: float = 1.0
) -> list[FixedPoint]:
    r"""Every fixed point of gradient descent on ½ Σ (f − y)² + (λ/2)‖θ‖², by growing ρ.

    .. math:: \rho = (\beta^2/\lambda) \tilde f(\rho)^L  \quad\text{or}\quad v = 0

    `depth` = 1 has at most one root beside v = 0; more depth has pairs of which one is unstable.
    At the critical λ itself a pair is one point, with eigenvalue 0.

    Args:
        x: inputs, (samples, d).
        y: labels, (samples,).
        l2: λ > 0.
        depth: L >= 1, the number of hidden layers (of W_0 … W_L, one layer more).
        beta: β > 0, see `normalization`. Hidden layers are at least two wide.

    Raises:
        ValueError: for arguments outside these ranges, non-finite or mismatched data, an l2 whose
            power is out of float64's range, or several outputs (see `fixed_points_per_mode`).

    >>> from ntkdecay import deep_linear
    >>> points = deep_linear.fixed_points([[1.0]], [1.0], l2=0.3, depth=2)
    >>> [(round(float(point.v[0]), 3), point.stable) for point in points]
    [(0.0, True), (0.03, False), (0.654, True)]
    """
    x, y = _checked(x, y)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    keep = singular > singular[0] * max(x.shape) * np.finfo(float).eps
    labels = left.T[keep] @ y
    unreachable = 0.5 * max(float(y @ y - labels @ labels), 0.0)
    spectrum = _Spectrum(singular[keep] ** 2, labels, depth, beta)
    return [
        spectrum.point(ridge, l2, right[keep], unreachable) for ridge in (0.0, *spectrum.roots(l2))
    ]


@checked(
    x=array(ndim=2),
    y=array(ndim=(1, 2)),
    l2=number(above=0, why="without it every interpolating network is stationary"),
    depth=integer(low=1, why="the number of hidden layers"),
    beta=number(above=0),
)
def fixed_points_per_mode(
    x: ArrayLike, y: ArrayLike, *, l2: float, depth: int, beta: float = 1.0
) -> list[list[FixedPoint]]:
    r"""Fixed points with several outputs and whitened inputs, singular value by singular value.

    .. math:: X^T X = \kappa I, \quad X^T y = \textstyle\sum_i a_i\, u_i q_i^T, \quad
              a_i = \kappa\beta s_i^{L+1} + (\lambda/\beta) s_i^{1-L} \ \text{or}\ s_i = 0

    Each a_i is a problem of one sample. A fixed point of the network takes one element of each
    list and adds their v. It is stable if each element is, and if no a_j with v_j = 0 exceeds an
    a_i with v_i ≠ 0: otherwise the hidden unit of i can turn towards j.

    Args:
        x, l2, depth, beta: as in `fixed_points`; hidden layers at least `outputs` + 1 wide.
        y: labels, (samples, outputs).

    Returns:
        For each singular value of Xᵀy, the largest first, its fixed points by growing ρ, their v
        of shape (d, outputs) and their `loss` relative to the best linear fit.

    Raises:
        ValueError: as `fixed_points`; and for inputs that are not whitened, where the layers'
            singular vectors are not those of Xᵀy and no closed form is known.

    >>> import numpy as np
    >>> from ntkdecay import deep_linear
    >>> modes = deep_linear.fixed_points_per_mode(np.eye(2), np.diag([2.0, 1.0]), l2=0.3, depth=1)
    >>> [len(points) for points in modes]
    [2, 2]
    """
    x, y = _checked(x, y, outputs=True)
    singular = np.linalg.svd(x, compute_uv=False)
    if singular.size < x.shape[1] or np.ptp(singular) > 1e-10 * singular[0]:
        raise ValueError(
            "several columns of `y` need whitened inputs (XᵀX a multiple of the identity), or the fixed "
            "points have no closed form; whiten `x`, or fit the outputs by networks of their own"
        )
    kappa, modes = np.mean(singular**2, keepdims=True), []
    for a, into, out in zip(*_svd(x.T @ y), strict=True):
        spectrum = _Spectrum(kappa, a / np.sqrt(kappa), depth, beta)  # one sample of label a/√κ
        points = [
            spectrum.point(ridge, l2, into[None, :], 0.0) for ridge in (0.0, *spectrum.roots(l2))
        ]
        modes.append([replace(point, v=np.outer(point.v, out)) for point in points])
    return modes


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    """Singular values with their left and right vectors, one row each."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return values, left.T, right


@checked(
    x=array(ndim=2),
    y=array(ndim=(1, 2)),
    depth=integer(low=1, why="the number of hidden layers"),
    beta=number(above=0),
)
def critical_l2(x: ArrayLike, y: ArrayLike, *, depth: int, beta: float = 1.0) -> float:
    r"""The λ above which v = 0 is the only fixed point.

    .. math:: \lambda_c = \max_\rho \left[\beta^2 F(\rho)^L / \rho\right]^{1/(L+1)}, \qquad
              F(\rho) = \sum_i \rho \kappa_i \tilde y_i^2 / (1 + \rho \kappa_i)^2

    For L = 1 it is β ‖Xᵀy‖, where the branch leaves v = 0; for L ≥ 2 the fold at which the last
    pair meets, far from v = 0: a first-order transition.

    Raises:
        ValueError: as `fixed_points`, and for several outputs.

    >>> from ntkdecay import deep_linear
    >>> round(deep_linear.critical_l2([[1.0]], [1.0], depth=2), 4)
    0.4725
    """
    x, y = _checked(x, y)
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    spectrum = _Spectrum(singular**2, left.T @ y, depth, beta)
    if depth == 1:
        return beta * float(np.linalg.norm(x.T @ y))
    return max((math.exp(spectrum.log_l2(s)) for s in spectrum.folds()), default=0.0)


class _Spectrum:
    """ψ of the module's docstring and its roots, for κ_i > 0 with ỹ_i ≠ 0."""

    def __init__(self, kappa: Array, labels: Array, depth: int, beta: float) -> None:
        self.all_kappa, self.all_labels, self.depth, self.beta = kappa, labels, depth, beta
        weight = kappa * labels**2
        seen = weight > 0
        self.log_kappa = np.log(kappa[seen])
        self.log_weight = np.log(weight[seen])

    def _terms(self, s: Array) -> tuple[Array, Array]:
        """Logarithms of the terms of F(e^s), and κ e^s, each of shape (s, κ)."""
        log_z = s[:, None] + self.log_kappa
        return s[:, None] + self.log_weight - 2 * np.logaddexp(0.0, log_z), log_z

    def psi(self, s: float) -> float:
        terms, _ = self._terms(np.array([s]))
        return s - self.depth * float(np.logaddexp.reduce(terms[0]))

    def slope(self, s: Array) -> Array:
        """ψ' = 1 − L ⟨(1 − z)/(1 + z)⟩ with z = κ e^s, averaged over the terms of F."""
        terms, log_z = self._terms(s)
        weights = np.exp(terms - terms.max(axis=1, keepdims=True))
        return 1 + self.depth * np.sum(weights * np.tanh(log_z / 2), 1) / weights.sum(1)

    def log_l2(self, s: float) -> float:
        return (2 * math.log(self.beta) - self.psi(s)) / (self.depth + 1)

    def folds(self) -> list[float]:
        """Every s with ψ'(s) = 0, rising.

        All lie where z = κ e^s = (L−1)/(L+1) for some κ between the extremes. |ψ''| ≤ L, so an
        interval of half-width h whose midpoint has |ψ'| > L h holds none: such intervals are set
        aside, the others halved.
        """
        if self.depth == 1 or not self.log_kappa.size:
            return []
        middle = math.log((self.depth - 1) / (self.depth + 1))
        low, high = middle - self.log_kappa.max() - 0.5, middle - self.log_kappa.min() + 0.5
        half = (high - low) / 128
        middles = low + half * np.arange(1, 128, 2)
        while half > 1e-6 and middles.size:
            middles = middles[np.abs(self.slope(middles)) <= self.depth * half]
            half /= 2
            middles = np.concatenate([middles - half, middles + half])
        middles = np.sort(middles)
        before, after = self.slope(middles - half), self.slope(middles + half)

        def one(s: float) -> float:
            return float(self.slope(np.array([s]))[0])

        return [
            _root(one, m - half, m + half)
            for m, change in zip(middles, (before < 0) != (after < 0), strict=True)
            if change
        ]

    def roots(self, l2: float) -> list[float]:
        """Every ρ > 0 of the self-consistency equation, rising."""
        if not self.log_kappa.size:
            return []
        level = 2 * math.log(self.beta) - (self.depth + 1) * math.log(l2)
        if abs(level) > 300:
            raise ValueError(
                f"l2^(depth + 1)/beta² = e^{-level:.0f} is too small or large for float64; measure "
                f"y in other units, or take another l2"
            )

        def excess(s: float) -> float:
            return self.psi(s) - level

        turning = self.folds()
        touching = 1e-13 * (abs(level) + self.depth)
        # Outside the turning points ψ runs with slope within [1 − L, 1 + L], to both infinities
        # for L ≥ 2; for L = 1 it has a limit on the left, below which there is no root.
        left = min([*turning, -self.log_kappa.max()]) - 1.0
        right = max([*turning, -self.log_kappa.min()]) + 1.0
        if self.depth > 1:
            while excess(left) <= 0:
                left -= 2 * (right - left)
        else:
            left = -float(self.log_kappa.max()) - 40.0
        while excess(right) <= 0:
            right += right - left
        knots, found = [left, *turning, right], []
        for a, b in itertools.pairwise(knots):
            if excess(a) * excess(b) < 0 and min(abs(excess(a)), abs(excess(b))) > touching:
                found.append(_root(excess, a, b))
        # At a fold two roots are one.
        found += [s for s in turning if abs(excess(s)) <= touching]
        return [math.exp(s) for s in sorted(found)]

    def point(self, ridge: float, l2: float, basis: Array, unreachable: float) -> FixedPoint:
        """The fixed point of this ρ; `basis`: X's right singular vectors, as rows."""
        z = ridge * self.all_kappa
        residual = self.all_labels / (1 + z)
        v = ridge * np.sqrt(self.all_kappa) * residual
        loss = 0.5 * float(residual @ residual) + unreachable
        scale = math.sqrt(float(z @ residual**2) / l2)
        # λ is an eigenvalue wherever there is a direction besides v and the hidden layers' own.
        rest = l2 if self.depth > 1 or basis.shape[1] > 1 else 2 * l2
        if ridge == 0:
            pull = self.beta * float(np.linalg.norm(np.sqrt(self.all_kappa) * self.all_labels))
            lowest = l2 - pull if self.depth == 1 else l2
        else:
            lowest = l2 * _lowest_eigenvalue(z, v / np.abs(v).max(), self.depth, rest / l2)
        return FixedPoint(basis.T @ v, ridge, scale, loss, lowest)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return cast(float, brentq(function, low, high, xtol=1e-15))


def _lowest_eigenvalue(z: Array, direction: Array, depth: int, rest: float) -> float:
    """Smallest eigenvalue of the Hessian in units of λ, given `rest`, the smallest elsewhere.

    All layers have rank one and the same norm. The Hessian is 0 and 2λ for each rotation of the
    hidden units, 2λ for the differences of the upper layers' norms, and λ elsewhere, besides one
    block for the common norm of the upper layers and W_0 along X's singular vectors: an arrow with
    1 + z_i on the diagonal and √L (z_i − 1) u_i beside it, of determinant 2ψ' Π(1 + z_i). Its
    secular equation stays exact where z, of order κβ²/λ, is beyond 1/ε.
    """
    u = direction / np.linalg.norm(direction)
    twice_slope = 2 * (1 + depth * float(u**2 @ ((z - 1) / (z + 1))))
    weight = depth * ((z - 1) * u) ** 2 / (1 + z)

    def secular(mu: float) -> float:
        return twice_slope - mu * (1 + float(np.sum(weight / (1 + z - mu))))

    if twice_slope <= 0:
        return _root(secular, twice_slope, 0.0) if twice_slope else 0.0
    top = min(rest, (1 + float(z.min())) * (1 - 1e-15))
    return top if secular(top) >= 0 else _root(secular, 0.0, top)


def _checked(x: ArrayLike, y: ArrayLike, outputs: bool = False) -> tuple[Array, Array]:
    """Inputs and labels, one row for each other."""
    inputs, labels = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if labels.ndim != 1 + outputs or len(labels) != len(inputs):
        wanted = f"({len(inputs)}, outputs)" if outputs else f"({len(inputs)},)"
        other = (
            "" if outputs or labels.ndim != 2 else "; fixed_points_per_mode takes several outputs"
        )
        raise ValueError(
            f"`y` must be {wanted}, one row for each row of `x`, not of shape {labels.shape}{other}."
        )
    return inputs, labels
