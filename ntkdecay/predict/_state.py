r"""The state (a, w) of an infinitely wide network under L2, and what it says of f.

At infinite width the network is its linearization around the shrunken initialization aθ_0: with one
number a and one weight for each training output, :math:`\theta = a\theta_0 + J_0^T w` and

.. math:: f(x) = a^k f_0(x) + a^{k-1} \Theta_0(x, X)\, w, \qquad
          \nabla_a = \lambda a, \quad \nabla_w = \lambda w + a^{k-1} \partial\ell/\partial f

are all that any optimizer needs. With one λ_l for each layer l, in each of which the network has
degree 1, there is one a_l and one w_l for each:
:math:`f = \prod_l a_l f_0 + \sum_l \prod_{m \neq l} a_m\, \Theta^{(l)}_0 w_l`. With the penalty on
θ − θ_0, a = 1.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    as_float,
    as_matrix,
    check_degree,
    check_kernel,
    check_origin,
    check_request,
    check_shape,
)
from ntkdecay.predict._request import Origin

Loss = Callable[[Array, Array], Array]


class State(NamedTuple):
    """Where a network under L2 is: pass it as `fx_train_or_state_0` to go on from there.

    `State(fx_train_0, fx_test_0)` is the initialization. A predictor given a state returns one.
    """

    fx_train: Any  # outputs now
    fx_test: Any = None
    fx_train_0: Any = None  # outputs at initialization; None: `fx_train`
    fx_test_0: Any = None
    scale: Any = None  # a, (layers,); None: 1
    weights: Any = None  # w, (layers, m, traced outputs); None: 0
    scale_velocity: Any = None  # of momentum; None: 0
    weights_velocity: Any = None
    age: Any = 0  # steps of `sgd`, whose schedules and batches go by it; time of `gradient_descent`


class Point(NamedTuple):
    """a and w of all layers: (layers,) and (layers, m, o)."""

    a: Array
    w: Array


@dataclass(frozen=True)
class Wide:
    """An infinitely wide network: kernels of its layers, and how f depends on a and w."""

    kernels: Array  # (layers, m, m); one "layer" when λ is common to all
    layers: tuple[Hashable, ...] | None  # their names when λ is their own
    degree: float
    l2_from: Origin
    y: Array  # labels, as given
    trace_axes: tuple[int, ...]

    def factors(self, a: Array) -> tuple[Array, Array]:
        """What multiplies f_0, and what multiplies each layer's Θ_0 w."""
        if self.l2_from == "init":
            return jnp.ones((), a.dtype), jnp.ones_like(a)
        if self.layers is None:
            return a[0] ** self.degree, a ** (self.degree - 1)
        others = jnp.where(jnp.eye(a.size, dtype=bool), 1.0, a[None])
        return jnp.prod(a), jnp.prod(others, axis=1)

    def outputs(self, point: Point, f0: Array, kernels: Array) -> Array:
        """f, (rows of the kernels, o)."""
        whole, each = self.factors(point.a)
        return whole * f0 + jnp.einsum("l,lij,ljo->io", each, kernels, point.w)

    def gradient(self, point: Point, slope: Array, l2: Array) -> Point:
        """∇_a and ∇_w of L + λ/2 ‖θ‖², from ∂L/∂f = `slope` of shape (m, o) and λ of shape (layers,)."""
        _, each = self.factors(point.a)
        w = l2[:, None, None] * point.w + each[:, None, None] * slope[None]
        return Point(jnp.zeros_like(point.a) if self.l2_from == "init" else l2 * point.a, w)

    def slope(self, loss: Loss, fx: Array, y: Array) -> Array:
        """∂L/∂f, (m, o), from outputs (m, o) of the samples with labels `y`."""
        f = _axes.restore(fx, (), y.shape, self.trace_axes)
        return _axes.flatten(jax.grad(loss)(f, y), self.trace_axes)

    def rates_of_l2(self, l2: Any) -> Array:
        """λ of each layer, (layers,), from a number or a mapping of names."""
        if self.layers is None:
            return jnp.asarray(l2, self.y.dtype).reshape(1)
        return jnp.stack([jnp.asarray(l2[layer], self.y.dtype) for layer in self.layers])

    def test_kernels(self, k_test_train: Any) -> tuple[Array, tuple[int, ...]]:
        """The kernels between test and training points as matrices, and the shape of the test outputs."""
        named: Any = k_test_train if isinstance(k_test_train, Mapping) else {None: k_test_train}
        layers = (None,) if self.layers is None else self.layers
        if set(named) != set(layers):
            raise ValueError(
                "`k_test_train` must be given as `k_train_train` is: one kernel, or a mapping from the same layer names."
            )
        arrays = [jnp.asarray(named[layer], self.y.dtype) for layer in layers]
        shape, *_ = (_axes.test_shape(k.shape, self.y.shape, self.trace_axes) for k in arrays)
        return jnp.stack([as_matrix(k) for k in arrays]), shape

    def flat(self, f: Any, shape: tuple[int, ...], name: str) -> Array:
        """Outputs of the given shape, or a scalar, as (m, o)."""
        return _axes.flatten(
            check_shape(jnp.asarray(f, self.y.dtype), shape, name), self.trace_axes
        )

    def start(self, state: State, outputs: tuple[int, ...]) -> tuple[Point, Point]:
        """The point and the velocity of `state`, for training outputs of shape `outputs` = (m, o)."""
        dtype, n = self.y.dtype, len(self.kernels)

        def filled(value: Any, default: float, shape: tuple[int, ...]) -> Array:
            if value is None:
                return jnp.full(shape, default, dtype)
            if np.shape(value) != shape:
                raise ValueError(
                    f"The `State` holds an array of shape {np.shape(value)} where this network has {shape}; the usual "
                    "cause is the state of another network, or of several times: take one of them."
                )
            return jnp.asarray(value, dtype)

        return (
            Point(filled(state.scale, 1.0, (n,)), filled(state.weights, 0.0, (n, *outputs))),
            Point(
                filled(state.scale_velocity, 0.0, (n,)),
                filled(state.weights_velocity, 0.0, (n, *outputs)),
            ),
        )


