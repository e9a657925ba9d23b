"""gradient_descent and sgd: the state (a, w) against the closed form, neural-tangents, steps written out."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay._neural_tangents import predict as nt_predict
from ntkdecay.predict import PiecewiseConstant, State, gradient_descent, gradient_descent_mse, sgd

N, N_TEST, OUTPUTS = 6, 3, 2
TIGHT = {"rtol": 1e-12, "atol": 1e-14, "solver": diffrax.Dopri8()}


def normal(key, *shape):
    return np.random.default_rng(key).normal(size=shape)


A = normal(0, N + N_TEST, N + N_TEST)
K = A @ A.T / len(A) + 0.05 * np.eye(len(A))
K_TRAIN, K_TEST = K[:N, :N], K[N:, :N]
Y, START, START_TEST = normal(1, N, OUTPUTS), normal(2, N, OUTPUTS), normal(3, N_TEST, OUTPUTS)
T = np.array([0.0, 0.5, 3.0, 20.0])


class Kernels(NamedTuple):
    """As `kernel_fn` gives them."""

    nngp: np.ndarray
    ntk: np.ndarray


def squared_error(fx, y):
    return 0.5 * jnp.sum((fx - y) ** 2)


def cross_entropy(fx, y):
    return -jnp.mean(jnp.sum(jax.nn.log_softmax(fx) * y, -1))


def agree(ours, theirs, atol):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("l2_from", ["origin", "init"])
@pytest.mark.parametrize("degree", [0, 1, 3])
def test_flow_on_mse_is_the_closed_form(degree, l2_from):
    arguments = (T, START, START_TEST, K_TEST)
    options = {"l2": 0.1, "degree": degree, "learning_rate": 0.4, "l2_from": l2_from}
    flow = gradient_descent(squared_error, K_TRAIN, Y, **options, **TIGHT)(*arguments)
    agree(flow, gradient_descent_mse(K_TRAIN, Y, reduction="sum", **options)(*arguments), 1e-9)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_flow_at_l2_0_is_neural_tangents(momentum):
    theirs = nt_predict.gradient_descent(
        squared_error, jnp.asarray(K_TRAIN), jnp.asarray(Y), 0.3, momentum
    )
    with jax.numpy_rank_promotion("allow"):
        theirs = theirs(T[1:], jnp.asarray(START), jnp.asarray(START_TEST), jnp.asarray(K_TEST))
    ours = gradient_descent(squared_error, K_TRAIN, Y, 0.3, momentum, l2=0.0, degree=2, **TIGHT)(
        T[1:], START, START_TEST, K_TEST
    )
    agree(ours, theirs, 1e-5)  # their solver's tolerance


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_a_state_goes_on_where_it_was_left(momentum):
    predict_fn = gradient_descent(
        squared_error, K_TRAIN, Y, l2=0.1, degree=2, momentum=momentum, **TIGHT
    )
    half = predict_fn(1.0, State(START, START_TEST), None, K_TEST)
    whole = predict_fn(2.0, half, None, K_TEST)
    assert isinstance(whole, State)
    agree((whole.fx_train, whole.fx_test), predict_fn(3.0, START, START_TEST, K_TEST), 1e-10)
    if momentum is None:
        assert float(whole.scale[0]) == pytest.approx(np.exp(-0.3), rel=1e-10)


def test_an_eigenvalue_ratio_of_1e8_is_no_obstacle():
    """The slowest mode learns after 1e8 explicit steps; the implicit solver takes a few hundred."""
    q, _ = np.linalg.qr(normal(4, N, N))
    k = (q * np.geomspace(1e-4, 1e4, N)) @ q.T
    k = (k + k.T) / 2
    t = np.array([1e-3, 1.0, 1e4])
    flow = gradient_descent(squared_error, k, Y, l2=1e-5, degree=2, max_steps=5000)(t, START)
    exact = gradient_descent_mse(k, Y, l2=1e-5, degree=2, reduction="sum")(t, START)
    np.testing.assert_allclose(flow, exact, atol=1e-5)


@pytest.mark.slow
def test_above_512_outputs_a_stiff_flow_is_still_solved_implicitly():
    k = np.diag(np.geomspace(1e-4, 1e4, 27))
    y, t = normal(5, 27, 19), np.array([1e-3, 1.0, 1e4])
    flow = gradient_descent(squared_error, k, y, l2=1e-5, degree=2, max_steps=1000)(t)
    exact = gradient_descent_mse(k, y, l2=1e-5, degree=2, reduction="sum")(t)
    np.testing.assert_allclose(flow, exact, atol=5e-4)  # atol × the largest eigenvalue, and more


@pytest.mark.parametrize("predictor", [gradient_descent, sgd])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.nan * Y}, "`y_train` .* with NaN entries"),
        ({"y_train": Y + 1j}, "`y_train` .* dtype complex128"),
        ({"k_train_train": Kernels(K_TRAIN, K_TRAIN)}, r"`k_train_train` .*: its \.ntk, or its"),
        ({"k_train_train": K_TRAIN + 0j}, "`k_train_train` .* dtype complex128"),
        ({"k_train_train": K_TRAIN - np.eye(N)}, "not positive semi-definite: its smallest"),
        ({"l2": "0.1"}, "`l2` is '0.1'"),
        ({"degree": "2"}, "`degree`"),
        ({"loss": None}, "`loss` is None; it must be a function"),
        ({"l2": PiecewiseConstant([0.1], [1.0])}, "one boundary less"),
        ({"l2": PiecewiseConstant([0.1, 0.2], [-1.0])}, r"`l2.boundaries`"),
    ],
)
def test_what_was_silently_taken_is_refused(predictor, change, message):
    arguments = {
        "loss": squared_error, "k_train_train": K_TRAIN, "y_train": Y, "l2": 0.1, "degree": 2, "learning_rate": 0.1
    } | change  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=message):
        predictor(**arguments)


def test_what_a_trajectory_is_asked_is_checked():
    steps = sgd(squared_error, K_TRAIN, Y, l2=0.1, degree=2, learning_rate=0.01)
    flow = gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=2)
    for t in (np.int64(2**31), 2**32 + 3, 1e10, np.inf):  # 0, 3 and 2³¹ − 1 steps, once
        with pytest.raises(ValueError, match=r"`t` is .*; `sgd` takes one step after the other"):
            steps(t)
    for call, message in [
        (lambda: flow([]), "`t` is empty"),
        (lambda: steps([]), "`t` is empty"),
        (lambda: flow("1"), "`t` is '1'"),
        (lambda: flow(np.nan), "`t` is nan"),
        (lambda: flow(1j), "`t` is 1j"),
        (lambda: flow(1.0, np.nan * START), "`fx_train_or_state_0`"),
        (lambda: flow(1.0, START, START_TEST, Kernels(K_TEST, K_TEST)), r"`k_test_train` .*: its \.ntk"),
        (lambda: flow(1.0, START, START_TEST, np.nan * K_TEST), "`k_test_train` .* NaN"),
        (lambda: gradient_descent(squared_error, K_TRAIN, Y, l2=0, degree=2, max_steps=0), "max_steps"),
        (lambda: gradient_descent(lambda f, y: jnp.sum(jnp.sqrt(-(f**2))), K_TRAIN, Y, l2=0.1, degree=2)(1.0, START), "not finite"),
        (lambda: gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=2, max_steps=2)(9.0), "`max_steps` are over"),
        (lambda: gradient_descent(squared_error, K_TRAIN, Y, l2=lambda t: 0.1, degree=2), "`sgd` takes functions"),
    ]:  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            call()
        assert len(str(caught.value).splitlines()) <= 2


def test_infinite_time():
    one = gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=1)(None, START)
    np.testing.assert_allclose(
        one, K_TRAIN @ np.linalg.solve(K_TRAIN + 0.1 * np.eye(N), Y), atol=1e-6
    )
    assert (
        np.abs(
            gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=2, solver=diffrax.Tsit5())(
                np.inf, START
            )
        ).max()
        < 1e-6
    )


@pytest.mark.slow
def test_flow_is_differentiable_as_the_closed_form_is():
    def total(predictor, l2, rate, y):
        return jnp.sum(
            predictor(y, l2=l2, degree=2, learning_rate=rate)(2.0, START, START_TEST, K_TEST)[1]
        )

    arguments = (0.1, 0.4, jnp.asarray(Y))
    exact = jax.grad(
        lambda *a: total(lambda y, **o: gradient_descent_mse(K_TRAIN, y, reduction="sum", **o), *a),
        argnums=(0, 1, 2),
    )(*arguments)
    options = {"solver": diffrax.Tsit5(), "max_steps": 256}
    ours = jax.grad(
        lambda *a: total(
            lambda y, **o: gradient_descent(squared_error, K_TRAIN, y, **o, **options), *a
        ),
        argnums=(0, 1, 2),
    )(*arguments)
    agree(ours, exact, 1e-5)


@pytest.mark.parametrize("predictor", [gradient_descent, sgd])
def test_a_path_of_l2_in_one_call(predictor):
    def at(l2):
        options = {"learning_rate": 0.1} if predictor is sgd else {"solver": diffrax.Tsit5()}
        return predictor(cross_entropy, K_TRAIN, Y, l2=l2, degree=2, **options)(5, START)

    l2 = jnp.array([0.0, 1.0])
    one_by_one = [jax.jit(at)(one) for one in l2]
    np.testing.assert_allclose(jax.vmap(at)(l2), one_by_one, atol=1e-6)


def falling_l2(step):
    """A schedule in float64, which optax's own are not."""
    return jnp.maximum(0.0, 0.3 - jnp.asarray(step, float) / 40)


