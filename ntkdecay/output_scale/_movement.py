"""How lazy a run was: what has become of hidden features, parameters and kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._agree import alike, same_shape
from ntkdecay._checks import anything, array, checked, function, tree
from ntkdecay.kernels import empirical_ntk


@checked(before=array(), after=array())
def sign_consistency(before: ArrayLike, after: ArrayLike) -> Array:
    """The share of hidden features that kept their sign, Section 3 of `output_scale`.

    Args:
        before, after: ẑ of the same samples before and after training, of one shape.

    Raises:
        ValueError: if the shapes differ.

    >>> import numpy as np
    >>> from ntkdecay import output_scale
    >>> before, after = np.array([1.0, -2.0, 3.0, -4.0]), np.array([0.1, 0.2, 0.3, -0.4])
    >>> float(output_scale.sign_consistency(before, after))
    0.75
    """
    same_shape(before=before, after=after)
    return _consistency(jnp.asarray(before), jnp.asarray(after))


@jax.jit
def _consistency(before: Array, after: Array) -> Array:
    return jnp.mean(jnp.sign(before) == jnp.sign(after))


@checked(params=tree(), params_0=tree())
def parameter_movement(params: Any, params_0: Any) -> Array:
    """‖θ − θ_0‖ / ‖θ_0‖, over all parameters; of order 1/α in lazy training.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> float(output_scale.parameter_movement(jnp.array([3.0]), jnp.array([2.0])))
    0.5
    """
    alike(params=params, params_0=params_0)
    return _distance(params, params_0)


@jax.jit
def _distance(now: Any, first: Any) -> Array:
    """‖now − first‖/‖first‖ over all arrays of a tree."""
    return optax.tree.norm(optax.tree.sub(now, first)) / optax.tree.norm(first)


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    params_0=tree(),
    x=array(),
    options=anything(),
)
def kernel_movement(
    apply_fn: Callable[[Any, Any], Any], params: Any, params_0: Any, x: ArrayLike, **options: Any
) -> Array:
    r"""How far the neural tangent kernel of f has moved.

    .. math:: \|\Theta - \Theta_0\|_F / \|\Theta_0\|_F

    The same for F, whose kernel is α² times that of f; of order 1/α in lazy training.

    Args:
        apply_fn: f(params, x) -> (n, …).
        params, params_0: parameters now and at initialization.
        x: samples.
        options: of `kernels.empirical_ntk`, such as `trace_axes` or `tile`.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import output_scale
    >>> def f(params, x):
    ...     return x @ params**2
    ...
    >>> float(output_scale.kernel_movement(f, 2 * jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones((2, 1))))
    3.0
    """
    now, first = (empirical_ntk(apply_fn, p, x, **options) for p in (params, params_0))
    return _distance(now, first)
