r"""SGD on a scale-invariant loss as a stochastic differential equation.

.. math:: dW = -\eta\,(\nabla L(W)\,dt + \Sigma_W^{1/2} dB) - \lambda_e W\,dt

(5) of `intrinsic_lr` (Li, Lyu & Arora 2020), and the same process in the direction W̄ = W/‖W‖ and
γ = (‖W‖²/η)², (9) and (10):

.. math:: d\bar W = -\gamma^{-1/2}(\nabla L(\bar W)\,dt + \Sigma_{\bar W}^{1/2} dB)
          - \frac{1}{2\gamma}\mathrm{Tr}\,\Sigma_{\bar W}\,\bar W\,dt, \qquad
          \frac{d\gamma}{dt} = -4\lambda_e\gamma + 2\,\mathrm{Tr}\,\Sigma_{\bar W}

Time is counted in steps of SGD. The noise is a function of the direction alone, since Σ_{cW} = Σ_W/c²
(Lemma B.1), and is given by a root A of Σ_W̄ = A Aᵀ. Both equations are Itô's.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import (
    Scalar,
    array,
    checked,
    diffrax_solver,
    function,
    integer,
    is_traced,
    number,
    optional,
    prng_key,
    shown,
)
from ntkdecay._given import as_array, given
from ntkdecay._programs import program_of
from ntkdecay.scale_invariant._checks import TURNS, check_rates

if TYPE_CHECKING:
    import diffrax

Loss = Callable[[Array], Array]
NoiseRoot = Callable[[Array], Array]
Equation = Callable[[tuple[Loss, NoiseRoot]], tuple[Callable[..., Any], ...]]

DIRECTION = array(ndim=1)
SOLVER = optional(diffrax_solver())


class DirectionPath(NamedTuple):
    """A path of (9), (10) at the requested times."""

    direction: Array  # W̄, (times, d)
    gamma: Array  # (times,)


@checked(covariance=function("of a direction"))
def covariance_root(covariance: Callable[[Array], Array]) -> NoiseRoot:
    """The symmetric root of a covariance: W̄ ↦ Σ^½, shape (d, d), by its eigenvectors.

    Args:
        covariance: W̄ ↦ Σ_W̄, symmetric and positive semidefinite, with Σ_W̄ W̄ = 0.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> def covariance(w):  # 4 along the tangent of the circle
    ...     tangent = jnp.stack([-w[1], w[0]])
    ...     return 4 * tangent[:, None] * tangent[None]
    ...
    >>> scale_invariant.covariance_root(covariance)(jnp.array([1.0, 0.0])).round(6).tolist()
    [[0.0, 0.0], [0.0, 2.0]]
    """

    @checked(direction=DIRECTION)
    def root(direction: Array) -> Array:
        return program_of(covariance, _covariance_root)(given(direction))

    return root


def _covariance_root(covariance: Callable[[Array], Array], direction: Array) -> Array:
    matrix = covariance(direction)
    if np.shape(matrix) != 2 * direction.shape:
        raise ValueError(
            f"`covariance` gives shape {np.shape(matrix)} for a `direction` of {direction.shape}; "
            "it must give a square matrix of that size."
        )
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]) @ vectors.T


@checked(losses=function("of the weights"), batch_size=integer(low=1))
def minibatch_root(losses: Callable[[Array], Array], batch_size: int) -> NoiseRoot:
    r"""A root of the covariance of minibatch gradients, drawn with replacement.

    .. math:: \Sigma_w = \frac{1}{nB} \sum_i (\nabla\ell_i - \nabla L)(\nabla\ell_i - \nabla L)^T

    Args:
        losses: w ↦ the scale-invariant losses ℓ_i of the n samples, shape (n,); L is their mean.
        batch_size: B.

    Returns:
        W̄ ↦ A of shape (d, n).

    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> def losses(w):
    ...     return w**2 / (w @ w)
    ...
    >>> root = scale_invariant.minibatch_root(losses, batch_size=2)(jnp.array([0.6, 0.8]))
    >>> (root @ root.T).round(2).tolist()
    [[0.29, -0.22], [-0.22, 0.17]]
    """

    @checked(direction=DIRECTION)
    def root(direction: Array) -> Array:
        return program_of(losses, _minibatch_root)(given(direction), float(batch_size))

    return root


def _minibatch_root(losses: Callable[[Array], Array], direction: Array, batch_size: Array) -> Array:
    slopes = jax.jacobian(losses)(direction)
    if np.ndim(slopes) != 2:
        raise ValueError(
            f"`losses` gives shape {np.shape(slopes)[:-1]}; it must give one loss for each sample, (n,)."
        )
    return (slopes - slopes.mean(0, keepdims=True)).T / jnp.sqrt(len(slopes) * batch_size)


@checked(
    loss=function("of a vector"),
    noise_root=function("of a direction"),
    w_0=array(ndim=1),
    ts=array(ndim=1),
    learning_rate=number(above=0),
    l2=number(low=0),
    key=prng_key(),
    dt=number(above=0, why="it is the solver's step"),
    solver=SOLVER,
    tol=optional(number(above=0)),
)
def weights_sde(
    loss: Loss,
    noise_root: NoiseRoot,
    w_0: ArrayLike,
    ts: ArrayLike,
    *,
    learning_rate: Scalar,
    l2: Scalar,
    key: Array,
    dt: float = 0.1,
    solver: "diffrax.AbstractSolver | None" = None,
    tol: float | None = None,
) -> Array:
    r"""One path of SGD with weight decay in continuous time.

    .. math:: dW = -\eta\,(\nabla L(W)\,dt + \Sigma_W^{1/2} dB) - \eta\lambda W\,dt, \qquad
              \Sigma_W^{1/2} = A(W/\|W\|)/\|W\|

    (5) of `intrinsic_lr`. Many paths: `jax.vmap` over `key`.

    Args:
        loss: L, scale-invariant, of a vector (d,).
        noise_root: W̄ ↦ A with A Aᵀ = Σ_W̄, shape (d, m), and W̄ᵀA = 0.
        w_0: W at the first time, shape (d,).
        ts: times to return, in steps of SGD, ascending, shape (times,); numbers, not traced.
        learning_rate: η; l2: λ.
        key: of the Brownian motion. `direction_sde` with the same key, times, `dt` and `tol` is driven by the same one.
        dt: longest step of the solver, in steps of SGD; each stretch between times is divided evenly.
        solver: of diffrax, for Itô's equations; by default Euler's method, of strong order 1/2.
            `diffrax.ItoMilstein()` has order 1 where the noise commutes, as with m = 1.
        tol: resolution of a Brownian path that is the same for every `dt`; by default each step has an increment of its
            own, which is ten times faster. This and `solver` go through diffrax, whose own checks call Python back: on an
            accelerator set EQX_ON_ERROR=off before it is imported.

    Returns:
        W at the times, shape (times, d).

    Raises:
        ValueError: if the loss or the noise is not scale-invariant at w_0, or for bad numbers.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> def noise_root(w):  # along the tangent of the circle
    ...     return 0.1 * jnp.stack([-w[1], w[0]])[:, None]
    ...
    >>> ws = scale_invariant.weights_sde(
    ...     scale_invariant.toy_loss, noise_root, jnp.array([0.6, 0.8]), [0.0, 1.0, 2.0], learning_rate=0.1, l2=0.01,
    ...     key=jax.random.key(0))
    >>> ws.shape
    (3, 2)
    """
    check_rates(learning_rate, l2)
    start = as_array(w_0, jnp.result_type(given(w_0), float))
    if not is_traced(start) and not np.any(np.asarray(start)):
        raise ValueError(
            "`w_0` is zero; a scale-invariant function is not defined at weights that are zero."
        )
    _check_tangent(loss, noise_root, start)
    rates = (as_array(learning_rate, start.dtype), as_array(l2, start.dtype))
    return _solve(_weights, (loss, noise_root), rates, (start,), ts, key, dt, solver, tol)


def _weights(functions: tuple[Loss, NoiseRoot]) -> tuple[Callable[..., Any], ...]:
    """Drift and diffusion of (5), and its path in parts."""
    loss, noise_root = functions

    def drift(t: Any, w: Array, rates: Any) -> Array:
        learning_rate, l2 = rates
        return -learning_rate * jax.grad(loss)(w) - learning_rate * l2 * w

    def diffusion(t: Any, w: Array, rates: Any) -> Array:
        norm = jnp.linalg.norm(w)
        return -rates[0] * noise_root(w / norm) / norm

    return drift, diffusion, lambda path: path


@checked(
    loss=function("of a vector"),
    noise_root=function("of a direction"),
    direction_0=array(ndim=1),
    gamma_0=number(above=0),
    ts=array(ndim=1),
    intrinsic_lr=number(low=0, below=1, why=TURNS),
    key=prng_key(),
    dt=number(above=0, why="it is the solver's step"),
    solver=SOLVER,
    tol=optional(number(above=0)),
)
def direction_sde(
    loss: Loss,
    noise_root: NoiseRoot,
    direction_0: ArrayLike,
    gamma_0: Scalar,
    ts: ArrayLike,
    *,
    intrinsic_lr: Scalar,
    key: Array,
    dt: float = 0.1,
    solver: "diffrax.AbstractSolver | None" = None,
    tol: float | None = None,
) -> DirectionPath:
    r"""One path of the direction and of γ: η and λ enter by ηλ alone.

    .. math:: d\bar W = -\gamma^{-1/2}(\nabla L(\bar W)\,dt + A(\bar W)\,dB)
              - \frac{1}{2\gamma}\mathrm{Tr}\,\Sigma_{\bar W}\,\bar W\,dt, \qquad
              \frac{d\gamma}{dt} = -4\lambda_e\gamma + 2\,\mathrm{Tr}\,\Sigma_{\bar W}

    (9), (10) of `intrinsic_lr`. ‖W̄‖ = 1 is kept by the equation and attracts; the solver leaves it by its
    own error, which is a measure of that error.

    Args:
        loss, noise_root, ts, key, dt, solver, tol: as in `weights_sde`.
        direction_0: W̄ at the first time, shape (d,), of norm 1.
        gamma_0: γ there; intrinsic_lr: λ_e.

    Raises:
        ValueError: as `weights_sde`, and if `direction_0` is not of norm 1.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> def noise_root(w):  # along the tangent of the circle
    ...     return 0.1 * jnp.stack([-w[1], w[0]])[:, None]
    ...
    >>> path = scale_invariant.direction_sde(
    ...     scale_invariant.toy_loss, noise_root, jnp.array([0.6, 0.8]), 1.0, [0.0, 1.0, 2.0], intrinsic_lr=1e-3,
    ...     key=jax.random.key(0))
    >>> path.direction.shape, path.gamma.shape
    ((3, 2), (3,))
    """
    dtype = jnp.result_type(given(direction_0), gamma_0, float)
    direction = as_array(direction_0, dtype)
    if not is_traced(direction):
        norm = np.linalg.norm(np.asarray(direction))
        if abs(norm - 1) >= 1e-3:
            raise ValueError(f"`direction_0` has norm {norm:.4g}; it must be 1: it is w/‖w‖.")
    _check_tangent(loss, noise_root, direction)
    start, rates = (direction, as_array(gamma_0, dtype)), (as_array(intrinsic_lr, dtype),)
    path = _solve(_direction, (loss, noise_root), rates, start, ts, key, dt, solver, tol)
    return DirectionPath(*path)


def _direction(functions: tuple[Loss, NoiseRoot]) -> tuple[Callable[..., Any], ...]:
    """The same of (9), (10), of one vector (W̄, γ): the last row of the noise is zero."""
    loss, noise_root = functions

    def drift(t: Any, state: Array, rates: Any) -> Array:
        direction, gamma = state[:-1], state[-1]
        unit = direction / jnp.linalg.norm(direction)
        trace = jnp.sum(noise_root(unit) ** 2)
        turn = -jax.grad(loss)(unit) / jnp.sqrt(gamma) - trace / (2 * gamma) * direction
        return jnp.append(turn, -4 * rates[0] * gamma + 2 * trace)

    def diffusion(t: Any, state: Array, rates: Any) -> Array:
        direction, gamma = state[:-1], state[-1]
        root = noise_root(direction / jnp.linalg.norm(direction))
        return jnp.pad(-root / jnp.sqrt(gamma), ((0, 1), (0, 0)))

    return drift, diffusion, lambda path: (path[:, :-1], path[:, -1])


def _solve(
    equation: Equation,
    functions: tuple[Loss, NoiseRoot],
    rates: tuple[Array, ...],
    start: tuple[Array, ...],
    ts: ArrayLike,
    key: Array,
    dt: float,
    solver: "diffrax.AbstractSolver | None",
    tol: float | None,
) -> Any:
    """The state at `ts`, by steps of at most `dt` that end at each of them."""
    if is_traced(ts) or np.size(ts) < 2 or not np.all(np.diff(ts) > 0):
        raise ValueError(
            f"`ts` is {shown(ts)}; it must be at least two ascending times, as numbers: the first is "
            "that of the start."
        )
    times = np.asarray(ts, float)
    steps = np.ceil(np.diff(times) / dt * (1 - 1e-9))
    if not steps.sum() < 2**31:
        raise ValueError(
            f"`dt` is {dt:g}; it makes {steps.sum():.1e} steps of `ts`, more than a program can count."
        )
    if solver is not None or tol is not None:
        from ntkdecay.scale_invariant._given_sde import path_by  # diffrax takes a second

        return path_by(
            solver, equation, functions, rates, start, times, steps.astype(int), key, tol
        )
    lengths = (np.diff(times) / steps).astype(start[0].dtype)
    return _path(equation, functions, rates, start, lengths, steps.astype(np.int32), key)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _path(
    equation: Equation,
    functions: tuple[Loss, NoiseRoot],
    rates: tuple[Array, ...],
    start: tuple[Array, ...],
    lengths: Array,
    counts: Array,
    key: Array,
) -> Any:
    """By the Euler–Maruyama method, `counts` steps of `lengths` to each time: one program for all numbers."""
    drift, diffusion, parts = equation(functions)
    first = jnp.hstack(start)
    draws = jax.eval_shape(lambda: diffusion(None, first, rates)[0])

    def until(carry: tuple[Array, Array], stretch: tuple[Array, Array]) -> tuple[Any, Array]:
        (done, state), (dt, count) = carry, stretch

        def step(i: Array, state: Array) -> Array:
            noise = jnp.sqrt(dt) * jax.random.normal(jax.random.fold_in(key, i), draws.shape, draws.dtype)  # fmt: skip
            return state + dt * drift(None, state, rates) + diffusion(None, state, rates) @ noise

        state = jax.lax.fori_loop(done, done + count, step, state)
        return (done + count, state), state

    zero = jnp.zeros((), counts.dtype)
    later = jax.lax.scan(until, (zero, first), (lengths, counts))[1]
    return parts(jnp.concatenate([first[None], later]))


def _check_tangent(loss: Loss, noise_root: NoiseRoot, w: Array) -> None:
    """A sentence for a loss or a noise that is not scale-invariant at w; traced weights pass."""
    lengths = _along_the_weights((loss, noise_root), w)
    if is_traced(lengths):
        return
    for name, (along, whole) in zip(("loss", "noise_root"), lengths, strict=True):
        along, whole = float(along), float(whole)
        if not np.isfinite([along, whole]).all():
            raise ValueError(f"`{name}` is not finite at the start; it must have a gradient there.")
        if along > 10 * np.sqrt(jnp.finfo(w.dtype).eps) * whole:
            raise ValueError(
                f"`{name}` is not scale-invariant: {along / whole:.1g} of its gradient points along "
                "the weights, where there must be none; freeze what is not normalized, and project the noise."
            )


@functools.partial(jax.jit, static_argnums=0)
def _along_the_weights(functions: tuple[Loss, NoiseRoot], w: Array) -> Any:
    """Of the gradient and of the noise: the length along w, and the whole."""
    loss, noise_root = functions
    norm = jnp.linalg.norm(w)
    value, root = loss(w), noise_root(w / norm)
    if np.shape(value):
        raise ValueError(f"`loss` gives shape {np.shape(value)}; it must give one number.")
    if np.ndim(root) != 2 or len(root) != w.size:
        raise ValueError(
            f"`noise_root` gives shape {np.shape(root)}; it must give a matrix of {w.size} rows, (d, m)."
        )
    slope = jax.grad(loss)(w)
    return (
        (jnp.abs(slope @ w) / norm, jnp.linalg.norm(slope)),
        (jnp.linalg.norm(w @ root) / norm, jnp.linalg.norm(root)),
    )
