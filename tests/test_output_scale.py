"""The α-scaled loss, its optimizers at every α, and what L2 does to the lazy limit."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from ntkdecay import kernels, predict
from ntkdecay import output_scale as scale

ALPHAS = 10.0 ** np.arange(-4, 5)
NET = scale.two_layer(width=24, outputs=2)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


X = scale.on_sphere(draw(0, 6, 2, 4))
Y = jnp.asarray(scale.one_against_all(np.array([0, 1, 1, 0, 1, 0]), 2))


def exponent(alphas, values):
    """Slope of ln(value) against ln(α)."""
    return np.polyfit(np.log(alphas), np.log(np.asarray(values)), 1)[0]


def vmapped(f, alphas):
    return jax.jit(jax.vmap(f))(jnp.asarray(alphas))


@pytest.fixture(scope="module")
def params_0():
    return NET.init(jax.random.key(1), X)


# The model and its loss


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0, 20.0])
def test_the_softplus_has_mean_square_one_to_rounding(beta):
    with mpmath.workdps(25):
        points = [-20, -5, -1, -0.3, -0.1, -0.03, 0, 0.03, 0.1, 0.3, 1, 5, 20]
        square = mpmath.quad(
            lambda z: (mpmath.log1p(mpmath.exp(beta * z)) / beta) ** 2 * mpmath.npdf(z), points
        )
        expected = mpmath.log1p(mpmath.exp(beta * mpmath.mpf("0.7"))) / beta / mpmath.sqrt(square)
    np.testing.assert_allclose(scale.scaled_softplus(beta)(0.7), float(expected), rtol=1e-14)


def test_the_network_is_11_to_13(params_0):
    w0, w1 = (np.asarray(w) for w in params_0)
    assert (w0.shape, w1.shape) == ((8, 24), (24, 2))
    z_hat = np.asarray(X) @ w0 / np.sqrt(8)
    z = np.asarray(scale.scaled_softplus(5.0)(jnp.asarray(z_hat)))
    np.testing.assert_allclose(NET.preactivations(params_0, X), z_hat, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(NET.apply(params_0, X), z @ w1 / np.sqrt(24), rtol=1e-12)
    images = jnp.reshape(X, (6, 2, 4))
    np.testing.assert_array_equal(NET.apply(params_0, images), NET.apply(params_0, X))
    assert scale.two_layer(24, 2) is scale.two_layer(24, 2)


def test_outputs_of_wide_networks_have_variance_one():
    net = scale.two_layer(width=1000, outputs=4000)
    fx = net.apply(net.init(jax.random.key(0), X), X)
    np.testing.assert_allclose(jnp.mean(fx**2), 1.0, atol=0.05)  # 24,000 numbers, 6 independent ẑ
    np.testing.assert_allclose(jnp.sum(X**2, axis=1), 8.0, rtol=1e-14)


def test_the_soft_hinge_and_the_loss_at_the_start_are_the_same_for_every_alpha(params_0):
    fx = np.array([[-0.5, 2.0], [0.99, -1.1]])
    y = np.array([[1.0, -1.0], [1.0, -1.0]])
    np.testing.assert_allclose(
        scale.soft_hinge(fx, y, beta=3.0), np.log1p(np.exp(3 * (1 - fx * y))) / 3, rtol=1e-14
    )
    np.testing.assert_allclose(scale.soft_hinge(fx, y, beta=1e6), np.maximum(0, 1 - fx * y))

    def start(alpha):
        network = scale.centred(NET.apply, params_0, alpha)
        fx = network(jax.tree.map(lambda p: 1.1 * p, params_0), X)
        zero = scale.scaled_loss(scale.soft_hinge, alpha)(network(params_0, X), Y)
        return fx / alpha, zero * alpha**2

    moved, zero = vmapped(start, ALPHAS)
    np.testing.assert_allclose(moved, jnp.broadcast_to(moved[4], moved.shape), rtol=1e-12)
    np.testing.assert_allclose(
        zero, 2 * np.log1p(np.exp(20)) / 20, rtol=1e-12
    )  # two outputs add up
    one = scale.scaled_loss(scale.soft_hinge, 2.0)(jnp.array([0.5, 0.2]), jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(one, (np.log1p(np.exp(10)) + np.log1p(np.exp(24))) / 20 / 2 / 4)


# The optimizers

PAIRS = {
    "rms": (scale.scale_by_rescaled_rms(1.0), optax.scale_by_rms(0.999, 1e-8, eps_in_sqrt=False)),
    "rms, ε inside, corrected": (
        scale.scale_by_rescaled_rms(1.0, 0.9, 1e-4, eps_in_sqrt=True, bias_correction=True),
        optax.scale_by_rms(0.9, 1e-4, eps_in_sqrt=True, bias_correction=True),
    ),
    "rmsprop": (
        scale.rescaled_rmsprop(0.1, 1.0, 0.9, momentum=0.8, nesterov=True, initial_scale=0.5),
        optax.rmsprop(0.1, 0.9, 1e-8, 0.5, False, momentum=0.8, nesterov=True),
    ),
    "scale by adam": (scale.scale_by_rescaled_adam(1.0), optax.scale_by_adam()),
    "adam": (
        scale.rescaled_adam(0.1, 1.0, 0.8, 0.95, 1e-4, 1e-6, nesterov=True),
        optax.adam(0.1, 0.8, 0.95, 1e-4, 1e-6, nesterov=True),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_at_alpha_one_they_are_optaxs_own_bit_for_bit(name):
    slopes = jnp.asarray(draw(2, 20, 3, 2))
    params = jnp.zeros((3, 2))

    def updates(optimizer):
        def step(state, slope):
            return optimizer.update(slope, state, params)[::-1]

        return jax.lax.scan(step, optimizer.init(params), slopes)[1]

    mine, theirs = (np.asarray(jax.jit(functools.partial(updates, one))()) for one in PAIRS[name])
    assert np.all(mine != 0)
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("eps_in_sqrt", [False, True])
def test_rescaled_rmsprop_is_algorithm_1_and_adam_rescales_only_v(eps_in_sqrt):
    alpha, eps = 30.0, 1e-3
    rms = scale.scale_by_rescaled_rms(alpha, 0.9, eps, eps_in_sqrt=eps_in_sqrt)
    adam = scale.scale_by_rescaled_adam(
        alpha, 0.8, 0.9, *((0.0, eps) if eps_in_sqrt else (eps, 0.0))
    )
    states = [optimizer.init(jnp.zeros(4)) for optimizer in (rms, adam)]
    v = m = 0.0
    for t in range(1, 6):
        g = draw(t, 4) / alpha
        v, m = 0.9 * v + 0.1 * (alpha * g) ** 2, 0.8 * m + 0.2 * g
        for i, (optimizer, up, moment) in enumerate(
            [(rms, g, v), (adam, m / (1 - 0.8**t), v / (1 - 0.9**t))]
        ):
            root = np.sqrt(moment + eps) if eps_in_sqrt else np.sqrt(moment) + eps
            found, states[i] = optimizer.update(jnp.asarray(g), states[i])
            np.testing.assert_allclose(found, up / root, rtol=1e-12)


def steps_of(make, params_0, steps, eta, outputs=NET.apply, y=Y):
    """α ↦ the effective learning rate of each step, and F and θ after the last."""

    def run(alpha):
        network = scale.centred(outputs, params_0, alpha)
        loss = scale.scaled_loss(scale.soft_hinge, alpha)
        optimizer = make(eta, alpha)

        def step(carry, _):
            params, state = carry
            slope = jax.grad(lambda p: loss(network(p, X), y))(params)
            updates, state = optimizer.update(slope, state, params)
            rate = scale.effective_learning_rate(updates, slope)
            return (optax.apply_updates(params, updates), state), rate

        start = (params_0, optimizer.init(params_0))
        (params, state), rates = jax.lax.scan(step, start, length=steps)
        return rates, network(params, X), params, state

    return run


def original(eps):
    return lambda eta, alpha: optax.rmsprop(eta, 0.999, eps, eps_in_sqrt=False)


def modified(eps):
    return lambda eta, alpha: scale.rescaled_rmsprop(eta, alpha, eps=eps)


@pytest.fixture(scope="module")
def slope_0(params_0):
    """αG at the start, which is the same for every α."""
    network = scale.centred(NET.apply, params_0, 1.0)
    return jax.grad(lambda p: scale.scaled_loss(scale.soft_hinge, 1.0)(network(p, X), Y))(params_0)


def test_exponents_of_the_effective_learning_rate(params_0, slope_0):
    """0 for the modified optimizer; for the original 1 below α* and 0 above (8), (9): first step, 1e-4…1e4."""
    v = scale.second_moment(slope_0)

    def rates(make):
        return vmapped(lambda alpha: steps_of(make, params_0, 1, 1e-3)(alpha)[0][0], ALPHAS)

    np.testing.assert_allclose(exponent(ALPHAS, rates(modified(1e-8))), 0, atol=1e-12)
    assert scale.critical_alpha(v) > 1e4  # the paper's ε
    np.testing.assert_allclose(exponent(ALPHAS, rates(original(1e-8))), 1, atol=0.01)

    eps = float(scale.critical_alpha(v)) * 1e-8  # α* = 1
    both = rates(original(eps))
    np.testing.assert_allclose(exponent(ALPHAS[:3], both[:3]), 1, atol=0.02)
    np.testing.assert_allclose(exponent(ALPHAS[-3:], both[-3:]), 0, atol=0.02)
    np.testing.assert_allclose(both[-1], 1e-3 / eps, rtol=0.01)
    assert 0.3 < both[4] * eps / 1e-3 < 0.7  # at α* half of η/ε, were all gradients equal


def test_critical_alpha_predicted_and_measured(params_0, slope_0):
    eps, steps, alpha = 1e-3, 10, 100.0
    predicted = scale.critical_alpha(scale.second_moment(slope_0, steps), eps=eps)
    for make, at in ((original(eps), alpha), (modified(eps), 1.0)):
        *_, state = jax.jit(steps_of(make, params_0, steps, 1e-9))(alpha)
        (v,) = (leaf for leaf in jax.tree.leaves(state, is_leaf=is_rms) if is_rms(leaf))
        np.testing.assert_allclose(scale.critical_alpha(v.nu, at, eps=eps), predicted, rtol=1e-3)


def is_rms(leaf):
    return isinstance(leaf, optax.ScaleByRmsState)


def test_lazy_trajectories_do_not_depend_on_alpha_with_the_modified_optimizer(params_0):
    """The distance of F falls like 1/α, as the movement of θ and of its kernel; the original's F grows like α."""
    alphas = 10.0 ** np.arange(3, 8)
    _, fx, params, _ = vmapped(steps_of(modified(1e-8), params_0, 30, 1e-3), alphas)
    distance = [jnp.max(abs(one - fx[-1])) for one in fx[:-2]]
    assert float(jnp.max(abs(fx[-1]))) > 0.1
    np.testing.assert_allclose(exponent(alphas[:-2], distance), -1, atol=0.05)
    ends = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in (0, 2)]
    moved = [scale.parameter_movement(end, params_0) for end in ends]
    np.testing.assert_allclose(exponent(alphas[:3:2], moved), -1, atol=0.01)
    kernel = [scale.kernel_movement(NET.apply, end, params_0, X) for end in ends]
    np.testing.assert_allclose(exponent(alphas[:3:2], kernel), -1, atol=0.05)

    _, fx, *_ = vmapped(steps_of(original(1e-12), params_0, 1, 1e-7), alphas)
    np.testing.assert_allclose(exponent(alphas, jnp.max(abs(fx), axis=(1, 2))), 1, atol=0.01)


