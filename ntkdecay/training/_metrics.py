"""What is measured of a member while it trains.

A metric is a function of a `Snapshot`; what several of them share (outputs, gradients) is computed once, and what
none asks for is not computed.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked


class Snapshot:
    """One member at one moment, as a metric sees it.

    Attributes:
        cell: the member's values on the grid, `seed` and `l2` among them.
        step: how many steps it has made.
        params, params_0: θ now and at the start; the latter is None unless the network or the loss takes
            `params_0`, or the metric function has a true attribute `needs_params_0`.
        optimizer: the optimizer's state.
        data: `x`, `y`, `x_test`, `y_test`.
        fx, fx_test: outputs on all training and test inputs.
        gradient: ∇L on all training samples, without the L2 term.
    """

    def __init__(
        self,
        cell: Mapping[str, Array],
        step: Array,
        params: Any,
        params_0: Any,
        optimizer: Any,
        apply_fn: Callable[[Any, Array], Array],
        loss: Callable[[Array, Array], Array],
        data: Any,
        eval_batch_size: int | None = None,
    ) -> None:
        self.cell, self.step = cell, step
        self.params, self.params_0, self.optimizer = params, params_0, optimizer
        self.apply_fn, self.loss_fn, self.data = apply_fn, loss, data
        self._eval_batch_size = eval_batch_size

    @cached_property
    def fx(self) -> Array:
        return self.outputs(self.data.x)

    @cached_property
    def fx_test(self) -> Array:
        if self.data.x_test is None:
            raise ValueError("A metric asks for the test set: give `x_test` and `y_test`.")
        return self.outputs(self.data.x_test)

    @cached_property
    def gradient(self) -> Any:
        return jax.grad(
            lambda params: self.loss_fn(self.apply_fn(params, self.data.x), self.data.y)
        )(self.params)

    def outputs(self, x: Array) -> Array:
        """f(x) at the present θ, in batches where `eval_batch_size` says so; the rest goes last."""
        size = self._eval_batch_size
        if size is None or len(x) <= size:
            return self.apply_fn(self.params, x)
        whole = len(x) // size * size
        batches = x[:whole].reshape(-1, size, *x.shape[1:])
        fx = jax.lax.map(lambda batch: self.apply_fn(self.params, batch), batches)
        fx = fx.reshape(whole, *fx.shape[2:])
        return (
            fx if whole == len(x) else jnp.concatenate([fx, self.apply_fn(self.params, x[whole:])])
        )


def has_answers(fx: Array, y: Array) -> bool:
    """Whether `accuracy` is of these shapes."""
    real = not any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in (fx, y))
    classes = fx.ndim > 1 and fx.shape[-1] > 1 and y.shape == fx.shape[:-1]
    return real and fx.ndim > 0 and (classes or y.shape == fx.shape)


@checked(fx=array(nan=True, inf=True), y=array())
def accuracy(fx: ArrayLike, y: ArrayLike) -> Array:
    """Share of right answers: argmax against class numbers (n,) or vectors (n, O), sign against (n, 1) or (n,).

    >>> import numpy as np
    >>> from ntkdecay import training
    >>> float(training.accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])))
    0.5
    """
    fx, y = jnp.asarray(fx), jnp.asarray(y)
    if not has_answers(fx, y):
        raise ValueError(
            f"`y` has shape {y.shape} and `fx` {fx.shape}; accuracy is of class numbers (n,) and outputs (n, O > 1), or of equal "
            "shapes: where it says nothing, leave it out of `metrics`."
        )
    if y.shape != fx.shape:
        return jnp.mean(jnp.argmax(fx, -1) == y)
    if fx.ndim == 1 or fx.shape[-1] == 1:
        return jnp.mean((fx > 0) == (y > 0))
    return jnp.mean(jnp.argmax(fx, -1) == jnp.argmax(y, -1))


def norm2(tree: Any) -> Array:
    """‖θ‖², the sum over all parameters."""
    return optax.tree.norm(tree, squared=True)


def _total_loss(snapshot: Snapshot) -> Array:
    l2 = snapshot.cell.get("l2", 0.0)
    return METRICS["loss"](snapshot) + l2 / 2 * norm2(snapshot.params)


def _effective_learning_rate(snapshot: Snapshot) -> Array:
    if "learning_rate" not in snapshot.cell:
        raise ValueError(
            '"effective_learning_rate" is η/‖θ‖²: it needs `learning_rate` in the grid.'
        )
    return snapshot.cell["learning_rate"] / norm2(snapshot.params)


METRICS: dict[str, Callable[[Snapshot], Array]] = {
    "loss": lambda s: s.loss_fn(s.fx, s.data.y),
    "total_loss": _total_loss,
    "accuracy": lambda s: accuracy(s.fx, s.data.y),
    "test_loss": lambda s: s.loss_fn(s.fx_test, s.data.y_test),
    "test_accuracy": lambda s: accuracy(s.fx_test, s.data.y_test),
    "norm2": lambda s: norm2(s.params),
    "gradient_norm": lambda s: jnp.sqrt(norm2(s.gradient)),
    "effective_learning_rate": _effective_learning_rate,
}
"""Metrics by name. Losses are without the L2 term but `total_loss` = L + λ/2 ‖θ‖²; `effective_learning_rate` is η/‖θ‖²."""

TRAINING_LOSSES = METRICS["loss"], METRICS["total_loss"]
"""A member in which one of these is recorded and is not finite has diverged."""