class PredictFnState(Protocol):
    """`predict_fn(t, fx_train_or_state_0, fx_test_0, k_test_train)`, as neural_tangents' for an ODEState."""

    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_or_state_0: Any = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any: ...


Advance = Callable[[Array, Point, Point, Array, Any], tuple[Point, Point]]


def predictor(net: Wide, clock: Callable[[Any], Array], advance: Advance) -> PredictFnState:
    """The `predict_fn` of neural-tangents' conventions around a way to advance the state.

    `clock` checks t and turns it into what `advance(times, point, velocity, fx_train_0, age)` counts in;
    that returns points and velocities with the times on their first axis.
    """

    def predict_fn(
        t: ArrayLike | None = None,
        fx_train_or_state_0: Any = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any:
        given = isinstance(fx_train_or_state_0, State)
        if given and fx_test_0 is not None:
            raise ValueError("`fx_test_0` is part of the `State`; leave it None.")
        state = fx_train_or_state_0 if given else State(fx_train_or_state_0, fx_test_0)
        check_request(state.fx_train, state.fx_test, k_test_train)
        state = state._replace(fx_train=0.0) if state.fx_train is None else state

        first = state.fx_train if state.fx_train_0 is None else state.fx_train_0
        f0 = net.flat(first, net.y.shape, "fx_train_0")
        times = clock(t)
        points, velocities = advance(times.reshape(-1), *net.start(state, f0.shape), f0, state.age)

        def seen(f0: Array, kernels: Array, shape: tuple[int, ...]) -> Array:
            f = jax.vmap(lambda point: net.outputs(point, f0, kernels))(points)
            return _axes.restore(f, times.shape, shape, net.trace_axes)

        fx_train = seen(f0, net.kernels, net.y.shape)
        fx_test = first_test = None
        if state.fx_test is not None:
            kernels, shape = net.test_kernels(k_test_train)
            first_test = state.fx_test if state.fx_test_0 is None else state.fx_test_0
            fx_test = seen(net.flat(first_test, shape, "fx_test_0"), kernels, shape)
        if given:
            kept = jax.tree.map(
                lambda leaf: leaf.reshape(times.shape + leaf.shape[1:]), (points, velocities)
            )
            (a, w), (v_a, v_w) = kept
            return State(fx_train, fx_test, first, first_test, a, w, v_a, v_w, state.age + times)
        if fx_test is None:
            return fx_train
        return fx_test if fx_train_or_state_0 is None else (fx_train, fx_test)

    return predict_fn


def wide_network(
    k_train_train: ArrayLike | Mapping[Hashable, ArrayLike],
    y_train: ArrayLike,
    l2: Any,
    degree: float | None,
    l2_from: str,
    trace_axes: int | tuple[int, ...],
) -> Wide:
    """The network that the arguments of a predictor describe, checked."""
    check_origin(l2_from)
    per_layer = isinstance(k_train_train, Mapping)
    if per_layer != isinstance(l2, Mapping):
        raise ValueError(
            "L2 of each layer needs both `l2` and `k_train_train` as mappings from layer names; one of them is not."
        )
    if per_layer:
        if set(k_train_train) != set(l2):
            raise ValueError(
                f"`l2` names the layers {sorted(map(str, l2))}, `k_train_train` {sorted(map(str, k_train_train))}."
            )
        if degree is not None and check_degree(degree) != len(k_train_train):
            raise ValueError(
                f"`degree` is {degree}, but with L2 of each layer the network has degree 1 in each of its "
                f"{len(k_train_train)} layers; leave `degree` out."
            )
        layers = tuple(k_train_train)
        given = [k_train_train[layer] for layer in layers]
    elif degree is None:
        raise ValueError("`degree` is missing; `ntkdecay.homogeneity.degree` measures it.")
    else:
        layers, given = None, [k_train_train]
    *kernels, y = as_float(*given, y_train)
    traced = _axes.canonical(trace_axes, y.shape)
    matrices = jnp.stack([check_kernel(k, y.shape, traced) for k in kernels])
    return Wide(matrices, layers, check_degree(1 if degree is None else degree), l2_from, y, traced)  # pyright: ignore
