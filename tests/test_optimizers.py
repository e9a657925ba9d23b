"""SGD with coupled L2, AutoL2 against its pseudo-code in plain Python, and λ = c/T with the paper's numbers."""

import functools
import inspect
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntkdecay import optimizers
from ntkdecay.optimizers import auto_l2, measure_c, optimal_l2, sgd

STEPS = 40


def grid(seed, shape=(5, 3)):
    """Numbers with few digits, so that a step of SGD with η and λ powers of 2 is exact."""
    return jnp.asarray(np.random.default_rng(seed).integers(-512, 512, shape) / 64.0)


def trained(optimizer, params, slopes):
    """The parameters after each step of the given gradients."""

    def step(carry, slope):
        params, state = carry
        updates, state = optimizer.update(slope, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), slopes)[1]


def test_a_step_of_sgd_shrinks_by_one_minus_eta_lambda_exactly():
    theta, slope, eta, l2 = grid(0), grid(1), 2.0**-3, 2.0**-5
    (after,) = trained(sgd(eta, l2=l2), theta, slope[None])
    np.testing.assert_array_equal(after, (1 - eta * l2) * theta - eta * slope)


def test_momentum_and_schedules_see_the_whole_gradient():
    theta, slopes = grid(2), grid(3, (6, 5, 3))
    eta = optax.piecewise_constant_schedule(0.1, {2: 0.5})
    l2 = optax.piecewise_constant_schedule(0.3, {3: 0.1})
    for nesterov in (False, True):
        found = trained(sgd(eta, l2=l2, momentum=0.9, nesterov=nesterov), theta, slopes)
        p, v = np.asarray(theta), 0.0
        for i, slope in enumerate(np.asarray(slopes)):
            g = slope + (0.3 if i < 3 else 0.03) * p
            v = 0.9 * v + g
            p = p - (0.1 if i < 2 else 0.05) * (g + 0.9 * v if nesterov else v)
            np.testing.assert_allclose(found[i], p, rtol=1e-12, atol=1e-12)


def test_sgd_runs_over_traced_eta_and_lambda_and_keeps_the_dtype():
    theta, slopes = grid(4), grid(5, (3, 5, 3))
    many = jax.vmap(lambda eta, l2: trained(sgd(eta, l2=l2, momentum=0.9), theta, slopes))
    etas, l2s = jnp.array([0.1, 0.2]), jnp.array([0.0, 0.5])
    one_by_one = [
        trained(sgd(float(eta), l2=float(l2), momentum=0.9), theta, slopes)
        for eta, l2 in zip(etas, l2s, strict=True)
    ]
    np.testing.assert_allclose(many(etas, l2s), jnp.stack(one_by_one), rtol=1e-14, atol=1e-14)
    single = trained(sgd(0.1, l2=0.3), theta.astype(jnp.float32), slopes.astype(jnp.float32))
    assert single.dtype == jnp.float32


def pseudo_code(losses, errors, l2, factor, refractory, every, patience):
    """λ at each step: SM E's Algorithm 1, line by line, with MINERROR where it prints ERROR, in exact fractions."""
    min_loss = min_error = np.inf
    min_step, path = 0, []
    l2, factor, refractory = (Fraction(str(number)) for number in (l2, factor, refractory))

    def before(series, t, k):
        return series[t - k * every] if t - k * every >= 0 else np.inf

    for t in range(len(losses)):
        if t % every == 0:
            rise = any(
                all(before(series, t, k) > least for k in range(patience))
                for series, least in ((losses, min_loss), (errors, min_error))
            )
            if rise and t > min_step:
                l2 = l2 / factor
                min_step = refractory / l2 + t
            else:
                min_loss = min(before(losses, t, patience - 1), min_loss)
                min_error = min(before(errors, t, patience - 1), min_error)
        path.append(float(l2))
    return path


@functools.partial(jax.jit, static_argnames="patience")
def run(losses, errors, l2, factor, refractory, every, patience):
    """λ at each step, read off the updates of zero gradients on θ = 1, and the last state."""
    optimizer = auto_l2(l2, factor=factor, refractory=refractory, every=every, patience=patience)
    params = jnp.ones(2)

    def step(state, measured):
        loss, error = measured
        updates, state = optimizer.update(
            jnp.zeros(2), state, params, value=loss, error=error, other=None
        )
        return state, updates[0]

    state, path = jax.lax.scan(step, optimizer.init(params), (losses, errors))
    return path, state


