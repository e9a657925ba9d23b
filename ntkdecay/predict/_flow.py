"""Gradient flow under L2 on any loss, by an ODE solver on the state (a, w)."""

from collections.abc import Hashable, Mapping
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay.predict._checks import (
    check_ascending,
    check_l2,
    check_momentum,
    check_non_negative,
    is_traced,
)
from ntkdecay.predict._request import Origin
from ntkdecay.predict._response import exprel
from ntkdecay.predict._state import Loss, Point, PredictFnState, Wide, predictor, wide_network

ALWAYS_IMPLICIT, NEVER_IMPLICIT = 512, 2048  # outputs, up to which and above which


def gradient_descent(
    loss: Loss,
    k_train_train: ArrayLike | Mapping[Hashable, ArrayLike],
    y_train: ArrayLike,
    *,
    l2: ArrayLike | Mapping[Hashable, ArrayLike],
    degree: float | None = None,
    learning_rate: ArrayLike = 1.0,
    momentum: ArrayLike | None = None,
    l2_from: Origin = "origin",
    trace_axes: int | tuple[int, ...] = (-1,),
    solver: diffrax.AbstractSolver | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> PredictFnState:
    r"""Gradient flow of an infinitely wide network on any loss, with L2.

    .. math:: \dot f = -e^{-2(k-1)\lambda t}\,\Theta_0\,\frac{\partial L}{\partial f} - k\lambda f

    Eq. (1), Theorem 1 of Lewkowycz & Gur-Ari (2020), solved on its state: f = a^k f_0 + a^{k−1} Θ_0 w with
    ȧ = −λa and ẇ = −λw − a^{k−1} ∂L/∂f, which serves training and test points alike. With momentum β it is
    the continuous limit that `neural_tangents.predict.gradient_descent` uses, θ̈ = −∇L_tot + (β−1)/√η θ̇ in
    time √η × t. The calling conventions are those of that function, whose numbers `l2=0` gives.

    Args:
        loss: `loss(fx_train, y_train)`, a scalar, without the L2 term.
        k_train_train: Θ_0 on the training points, of shape `zip(y_train.shape, y_train.shape)` without
            `trace_axes`; or a mapping from each layer to its part Θ^(l), with `l2` a mapping likewise.
        y_train: labels, samples on the first axis.
        l2: λ >= 0 of L_tot = L + λ/2 ‖θ‖²; or λ_l for each layer of a network of degree 1 in each.
        degree: k of the network; not needed with a mapping.
        learning_rate: multiplies every rate, so that gradient-flow time is `learning_rate` × t.
        momentum: β, or None.
        l2_from: "origin": the penalty is on θ; "init": on θ − θ_0, and the kernel stands still.
        trace_axes: output axes that the kernels lack, along which they are block-diagonal.
        solver: of diffrax. By default Kvaerno5, implicit, for up to 512 outputs in all, else Tsit5, explicit,
            whose steps are at most about 3/γ_max long, with γ_max the fastest rate of the flow; up to 2048
            outputs Kvaerno5 again where Tsit5 would take more than 10 steps for each output. A step of Kvaerno5
            factorizes a matrix of outputs², one of Tsit5 is a few products with the kernel.
        rtol, atol: tolerances of a step; by default 1e-6 and 1e-8 in float64, 1e-4 and 1e-5 in float32.
            At an eigenvalue ratio of 1e8 rounding forbids an implicit solver much tighter ones.
        max_steps: an error after as many, and at once where an explicit solver would take more.

    Returns:
        `predict_fn(t=None, fx_train_or_state_0=0., fx_test_0=None, k_test_train=None)`, with t ascending. Given
        a `State` it returns a `State` (of the last time if t is an array: one per time), from which a later
        call goes on. t=None and inf stop where nothing moves any more. Differentiable with respect to l2,
        learning_rate and y_train.

    Raises:
        ValueError: as `gradient_descent_mse`; if mappings do not fit each other; if the flow is too stiff for the
            default solver.
    """
    l2 = check_l2(l2)
    momentum = check_momentum(momentum)
    if not (rtol is None or rtol > 0) or not (atol is None or atol > 0):
        raise ValueError(f"`rtol` is {rtol} and `atol` is {atol}; tolerances must be > 0.")
    learning_rate = check_non_negative(
        learning_rate, "learning_rate", "it turns steps into gradient-flow time"
    )
    net = wide_network(k_train_train, y_train, l2, degree, l2_from, trace_axes)
    dtype = net.y.dtype
    rates = net.rates_of_l2(l2)
    unit = jnp.asarray(learning_rate, dtype)
    friction = None
    if momentum is not None:
        unit = jnp.sqrt(unit)
        friction = (jnp.asarray(momentum, dtype) - 1) / unit
    double = dtype == jnp.float64
    rtol, atol = rtol or (1e-6 if double else 1e-4), atol or (1e-8 if double else 1e-5)

    def clock(t: ArrayLike | None) -> Array:
        t = check_non_negative(
            jnp.inf if t is None else t, "t", "it counts from the state that is given"
        )
        return unit * check_ascending(jnp.asarray(t, dtype))

    def advance(times: Array, point: Point, velocity: Point, f0: Array, _) -> tuple[Point, Point]:
        chosen = solver
        if chosen is None:
            steps = None
            if net.y.size > ALWAYS_IMPLICIT and not is_traced(net.kernels, rates, times, point, f0):
                steps = _explicit_steps(net, loss, point, f0, rates, times[-1], friction)
            chosen = _solver(net.y.size, steps, max_steps)
        return solve(times, point, velocity, f0, chosen)

    @partial(jax.jit, static_argnums=4)
    def solve(
        times: Array,
        point: Point,
        velocity: Point,
        f0: Array,
        solver: diffrax.AbstractSolver,
    ) -> tuple[Point, Point]:
        def flow(_, y, args):
            point, velocity = y if friction is not None else (y, None)
            slope = net.slope(loss, net.outputs(point, f0, net.kernels), net.y)
            force = jax.tree.map(jnp.negative, net.gradient(point, slope, rates))
            if friction is None:
                return force
            return velocity, jax.tree.map(lambda f, v: f + friction * v, force, velocity)

        standstill = diffrax.steady_state_event(rtol, atol)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(flow),
            solver,
            t0=jnp.zeros((), dtype),
            t1=times[-1],
            dt0=None,
            y0=point if friction is None else (point, velocity),
            saveat=diffrax.SaveAt(
                subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)]  # pyright: ignore
            ),
            stepsize_controller=diffrax.PIDController(rtol, atol),
            event=diffrax.Event(lambda *args, **kw: jnp.isinf(times[-1]) & standstill(*args, **kw)),
            max_steps=max_steps,
        )
        saved, end = solution.ys  # pyright: ignore
        # A time that was not reached is one after everything stood still.
        saved = jax.tree.map(lambda s, e: jnp.where(jnp.isfinite(s), s, e), saved, end)
        if friction is not None:
            return saved
        return saved, jax.tree.map(
            lambda leaf: jnp.zeros((times.size, *leaf.shape), dtype), velocity
        )

    return predictor(net, clock, advance)


