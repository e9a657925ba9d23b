r"""What `bounds` and `periods` read, as metrics of a run in `ntkdecay.training`, measured where it trains.

.. math:: \rho_t^2 = \|w_t\|^2, \qquad \tilde g_t = \|w_t\|\,\|\nabla L(w_t)\|, \qquad
          1 - \cos(w_t, w_{t+1})

w: the scale-invariant weights alone, where others are trained with them; ∇L: by these, without the L2 term. As in
Section B of `periodic`, loss and gradients are taken by a pass through the training set, `metrics`, or of each step's
own batch, `measured` and `step_metrics`: these cost next to nothing, as the step has computed them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ntkdecay._checks import anything, checked, function, instance, integer, optional, tree
from ntkdecay._given import given

Select = Callable[[Any], Any]

OPTIMIZER = instance(optax.GradientTransformation, "an optax transformation")


@checked(select=optional(function("of the parameters")), batch_size=optional(integer(low=1)))
def metrics(select: Select | None = None, *, batch_size: int | None = None) -> dict[str, Any]:
    r"""The metrics `loss`, `norm2` and `effective_gradient_norm`, on all training samples.

    .. math:: \rho^2 = \|w\|^2, \qquad \tilde g = \frac{1}{m} \sum_B \|w\|\,\|\nabla L_B(w)\|

    Args:
        select: parameters -> the scale-invariant ones among them; all when None.
        batch_size: g̃ is the mean over the m consecutive batches B of this size (what is left of the samples is dropped);
            None: of all samples at once, ∇L itself.

    Returns:
        For `metrics=` of `training.sweep` and `training.train`; join others by ``|``.

    Raises:
        ValueError: if `batch_size` is not positive; from the run if it exceeds the samples.

    >>> from ntkdecay import scale_invariant
    >>> sorted(scale_invariant.metrics())
    ['effective_gradient_norm', 'loss', 'norm2']
    """
    chosen = select or _all

    def norm2(snapshot: Any) -> Array:
        return optax.tree.norm(chosen(snapshot.params), squared=True)

    def slope(snapshot: Any) -> Array:
        if batch_size is None:
            slopes = optax.tree.norm(chosen(snapshot.gradient))
        else:
            slopes = jnp.mean(_gradient_norms(snapshot, chosen, batch_size))
        return jnp.sqrt(norm2(snapshot)) * slopes

    return {"loss": "loss", "norm2": norm2, "effective_gradient_norm": slope}


class Measured(NamedTuple):
    """The state of a `measured` optimizer: its own, and what the latest step has measured, NaN before the first."""

    inner: Any
    loss: Array
    norm2: Array
    effective_gradient_norm: Array
    cosine_distance: Array


@checked(optimizer=OPTIMIZER, select=optional(function("of the parameters")))
def measured(
    optimizer: optax.GradientTransformation, select: Select | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""An optimizer that also measures each step that it makes.

    .. math:: 1 - \cos(w, w + \Delta) = 2\sin^2(\theta/2), \qquad
              \tan\theta = \frac{\|\Delta_\perp\|}{\|w\| + \Delta_\parallel}

    The turn is that of the update Δ as it is made, momentum, L2 and all: it assumes neither (8) of `periodic`
    nor invariance, and keeps its digits where the step is small. The effective gradient norm is of the part
    of the incoming gradient across w: all of ∇L, and nothing of an L2 term that has joined it.

    Args:
        optimizer: any; its `update` is given the parameters, and the loss as ``value=``, as in `training`.
        select: as in `metrics`.

    >>> import optax
    >>> from ntkdecay import scale_invariant
    >>> optimizer = scale_invariant.measured(optax.sgd(0.5))
    """
    chosen, inner = select or _all, optax.with_extra_args_support(optimizer)

    @checked(params=tree(nan=True))
    def init(params: Any) -> Measured:
        unknown = jnp.full((), jnp.nan, jnp.result_type(*jax.tree.leaves(chosen(params))))
        return Measured(inner.init(params), unknown, unknown, unknown, unknown)

    @checked(
        updates=tree(nan=True),
        state=instance(Measured, "the state that `init` gave, or the last `update`"),
        params=optional(tree(nan=True)),
        extra=anything(),
    )
    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if params is None:
            raise ValueError("`params` is None, but the weights are measured: give them.")
        change, moments = inner.update(updates, state.inner, params, **extra)
        loss = given(extra.get("value", jnp.nan))
        return change, Measured(
            moments, *_of_step(chosen(params), chosen(updates), chosen(change), loss)
        )

    return optax.GradientTransformationExtraArgs(init, update)


def step_metrics() -> dict[str, Callable[[Any], Array]]:
    r"""The metrics `loss`, `norm2`, `effective_gradient_norm` and `cosine_distance` of a step, from a `measured` optimizer.

    .. math:: L_B(w_t), \quad \|w_t\|^2, \quad \|w_t\|\,\|\nabla L_B(w_t)\|, \quad 1 - \cos(w_t, w_{t+1})

    Recorded after t + 1 steps they are those of the step from w_t to w_{t+1} on its batch B; before the first they are NaN.
    So record from step 1 on and subtract 1.

    Raises:
        ValueError: from the run, if its optimizer is not in `measured`.

    >>> from ntkdecay import scale_invariant
    >>> sorted(scale_invariant.step_metrics())
    ['cosine_distance', 'effective_gradient_norm', 'loss', 'norm2']
    """

    def latest(snapshot: Any) -> Measured:
        states = jax.tree.leaves(snapshot.optimizer, is_leaf=lambda s: isinstance(s, Measured))
        found = [state for state in states if isinstance(state, Measured)]
        if not found:
            raise ValueError("Steps are measured by the optimizer: wrap it in `measured`.")
        return found[0]

    return {name: lambda s, name=name: getattr(latest(s), name) for name in Measured._fields[1:]}


@functools.partial(jax.jit, inline=True)
def _of_step(weights: Any, gradient: Any, change: Any, loss: Array) -> tuple[Array, ...]:
    """What `Measured` holds besides the optimizer's state."""
    norm = optax.tree.norm(weights)
    _, slope = _along_and_across(weights, norm, gradient)
    along, across = _along_and_across(weights, norm, change)
    turn = 2 * jnp.sin(jnp.arctan2(across, norm + along) / 2) ** 2
    return jnp.asarray(loss, norm.dtype), norm**2, norm * slope, turn


def _along_and_across(weights: Any, norm: Array, change: Any) -> tuple[Array, Array]:
    """A change's component along the weights and the norm of the rest."""
    along = jnp.asarray(optax.tree.vdot(weights, change)) / norm
    return along, optax.tree.norm(optax.tree.add_scale(change, -along / norm, weights))


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
