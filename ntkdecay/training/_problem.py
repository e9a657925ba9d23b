r"""What one member of a grid does: one step of training, and what is measured of it.

.. math:: \theta_{s+1} = \theta_s + \mathrm{update}\!\left(\nabla L(\theta_s; B_s) + \lambda\theta_s\right)

L2 is coupled: λθ joins the gradient before the optimizer sees it. Everything here is of one member
and pure; the grid is `_engine`'s.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ntkdecay._checks import checked, tree
from ntkdecay._convolutions import fast
from ntkdecay.training._metrics import Snapshot, accuracy, has_answers
from ntkdecay.training._places import Places
from ntkdecay.training._rules import SEED, optimizer
from ntkdecay.training._signatures import named, told

Cell = Mapping[str, Array]
OPTIMIZER = optimizer("a function that gives an optax optimizer")
PARAMS = tree(nan=True, what="a function that gives a tree of arrays of a floating dtype")


class Data(NamedTuple):
    """Inputs and labels; the test set may be None, and so are `params` unless every member starts from them."""

    x: Array
    y: Array
    x_test: Array | None = None
    y_test: Array | None = None
    params: Any = None


class State(NamedTuple):
    """All that a member carries from step to step."""

    params: Any
    optimizer: Any
    order: Array | None  # this epoch's permutation of the samples; None at full batch
    params_0: Any  # None unless the network or the loss asks for it


class Problem(NamedTuple):
    """The functions of a training problem, each told of its cell's values what its signature names."""

    init: Callable[..., Any] | None  # None: members start from the data's `params`
    apply_fn: Callable[..., Any]
    loss: Callable[..., Array]
    optimizer: Callable[..., optax.GradientTransformation]
    augment: Callable[..., tuple[Array, Array]] | None
    metrics: tuple[tuple[str, Callable[[Snapshot], Array]], ...]
    batch_size: int | None
    eval_batch_size: int | None
    compute_dtype: Any = None  # of the network alone; None: that of its parameters
    places: Places | None = None  # over which each member is split


def model(problem: Problem, cell: Cell, params_0: Any) -> tuple[Callable, Callable]:
    """apply_fn(params, x) and loss(fx, y) of one member."""
    values = dict(cell) | ({} if params_0 is None else {"params_0": params_0})
    network, loss = told(problem.apply_fn, 2, values), told(problem.loss, 2, values)

    def loss_of(fx: Array, y: Array) -> Array:
        try:
            return problem.loss(fx, y, **loss)
        except (TypeError, ValueError) as error:
            if jnp.issubdtype(y.dtype, jnp.integer) and y.shape[1:] == (1,) != fx.shape[1:]:
                raise ValueError(
                    f"`loss` does not take integer labels of shape {y.shape}: class numbers are of shape (n,), as y[:, 0]."
                ) from error
            raise

    def fx_of(params: Any, x: Array) -> Any:
        x = x if problem.places is None else problem.places.samples(x)
        if problem.compute_dtype is None:
            return problem.apply_fn(params, x, **network)
        low = partial(_as, dtype=problem.compute_dtype)
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return _as(problem.apply_fn(low(params), low(x), **network), dtype)

    return fast(fx_of), loss_of


def _as(tree: Any, dtype: Any) -> Any:
    """Its real numbers in another precision."""

    def cast(leaf: Array) -> Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def wants_start(problem: Problem) -> bool:
    """Whether the network, the loss or a metric refers to θ_0."""
    takes = named(problem.apply_fn, 2) | named(problem.loss, 2)
    return "params_0" in takes or any(
        getattr(metric, "needs_params_0", False) for _, metric in problem.metrics
    )


def _coupled(l2: Array) -> optax.GradientTransformation:
    """∇L + λθ, in the precision of θ whatever the grid's is."""

    def update(gradient: Any, params: Any) -> Any:
        return jax.tree.map(lambda g, p: g + l2.astype(p.dtype) * p, gradient, params)

    return optax.stateless(update)