def falling_rate(step):
    return 0.05 * 0.5 ** (jnp.asarray(step, float) / 5)


def parameters_of_a_linearized_network(l2_from):
    """Explicit θ = (a, u) for f = a^k f_0 + a^{k−1} J u: the network that the state summarizes."""
    j = np.linalg.cholesky(K)
    f0 = np.concatenate([START, START_TEST])

    def f(theta, degree):
        a, u = theta
        return f0 + j @ u if l2_from == "init" else a**degree * f0 + a ** (degree - 1) * (j @ u)

    return f, (jnp.ones(()), jnp.zeros((len(K), OUTPUTS))), j


@pytest.mark.parametrize(("momentum", "nesterov"), [(None, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("batches", [None, np.random.default_rng(5).integers(0, N, (7, 3))])
@pytest.mark.parametrize("l2_from", ["origin", "init"])
def test_sgd_is_optax_on_the_parameters(momentum, nesterov, batches, l2_from):
    """optax.sgd on θ = aθ_0 + Jᵀw itself, w moving as the tangent features dictate, 15 steps."""
    degree, l2, rate = 2, falling_l2, falling_rate
    f, theta, j = parameters_of_a_linearized_network(l2_from)
    optimizer = optax.sgd(rate, momentum, nesterov)
    state, seen = optimizer.init(theta), []
    for step in range(15):
        chosen = np.arange(N) if batches is None else batches[step % len(batches)]
        fx = f(theta, degree)
        slope = jax.grad(squared_error)(fx[chosen], jnp.asarray(Y[chosen]))
        a, u = theta
        pull = np.zeros((len(K), OUTPUTS))
        np.add.at(pull, chosen, np.asarray(slope))
        factor = 1.0 if l2_from == "init" else a ** (degree - 1)
        gradient = (
            0.0 * a if l2_from == "init" else l2(step) * a,
            l2(step) * u + factor * (j.T @ pull),
        )
        change, state = optimizer.update(gradient, state)
        theta = optax.apply_updates(theta, change)
        seen.append(f(theta, degree))
    ours = sgd(
        squared_error, K_TRAIN, Y, l2=l2, degree=degree, learning_rate=rate, momentum=momentum,
        nesterov=nesterov, batches=batches, l2_from=l2_from,
    )(np.array([0, 1, 8, 15]), START, START_TEST, K_TEST)  # fmt: skip
    agree(
        ours,
        (
            np.stack([f0, *(seen[i][s] for i in (0, 7, 14))])
            for f0, s in ((START, slice(N)), (START_TEST, slice(N, None)))
        ),
        1e-11,
    )


def test_sgd_full_batch_is_the_recursion_of_f():
    """f ← α^k f − η α^{k−1} a^{2(k−1)} Θ_0 ∂L/∂f with α = 1 − ηλ."""
    eta, l2, k = 0.05, 0.4, 3
    f, a, alpha = START, 1.0, 1 - eta * l2
    for _ in range(20):
        f = alpha**k * f - eta * alpha ** (k - 1) * a ** (2 * (k - 1)) * K_TRAIN @ (f - Y)
        a *= alpha
    ours = sgd(squared_error, K_TRAIN, Y, l2=l2, degree=k, learning_rate=eta)(20, START)
    exact_in_eta = np.abs(np.asarray(ours) - f).max()
    assert exact_in_eta < 1e-12


def test_sgd_resumes_schedules_batches_and_momentum():
    options = {
        "l2": falling_l2, "degree": 2, "learning_rate": falling_rate,
        "momentum": 0.9, "batches": np.random.default_rng(5).integers(0, N, (7, 3)),
    }  # fmt: skip
    predict_fn = sgd(squared_error, K_TRAIN, Y, **options)
    later = predict_fn(9, predict_fn(6, State(START)))
    np.testing.assert_allclose(later.fx_train, predict_fn(15, START), atol=1e-13)
    assert int(later.age) == 15


@settings(max_examples=8)
@given(values=st.lists(st.floats(0, 2), min_size=3, max_size=3), degree=st.sampled_from([0, 2.5]))
def test_piecewise_constant_l2_composes_the_closed_form(values, degree):
    boundaries = np.array([0.7, 2.1])
    t = np.array([0.0, 0.7, 1.0, 2.5, 4.0])
    ours = gradient_descent_mse(
        K_TRAIN,
        Y,
        l2=PiecewiseConstant(np.array(values), boundaries),
        degree=degree,
        reduction="sum",
    )(t, START, START_TEST, K_TEST)
    edges = np.array([0.0, *boundaries, np.inf])
    for i, one in enumerate(t):
        state = State(START, START_TEST)
        for l2, low, high in zip(values, edges[:-1], edges[1:], strict=True):
            if one > low:
                flow = _flow(degree)
                state = flow(jnp.asarray(l2), jnp.asarray(min(one, high) - low), state)
        agree((ours[0][i], ours[1][i]), (state.fx_train, state.fx_test), 1e-10)


def _flow(degree, cache={}):  # noqa: B006
    """One compiled flow per degree, λ and duration traced."""
    if degree not in cache:
        cache[degree] = jax.jit(
            lambda l2, t, state: gradient_descent(
                squared_error, K_TRAIN, Y, l2=l2, degree=degree, **TIGHT
            )(t, state, None, K_TEST)
        )
    return cache[degree]


def test_pieces_with_the_same_l2_are_one():
    plain = gradient_descent_mse(K_TRAIN, Y, l2=0.2, degree=2, learning_rate=0.5)
    pieces = gradient_descent_mse(
        K_TRAIN, Y, l2=PiecewiseConstant([0.2, 0.2], [3.0]), degree=2, learning_rate=0.5
    )
    for t in (T, None):
        agree(pieces(t, START, START_TEST, K_TEST), plain(t, START, START_TEST, K_TEST), 1e-14)


def test_l2_from_init_ends_in_kernel_ridge_regression():
    ours = gradient_descent_mse(K_TRAIN, Y, l2=0.1, degree=1, reduction="sum", l2_from="init")
    _, test = ours(None, START, START_TEST, K_TEST)
    ridge = START_TEST + K_TEST @ np.linalg.solve(K_TRAIN + 0.1 * np.eye(N), Y - START)
    np.testing.assert_allclose(test, ridge, atol=1e-12)


LAYERS = {"first": 0.3, "second": 0.5, "third": 0.2}  # their shares of Θ


def test_per_layer_l2_reduces_to_theorem_1_when_all_are_equal():
    parts = {layer: share * K_TRAIN for layer, share in LAYERS.items()}
    tests = {layer: share * K_TEST for layer, share in LAYERS.items()}
    equal = dict.fromkeys(LAYERS, 0.1)
    ours = gradient_descent(squared_error, parts, Y, l2=equal, **TIGHT)(T, START, START_TEST, tests)
    closed = gradient_descent_mse(K_TRAIN, Y, l2=0.1, degree=3, reduction="sum")
    agree(ours, closed(T, START, START_TEST, K_TEST), 1e-10)
    steps = sgd(squared_error, parts, Y, l2=equal, learning_rate=0.05)(30, START, START_TEST, tests)
    whole = sgd(squared_error, K_TRAIN, Y, l2=0.1, degree=3, learning_rate=0.05)
    agree(steps, whole(30, START, START_TEST, K_TEST), 1e-12)


def test_per_layer_l2_against_its_ode_in_f():
    """f' = −Σ_l (Π_{m≠l} a_m)² Θ^(l) (f − y) − (Σλ_l) f with a_l = e^{−λ_l t}, one layer free."""
    l2 = {"first": 0.0, "second": 0.3, "third": 0.1}
    parts = {
        layer: K_TRAIN if layer == "first" else normal_kernel(i) for i, layer in enumerate(LAYERS)
    }

    def velocity(t, f, _):
        total = sum(l2.values())
        pull = sum(
            np.asarray(k) * jnp.exp(-2 * (total - l2[layer]) * t) for layer, k in parts.items()
        )
        return -pull @ (f - Y) - total * f

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity), diffrax.Dopri8(), 0.0, 5.0, None, jnp.asarray(START),
        stepsize_controller=diffrax.PIDController(1e-12, 1e-14), max_steps=10_000,
    )  # fmt: skip
    ours = gradient_descent(squared_error, parts, Y, l2=l2, **TIGHT)(5.0, START)
    np.testing.assert_allclose(ours, solution.ys[-1], atol=1e-11)


BLOCKS = {"body": (0.0, 0.15), "middle": (2.5, 0.1), "head": (1.0, 0.05)}  # k_b and λ_b


def blocks():
    """Kernels, λ and degrees of blocks."""
    parts = {block: 0.3 * normal_kernel(i) for i, block in enumerate(BLOCKS)}
    return parts, {b: l2 for b, (_, l2) in BLOCKS.items()}, {b: k for b, (k, _) in BLOCKS.items()}


def test_blocks_of_different_degree_against_their_ode_in_f():
    """f' = −Σ_b F_b² Θ^(b) (f − y) − (Σ k_b λ_b) f, F_b = e^{λ_b t} Π_m e^{−k_m λ_m t}."""
    parts, l2, degree = blocks()
    total = sum(k * rate for k, rate in BLOCKS.values())

    def velocity(t, f, _):
        pull = sum(np.asarray(parts[b]) * jnp.exp(2 * (l2[b] - total) * t) for b in BLOCKS)
        return -pull @ (f - Y) - total * f

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity), diffrax.Dopri8(), 0.0, 5.0, None, jnp.asarray(START),
        stepsize_controller=diffrax.PIDController(1e-12, 1e-14), max_steps=10_000,
    )  # fmt: skip
    predict_fn = gradient_descent(squared_error, parts, Y, l2=l2, degree=degree, **TIGHT)
    np.testing.assert_allclose(predict_fn(5.0, START), solution.ys[-1], atol=1e-11)
    assert "degree={'body': 0.0, 'middle': 2.5, 'head': 1.0}" in repr(predict_fn)