def test_a_linear_model_has_one_trajectory_for_all_alphas():
    """Without any limit, and with Adam too; SGD rescaled is SGD."""
    params_0, outputs = jnp.asarray(draw(3, 8, 2)), lambda p, x: x @ p
    for make in (modified(1e-8), scale.rescaled_adam):
        fx = vmapped(steps_of(make, params_0, 20, 1e-2, outputs), ALPHAS)[1]
        np.testing.assert_allclose(fx, jnp.broadcast_to(fx[4], fx.shape), rtol=1e-6, atol=1e-9)
    sgd = [
        steps_of(make, params_0, 5, 0.1, outputs)(8.0)[1]
        for make in (
            lambda eta, _: optax.sgd(eta),
            lambda eta, a: scale.rescaled(optax.sgd(eta), a),
        )
    ]
    np.testing.assert_allclose(*sgd, rtol=1e-12)


# How lazy


def test_signs_and_movement_of_crafted_features(params_0):
    assert scale.sign_consistency(np.array([1.0, -2.0, 3.0, 0.0]), [2.0, 1.0, 0.1, 0.0]) == 0.75
    grown = jax.tree.map(lambda p: 1.2 * p, params_0)
    np.testing.assert_allclose(scale.parameter_movement(grown, params_0), 0.2, rtol=1e-12)
    features = (NET.preactivations(p, X) for p in (params_0, grown))
    assert scale.sign_consistency(*features) == 1