def optimizer_of(problem: Problem, cell: Cell) -> optax.GradientTransformationExtraArgs:
    """The member's optimizer, with λθ added in front of it unless it takes `l2` itself."""
    optimizer = problem.optimizer(**told(problem.optimizer, 0, cell))
    OPTIMIZER("optimizer", optimizer)
    if "l2" in cell and "l2" not in named(problem.optimizer):
        optimizer = optax.chain(_coupled(cell["l2"]), optimizer)
    return optax.with_extra_args_support(optimizer)


class Keys(NamedTuple):
    init: Array
    order: Array
    augment: Array


def keys(cell: Cell) -> Keys:
    """A member's keys, from its seed."""
    return Keys(*jax.random.split(jax.random.key(cell["seed"]), 3))


@checked(seed=SEED)
def init_key(seed: int) -> Array:
    """The key that `sweep` hands to `init` for a seed, to make the same θ_0 outside of it.

    >>> import jax
    >>> from ntkdecay import training
    >>> jax.random.normal(training.init_key(3), (2,)).shape
    (2,)
    """
    return keys({"seed": jnp.asarray(seed)}).init


def start(problem: Problem, data: Data, cell: Cell) -> State:
    """A member before its first step."""
    params = data.params
    if problem.init is not None:
        params = problem.init(keys(cell).init, **told(problem.init, 1, cell))
        PARAMS("init", params)
    params = jax.tree.map(jnp.asarray, params)
    order = None if problem.batch_size is None else jnp.arange(len(data.x), dtype=jnp.int32)
    return State(
        params,
        optimizer_of(problem, cell).init(params),
        order,
        params if wants_start(problem) else None,
    )


def step_fn(problem: Problem, data: Data, cell: Cell) -> Callable[[Array, State], State]:
    """step(number, state) -> state. Its randomness is a function of the seed and the number alone."""
    optimizer, key = optimizer_of(problem, cell), keys(cell)
    samples = len(data.x)
    per_epoch = 1 if problem.batch_size is None else samples // problem.batch_size

    def batch(number: Array, order: Array | None) -> tuple[Array | None, Array, Array]:
        if order is None or problem.batch_size is None:
            x, y = data.x, data.y
        else:
            # The step's number is no member's own: under vmap this stays a branch.
            kept = order
            order = jax.lax.cond(
                number % per_epoch == 0,
                lambda: jax.random.permutation(
                    jax.random.fold_in(key.order, number // per_epoch), samples
                ).astype(jnp.int32),
                lambda: kept,
            )
            first = number % per_epoch * problem.batch_size
            chosen = jax.lax.dynamic_slice(jnp.asarray(order), (first,), (problem.batch_size,))
            x, y = data.x[chosen], data.y[chosen]
        if problem.augment is not None:
            x, y = problem.augment(jax.random.fold_in(key.augment, number), x, y)
        return order, x, y

    def step(number: Array, state: State) -> State:
        apply_fn, loss = model(problem, cell, state.params_0)
        order, x, y = batch(number, state.order)

        def value_of(params: Any) -> tuple[Array, Array]:
            fx = apply_fn(params, x)
            value = loss(fx, y)
            if jnp.shape(value) != ():
                raise ValueError(
                    f"`loss` must give one number, not an array of shape {jnp.shape(value)}: take its mean or its sum."
                )
            return value, fx

        (value, fx), gradient = jax.value_and_grad(value_of, has_aux=True)(state.params)
        error = {"error": 1 - accuracy(fx, y)} if has_answers(fx, y) else {}
        change, moments = optimizer.update(
            gradient, state.optimizer, state.params, value=value, **error
        )
        # Under x64 a grid's float64 η or λ promotes what it meets; a float32 member stays one.
        moments = jax.tree.map(
            lambda new, old: new if new.dtype == old.dtype else new.astype(old.dtype),
            moments,
            state.optimizer,
        )
        return State(optax.apply_updates(state.params, change), moments, order, state.params_0)

    return step


def measure(
    problem: Problem, data: Data, cell: Cell, number: Array, state: State
) -> dict[str, Array]:
    """Every metric of a member after `number` steps."""
    apply_fn, loss = model(problem, cell, state.params_0)
    snapshot = Snapshot(
        cell,
        number,
        state.params,
        state.params_0,
        state.optimizer,
        apply_fn,
        loss,
        data,
        problem.eval_batch_size,
    )
    return {name: metric(snapshot) for name, metric in problem.metrics}