def test_steps_of_blocks_of_different_degree():
    """f ← Π α_b^{k_b} f − η Σ_b α_b^{−1} Π α_m^{k_m} F_b² Θ^(b) (f − y), α_b = 1 − ηλ_b."""
    parts, l2, degree = blocks()
    eta, f = 0.05, START
    alpha = {b: 1 - eta * l2[b] for b in BLOCKS}
    a = dict.fromkeys(BLOCKS, 1.0)
    for _ in range(20):
        shrink = np.prod([alpha[b] ** degree[b] for b in BLOCKS])
        whole = np.prod([a[b] ** degree[b] for b in BLOCKS])
        pull = sum((whole / a[b]) ** 2 / alpha[b] * np.asarray(parts[b]) for b in BLOCKS)
        f = shrink * (f - eta * pull @ (f - Y))
        a = {b: alpha[b] * a[b] for b in BLOCKS}
    found = sgd(squared_error, parts, Y, eta, l2=l2, degree=degree)(20, START)
    np.testing.assert_allclose(found, f, atol=1e-12)


def test_blocks_of_one_l2_are_the_network_of_their_degrees_sum():
    parts = {"low": 0.6 * K_TRAIN, "high": 0.4 * K_TRAIN}
    l2, degree = {"low": 0.1, "high": 0.1}, {"low": 2, "high": 1.5}
    ours = gradient_descent(squared_error, parts, Y, l2=l2, degree=degree, **TIGHT)(T, START)
    closed = gradient_descent_mse(K_TRAIN, Y, l2=0.1, degree=3.5, reduction="sum")(T, START)
    np.testing.assert_allclose(ours, closed, atol=1e-10)