def test_the_kernel_of_a_homogeneous_network_moves_by_a_power_of_its_growth():
    def cubic(params, x):
        return (x @ params[0]) ** 2 @ params[1]  # degree 3: Θ grows by the fourth power

    params = [jnp.asarray(draw(4, *shape)) for shape in ((8, 5), (5, 2))]
    grown = [1.1 * p for p in params]
    for options in ({}, {"trace_axes": ()}):
        moved = scale.kernel_movement(cubic, grown, params, X, **options)
        np.testing.assert_allclose(moved, 1.1**4 - 1, rtol=1e-10)


# L2 and the lazy limit, in discrete time: a = (1 − ηλ)^t

STEPS, ETA, DEGREE = np.array([3, 20, 80]), 0.2, 2
BASIS = draw(5, 4, 4)
K, F_0 = jnp.asarray(BASIS @ BASIS.T / 4 + 0.5 * np.eye(4)), jnp.asarray(draw(6, 4, 1))
LABELS = jnp.asarray([[1.0], [-1.0], [-1.0], [1.0]])


def square(fx, y):
    return (fx - y) ** 2 / 2


@functools.partial(jax.jit, static_argnames="l2_from")
def lazy(alphas, l2s, k, f_0, l2_from="origin"):
    """F, (alphas, steps, n, 1), of the infinitely wide network trained on (3)."""

    def fx(alpha, l2):
        predict_fn = predict.sgd(
            scale.lazy_loss(square, alpha, f_0),
            k,
            LABELS,
            l2=l2,
            degree=DEGREE,
            learning_rate=ETA,
            l2_from=l2_from,
        )
        return alpha * (predict_fn(STEPS, f_0) - f_0[None])

    return jax.vmap(fx)(alphas, l2s)


