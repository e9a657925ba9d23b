r"""What `bounds` and `periods` read, as metrics of a run in `ntkdecay.training`, measured where it trains.

.. math:: \rho_t^2 = \|w_t\|^2, \qquad \tilde g_t = \|w_t\|\,\|\nabla L(w_t)\|, \qquad
          1 - \cos(w_{t-1}, w_t)

w: the scale-invariant weights alone, where others are trained with them; ∇L: by these, without the L2 term
(`periodic`, Section B: train loss and its gradients by an additional pass through the training set).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ntkdecay._checks import check

Select = Callable[[Any], Any]


def metrics(
    select: Select | None = None, *, batch_size: int | None = None, turns: bool = False
) -> dict[str, Any]:
    r"""The metrics of a scale-invariant run: `loss`, `norm2`, `effective_gradient_norm`.

    .. math:: \rho^2 = \|w\|^2, \qquad \tilde g = \frac{1}{m} \sum_B \|w\|\,\|\nabla L_B(w)\|

    Args:
        select: parameters -> the scale-invariant ones among them; all when None.
        batch_size: g̃ is the mean over the m consecutive batches B of this size (what is left of the samples is dropped);
            None: of all samples at once, ∇L itself.
        turns: also `cosine_distance`, the 1 − cos of the latest step, which an optimizer in `turning` keeps. Of a run
            recorded at every step, it belongs to the record before: `bounds` takes it from w_t to w_{t+1}.

    Returns:
        For `metrics=` of `training.sweep` and `training.train`; join others by ``|``.

    Raises:
        ValueError: if `batch_size` is not positive; from the run if it exceeds the samples, or `turns` are asked of an optimizer without.
    """
    chosen = select or _all
    if batch_size is not None:
        check("batch_size", batch_size, lambda v: v >= 1, "at least 1")

    def norm2(snapshot: Any) -> Array:
        return optax.tree.norm(chosen(snapshot.params), squared=True)

    def slope(snapshot: Any) -> Array:
        if batch_size is None:
            slopes = optax.tree.norm(chosen(snapshot.gradient))
        else:
            slopes = jnp.mean(_gradient_norms(snapshot, chosen, batch_size))
        return jnp.sqrt(norm2(snapshot)) * slopes

    found = {"loss": "loss", "norm2": norm2, "effective_gradient_norm": slope}
    return found | ({"cosine_distance": _latest_turn} if turns else {})


class Turning(NamedTuple):
    """The state of an optimizer in `turning`."""

    inner: Any
    cosine_distance: Array  # of the latest step; 0 before the first


def turning(
    optimizer: optax.GradientTransformation, select: Select | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""An optimizer that also keeps by how much each step turns the scale-invariant weights.

    .. math:: 1 - \cos(w, w + \Delta) = 2\sin^2(\theta/2), \qquad
              \tan\theta = \frac{\|\Delta_\perp\|}{\|w\| + \Delta_\parallel}

    Of the update Δ as it is made, momentum, L2 and all: it assumes neither (8) of `periodic` nor invariance,
    and keeps its digits where the step is small.

    Args:
        optimizer: any; its `update` is given the parameters.
        select: as in `metrics`.
    """
    chosen, inner = select or _all, optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Turning:
        dtype = jnp.result_type(*jax.tree.leaves(chosen(params)))
        return Turning(inner.init(params), jnp.zeros((), dtype))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if params is None:
            raise ValueError("`params` is None, but a turn is that of the weights: give them.")
        change, moments = inner.update(updates, state.inner, params, **extra)
        return change, Turning(moments, _turn(chosen(params), chosen(change)))

    return optax.GradientTransformationExtraArgs(init, update)


def _turn(weights: Any, change: Any) -> Array:
    norm = optax.tree.norm(weights)
    along = optax.tree.vdot(weights, change) / norm
    across = optax.tree.norm(optax.tree.add_scale(change, -along / norm, weights))
    return 2 * jnp.sin(jnp.arctan2(across, norm + along) / 2) ** 2


def _latest_turn(snapshot: Any) -> Array:
    found = optax.tree.get(snapshot.optimizer, "cosine_distance")
    if found is None:
        raise ValueError("`turns` are measured by the optimizer: wrap it in `turning`.")
    return found


def _gradient_norms(snapshot: Any, select: Select, batch_size: int) -> Array:
    """‖∇L_B‖ of each whole batch, one after another."""
    data = snapshot.data
    if batch_size > len(data.x):
        raise ValueError(f"`batch_size` is {batch_size}, above the {len(data.x)} samples.")
    whole = len(data.x) // batch_size * batch_size
    batches = jax.tree.map(
        lambda a: a[:whole].reshape(-1, batch_size, *a.shape[1:]), (data.x, data.y)
    )

    def slope(batch: tuple[Array, Array]) -> Array:
        x, y = batch
        gradient = jax.grad(lambda p: snapshot.loss_fn(snapshot.apply_fn(p, x), y))(snapshot.params)
        return optax.tree.norm(select(gradient))

    return jax.lax.map(slope, batches)


def _all(params: Any) -> Any:
    return params
