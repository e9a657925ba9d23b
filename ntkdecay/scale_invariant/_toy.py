r"""The smallest scale-invariant problem: a quotient of squares under gradient descent and weight decay.

.. math:: f(x, y) = \frac{x^2}{x^2 + y^2}, \qquad
          z_{t+1} = (1 - \eta\lambda)\,z_t - \eta\nabla f(z_t)

Section 4 and Figure 5a of `intrinsic_lr`, E and Figure 14 of `periodic`. Gradient flow never lets |x/y| grow, with
or without decay; gradient descent without decay converges; with decay the norm shrinks until steps
overshoot, f and the norm jump up, and all begins again: chaotic periods.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import (
    Scalar,
    array,
    checked,
    flag,
    function,
    integer,
    is_traced,
    number,
    shown,
)
from ntkdecay._given import as_array, given
from ntkdecay.scale_invariant._checks import check_rates

Loss = Callable[[Array], Array]


class Trajectory(NamedTuple):
    """A recorded run, one row for each step from 0 on."""

    z: Array  # (steps + 1, d)
    loss: Array  # (steps + 1,)
    norm2: Array  # ρ²
    effective_gradient_norm: Array  # g̃ = ρ ‖∇f‖


@checked(z=array(ndim=1))
def toy_loss(z: ArrayLike) -> Array:
    """f(x, y) = x²/(x² + y²), z = (x, y) of shape (2,).

    >>> import jax.numpy as jnp
    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.toy_loss(jnp.array([1.0, 1.0])))
    0.5
    """
    return _toy_loss(given(z))


@functools.partial(jax.jit, inline=True)
def _toy_loss(z: Array) -> Array:
    return z[0] ** 2 / (z @ z)


@checked(
    z_0=array(ndim=1),
    learning_rate=number(above=0),
    l2=number(low=0),
    steps=integer(low=0),
    loss=function("of a vector"),
    fixed_norm=flag(),
)
def descend(
    z_0: ArrayLike,
    learning_rate: Scalar,
    l2: Scalar,
    steps: int,
    *,
    loss: Loss = toy_loss,
    fixed_norm: bool = False,
) -> Trajectory:
    r"""Gradient descent with weight decay from z_0.

    .. math:: z_{t+1} = (1 - \eta\lambda)\,z_t - \eta\nabla f(z_t)

    Args:
        z_0: the start, shape (2,), or (d,) with another loss.
        learning_rate: η; l2: λ.
        steps: how many.
        loss: any scale-invariant function of a vector.
        fixed_norm: put each step back to the norm of the start, as in Figure 12 of `periodic`.

    Returns:
        The `Trajectory`, `steps` + 1 rows.

    Raises:
        ValueError: for a start at zero, a negative λ, or ηλ >= 1.

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> path = scale_invariant.descend(np.array([0.7, 0.7]), 0.5, 0.05, 400)
    >>> scale_invariant.periods(path).number
    9
    """
    z_0 = _start(z_0, learning_rate, l2)
    return _descend(z_0, learning_rate, l2, int(steps), loss, bool(fixed_norm))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _descend(
    z_0: Array, learning_rate: Scalar, l2: Scalar, steps: int, loss: Loss, fixed_norm: bool
) -> Trajectory:
    def advance(z: Array, _: None) -> tuple[Array, tuple[Array, ...]]:
        value, slope = jax.value_and_grad(loss)(z)
        norm2 = z @ z
        after = (1 - learning_rate * l2) * z - learning_rate * slope
        if fixed_norm:
            after = after * jnp.sqrt(norm2 / (after @ after))
        return after, (z, value, norm2, jnp.sqrt(norm2 * (slope @ slope)))

    return Trajectory(*jax.lax.scan(advance, z_0, length=steps + 1)[1])


@checked(
    z_0=array(ndim=1),
    learning_rate=number(above=0),
    l2=number(low=0),
    steps=integer(low=1),
    burn_in=integer(low=0),
    loss=function("of a vector"),
)
def lyapunov_exponent(
    z_0: ArrayLike,
    learning_rate: Scalar,
    l2: Scalar,
    steps: int,
    *,
    burn_in: int = 0,
    loss: Loss = toy_loss,
) -> Array:
    r"""How fast two nearby runs part, by the tangent dynamics.

    .. math:: \Lambda = \lim_{t\to\infty} \frac1t \ln \|D_t v_0\|, \qquad
              D_{t+1} = \bigl((1-\eta\lambda) I - \eta\nabla^2 f(z_t)\bigr) D_t

    v is renormalized at each step and its growth added up. A positive exponent is chaos.

    Args:
        z_0, learning_rate, l2, loss: as in `descend`.
        steps: how many steps are averaged, after `burn_in` that are not.

    Returns:
        Λ per step.

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> exponent = scale_invariant.lyapunov_exponent(np.array([1.0, 2.0]), learning_rate=0.1, l2=0.1, steps=100)
    >>> bool(exponent < 0)  # no chaos
    True
    """
    z_0 = _start(z_0, learning_rate, l2)
    return _lyapunov_exponent(z_0, learning_rate, l2, int(steps), int(burn_in), loss)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _lyapunov_exponent(
    z_0: Array, learning_rate: Scalar, l2: Scalar, steps: int, burn_in: int, loss: Loss
) -> Array:
    def move(z: Array) -> Array:
        return (1 - learning_rate * l2) * z - learning_rate * jax.grad(loss)(z)

    def advance(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        z, v = carry
        after, moved = jax.jvp(move, (z,), (v,))
        growth = jnp.linalg.norm(moved)
        return (after, moved / growth), jnp.log(growth)

    v_0 = jnp.ones_like(z_0) / jnp.sqrt(z_0.size)
    logs = jax.lax.scan(advance, (z_0, v_0), length=burn_in + steps)[1]
    return jnp.mean(logs[burn_in:])


@checked(t=array(), z_0=array(ndim=1), learning_rate=number(above=0), l2=number(low=0))
def flow_ratio(t: ArrayLike, z_0: ArrayLike, learning_rate: Scalar, l2: Scalar) -> Array:
    r"""x/y under gradient flow with weight decay.

    .. math:: \frac{x_t}{y_t} = \frac{x_0}{y_0}
              \exp\Bigl(-\frac{2\eta}{\rho_0^2}\,\frac{e^{2\eta\lambda t} - 1}{2\eta\lambda}\Bigr)

    d(x/y)/dt = −2η (x/y)/ρ² (Section 4 of `intrinsic_lr`) with ρ² = ρ_0² e^{−2ηλt}: gradients are
    orthogonal to z, so flow leaves the norm to the decay. |x/y| falls, whatever λ.

    Args:
        t: time in steps, any shape; z_0: the start, shape (2,); learning_rate: η; l2: λ.

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> float(scale_invariant.flow_ratio(0.0, np.array([1.0, 2.0]), 0.1, 0.01))
    0.5
    """
    z_0 = _start(z_0, learning_rate, l2)
    if z_0.shape != (2,) or (not is_traced(z_0) and np.asarray(z_0)[1] == 0):
        raise ValueError(
            f"`z_0` is {shown(z_0)}; it must be (x, y) with y ≠ 0: the flow of x/y is asked for."
        )
    return _flow_ratio(given(t), z_0, learning_rate, l2)


@jax.jit
def _flow_ratio(t: Array, z_0: Array, learning_rate: Scalar, l2: Scalar) -> Array:
    rate = 2 * learning_rate * l2
    grown = jnp.where(rate > 0, jnp.expm1(rate * t) / jnp.where(rate > 0, rate, 1.0), t)
    return z_0[0] / z_0[1] * jnp.exp(-2 * learning_rate / (z_0 @ z_0) * grown)


def _start(z_0: ArrayLike, learning_rate: Scalar, l2: Scalar) -> Array:
    check_rates(learning_rate, l2)
    z_0 = given(z_0)
    if not is_traced(z_0) and not np.any(np.asarray(z_0)):
        raise ValueError(
            "`z_0` is zero; a scale-invariant function is not defined at weights that are zero."
        )
    return as_array(z_0, jnp.result_type(z_0, float))