def normal_kernel(key):
    a = normal(10 + key, N, N)
    return a @ a.T / N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l2": -0.1}, "`l2` is -0.1; it must be a number >= 0"),
        ({"degree": None}, "`degree` is None"),
        ({"l2": {"a": 0.1}}, "both `l2` and `k_train_train` as mappings"),
        ({"k_train_train": {"a": K_TRAIN}}, "both `l2` and `k_train_train` as mappings"),
        ({"k_train_train": {"a": K_TRAIN}, "l2": {"b": 0.1}}, r"`l2` names the blocks \['b'\]"),
        ({"k_train_train": {"a": K_TRAIN}, "l2": {"a": 0.1}, "degree": 3}, "leave `degree` out"),
        ({"degree": {"a": 1}}, "must be mappings from the same blocks"),
        (
            {"k_train_train": {"a": K_TRAIN}, "l2": {"a": 0.1}, "degree": {"b": 0}},
            r"`degree` names the blocks \['b'\], `l2` \['a'\]",
        ),
        (
            {"k_train_train": {"a": K_TRAIN}, "l2": {"a": 0.1}, "degree": {"a": -1}},
            r"`degree\['a'\]` is -1; it must be 0",
        ),
        ({"l2_from": "zero"}, "`l2_from` is 'zero'"),
        ({"learning_rate": -1.0}, "`learning_rate` is -1.0; it must be a number >= 0"),
        ({"l2": [0.1, 0.2]}, r"`l2` has shape \(2,\); it must be a number"),
        (
            {"l2": {"a": -0.1}, "k_train_train": {"a": K_TRAIN}, "degree": None},
            r"`l2\['a'\]` is -0.1",
        ),
        ({"momentum": 1.0}, "`momentum` is 1.0; it must be a number >= 0 and < 1"),
        ({"momentum": -0.1}, "`momentum` is -0.1; it must be a number >= 0 and < 1"),
        ({"degree": 0.5}, "`degree` is 0.5"),
        ({"trace_axes": (0,)}, "not their samples"),
        ({"y_train": Y[:5]}, r"shape \(6, 6\), but labels of shape \(5, 2\)"),
        ({"k_train_train": np.nan * K_TRAIN}, "`k_train_train` .* with NaN entries"),
        ({"k_train_train": np.triu(K_TRAIN)}, "not symmetric"),
    ],
)
@pytest.mark.parametrize("predictor", [gradient_descent, sgd])
def test_bad_input_is_refused_in_one_sentence(predictor, change, message):
    arguments = {
        "k_train_train": K_TRAIN,
        "y_train": Y,
        "l2": 0.1,
        "degree": 2,
        "learning_rate": 0.1,
    } | change
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        predictor(squared_error, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (np.zeros(3, int), r"2 axes: \(steps, batch size\)"),
        (np.zeros((2, 2)), "dtype float64; it must be an array of integers"),
        ([[0, 6]], "there are 6 samples"),
    ],
)
def test_bad_batches_are_refused(batches, message):
    with pytest.raises((ValueError, TypeError), match=message):
        sgd(squared_error, K_TRAIN, Y, l2=0.1, degree=2, learning_rate=0.1, batches=batches)