def _solver(outputs: int, steps: float | None, max_steps: int) -> diffrax.AbstractSolver:
    """The default: explicit or implicit, by what each costs; `steps` is None where it is not known."""
    if outputs <= ALWAYS_IMPLICIT:
        return diffrax.Kvaerno5()
    if steps is None or steps <= 10 * outputs:
        return diffrax.Tsit5()
    if outputs <= NEVER_IMPLICIT:
        return diffrax.Kvaerno5()
    if max_steps < steps < jnp.inf:
        raise ValueError(
            f"The flow is stiff: until the last `t` an explicit solver takes about {steps:.0e} steps, more than "
            f"`max_steps` = {max_steps}; ask for earlier times, raise `max_steps`, or pass solver=diffrax.Kvaerno5(), "
            f"which factorizes a matrix of {outputs} × {outputs} in each of a few hundred steps."
        )
    return diffrax.Tsit5()


def _explicit_steps(
    net: Wide,
    loss: Loss,
    point: Point,
    f0: Array,
    l2: Array,
    time: Array,
    friction: Array | None,
) -> float:
    """About how many steps Tsit5 takes, inf if nothing says when the flow stands still."""
    fastest, slowest = _fastest(net, loss, point, f0), l2.min()
    time = jnp.minimum(time, 20 / slowest)
    if friction is not None:
        return float(jnp.sqrt(fastest) * time / 3)
    degree = len(net.kernels) if net.layers is not None else net.degree
    c = 0.0 if net.l2_from == "init" else 2 * (degree - 1) * slowest
    return float(fastest * jnp.where(c == 0, time, time * exprel(-c * time)) / 3)


def _fastest(net: Wide, loss: Loss, point: Point, f0: Array) -> Array:
    """The largest eigenvalue of a^{2(k−1)} Θ_0 ∂²L/∂f² at `point`, by power iteration."""

    def force(w: Array) -> Array:
        slope = net.slope(loss, net.outputs(Point(point.a, w), f0, net.kernels), net.y)
        return net.gradient(Point(point.a, w), slope, jnp.zeros_like(point.a)).w

    def iterate(_, state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, size = state
        v = jax.jvp(force, (point.w,), (v / jnp.where(size > 0, size, 1.0),))[1]
        return v, jnp.linalg.norm(v.reshape(-1))

    v = jax.random.normal(jax.random.key(0), point.w.shape, point.w.dtype)
    return jax.lax.fori_loop(0, 20, iterate, (v, jnp.linalg.norm(v.reshape(-1))))[1]
