r"""Training with L2 as training without it: the shrinking of the weights put into the output and the learning rate.

.. math:: \theta_t = a_t \varphi_t, \qquad f(\theta_t) = a_t^k f(\varphi_t)

Of a homogeneous network, at any width, exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import common_shape
from ntkdecay._checks import Scalar, array, checked, is_traced, number, optional
from ntkdecay._degree import or_measured, plain_degree
from ntkdecay._given import given
from ntkdecay.homogeneity import Degree


class WithoutL2(NamedTuple):
    """A run without L2 that is one with it.

    Args:
        learning_rate: η_t/(a_t a_{t+1}) of each step, (steps,).
        output: a_t^k, by which the network's output is multiplied at step t, (steps + 1,).
        scale: a_t, by which its weights are, (steps + 1,): θ_t = a_t φ_t.
    """

    learning_rate: Array
    output: Array
    scale: Array


@checked(
    learning_rate=array(low=0),
    l2=array(low=0),
    degree=or_measured(number(low=0, why="the network's function grows as θ^k")),
    momentum=optional(number(low=0, below=1, why="the fraction of the last step that is kept")),
)
def without_l2(
    learning_rate: ArrayLike,
    l2: ArrayLike,
    *,
    degree: float | Degree,
    momentum: Scalar | None = None,
) -> WithoutL2:
    r"""The learning rates and output scales at which training without L2 is training with it.

    .. math:: \varphi_{t+1} = \varphi_t - \frac{\eta_t}{a_t a_{t+1}} u_{t+1}, \qquad
              u_{t+1} = \beta u_t + \nabla_\varphi\, \ell(a_t^k f(\varphi_t))

        v_{t+1} = \beta v_t + \lambda_t a_t, \qquad a_{t+1} = a_t - \eta_t v_{t+1}, \qquad a_0 = 1, \ v_0 = 0

    If φ_0 = θ_0, then θ_t = a_t φ_t are the weights that SGD on ℓ + λ/2 ‖θ‖² visits, with this momentum and with the same
    minibatches: any network that is homogeneous of degree k, kinks included, any width and loss. So whatever knows
    nothing of L2 (an optimizer, a predictor, a library) serves it. Without momentum a_t = Π(1 − η_s λ_s); at k = 0 the
    output does not change, and this is `ntkdecay.scale_invariant.schedule_without_decay`. In gradient flow
    a = e^{−λt} and φ̇ = −a^{k−2} ∇f(φ) ℓ'. It holds of heavy ball, `optax.sgd(η, momentum=β)`, not of Nesterov's steps.

    Args:
        learning_rate: η_t of each step, (steps,); or a number, if `l2` has one for each step.
        l2: λ_t >= 0, likewise.
        degree: k of the network.
        momentum: β; None: no momentum. Above ηλ = (1 − √β)² L2 alone makes the weights swing through 0.

    Returns:
        `WithoutL2(learning_rate, output, scale)`.

    Raises:
        ValueError: if neither has one value for each step, or if L2 alone takes a_t to 0 or turns its sign; a_t may
            not fall below the root of the dtype's smallest number (1e-154 in float64).

    >>> import jax, numpy as np
    >>> from ntkdecay import finite_width
    >>> twin = finite_width.without_l2(np.full(3, 0.1), 0.5, degree=2)
    >>> def loss(w, output=1.0, l2=0.0):
    ...     return (output * w[0] * w[1] - 1) ** 2 + l2 / 2 * (w @ w)
    ...
    >>> theta = phi = np.array([1.0, 2.0])
    >>> for t in range(3):
    ...     theta = theta - 0.1 * jax.grad(loss)(theta, l2=0.5)
    ...     phi = phi - twin.learning_rate[t] * jax.grad(loss)(phi, twin.output[t])
    ...
    >>> bool(np.allclose(theta, twin.scale[3] * phi, rtol=1e-5))
    True
    """
    shape = common_shape(learning_rate=np.shape(learning_rate), l2=np.shape(l2))
    if len(shape) != 1:
        raise ValueError(
            f"`learning_rate` and `l2` have shape {shape}; one of them must have one value for each step, as "
            "np.full(steps, 0.1)."
        )
    found = _without_l2(
        given(learning_rate), given(l2), plain_degree(degree), 0.0 if momentum is None else momentum
    )
    if not is_traced(found):
        scale = np.asarray(found.scale)
        low = ~(scale > np.finfo(scale.dtype).tiny ** 0.5)
        if low.any():
            step = int(np.argmax(low))
            raise ValueError(
                f"`l2` takes the scale of the weights to {scale[step]:.3g} in {step} steps, where it must stay above "
                f"{np.finfo(scale.dtype).tiny ** 0.5:.0e}: lower `learning_rate` or `l2`, or begin again from θ "
                "after fewer steps; with momentum β keep ηλ below (1 − √β)²."
            )
    return found


@jax.jit
def _without_l2(learning_rate: Any, l2: Any, degree: Any, momentum: Any) -> WithoutL2:
    learning_rate, l2 = jnp.broadcast_arrays(learning_rate, l2)
    dtype = jnp.result_type(learning_rate, l2, 1.0)
    rates = learning_rate.astype(dtype), l2.astype(dtype)

    def step(state: tuple[Array, Array], rates: tuple[Array, Array]) -> Any:
        a, v = state
        v = momentum * v + rates[1] * a
        a = a - rates[0] * v
        return (a, v), a

    start = jnp.ones((), dtype), jnp.zeros((), dtype)
    after = jax.lax.scan(step, start, rates)[1]
    scale = jnp.concatenate([start[0][None], after])
    return WithoutL2(rates[0] / (scale[:-1] * scale[1:]), scale**degree, scale)
