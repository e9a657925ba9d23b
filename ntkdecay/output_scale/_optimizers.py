r"""Adaptive optimizers whose learning rate does not depend on the output scale α.

.. math:: v_t = \rho v_{t-1} + (1 - \rho)(\alpha G_t)^2, \qquad
          \theta_{t+1} = \theta_t - \frac{\eta}{\sqrt{v_t} + \varepsilon}\, G_t

Algorithm 1 of `output_scale`, with (10) and (6). G_t ∝ 1/α (9), so that v is free of α. The original
optimizers, with G_t² in v (7), have the effective learning rate η/(√v + ε) ∝ α below a critical α*
where √v = ε, and η/ε above it, where they have stopped to adapt (8).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import alike
from ntkdecay._checks import (
    Scalar,
    checked,
    either,
    flag,
    function,
    number,
    optional,
    tree,
)
from ntkdecay._pieces import guarded, piece, transformation
from ntkdecay.output_scale._loss import ALPHA

RATE = either(number(low=0), function("of the step"))
SHARE, SIZE = number(low=0, high=1), number(low=0)
RMS = dict(
    alpha=ALPHA,
    decay=SHARE,
    eps=SIZE,
    initial_scale=SIZE,
    eps_in_sqrt=flag(),
    bias_correction=flag(),
)
ADAM = dict(alpha=ALPHA, b1=SHARE, b2=SHARE, eps=SIZE, eps_root=SIZE, nesterov=flag())


@checked(optimizer=transformation(), alpha=ALPHA)
def rescaled(
    optimizer: optax.GradientTransformation, alpha: Scalar
) -> optax.GradientTransformationExtraArgs:
    r"""Any adaptive optimizer as it would be if gradients were α times as large, on steps 1/α as long.

    .. math:: u(G) \to u(\alpha G) / \alpha

    The α in v (10) and no other: where u(G) = −ηG/(√v + ε), this is Algorithm 1 of `output_scale`; a
    linear optimizer, SGD, stays what it is, and α = 1 leaves every bit. What an optimizer does with θ
    itself it would also divide: chain decoupled weight decay after it, coupled L2 before it.

    Args:
        optimizer: an optax transformation.
        alpha: α > 0 of the loss (3), which may be traced.

    Raises:
        ValueError: if α is not positive.

    >>> import optax
    >>> from ntkdecay import output_scale
    >>> optimizer = output_scale.rescaled(optax.adam(1e-3), alpha=100.0)
    """
    return guarded(_rescaled(optimizer, alpha))


def _rescaled(optimizer: Any, alpha: Any) -> Any:
    return optax.chain(optax.scale(alpha), optimizer, optax.scale(1 / alpha))


@cache
def _of(make: Callable[..., Any]) -> Callable[..., Any]:
    """What makes an optimizer of optax, rescaled; the same function each time, which `piece` keeps programs of."""

    def made(alpha: Any, **options: Any) -> Any:
        return _rescaled(make(**options), alpha)

    return made


@checked(**RMS)
def scale_by_rescaled_rms(
    alpha: Scalar,
    decay: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = False,
    bias_correction: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_rms` with (αG)² in its second moment, (10) of `output_scale`.

    Args:
        alpha: α > 0.
        decay, eps: ρ and ε, the paper's.
        eps_in_sqrt: √(v + ε), as line 4 of Algorithm 1 and optax's default have it, instead of the √v + ε
            of (6). They differ much: by a factor 1/√ε where v = 0.
        initial_scale, bias_correction: as in `optax.scale_by_rms`.

    Raises:
        ValueError: if α is not positive.

    >>> import optax
    >>> from ntkdecay import output_scale
    >>> optimizer = optax.chain(output_scale.scale_by_rescaled_rms(100.0), optax.scale(-1e-3))
    """
    return piece(
        _of(optax.scale_by_rms),
        alpha=alpha,
        decay=decay,
        eps=eps,
        initial_scale=initial_scale,
        eps_in_sqrt=eps_in_sqrt,
        bias_correction=bias_correction,
    )