def test_bad_times_and_schedules_are_refused():
    flow = gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=2)
    steps = sgd(squared_error, K_TRAIN, Y, l2=0.1, degree=2, learning_rate=0.1)
    for call, message in [
        (lambda: flow([2.0, 1.0]), "ascending"),
        (lambda: flow(-1.0), "`t` is -1.0; it must be an array of numbers >= 0"),
        (lambda: steps(-1), "`t` is -1; it must be an array of numbers >= 0"),
        (lambda: flow(1.0, None), "nothing to predict"),
        (lambda: flow(1.0, np.ones(3)), "`fx_train_or_state_0` has shape"),
        (lambda: flow(1.0, START, np.ones(2), K_TEST), "`fx_test_0` has shape"),
        (lambda: steps(1, START, 0.0, K_TEST[:, :5]), r"must be \(n_test, 6\)"),
        (lambda: steps(1, START, 0.0, {"a": K_TEST}), "as `k_train_train` is"),
        (lambda: steps(1, State(START, weights=np.ones((2, 2)))), "state of another network"),
        (lambda: gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=2, rtol=0.0), "> 0"),
        (lambda: gradient_descent(squared_error, K_TRAIN, Y, l2=0.1, degree=2, atol=-1.0), "> 0"),
        (lambda: steps([2, 1]), "ascending"),
        (lambda: steps(1.5), "whole numbers"),
        (lambda: steps(), "no limit to jump to"),
        (lambda: steps(1, State(START), START_TEST), "part of the `State`"),
        (lambda: flow(1.0, START, START_TEST), "`k_test_train`"),
        (
            lambda: gradient_descent_mse(K_TRAIN, Y, l2=PiecewiseConstant([0.1], [1.0]), degree=2),
            "one boundary less",
        ),
        (
            lambda: gradient_descent_mse(
                K_TRAIN, Y, l2=PiecewiseConstant([0.1, 0.2], [-1.0]), degree=2
            ),
            "`l2.boundaries`",
        ),
        (lambda: gradient_descent_mse(K_TRAIN, Y, l2=[0.1, 0.2], degree=2), "vmap over it"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
