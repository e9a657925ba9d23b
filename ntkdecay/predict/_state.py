r"""The state (a, w) of an infinitely wide network under L2, and what it says of f.

At infinite width the network is its linearization around the shrunken initialization aθ_0: with one
number a and one weight for each training output, :math:`\theta = a\theta_0 + J_0^T w` and

.. math:: f(x) = a^k f_0(x) + a^{k-1} \Theta_0(x, X)\, w, \qquad
          \nabla_a = \lambda a, \quad \nabla_w = \lambda w + a^{k-1} \partial\ell/\partial f

are all that any optimizer needs. With a λ_b for each block b of parameters, in which the network has
degree k_b, there is one a_b and one w_b for each:

.. math:: f = \prod_b a_b^{k_b} f_0 + \sum_b F_b\, \Theta^{(b)}_0 w_b, \qquad
          F_b = a_b^{k_b - 1} \prod_{m \neq b} a_m^{k_m}, \quad
          \nabla_{w_b} = \lambda_b w_b + F_b\, \partial\ell/\partial f .

With the penalty on θ − θ_0, a = 1.
"""

import contextlib
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._arrays import own as own_array
from ntkdecay._checks import (
    Rule,
    is_traced,
    mapping,
)
from ntkdecay.predict import _axes
from ntkdecay.predict._checks import (
    as_array,
    as_matrix,
    as_own,
    check_degree,
    check_kernel,
    float_dtype,
    refuse_kernel,
    refuse_kernel_shape,
    refuse_spectrum,
)
from ntkdecay.predict._request import Origin

STATIC: Any = {"static": True}
Loss = Callable[[Array, Array], Array]