@checked(learning_rate=RATE, momentum=optional(number()), nesterov=flag(), **RMS)
def rescaled_rmsprop(
    learning_rate: optax.ScalarOrSchedule,
    alpha: Scalar,
    decay: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = False,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The modified RMSProp, Algorithm 1 of `output_scale`: `optax.rmsprop` rescaled.

    Args:
        learning_rate: η, or a schedule of the step.
        alpha, decay, eps, eps_in_sqrt: as in `scale_by_rescaled_rms`.
        initial_scale, momentum, nesterov, bias_correction: as in `optax.rmsprop`.

    Raises:
        ValueError: if α is not positive.

    >>> from ntkdecay import output_scale
    >>> optimizer = output_scale.rescaled_rmsprop(1e-3, alpha=100.0)
    """
    return piece(
        _of(optax.rmsprop),
        learning_rate=learning_rate,
        alpha=alpha,
        decay=decay,
        eps=eps,
        initial_scale=initial_scale,
        eps_in_sqrt=eps_in_sqrt,
        momentum=momentum,
        nesterov=nesterov,
        bias_correction=bias_correction,
    )


@checked(**ADAM)
def scale_by_rescaled_adam(
    alpha: Scalar,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam` with (αG)² in its second moment.

    Args:
        alpha: α > 0.
        b1, b2, nesterov: as in `optax.scale_by_adam`.
        eps: ε outside of the root, as in (6); eps_root: ε inside it.

    Raises:
        ValueError: if α is not positive.

    >>> import optax
    >>> from ntkdecay import output_scale
    >>> optimizer = optax.chain(output_scale.scale_by_rescaled_adam(100.0), optax.scale(-1e-3))
    """
    return piece(
        _of(optax.scale_by_adam),
        alpha=alpha,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        nesterov=nesterov,
    )


@checked(learning_rate=RATE, **ADAM)
def rescaled_adam(
    learning_rate: optax.ScalarOrSchedule,
    alpha: Scalar,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """`optax.adam` rescaled, as Section 2 of `output_scale` suggests; arguments as above.

    >>> from ntkdecay import output_scale
    >>> optimizer = output_scale.rescaled_adam(1e-3, alpha=100.0)
    """
    return piece(
        _of(optax.adam),
        learning_rate=learning_rate,
        alpha=alpha,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        nesterov=nesterov,
    )


@checked(updates=tree(), gradient=tree())
def effective_learning_rate(updates: Any, gradient: Any) -> Array:
    """‖Δθ‖/‖G‖: of RMSProp η/(√v + ε), averaged over the parameters; both arguments are like θ.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> float(output_scale.effective_learning_rate(jnp.array([0.5]), jnp.array([2.0])))
    0.25
    """
    alike(updates=updates, gradient=gradient)
    return _ratio(updates, gradient)


@jax.jit
def _ratio(updates: Any, gradient: Any) -> Array:
    return optax.tree.norm(updates) / optax.tree.norm(gradient)


@checked(gradient=tree(), steps=number(low=0), decay=number(low=0, high=1))
def second_moment(gradient: Any, steps: ArrayLike = 1, decay: ArrayLike = 0.999) -> Any:
    r"""v of RMSProp (7) after some steps with the same gradient.

    .. math:: v_t = (1 - \rho^t)\, G^2

    Args:
        gradient: G, like the parameters.
        steps: t; decay: ρ.

    >>> from ntkdecay import output_scale
    >>> float(output_scale.second_moment(2.0, steps=1, decay=0.75))
    1.0
    """
    return _second_moment(gradient, steps, decay)


@jax.jit
def _second_moment(gradient: Any, steps: Any, decay: Any) -> Any:
    return jax.tree.map(lambda g: (1 - decay**steps) * g**2, gradient)


@checked(v=tree(low=0), alpha=ALPHA, eps=number(above=0, why="without it there is no critical α"))
def critical_alpha(v: Any, alpha: Scalar = 1.0, *, eps: Scalar = 1e-8) -> Array:
    r"""The output scale at which the original RMSProp stops to adapt.

    .. math:: \alpha^* = \alpha \sqrt{\langle v \rangle} / \varepsilon

    Where √v = ε, with v ∝ α^{−2} (8) of `output_scale` and its mean over all parameters. It falls as
    gradients do during training.

    Args:
        v: second moments, like the parameters: predicted by `second_moment`, or measured, the `nu` of the
            optimizer's state. That of a rescaled optimizer is the one at α = 1.
        alpha: α where v was found.
        eps: ε outside of the root.

    Raises:
        ValueError: if α or ε is not positive.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> round(float(output_scale.critical_alpha(jnp.full(3, 1e-6))), 1)
    100000.0
    """
    return _critical_alpha(v, alpha, eps)


@jax.jit
def _critical_alpha(v: Any, alpha: Any, eps: Any) -> Array:
    leaves = jax.tree.leaves(v)
    mean = sum(jnp.sum(leaf) for leaf in leaves) / sum(leaf.size for leaf in leaves)
    return alpha * jnp.sqrt(mean) / eps