def recursion(step, start=np.zeros((4, 1))):  # noqa: B008
    """F at STEPS of F ← step(t, F), in numpy."""
    path = [start]
    for t in range(STEPS[-1]):
        path.append(step(t, path[-1]))
    return np.stack([path[t] for t in STEPS])


def descent(fx):
    """ηΘ ∂ℓ/∂F."""
    return ETA * np.asarray(K) @ (fx - np.asarray(LABELS)) / 4


def test_l2_on_theta_minus_theta_0_is_ridge_regression_at_every_alpha():
    expected = recursion(lambda _, fx: (1 - ETA * 0.1) * fx - descent(fx))
    l2 = np.full(ALPHAS.shape, 0.1)
    found = lazy(ALPHAS, l2, K, F_0, "init")
    np.testing.assert_allclose(
        found, np.broadcast_to(expected[None], found.shape), rtol=1e-9, atol=1e-9
    )


def test_without_f_0_theorem_1_holds_at_every_alpha():
    """f ← s^k f − η s^{k−1} a^{2(k−1)} Θ_0 ∂L/∂f, s = 1 − ηλ, k = 2."""
    s = 1 - ETA * 0.1
    expected = recursion(lambda t, fx: s**2 * fx - s * s ** (2 * t) * descent(fx))
    found = lazy(ALPHAS, np.full(ALPHAS.shape, 0.1), K, 0 * F_0)
    np.testing.assert_allclose(
        found, np.broadcast_to(expected[None], found.shape), rtol=1e-9, atol=1e-9
    )
    assert np.max(abs(expected - recursion(lambda _, fx: fx - descent(fx)))) > 0.1


def test_three_scales_of_lambda():
    """λ ∝ α⁰: F grows like α; Λ/α: a drift −kΛt f_0 and a constant kernel; Λ/α²: as without L2, to 1/α."""
    alphas = 10.0 ** np.arange(2, 6)
    fixed = np.max(abs(lazy(alphas, np.full(alphas.shape, 0.3), K, F_0)), axis=(1, 2, 3))
    np.testing.assert_allclose(exponent(alphas, fixed), 1, atol=0.01)

    drift = recursion(lambda _, fx: fx - descent(fx) - ETA * DEGREE * 0.3 * np.asarray(F_0))
    plain = recursion(lambda _, fx: fx - descent(fx))
    assert np.max(abs(drift - plain)) > 0.1
    for power, limit in ((1, drift), (2, plain)):
        found = lazy(alphas, 0.3 / alphas**power, K, F_0)
        distance = np.max(abs(found - limit[None]), axis=(1, 2, 3))
        np.testing.assert_allclose(exponent(alphas, distance), -1, atol=0.02)


