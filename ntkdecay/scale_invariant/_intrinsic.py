r"""The intrinsic learning rate λ_e = ηλ, and how the effective learning rate settles under it.

.. math:: \frac{d\gamma}{dt} = -4\lambda_e\gamma + 2\,\mathrm{Tr}\,\Sigma, \qquad
          \gamma = (\|w\|^2/\eta)^2, \qquad \eta/\|w\|^2 = \gamma^{-1/2}

(10) of `intrinsic_lr` (Li, Lyu & Arora 2020). Time is counted in steps, and Tr Σ is the variance of
the minibatch gradient at the unit vector w/‖w‖. Whatever γ_0, after a time of order 1/λ_e the
effective learning rate is √(2λ_e)/σ for Tr Σ = σ²: it grows with λ_e (the text after Lemma 5.2 has
the inverse).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape
from ntkdecay._checks import Scalar, array, checked, is_traced, number
from ntkdecay._elementwise import elementwise
from ntkdecay._given import as_array, given
from ntkdecay.scale_invariant._checks import NORM2, TURNS, check_product, check_rates, plain


@checked(learning_rate=array(above=0), l2=array(low=0), momentum=array(low=0, below=1))
def intrinsic_learning_rate(learning_rate: Scalar, l2: Scalar, momentum: Scalar = 0.0) -> Scalar:
    r"""The intrinsic learning rate of SGD, and that of the SGD which heavy ball moves like.

    .. math:: \lambda_e = \frac{\eta\lambda}{1 - \beta}

    Section 5 and C.1 of `intrinsic_lr`. With v ← βv + ∇L + λw, w ← w − ηv and gradients that change
    slowly, heavy ball moves like SGD of learning rate η/(1 − β); its exact form,
    w' − (1 + β − ηλ)w + βw⁻ = −η∇L, has ηλ, and η alone only scales the weights.

    Args:
        learning_rate: η; l2: λ; momentum: β in [0, 1).

    Raises:
        ValueError: for numbers outside these ranges, or ηλ >= 1.

    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.intrinsic_learning_rate(0.1, 5e-4, momentum=0.9)
    0.0005000000000000001
    """
    check_rates(learning_rate, l2)
    learning_rate, l2, momentum = map(plain, (learning_rate, l2, momentum))
    shapes = map(jnp.shape, (learning_rate, l2, momentum))
    common_shape(**dict(zip(("learning_rate", "l2", "momentum"), shapes, strict=True)))
    return learning_rate * l2 / (1 - momentum)


@checked(norm2=NORM2, learning_rate=array(above=0))
def effective_learning_rate(norm2: ArrayLike, learning_rate: ArrayLike) -> Array:
    r"""The learning rate that the direction w/‖w‖ sees.

    .. math:: \eta / \|w\|^2 = \gamma^{-1/2}

    Args:
        norm2: ‖w‖² > 0, any shape.
        learning_rate: η > 0, broadcast against it.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.effective_learning_rate(norm2=4.0, learning_rate=0.1))
    0.025
    """
    return _effective_learning_rate(norm2, learning_rate)


@elementwise
def _effective_learning_rate(norm2: Array, learning_rate: Array) -> Array:
    return learning_rate / norm2


@checked(norm2=NORM2, learning_rate=array(above=0))
def gamma(norm2: ArrayLike, learning_rate: ArrayLike) -> Array:
    """γ = (‖w‖²/η)², the inverse of the squared effective learning rate; arguments as there.

    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.gamma(norm2=4.0, learning_rate=0.5))
    64.0
    """
    return _gamma(norm2, learning_rate)


@elementwise
def _gamma(norm2: Array, learning_rate: Array) -> Array:
    return _effective_learning_rate(norm2, learning_rate) ** -2


@checked(
    t=array(low=0, inf=True),
    gamma_0=array(low=0),
    trace=array(low=0),
    intrinsic_lr=array(low=0, below=1, why=TURNS),
)
def gamma_constant_noise(
    t: ArrayLike, gamma_0: ArrayLike, trace: ArrayLike, intrinsic_lr: ArrayLike
) -> Array:
    r"""γ at time t when Tr Σ is constant.

    .. math:: \gamma_t = e^{-4\lambda_e t}\gamma_0
              + \frac{\sigma^2}{2\lambda_e}\,(1 - e^{-4\lambda_e t})

    (11) of `intrinsic_lr`, and (12) with ε = 0; for λ_e → 0 it is γ_0 + 2σ²t, for t → ∞ σ²/(2λ_e).

    Args:
        t: time in steps, from 0 to ∞; gamma_0: γ_0; trace: σ² = Tr Σ at unit norm; intrinsic_lr: λ_e.
            Any shapes that broadcast.

    >>> from ntkdecay import scale_invariant
    >>> round(float(scale_invariant.gamma_constant_noise(1e6, 1.0, 2.0, 1e-3)), 6)
    1000.0
    """
    return _gamma_constant_noise(t, gamma_0, trace, intrinsic_lr)


@elementwise
def _gamma_constant_noise(t: Array, gamma_0: Array, trace: Array, intrinsic_lr: Array) -> Array:
    # At t = ∞: the equilibrium; without noise and decay γ is what it was; else it has no bound.
    settled = jnp.isinf(t) & (intrinsic_lr > 0)
    t = jnp.where(settled | (jnp.isinf(t) & (trace == 0)), 0.0, t)
    age = 4 * intrinsic_lr * jnp.where(intrinsic_lr > 0, t, 0.0)
    grown = jnp.where(age > 0, -jnp.expm1(-age) / jnp.where(age > 0, 4 * intrinsic_lr, 1.0), t)
    equilibrium = trace / (2 * jnp.where(settled, intrinsic_lr, 1.0))
    return jnp.where(settled, equilibrium, jnp.exp(-age) * gamma_0 + 2 * trace * grown)


@checked(
    t=array(ndim=1),
    gamma_0=number(low=0),
    trace=array(low=0, ndim=1),
    intrinsic_lr=number(low=0, below=1, why=TURNS),
)
def gamma_path(t: ArrayLike, gamma_0: Scalar, trace: ArrayLike, intrinsic_lr: Scalar) -> Array:
    r"""γ along a path whose Tr Σ is constant between times.

    .. math:: \gamma_t = e^{-4\lambda_e t}\gamma_0
              + 2\int_0^t e^{-4\lambda_e(t-\tau)}\, \mathrm{Tr}\,\Sigma_\tau\, d\tau

    (11) of `intrinsic_lr`, exactly.

    Args:
        t: times in steps, ascending from the first, where γ is γ_0, shape (n,).
        gamma_0: γ_0; intrinsic_lr: λ_e.
        trace: Tr Σ at unit norm from each time to the next, shape (n − 1,).

    Returns:
        γ at the times, shape (n,).

    Raises:
        ValueError: if the shapes are others.

    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.gamma_path([0.0, 1e5], 1.0, trace=[2.0], intrinsic_lr=1e-3).round(6).tolist()
    [1.0, 1000.0]
    """
    times, traces = given(t), given(trace)
    if not is_traced(times) and not np.all(np.diff(times) >= 0):
        raise ValueError("`t` does not ascend; it must: Tr Σ is given from each time to the next.")
    if traces.shape != (times.size - 1,):
        raise ValueError(
            f"`t` has shape {times.shape} and `trace` {traces.shape}; they must be (n,) and (n − 1,): "
            "one value of Tr Σ from each time to the next."
        )
    gamma_0 = as_array(gamma_0, jnp.result_type(times, traces, gamma_0, float))
    return _gamma_path(times, gamma_0, traces, intrinsic_lr)


@jax.jit
def _gamma_path(t: Array, gamma_0: Array, trace: Array, intrinsic_lr: Array) -> Array:
    def advance(now: Array, piece: tuple[Array, Array]) -> tuple[Array, Array]:
        after = _gamma_constant_noise(piece[0], now, piece[1], intrinsic_lr)
        return after, after

    path = jax.lax.scan(advance, gamma_0, (jnp.diff(t), trace))[1]
    return jnp.concatenate([gamma_0[None], path])


@checked(
    t=array(low=0, inf=True),
    gamma_0=array(low=0),
    sigma2=array(low=0),
    epsilon=array(low=0, why="Tr Σ stays in [σ², (1 + ε)σ²]"),
    intrinsic_lr=array(low=0, below=1, why=TURNS),
)
def gamma_band(
    t: ArrayLike, gamma_0: ArrayLike, sigma2: ArrayLike, epsilon: ArrayLike, intrinsic_lr: ArrayLike
) -> tuple[Array, Array]:
    r"""The least and the largest γ_t when Tr Σ stays in [σ², (1 + ε)σ²].

    .. math:: \gamma_t \in e^{-4\lambda_e t}\gamma_0
              + [1, 1 + \varepsilon]\,\frac{\sigma^2}{2\lambda_e}\,(1 - e^{-4\lambda_e t})

    Lemma 5.2, (12) of `intrinsic_lr`. Arguments as in `gamma_constant_noise`; epsilon: ε >= 0.

    >>> from ntkdecay import scale_invariant
    >>> least, most = scale_invariant.gamma_band(1e6, 1.0, sigma2=2.0, epsilon=0.5, intrinsic_lr=1e-3)
    >>> round(float(least)), round(float(most))
    (1000, 1500)
    """
    return _gamma_band(t, gamma_0, sigma2, epsilon, intrinsic_lr)


@elementwise
def _gamma_band(
    t: Array, gamma_0: Array, sigma2: Array, epsilon: Array, intrinsic_lr: Array
) -> tuple[Array, Array]:
    low = _gamma_constant_noise(t, gamma_0, sigma2, intrinsic_lr)
    return low, _gamma_constant_noise(t, gamma_0, (1 + epsilon) * sigma2, intrinsic_lr)


@checked(intrinsic_lr=array(above=0, why="without decay the norm grows for ever"))
def relaxation_time(intrinsic_lr: Scalar) -> Scalar:
    """1/(4λ_e) steps: the time in which γ's distance from its stationary value falls by e, (11).

    >>> from ntkdecay import scale_invariant
    >>> scale_invariant.relaxation_time(1e-3)
    250.0
    """
    return 1 / (4 * plain(intrinsic_lr))


@checked(sigma2=array(above=0), intrinsic_lr=array(low=0, below=1, why=TURNS))
def stationary_learning_rate(sigma2: ArrayLike, intrinsic_lr: ArrayLike) -> Array:
    r"""The effective learning rate at equilibrium.

    .. math:: \gamma_\infty^{-1/2} = \sqrt{2\lambda_e}/\sigma

    Limit of (12) of `intrinsic_lr` (whose text has the inverse).

    Args:
        sigma2: σ² = Tr Σ at unit norm, > 0; intrinsic_lr: λ_e in [0, 1). They broadcast.

    >>> from ntkdecay import scale_invariant
    >>> round(float(scale_invariant.stationary_learning_rate(sigma2=2.0, intrinsic_lr=1e-4)), 4)
    0.01
    """
    return _stationary_learning_rate(sigma2, intrinsic_lr)


@elementwise
def _stationary_learning_rate(sigma2: Array, intrinsic_lr: Array) -> Array:
    return jnp.sqrt(2 * intrinsic_lr / sigma2)


@checked(
    gamma_0=array(above=0),
    intrinsic_lr=array(above=0, why="without decay there is no equilibrium"),
    sigma2=array(above=0, why="without noise there is no equilibrium"),
    factor=array(low=1, why="the first learning rate over the last"),
    tolerance=number(above=0, below=1),
)
def norm_convergence_time(
    gamma_0: ArrayLike,
    intrinsic_lr: ArrayLike,
    *,
    sigma2: ArrayLike,
    factor: ArrayLike = 1.0,
    tolerance: float = 0.01,
) -> Array:
    r"""Steps until the norm is at equilibrium when K times η comes first, then η.

    .. math:: \frac{1}{4K\lambda_e} \ln\frac{\gamma_0}{K\gamma_\infty} + \frac{1}{4\lambda_e}\ln K
              + \frac{1}{4\lambda_e}\Bigl(1 + \frac1K\Bigr) \ln\frac{1}{\text{tolerance}},
              \qquad \gamma_\infty = \frac{\sigma^2}{2\lambda_e}

    (15) of `intrinsic_lr` (which has γ_∞ = 1) with the constants that it leaves out; that is the leading
    term for γ_0 ≫ Kγ_∞, K ≫ 1. Computed is the exact time under (10): each phase ends when γ is
    within `tolerance` of its stationary value, γ_∞/K in the first, and the fall of the learning
    rate multiplies γ by K². K = 1 is a run with η alone.

    Args:
        gamma_0: γ_0 = (‖w_0‖²/η)², with the η of the last phase.
        intrinsic_lr: λ_e = ηλ of the last phase.
        sigma2: σ² = Tr Σ at unit norm; factor: K >= 1. All broadcast.
        tolerance: relative distance from equilibrium that counts as none, in (0, 1).

    Raises:
        ValueError: for numbers outside these ranges, or Kλ_e >= 1.

    >>> from ntkdecay import scale_invariant
    >>> round(float(scale_invariant.norm_convergence_time(1e6, 1e-3, sigma2=2.0)))
    2878
    """
    check_product(1.0, TURNS, factor=factor, intrinsic_lr=intrinsic_lr)
    return _norm_convergence_time(gamma_0, intrinsic_lr, sigma2, factor, tolerance)


@elementwise
def _norm_convergence_time(
    gamma_0: Array, intrinsic_lr: Array, sigma2: Array, factor: Array, tolerance: Array
) -> Array:
    def settle(excess: Array, rate: Array) -> Array:
        """Time for γ/γ_∞ − 1 to fall to the tolerance."""
        return jnp.maximum(jnp.log(jnp.abs(excess) / tolerance), 0.0) / (4 * rate)

    first = gamma_0 * 2 * intrinsic_lr / sigma2 / factor - 1
    left = 1 + jnp.clip(first, -tolerance, tolerance)
    return settle(first, factor * intrinsic_lr) + settle(factor * left - 1, intrinsic_lr)