constants = st.tuples(
    st.sampled_from([0.1, 0.03, 1.0]),  # λ
    st.sampled_from([10.0, 3.0]),  # factor
    st.sampled_from([0.1, 0.0, 0.37]),  # refractory
    st.integers(1, 4),  # every
    st.integers(1, 3),  # patience
)
walks = st.lists(st.integers(-3, 2), min_size=STEPS, max_size=STEPS).map(
    np.cumsum
)  # new minima, ties


# The error rises just after a new minimum of the loss, which the pseudo-code then forgets.
FORGOTTEN = (
    np.array([5, 1, 2, 2, *range(0, 4 - STEPS, -1)]),
    np.array([0, 1, 1, *[0] * (STEPS - 3)]),
    (0.1, 10.0, 0.0, 1, 2),
)


@example(*FORGOTTEN)
@settings(max_examples=200)
@given(walks, walks, constants)
def test_auto_l2_is_its_pseudo_code_on_any_sequence(losses, errors, constants):
    losses, errors = losses.astype(float), errors.astype(float)
    path, _ = run(losses, errors, *constants)
    np.testing.assert_allclose(path, pseudo_code(losses, errors, *constants), rtol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("l2", ["0.1", "0.3", "0.7", "1"])
def test_lambda_rests_for_0_1_over_lambda_steps_to_the_step(l2, dtype):
    """In exact numbers: at t = MIN_STEP, which is not above itself, λ does not fall, one step later it does."""
    state = optimizers.auto_l2_state(float(l2), patience=1, dtype=dtype)
    state = optimizers.auto_l2_rule(state, -1.0)  # every later loss is above
    exact, step = Fraction(l2), 1
    for _ in range(6):
        fallen = optimizers.auto_l2_rule(state._replace(step=jnp.int32(step)), 0.0)
        exact /= 10
        np.testing.assert_allclose(fallen.l2, float(exact), rtol=1e-6)
        step += int(Fraction(1, 10) / exact)
        resting = optimizers.auto_l2_rule(fallen._replace(step=jnp.int32(step)), 0.0)
        assert resting.l2 == fallen.l2
        state, step = fallen, step + 1


FALLING = np.linspace(2.0, 1.0, STEPS)
DIP = np.abs(np.arange(STEPS) - 5.0)


@pytest.mark.parametrize(
    ("losses", "errors", "falls"),
    {
        "both fall": (FALLING, FALLING, []),
        "loss rises": (DIP, FALLING, [7, 18]),
        "error alone rises": (FALLING, DIP, [7, 18]),
        "one measurement is high": (np.where(np.arange(STEPS) == 9, 9.0, FALLING), FALLING, []),
        "equal to the minimum": (np.ones(STEPS), np.ones(STEPS), []),
        "NaN for a while": (np.where(np.arange(STEPS) < 3, np.nan, DIP), FALLING, [7, 18]),
    }.values(),
)
def test_lambda_falls_after_two_rises_and_rests_for_a_tenth_of_its_inverse(losses, errors, falls):
    path, _ = run(losses, errors, 0.1, 10.0, 0.1, 1, 2)
    np.testing.assert_array_equal(np.flatnonzero(np.diff(path)) + 1, falls)
    np.testing.assert_allclose(path[-1], 0.1 / 10 ** len(falls), rtol=1e-15)


def test_defaults_are_the_papers():
    defaults = {p.name: p.default for p in inspect.signature(auto_l2).parameters.values()}
    assert defaults == {"l2": 0.1, "factor": 10.0, "refractory": 0.1, "every": 10, "patience": 2}


def test_vmapped_auto_l2_equals_one_by_one():
    rng = np.random.default_rng(6)
    losses, errors = rng.integers(0, 5, (2, 3, STEPS)).astype(float)
    l2s, everys = jnp.array([0.1, 1.0, 0.03]), jnp.array([1, 2, 3])
    many = jax.vmap(lambda a, b, l2, every: run(a, b, l2, 10.0, 0.1, every, 2)[0])
    alone = [run(*row, 10.0, 0.1, every, 2)[0] for *row, every in zip(losses, errors, l2s, everys)]  # noqa: B905
    assert len({len(set(np.asarray(path))) for path in alone}) > 1
    np.testing.assert_array_equal(many(losses, errors, l2s, everys), alone)


def test_the_state_is_arrays_and_goes_on_from_where_it_was_kept():
    """A checkpoint keeps leaves and dtypes; the loss alone decides where there is no error."""
    optimizer = optax.chain(auto_l2(1.0, every=1, refractory=0.0), optax.sgd(0.1, 0.9))
    params = {"w": jnp.ones(2, jnp.float32), "b": jnp.ones((), jnp.float64)}
    slope = jax.tree.map(jnp.ones_like, params)

    @jax.jit
    def step(params, state, loss):
        updates, state = optimizer.update(slope, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    start = optimizer.init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(start))
    here, kept = (params, start), None
    for i, loss in enumerate([3.0, 1.0, 2.0, 2.0, 2.0, 2.0]):
        if i == 3:
            kept = [(np.asarray(leaf), leaf.dtype) for leaf in jax.tree.leaves(here)]
        here = step(*here, loss)
    treedef = jax.tree.structure(here)
    again = treedef.unflatten([jnp.asarray(value, dtype) for value, dtype in kept])
    for loss in [2.0, 2.0, 2.0]:
        again = step(*again, loss)
    jax.tree.map(np.testing.assert_array_equal, here, again)
    np.testing.assert_allclose(here[1][0].l2, 1e-3)
    same = jax.tree.map(lambda a, b: (a.dtype, a.shape) == (b.dtype, b.shape), start, here[1])
    assert all(jax.tree.leaves(same))


def test_lambda_is_c_over_t_with_the_papers_numbers():
    """SM A, Figures 1b and 4, and Section 3 with the schedule of Figure 1a."""
    times = np.array([50, 100, 250, 500, 1000, 1500, 2000])
    printed = [1.31e-4, 6.56e-5, 2.63e-5, 1.31e-5, 6.56e-6, 4.38e-6, 3.28e-6]
    c = measure_c(l2=0.01, time=0.6564)
    assert c == pytest.approx((0.006564,) * 3)
    np.testing.assert_allclose(optimal_l2(c, times), printed, rtol=4e-3)
    first = optimal_l2(c, 200, decays=[120, 60, 180])
    assert round(first, 4) == 0.0001 and first == pytest.approx(0.006564 / 60)
    assert optimal_l2(c, 30, decays=[60]) == pytest.approx(0.006564 / 30)


def test_c_is_the_median_and_c_prime_does_not_depend_on_eta():
    l2, eta = np.array([0.1, 0.3, 1.0]), np.array([0.01, 0.1, 0.2])
    time = np.array([0.7, 0.8, 1.3]) / (eta * l2)
    assert measure_c(l2, time, learning_rate=eta) == pytest.approx((0.8, 0.7, 1.3))
    assert measure_c(l2, time) == pytest.approx((8.0, 6.5, 70.0))
    assert optimal_l2(0.8, 100, learning_rate=0.1) == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sgd(0.1, l2=-1.0), "`l2` is -1.0; it must be a number >= 0"),
        (lambda: sgd(float("nan")), "`learning_rate` is nan"),
        (lambda: auto_l2(0.0), "`l2` is 0.0; it must be a number > 0"),
        (lambda: auto_l2(factor=0.1), "`factor` is 0.1; it must be a number > 1"),
        (lambda: auto_l2(refractory=-1.0), "`refractory` is -1.0"),
        (lambda: auto_l2(every=0), "`every` is 0; it must be an integer >= 1"),
        (lambda: auto_l2(patience=1.5), "`patience` is 1.5"),
        (lambda: measure_c([], []), "empty"),
        (lambda: measure_c([0.1, 0.0], [1.0, 2.0]), "`l2` is .*> 0, finite"),
        (lambda: measure_c(0.1, [1.0, np.inf]), "`time` is .*> 0, finite"),
        (lambda: optimal_l2(0.0, 10), "`c` is 0.0"),
        (lambda: optimal_l2(0.1, -10), "`time` is -10"),
        (lambda: optimal_l2(0.1, 10, decays=[0]), "`decays` is"),
    ],
)
def test_what_is_out_of_range_is_said_in_one_sentence(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_auto_l2_asks_for_the_parameters():
    optimizer = auto_l2()
    with pytest.raises(ValueError, match="`params` is None"):
        optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), value=1.0)


def test_the_rule_alone_is_the_transformation():
    losses = DIP
    path, last = run(losses, FALLING, 0.1, 10.0, 0.1, 1, 2)
    state, alone = optimizers.auto_l2_state(0.1), []
    for t, measured in enumerate(zip(losses, FALLING, strict=True)):
        state = optimizers.auto_l2_rule(state._replace(step=jnp.asarray(t)), *measured)
        alone.append(state.l2)
    np.testing.assert_array_equal(path, alone)
    np.testing.assert_array_equal(state.recent, last.recent)