def test_the_offset_is_what_l2_alone_does_to_the_output():
    """With no kernel; a = e^{−λt} of gradient flow, for which (1 − ηλ)^t stands here."""
    alone = lazy(ALPHAS, np.full(ALPHAS.shape, 0.1), 0 * K, F_0)
    flow = -np.log1p(-ETA * 0.1) / 0.1 * STEPS[None, :, None, None]
    offset = scale.offset(flow, F_0[None, None], ALPHAS[:, None, None, None], 0.1, DEGREE)
    np.testing.assert_allclose(offset, alone, rtol=1e-9)


@pytest.mark.parametrize(("mirrored", "power"), [(False, -1), (True, -2)])
def test_large_alpha_does_what_width_does_for_theorem_1(mirrored, power):
    """A ReLU network of 20 units with f_0 = 0 tends to Theorem 1, in discrete time, like 1/α; λ is not small.

    Of a network minus its copy the correction of order 1/α cancels.
    """
    first, last = (draw(7, *shape) / np.sqrt(shape[0]) for shape in ((8, 20), (20, 1)))
    if mirrored:
        first, last = np.hstack([first[:, :10]] * 2), np.vstack([last[:10], -last[:10]])
    else:
        hidden = np.maximum(np.asarray(X) @ first, 0)
        last = last - np.linalg.pinv(hidden) @ (hidden @ last)
    params_0, y = [jnp.asarray(first), jnp.asarray(last)], Y[:, :1]
    eta, l2, steps = 0.1, 0.1, 60

    def outputs(params, x):
        return jax.nn.relu(x @ params[0]) @ params[1]

    k, loss = kernels.empirical_ntk(outputs, params_0, X), scale.scaled_loss(square, 1.0)
    limit, without = (
        predict.sgd(loss, k, y, l2=value, degree=2, learning_rate=eta)(steps) for value in (l2, 0.0)
    )
    assert jnp.max(abs(limit - without)) > 0.1

    @jax.jit
    @jax.vmap
    def distance(alpha):
        network = scale.centred(outputs, params_0, alpha)
        scaled = scale.scaled_loss(square, alpha)

        def step(_, params):
            slope = jax.grad(lambda p: scaled(network(p, X), y))(params)
            return jax.tree.map(lambda p, g: (1 - eta * l2) * p - eta * g, params, slope)

        return jnp.max(abs(network(jax.lax.fori_loop(0, steps, step, params_0), X) - limit))

    alphas = 10.0 ** np.arange(3, 6)  # below, a unit may change its sign on a sample
    np.testing.assert_allclose(exponent(alphas, distance(jnp.asarray(alphas))), power, atol=0.05)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (functools.partial(make, alpha), "`alpha` is .* > 0, finite")
            for make, alpha in itertools.product(
                (
                    lambda a: scale.centred(NET.apply, None, a),
                    lambda a: scale.scaled_loss(square, a),
                    lambda a: scale.rescaled_rmsprop(0.1, a),
                    lambda a: scale.scale_by_rescaled_adam(a),
                    lambda a: scale.lazy_loss(square, a, 0.0),
                    lambda a: scale.offset(1.0, 1.0, a, 0.1, 2),
                ),
                (0.0, -1.0, np.nan),
            )
        ),
        (lambda: scale.critical_alpha(jnp.ones(2), eps=0.0), "`eps` is 0.0"),
        (lambda: scale.soft_hinge(X, X), r"`y` has labels other than \+1 and −1"),
        (lambda: scale.soft_hinge(Y, Y, beta=0.0), "`beta` is 0.0"),
        (
            lambda: scale.one_against_all(np.array([0, 10]), 10),
            "`labels` go up to 10; .* from 0 to 9",
        ),
        (lambda: scale.one_against_all(np.array([[0]]), 10), r"shape \(1, 1\)"),
        (lambda: scale.scaled_loss(square, 1.0)(Y, Y[:, 0]), r"`fx` of \(6, 2\), `y` of \(6,\)"),
        (lambda: scale.scaled_loss(lambda f, y: jnp.mean(f), 1.0)(Y, Y), r"gives shape \(\)"),
        (lambda: scale.two_layer(0), "`width` is 0"),
        (lambda: scale.scaled_softplus(-5.0), "`beta` is -5.0"),
        (lambda: scale.on_sphere(np.zeros((2, 3))), "all zeros"),
        (lambda: scale.sign_consistency(X, X[:3]), r"`before` of \(6, 8\), `after` of \(3, 8\)"),
    ],
)
def test_bad_input_is_said_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
