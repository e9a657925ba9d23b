"""Gradient flow under L2 on any loss: the state (a, w) walked along its ODE."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import (
    array,
    checked,
    choice,
    diffrax_solver,
    either,
    function,
    integer,
    is_traced,
    number,
    optional,
    sequence,
)
from ntkdecay._refuse import refuse
from ntkdecay.predict._checks import as_own, check_ascending, kernel, network_degree
from ntkdecay.predict._dynamics import Dynamics, products
from ntkdecay.predict._eigenbasis import falls_into_modes, price_of_modes
from ntkdecay.predict._given_solver import trajectory_by
from ntkdecay.predict._integrate import LATE, PRESSED, STUCK, Options
from ntkdecay.predict._predictor import PredictFnState
from ntkdecay.predict._rates import before, boundaries, of_layers
from ntkdecay.predict._request import Origin
from ntkdecay.predict._schedule import LEARNING_RATE, PiecewiseConstant, rate
from ntkdecay.predict._state import (
    Advance,
    Loss,
    Point,
    Wide,
    by_layer,
    program,
    wide_network,
)
from ntkdecay.predict._trajectory import (
    Differentiated,
    Marks,
    differentiable,
    ended,
    first_part,
    joined,
    onwards,
)

if TYPE_CHECKING:
    import diffrax


ENDS = {
    LATE: "`max_steps` are over before the last `t`; raise `max_steps`, or `rtol` and `atol`, or ask for earlier times.",
    STUCK: "The flow cannot go on: `loss` or its derivative is not finite, or `rtol` and `atol` are below rounding.",
}


class Settings(NamedTuple):
    """The numbers of a flow."""

    l2: tuple[Any, ...]  # of each layer: a number or `PiecewiseConstant`
    learning_rate: Any
    momentum: Any
    tolerance: Any  # rtol, atol


@checked(
    loss=function("of (fx, y)"),
    k_train_train=by_layer(kernel()),
    y_train=array(),
    l2=rate("it multiplies ‖θ‖²/2 in the loss", layers=True),
    degree=optional(by_layer(network_degree())),
    learning_rate=LEARNING_RATE,
    momentum=optional(number(low=0, below=1, why="the fraction of the last step that is kept")),
    l2_from=choice("origin", "init"),
    trace_axes=either(integer(low=None), sequence(integer(low=None), empty=True)),
    rtol=optional(number(above=0)),
    atol=optional(number(above=0)),
    solver=optional(diffrax_solver()),
    max_steps=integer(low=1),
)
def gradient_descent(
    loss: Loss,
    k_train_train: ArrayLike | Mapping[Hashable, ArrayLike],
    y_train: ArrayLike,
    learning_rate: ArrayLike = 1.0,
    momentum: ArrayLike | None = None,
    *,
    l2: Any,
    degree: Any = None,
    l2_from: Origin = "origin",
    trace_axes: int | tuple[int, ...] = (-1,),
    solver: "diffrax.AbstractSolver | None" = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> PredictFnState:
    r"""Gradient flow of an infinitely wide network on any loss, with L2.

    .. math:: \dot f = -e^{-2(k-1)\lambda t}\,\Theta_0\,\frac{\partial L}{\partial f} - k\lambda f

    Eq. (1), Theorem 1 of Lewkowycz & Gur-Ari (2020), solved on its state: f = a^k f_0 + a^{k−1} Θ_0 w with
    ȧ = −λa and ẇ = −λw − a^{k−1} ∂L/∂f, which serves training and test points alike. Blocks b of parameters with a λ_b
    and a degree k_b of their own have an a_b and a w_b each: f = Π a_b^{k_b} f_0 + Σ F_b Θ^(b) w_b and ẇ_b = −λ_b w_b − F_b ∂L/∂f,
    F_b = a_b^{k_b − 1} Π_{m≠b} a_m^{k_m}. With momentum β it is
    the continuous limit that `neural_tangents.predict.gradient_descent` uses, θ̈ = −∇L_tot + (β−1)/√η θ̇ in
    time √η × t. The calling conventions are those of that function, whose numbers `l2=0` gives.

    Args:
        loss: `loss(fx_train, y_train)`, a scalar, without the L2 term.
        k_train_train: Θ_0 on the training points, of shape `zip(y_train.shape, y_train.shape)` without
            `trace_axes`; or a mapping from each block of parameters to its part Θ^(b), as `kernels.empirical_ntk` gives with
            `blocks`, with `l2` a mapping likewise.
        y_train: labels, samples on the first axis.
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
        momentum: β, or None.
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖², or λ(t) as `PiecewiseConstant`; or a mapping to these from blocks of parameters: layers, a
            body and its head, those that are decayed and those that are not. Blocks that are not trained are left out.
        degree: k of the network; or that of each block, as `homogeneity.degrees` measures it: by default 1, as of layers.
        l2_from: "origin": the penalty is on θ; "init": on θ − θ_0, and the kernel stands still.
        trace_axes: output axes that the kernels lack, along which they are block-diagonal.
        solver: of diffrax, for those who want one. By default Tsit5, explicit, whose steps are at most about 3/γ_max
            long, with γ_max the fastest rate of the flow; where that is what limits them, what costs least from there
            on: without momentum Runge-Kutta-Chebyshev, whose number of products with the kernels grows as the root of
            γ_max t, or Rodas5P, which factorizes a matrix of outputs² in each of few steps. Where `loss` is, by its program,
            a sum of squares without weights, and the kernel one, Rodas5P in the kernel's eigenbasis.
        rtol, atol: of a step, in f on the training points, root mean square; by default 1e-6 and 1e-8 in float64,
            1e-4 and 1e-5 in float32. At an eigenvalue ratio of 1e8 rounding forbids much tighter ones.
        max_steps: an error after as many.

    Returns:
        `predict_fn(t=None, fx_train_or_state_0=0., fx_test_0=None, k_test_train=None)`, with t ascending. Given
        a `State` it returns a `State` (of the last time if t is an array: one per time), from which a later
        call goes on. t=None and inf stop where nothing moves any more. Differentiable forwards and backwards.

    Raises:
        ValueError: as `gradient_descent_mse`; if mappings do not fit each other; if `max_steps` are over.

    >>> import numpy as np
    >>> import optax
    >>> from ntkdecay import predict
    >>> def cross_entropy(fx, y):
    ...     return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()
    ...
    >>> labels = np.array([0, 1])
    >>> predict_fn = predict.gradient_descent(cross_entropy, np.eye(2), labels, l2=0.01, degree=2)
    >>> np.round(predict_fn([1.0, 10.0], np.zeros((2, 2)))[:, 0], 2).tolist()
    [[0.22, -0.22], [0.9500000000000001, -0.9500000000000001]]
    """
    net = wide_network(k_train_train, y_train, l2, degree, l2_from, trace_axes)
    dtype = net.y.dtype
    double = dtype == np.float64
    tolerance = (rtol or (1e-6 if double else 1e-4), atol or (1e-8 if double else 1e-5))
    settings = Settings(
        of_layers(l2, net.layers, dtype),
        as_own(learning_rate, dtype),
        None if momentum is None else as_own(momentum, dtype),
        as_own(tolerance, dtype),
    )
    if solver is not None and any(isinstance(one, PiecewiseConstant) for one in settings.l2):
        raise ValueError(
            "`solver` is given, but a solver of diffrax does not know where `l2` changes; leave `solver` None."
        )

    def run(*arguments: Any) -> tuple[Any, Any]:
        """By explicit steps; the program of all others is compiled for flows that ask for it, or are traced."""
        if solver is not None or is_traced(arguments):
            return program(_flow, loss, solver, max_steps, "whole")(*arguments)
        try:
            after, (status, left) = program(_flow, loss, solver, max_steps, "explicit")(*arguments)
        except Differentiated:
            status = None
        if status is None or is_traced(
            status
        ):  # within a program, or of a loss that has captured a traced number
            return program(_flow, loss, solver, max_steps, "whole")(*arguments)
        if np.asarray(status) != PRESSED:
            return after, status
        net, settings, *others = arguments
        rest = program(_flow, loss, solver, max_steps, "rest")
        return rest(net, (settings, left), *others)

    def clock(t: Any, age: Any) -> tuple[Any, Any]:
        t = np.inf if t is None else t
        array(low=0, inf=True, why="it counts from the state that is given")("t", t)
        t = as_own(t, dtype)
        t = refuse(t, ~(t >= 0).all(), "`t` must be >= 0.") if is_traced(t) else t
        return check_ascending(t), as_own(age, dtype)

    told = {"learning_rate": learning_rate, "momentum": momentum, "l2": l2, "l2_from": l2_from}
    return PredictFnState("gradient_descent", net, settings, loss, clock, run, ENDS, told)


def _flow(
    loss: Loss, solver: Any, max_steps: int, part: Literal["explicit", "rest", "whole"]
) -> Advance:
    """How the program of a flow advances the state: as far as explicit steps go, from there on, or all the way."""

    def advance(
        net: Wide,
        settings: Any,
        times: Array,
        point: Point,
        velocity: Point,
        f0: Array,
        age: Array,
    ) -> tuple[Point, Point, Array, Any]:
        settings, left = settings if part == "rest" else (settings, None)
        unit, friction = settings.learning_rate, None
        if settings.momentum is not None:
            unit = jnp.sqrt(unit)
            friction = (1 - settings.momentum) / unit
        times, edges = unit * times, boundaries(settings.l2)
        marks, order = _marks(times, settings.l2, unit, age, edges)
        like = jnp.zeros(net.shape, net.y.dtype)
        converted, constants = jax.closure_convert(loss, like, net.labels(net.y))
        y = [point.w] if friction is None else [point.w, velocity.w]
        y = jnp.stack([jnp.stack([w, products(net.kernels, w)]) for w in y])

        def dynamics(
            net: Wide, f0: Array, l2: Array, friction: Any, a: Array, v: Array, constants: Any
        ):
            def loss(f: Array, y: Array) -> Array:
                return converted(f, y, *constants)

            start = jnp.zeros((), f0.dtype)
            return Dynamics(net, loss, f0, l2, friction, start, a, v, bool(edges))

        own = (net, f0, marks.l2[0], friction, point.a, velocity.a, constants)
        flow, tolerance = dynamics(*own), settings.tolerance
        options = _options(flow, max_steps)
        if solver is not None:
            found, status = trajectory_by(solver, flow, y, marks, tolerance, max_steps)
        elif part == "whole":
            found, status = differentiable(dynamics, options, (own, y, marks, tolerance))
        elif part == "explicit":
            found, stage = first_part(dynamics, options, (own, y, marks, tolerance))
            status = ended(stage, marks), (found, stage)
        else:
            before, stage = left  # pyright: ignore[reportGeneralTypeIssues]
            after, status = onwards(flow, stage, marks, tolerance, options)
            found = joined(before, after, stage, marks)
        w, a, v_a = jax.tree.map(lambda leaf: leaf[order], found)
        v_w = jnp.zeros_like(w[:, 0, 0]) if friction is None else w[:, 1, 0]
        return Point(a, w[:, 0, 0]), Point(v_a, v_w), age + times, status

    return advance


def _marks(
    times: Array, l2: tuple[Any, ...], unit: Array, age: Array, edges: list[Array]
) -> tuple[Marks, Array]:
    """The times and those at which λ changes, in order, and where the times are among them."""
    last, marks = times[-1], times
    if not edges:
        whole = jnp.broadcast_to(last, marks.shape)
        rates = jnp.stack([jnp.broadcast_to(one, marks.shape) for one in l2], axis=1)
        return Marks(marks, whole, rates), jnp.arange(times.size)
    inside = [jnp.clip(unit * edge - age, 0, last) for edge in edges]
    marks = jnp.concatenate([times, *inside])
    order = jnp.argsort(marks)
    marks = marks[order]
    goal = jnp.full_like(marks, last)
    for edge in inside:
        goal = jnp.minimum(
            goal, jnp.where(edge[None] >= marks[:, None], edge[None], last).min(axis=1)
        )
    then = jnp.where(unit > 0, (marks + age) / jnp.where(unit > 0, unit, 1.0), 0.0)
    rates = jnp.stack([before(one, then) for one in l2], axis=1)
    return Marks(marks, goal, rates), jnp.argsort(order)[: times.size]


def _options(flow: Dynamics, max_steps: int) -> Options:
    """What steps of each kind cost in products with the kernels, by operations; inf where a matrix is too large."""
    (m, o), layers, real = flow.f0.shape, len(flow.net.kernels), flow.friction is None
    product = layers * max(m * m * o / 1e10, m * m / 1e9) + 5e-6
    if falls_into_modes(flow.net, flow.loss):
        basis, step = price_of_modes(m, o)
        return Options(max_steps, step / product, real, basis / product)
    size = m * o
    if size > 6000:
        return Options(max_steps, np.inf, real)
    solve = size**3 / 2e10 + size**2 * (m / 1e10 + 2e-8)
    return Options(max_steps, (16 * product + solve + 5e-5) / product, real)