class by_layer(Rule):
    """What a rule asks, or a mapping from blocks to it."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.refuses = rule, rule.refuses - {"mapping"}

    @property
    def asks(self) -> str:
        return f"{self.rule.asks}; or a mapping from blocks to such"

    def __call__(self, name: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            mapping(self.rule)(name, value)
        else:
            self.rule(name, value)


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Wide:
    """An infinitely wide network: kernels of its layers, and how f depends on a and w."""

    kernels: tuple[Array, ...]  # (m, m) of each block; one when λ is common to all
    y: Array  # labels as given, as floats
    layers: tuple[Hashable, ...] | None = field(
        metadata=STATIC
    )  # names of blocks with a λ of their own
    degrees: tuple[float, ...] = field(metadata=STATIC)  # k of each block
    l2_from: Origin = field(metadata=STATIC)
    trace_axes: tuple[int, ...] = field(metadata=STATIC)
    shape: tuple[int, ...] = field(metadata=STATIC)  # of the outputs on the training points
    whole: bool = field(metadata=STATIC)  # whether labels are whole numbers, one for each sample

    def with_outputs(self, shape: tuple[int, ...]) -> "Wide":
        """The same for outputs of this shape, if there may be such: whole numbers say nothing of their other axes."""
        free = self.whole and self.shape == self.y.shape and shape[:1] == self.shape
        if not free or shape == self.shape:
            return self
        return replace(self, shape=shape, trace_axes=tuple(range(1 - len(shape), 0)))

    def labels(self, y: Array) -> Array:
        """Labels as the loss takes them: numbers of classes where outputs have an axis more."""
        return y.astype(int) if self.shape != self.y.shape else y

    @property
    def outputs_shape(self) -> tuple[int, int]:
        """(m, o) of outputs on the training points."""
        m = self.kernels[0].shape[0]
        return m, math.prod(self.shape) // m

    def factors(self, a: Array) -> tuple[Array, Array]:
        """What multiplies f_0, and what multiplies each layer's Θ_0 w."""
        if self.l2_from == "init":
            return jnp.ones((), a.dtype), jnp.ones_like(a)
        whole = [int(k) if k.is_integer() else k for k in self.degrees]
        powers = [a[b] ** k for b, k in enumerate(whole)]
        each = [
            math.prod([p for m, p in enumerate(powers) if m != b], start=a[b] ** (k - 1))
            for b, k in enumerate(whole)
        ]
        return math.prod(powers, start=jnp.ones((), a.dtype)), jnp.stack(each)

    def outputs(self, point: Point, f0: Array, kernels: tuple[Array, ...]) -> Array:
        """f, (rows of the kernels, o)."""
        whole, each = self.factors(point.a)
        return whole * f0 + sum(each[i] * (k @ point.w[i]) for i, k in enumerate(kernels))

    def gradient(self, point: Point, slope: Array, l2: Array) -> Point:
        """∇_a and ∇_w of L + λ/2 ‖θ‖², from ∂L/∂f = `slope` of shape (m, o) and λ of shape (layers,)."""
        _, each = self.factors(point.a)
        w = l2[:, None, None] * point.w + each[:, None, None] * slope[None]
        return Point(jnp.zeros_like(point.a) if self.l2_from == "init" else l2 * point.a, w)

    def slope(self, loss: Loss, fx: Array, y: Array) -> Array:
        """∂L/∂f, (m, o), from outputs (m, o) of the samples with labels `y`."""
        f = _axes.restore(fx, (), y.shape[:1] + self.shape[1:], self.trace_axes)
        return _axes.flatten(jax.grad(loss)(f, self.labels(y)), self.trace_axes)

    def test_kernels(self, k_test_train: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The kernels between test and training points as matrices, and the shape of the test outputs."""
        named: Any = k_test_train if isinstance(k_test_train, Mapping) else {None: k_test_train}
        layers = (None,) if self.layers is None else self.layers
        if set(named) != set(layers):
            raise ValueError(
                "`k_test_train` must be given as `k_train_train` is: one kernel, or a mapping from the same names."
            )
        arrays = [as_own(named[layer], self.y.dtype) for layer in layers]
        shapes = {_axes.test_shape(k.shape, self.shape, self.trace_axes) for k in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"`k_test_train` has kernels for outputs of shapes {sorted(shapes)}; each block needs the same test points."
            )
        return tuple(as_matrix(k) for k in arrays), shapes.pop()

    def start(self, state: State) -> State:
        """The state as arrays of this network's shapes, its age apart; None stays None."""
        dtype, n = self.y.dtype, len(self.kernels)

        def own(value: Any, shape: tuple[int, ...]) -> Any:
            if value is None:
                return None
            if np.shape(value) != shape:
                raise ValueError(
                    f"The `State` holds an array of shape {np.shape(value)} where this network has {shape}; the usual "
                    "cause is the state of another network, or of several times: take one of them."
                )
            return as_own(value, dtype)

        scale, weights = (n,), (n, *self.outputs_shape)
        return state._replace(
            scale=own(state.scale, scale),
            weights=own(state.weights, weights),
            scale_velocity=own(state.scale_velocity, scale),
            weights_velocity=own(state.weights_velocity, weights),
        )


class Advance(Protocol):
    """Turns a state into points, velocities and ages with the times on their first axis, and a status."""

    def __call__(
        self,
        net: Wide,
        settings: Any,
        times: Array,
        point: Point,
        velocity: Point,
        f0: Array,
        age: Array,
    ) -> tuple[Point, Point, Array, Array]: ...


def evolve(
    advance: Advance,
    net: Wide,
    settings: Any,
    times: Array,
    state: State,
    k_test_train: tuple[Array, ...] | None,
    test_shape: tuple[int, ...] | None,
) -> tuple[State, Array]:
    """The one program of a predictor: the state at all times, outputs included."""
    dtype, n = net.y.dtype, len(net.kernels)

    def filled(value: Any, default: float, shape: tuple[int, ...]) -> Array:
        return jnp.full(shape, default, dtype) if value is None else value

    def seen(first: Array, kernels: tuple[Array, ...], shape: tuple[int, ...]) -> Array:
        f0 = _axes.flatten(jnp.broadcast_to(first, shape), net.trace_axes)
        f = jax.vmap(lambda point: net.outputs(point, f0, kernels))(points)
        return _axes.restore(f, times.shape, shape, net.trace_axes)

    scale, weights = (n,), (n, *net.outputs_shape)
    point = Point(filled(state.scale, 1.0, scale), filled(state.weights, 0.0, weights))
    velocity = Point(
        filled(state.scale_velocity, 0.0, scale), filled(state.weights_velocity, 0.0, weights)
    )
    f0 = _axes.flatten(jnp.broadcast_to(state.fx_train_0, net.shape), net.trace_axes)
    points, velocities, age, status = advance(
        net, settings, times.reshape(-1), point, velocity, f0, state.age
    )
    fx_train, fx_test = seen(state.fx_train_0, net.kernels, net.shape), None
    if k_test_train is not None and test_shape is not None:
        fx_test = seen(state.fx_test_0, k_test_train, test_shape)
    kept = jax.tree.map(
        lambda leaf: leaf.reshape(times.shape + leaf.shape[1:]), (*points, *velocities, age)
    )
    return State(fx_train, fx_test, state.fx_train_0, state.fx_test_0, *kept), status


@lru_cache(maxsize=32)
def program(make: Callable[..., Advance], *options: Hashable) -> Callable[..., Any]:
    """`evolve` compiled for `make(*options)`: kept for equal options, and freed with what it compiled."""
    return jax.jit(partial(evolve, make(*options)), static_argnums=5)


def wide_network(
    k_train_train: ArrayLike | Mapping[Hashable, ArrayLike],
    y_train: ArrayLike,
    l2: Any,
    degree: Any,
    l2_from: Any,
    trace_axes: int | tuple[int, ...],
) -> Wide:
    """The network that the arguments of a predictor describe, checked."""
    per_layer = isinstance(k_train_train, Mapping)
    if per_layer != isinstance(l2, Mapping):
        raise ValueError(
            "L2 of each block needs both `l2` and `k_train_train` as mappings from their names; one of them is not."
        )
    if per_layer:
        if set(k_train_train) != set(l2) or not l2:
            raise ValueError(
                f"`l2` names the blocks {sorted(map(str, l2))}, `k_train_train` {sorted(map(str, k_train_train))}."
            )
        if isinstance(degree, Mapping):
            if set(degree) != set(l2):
                raise ValueError(
                    f"`degree` names the blocks {sorted(map(str, degree))}, `l2` {sorted(map(str, l2))}."
                )
        elif degree is not None and check_degree(degree) != len(k_train_train):
            raise ValueError(
                f"`degree` is {degree}, but without a mapping to them each of the {len(k_train_train)} blocks has degree 1: "
                "leave `degree` out, or give that of each block, as `homogeneity.degrees` measures it."
            )
        layers = tuple(k_train_train)
        given = [k_train_train[layer] for layer in layers]
    elif isinstance(degree, Mapping):
        raise ValueError(
            "`degree` is a mapping, so `l2` and `k_train_train` must be mappings from the same blocks."
        )
    elif degree is None:
        raise ValueError("`degree` is None; `ntkdecay.homogeneity.degree` measures it.")
    else:
        layers, given = None, [k_train_train]
    dtype = float_dtype(*given, y_train)
    y = as_own(y_train, dtype)
    known = y_train if hasattr(y_train, "dtype") or is_traced(y_train) else np.asarray(y_train)
    whole = y.ndim == 1 and jnp.issubdtype(getattr(known, "dtype", dtype), jnp.integer)
    shape = y.shape + np.shape(given[0])[2::2] if whole else y.shape
    traced = _axes.canonical(trace_axes, shape)
    kernels = tuple(positive_kernel(as_array(k, dtype), shape, traced) for k in given)
    of_each = degree if isinstance(degree, Mapping) else {}
    degrees = (
        (check_degree(degree),)
        if layers is None
        else tuple(check_degree(of_each.get(b, 1)) for b in layers)
    )
    return Wide(kernels, y, layers, degrees, l2_from, traced, shape, whole)


def positive_kernel(k: Any, y_shape: tuple[int, ...], trace_axes: tuple[int, ...]) -> Array:
    """The training kernel as a symmetric matrix; where it is known, it must be positive semi-definite."""
    if is_traced(k):
        return check_kernel(k, y_shape, trace_axes)
    refuse_kernel_shape(k, y_shape, trace_axes)
    matrix = np.asarray(as_matrix(np.asarray(k)))  # pyright: ignore[reportArgumentType]
    size, skew = np.abs(matrix).max(), np.abs(matrix - matrix.T).max()
    refuse_kernel(None, np.isfinite(size), skew, size)
    matrix, rows = (matrix + matrix.T) / 2, len(matrix)
    info = np.finfo(matrix.dtype)
    rounding = max(10 * info.eps * np.trace(matrix), info.tiny)
    positive = own_array(matrix)
    with contextlib.suppress(np.linalg.LinAlgError):
        np.linalg.cholesky(matrix + rounding * np.eye(rows, dtype=matrix.dtype))
        return positive
    eigenvalues = np.linalg.eigvalsh(matrix)
    return refuse_spectrum(positive, eigenvalues.min(), np.abs(eigenvalues).max(), rows)
