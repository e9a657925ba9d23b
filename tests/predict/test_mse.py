"""gradient_descent_mse: neural-tangents' conventions and numbers at l2 = 0, Theorem 1's above."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ntkdecay import homogeneity
from ntkdecay._neural_tangents import predict as nt_predict
from ntkdecay.predict import gradient_descent_mse, mode, peak_time

N_TRAIN, N_TEST, OUTPUTS = 7, 4, 3
TIMES = (None, np.inf, 0.0, 3.0, np.array([[1.0, 2.0], [30.0, 400.0], [0.0, 1e5]]))


def psd(key: int, n: int) -> np.ndarray:
    a = np.random.default_rng(key).normal(size=(n, n))
    return a @ a.T / n + 0.05 * np.eye(n)


def normal(key: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(key).normal(size=shape)


@pytest.fixture(scope="module")
def case():
    """A joint kernel of training and test points, labels and starts."""
    k = psd(0, N_TRAIN + N_TEST)
    return {
        "k_train_train": k[:N_TRAIN, :N_TRAIN],
        "k_test_train": k[N_TRAIN:, :N_TRAIN],
        "y": normal(1, N_TRAIN, OUTPUTS),
        "start": normal(2, N_TRAIN, OUTPUTS),
        "start_test": normal(3, N_TEST, OUTPUTS),
    }


def both(args, t, y, k, trace_axes, learning_rate=1.0, degree=2):
    """The same call of neural-tangents (with its own lax broadcasting) and of ours."""
    with jax.numpy_rank_promotion("allow"):
        theirs = nt_predict.gradient_descent_mse(
            jnp.asarray(k), jnp.asarray(y), learning_rate=learning_rate, trace_axes=trace_axes
        )(t, *(jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args))
    ours = gradient_descent_mse(k, y, learning_rate, l2=0.0, degree=degree, trace_axes=trace_axes)(
        t, *args
    )
    return jax.tree.leaves(theirs), jax.tree.leaves(ours)


@pytest.mark.parametrize("t", TIMES, ids=["None", "inf", "0", "scalar", "array"])
@pytest.mark.parametrize("which", ["train", "both", "test only", "scalar starts"])
def test_l2_0_is_neural_tangents(case, t, which):
    start, start_test, k = case["start"], case["start_test"], case["k_test_train"]
    args = {
        "train": (start, None, None),
        "both": (start, start_test, k),
        "test only": (None, start_test, k),
        "scalar starts": (0.0, 0.0, k),
    }[which]
    theirs, ours = both(args, t, case["y"], case["k_train_train"], (-1,), learning_rate=0.3)
    assert len(theirs) == len(ours)
    for a, b in zip(theirs, ours, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12)


@pytest.mark.parametrize("trace_axes", [(), (1,), (2,), (1, 2), (-1,)])
def test_l2_0_is_neural_tangents_for_all_trace_axes(trace_axes):
    shape = (2, OUTPUTS)
    kept = tuple(n for axis, n in enumerate(shape, 1) if axis not in {a % 3 for a in trace_axes})
    m = int(np.prod(kept))
    k = (
        psd(4, (N_TRAIN + N_TEST) * m)
        .reshape(N_TRAIN + N_TEST, m, N_TRAIN + N_TEST, m)
        .transpose(0, 2, 1, 3)
    )
    pairs = tuple(n for size in kept for n in (size, size))

    def unzip(block):
        block = block.reshape(*block.shape[:2], *kept, *kept)
        order = [0, 1] + [2 + i + j * len(kept) for i in range(len(kept)) for j in range(2)]
        return block.transpose(order).reshape(*block.shape[:2], *pairs)

    k_train_train, k_test_train = unzip(k[:N_TRAIN, :N_TRAIN]), unzip(k[N_TRAIN:, :N_TRAIN])
    args = (normal(5, N_TRAIN, *shape), normal(6, N_TEST, *shape), k_test_train)
    t = np.array([1.0, 20.0])
    theirs, ours = both(args, t, normal(7, N_TRAIN, *shape), k_train_train, trace_axes)
    for a, b in zip(theirs, ours, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 1.5, 2, 3])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_it_solves_theorem_1_on_training_and_test_points(case, degree, reduction):
    l2, rate, t = 0.07, 0.6, np.array([0.1, 1.0, 5.0])
    y, k = case["y"], np.concatenate([case["k_train_train"], case["k_test_train"]])
    k = k / y.size if reduction == "mean" else k
    f0 = np.concatenate([case["start"], case["start_test"]])

    def velocity(time, f):
        f = f.reshape(f0.shape)
        pull = k @ (f[:N_TRAIN] - y) * np.exp(-2 * (degree - 1) * l2 * rate * time)
        return -rate * (pull + degree * l2 * f).ravel()

    solution = solve_ivp(velocity, (0, t[-1]), f0.ravel(), "DOP853", t, rtol=1e-11, atol=1e-13)
    expected = solution.y.T.reshape(len(t), *f0.shape)
    predict_fn = gradient_descent_mse(
        case["k_train_train"], y, l2=l2, degree=degree, reduction=reduction, learning_rate=rate
    )
    train, test = predict_fn(t, case["start"], case["start_test"], case["k_test_train"])
    np.testing.assert_allclose(train, expected[:, :N_TRAIN], rtol=0, atol=1e-9)
    np.testing.assert_allclose(test, expected[:, N_TRAIN:], rtol=0, atol=1e-9)


def test_training_points_given_as_test_points_agree(case):
    predict_fn = gradient_descent_mse(case["k_train_train"], case["y"], l2=0.3, degree=3)
    train, test = predict_fn(
        np.array([0.0, 0.5, 50.0]), case["start"], case["start"], case["k_train_train"]
    )
    np.testing.assert_allclose(test, train, rtol=0, atol=1e-13)


def test_infinite_time_is_ridge_regression_for_k_1_and_zero_for_k_2(case):
    k, y = case["k_train_train"], case["y"]
    ridge = k @ np.linalg.solve(k + 0.1 * np.eye(N_TRAIN), y)
    np.testing.assert_allclose(
        gradient_descent_mse(k, y, l2=0.1, degree=1, reduction="sum")(), ridge, atol=1e-13
    )
    assert not np.any(gradient_descent_mse(k, y, l2=0.1, degree=2)(None, case["start"]))


def test_a_singular_kernel_keeps_full_precision(case):
    """A null direction decays as e^{−kλt} and moves no test point; its 1/γ never appears."""
    k = psd(0, N_TRAIN + N_TEST) - 0.05 * np.eye(N_TRAIN + N_TEST)
    values, vectors = np.linalg.eigh(k)
    joint = (vectors * np.where(np.arange(values.size) < 8, 0, values)) @ vectors.T  # rank 3
    k, k_test = joint[:N_TRAIN, :N_TRAIN], joint[N_TRAIN:, :N_TRAIN]
    predict_fn = gradient_descent_mse(k, case["y"], l2=0.05, degree=2, reduction="sum")
    train, test = predict_fn(np.geomspace(1e-3, 1e4, 9), case["start"], case["start_test"], k_test)
    assert np.all(np.isfinite(train)) and np.all(np.isfinite(test))
    _, same = predict_fn(np.geomspace(1e-3, 1e4, 9), case["start"], case["start"], k)
    np.testing.assert_allclose(same, train, rtol=0, atol=1e-12)


def test_transformations(case):
    names = ("k_train_train", "y", "start", "start_test", "k_test_train")
    k, y, start, start_test, k_test = (case[name] for name in names)

    def total(l2, t, y, start):
        train, test = gradient_descent_mse(k, y, l2=l2, degree=2)(t, start, start_test, k_test)
        return jnp.sum(train**2) + jnp.sum(test**2)

    arguments = (0.1, 2.0, jnp.asarray(y), jnp.asarray(start))
    value, slopes = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(*arguments)
    assert float(value) == pytest.approx(float(total(*arguments)), rel=1e-13)
    total = jax.jit(total)
    for i, slope in enumerate(slopes):
        direction = np.ones_like(arguments[i])
        step = 1e-6 * direction
        up, down = (
            total(*arguments[:i], arguments[i] + d, *arguments[i + 1 :]) for d in (step, -step)
        )
        assert float(jnp.sum(slope * direction)) == pytest.approx(float(up - down) / 2e-6, rel=1e-6)
    l2 = jnp.array([0.0, 0.1, 3.0])
    path = jax.jit(jax.vmap(lambda one: total(one, *arguments[1:])))(l2)
    np.testing.assert_allclose(path, [total(float(one), *arguments[1:]) for one in l2], rtol=1e-13)


def test_float32_stays_float32_and_agrees(case):
    single = {name: np.asarray(value, np.float32) for name, value in case.items()}
    args = (np.float32(3.0), single["start"], single["start_test"], single["k_test_train"])
    train, test = gradient_descent_mse(single["k_train_train"], single["y"], l2=0.1, degree=2)(
        *args
    )
    assert train.dtype == test.dtype == np.float32
    exact = gradient_descent_mse(case["k_train_train"], case["y"], l2=0.1, degree=2)(
        3.0, case["start"], case["start_test"], case["k_test_train"]
    )
    np.testing.assert_allclose(train, exact[0], atol=1e-5)
    np.testing.assert_allclose(test, exact[1], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_train_train": np.ones((3, 4))}, r"shape \(3, 4\), but labels of shape \(7, 3\)"),
        ({"k_train_train": np.triu(np.ones((7, 7)))}, r"not symmetric \(largest difference 1\)"),
        (
            {"k_train_train": np.full((7, 7), np.nan)},
            "with NaN entries; it must be .* finite: the usual",
        ),
        (
            {"k_train_train": np.full((7, 7), np.inf)},
            "from inf to inf; it must be .* finite: the usual",
        ),
        ({"k_train_train": -np.eye(7)}, "smallest eigenvalue is -1; compute it in float64"),
        ({"y_train": np.ones((6, 3))}, r"labels of shape \(6, 3\)"),
        ({"l2": -1.0}, "`l2` is -1.0; it must be a number >= 0"),
        ({"degree": 0.5}, "`degree` is 0.5"),
        ({"learning_rate": -1.0}, "`learning_rate` is -1.0; it must be a number >= 0"),
        ({"reduction": "max"}, "`reduction` is 'max'"),
        ({"trace_axes": (0,)}, "not their samples"),
        ({"trace_axes": (5,)}, "output axes"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(case, change, message):
    arguments = {
        "k_train_train": case["k_train_train"],
        "y_train": case["y"],
        "l2": 0.1,
        "degree": 2,
    } | change
    for function in (gradient_descent_mse, peak_time):
        with pytest.raises(ValueError, match=message) as caught:
            function(
                arguments["k_train_train"],
                arguments["y_train"],
                **{k: v for k, v in arguments.items() if "train" not in k},
            )
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0,), "`t` is -1.0; it must be an array of numbers >= 0"),
        ((1.0, np.ones(4)), "`fx_train_0` has shape"),
        ((1.0, 0.0, 0.0), "`k_test_train` is None, but `fx_test_0` needs it"),
        ((1.0, None, None), "nothing to predict"),
        ((1.0, 0.0, 0.0, np.ones((4, 6))), r"must be \(n_test, 7\)"),
        ((1.0, 0.0, np.ones((5, 3)), np.ones((4, 7))), "`fx_test_0` has shape"),
    ],
)
def test_bad_input_of_the_predictor_is_refused(case, arguments, message):
    predict_fn = gradient_descent_mse(case["k_train_train"], case["y"], l2=0.1, degree=2)
    with pytest.raises(ValueError, match=message):
        predict_fn(*arguments)


@pytest.mark.parametrize("degree", [1, 2, 4.5])
def test_peak_time_is_the_minimum_of_the_loss(case, degree):
    y, start, l2 = case["y"], case["start"], 0.01
    peak = peak_time(case["k_train_train"], y, start, l2=l2, degree=degree, learning_rate=0.5)
    predict_fn = gradient_descent_mse(
        case["k_train_train"], y, l2=l2, degree=degree, learning_rate=0.5
    )
    t = np.geomspace(1e-2, 1e6, 4001)
    losses = jnp.sum((predict_fn(t, start) - y[None]) ** 2, axis=(1, 2))
    assert float(peak) == pytest.approx(t[np.argmin(losses)], rel=5e-3)
    slope = jax.jit(jax.grad(lambda t: jnp.sum((predict_fn(t, start) - y) ** 2)))(peak)
    assert abs(slope) * peak < 1e-10 * np.sum((start - y) ** 2)


def test_peak_time_of_one_mode_is_where_it_stands_still():
    gamma, l2 = 2.0, 0.1
    peak = peak_time([[gamma]], [[1.0]], l2=l2, degree=2, reduction="sum")
    assert abs(jax.jit(jax.grad(lambda t: mode(t, gamma, l2, 2)))(peak)) < 1e-14
    # only γ/λ and λt matter
    scaled = peak_time([[10 * gamma]], [[1.0]], l2=10 * l2, degree=2, reduction="sum")
    assert float(10 * scaled) == pytest.approx(float(peak), rel=1e-12)


def test_peak_time_is_differentiable_and_vmaps(case):
    def peak(l2):
        return peak_time(case["k_train_train"], case["y"], l2=l2, degree=2)

    l2 = jnp.array([0.003, 0.03])
    for one, slope in zip(l2, jax.jit(jax.vmap(jax.grad(peak)))(l2), strict=True):
        assert float(slope) == pytest.approx(
            float(peak(one * 1.0001) - peak(one * 0.9999)) / float(2e-4 * one), rel=1e-5
        )


@pytest.mark.parametrize(("l2", "degree"), [(0.0, 2), (0.1, 0), (0.1, 1)])
def test_peak_time_is_infinite_where_the_loss_falls_for_ever(case, l2, degree):
    assert peak_time(case["k_train_train"], case["y"], l2=l2, degree=degree) == np.inf


def test_the_derivative_at_time_0_is_theorem_1(case):
    k, y, start = case["k_train_train"], case["y"], case["start"]
    predict_fn = gradient_descent_mse(k, y, l2=0.1, degree=2, reduction="sum")
    slope = jax.jvp(lambda t: predict_fn(t, start), (0.0,), (1.0,))[1]
    np.testing.assert_allclose(slope, -k @ (start - y) - 2 * 0.1 * start, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "t", "error"),
    [(np.float64, None, 1e-12), (np.float64, 1e17, 1e-12), (np.float32, 1e8, 1e-3)],
)
def test_what_a_rank_deficient_kernel_cannot_learn_moves_no_point(dtype, t, error):
    x, x_test, y = normal(0, 100, 30), normal(1, 5, 30), normal(2, 100, 1)
    k, k_test = (np.asarray(one @ x.T, dtype) for one in (x, x_test))
    predict_fn = gradient_descent_mse(k, y.astype(dtype), l2=0.0, degree=2)
    weights = np.linalg.pinv(x) @ y
    for found, points in zip(predict_fn(t, 0.0, 0.0, k_test), (x, x_test), strict=True):
        np.testing.assert_allclose(found, points @ weights, atol=error)


def test_one_input_with_two_labels_ends_at_their_mean():
    x = np.repeat(normal(0, 4, 6), 2, axis=0)
    f = gradient_descent_mse(x @ x.T, normal(1, 8, 1), l2=0.0, degree=3)()
    mean = normal(1, 8, 1).reshape(4, 2).mean(1)
    np.testing.assert_allclose(f[:, 0], np.repeat(mean, 2), atol=1e-12)


@pytest.mark.parametrize("ratio", [1e-2, 1e3, 1e5, 1e7])
def test_peak_time_holds_in_float32_where_little_is_learned(ratio):
    single, double = (
        float(peak_time(dtype([[1]]), dtype([[1]]), l2=dtype(ratio), degree=2, reduction="sum"))
        for dtype in (np.float32, np.float64)
    )
    assert single == pytest.approx(double, rel=1e-4)


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-13), (np.float32, 1e-6)])
@pytest.mark.parametrize("ratio", [1e-16, 1e-30])
@pytest.mark.parametrize("degree", [1.5, 2, 3])
def test_peak_time_holds_where_l2_is_below_rounding(degree, ratio, dtype, error):
    """The law of one mode, t = ln(γ²/(2k(k−1)λ²))/γ, up to terms of order λ/γ ln²."""
    one = np.ones((1, 1), dtype)
    peak = peak_time(one, one, l2=dtype(ratio), degree=degree, reduction="sum")
    law = -np.log(2 * degree * (degree - 1)) - 2 * np.log(float(dtype(ratio)))
    assert float(peak) == pytest.approx(law, rel=error)


@pytest.mark.parametrize(
    ("measured", "meant"), [(0.9999999999999999, 1), (1.5e-16, 0), (1.9999999, 2)]
)
def test_a_measured_degree_is_taken(case, measured, meant):
    degree = homogeneity.Degree(measured, 1e-9)
    for one in [degree] if meant == 2 else [degree, measured]:
        np.testing.assert_array_equal(
            mode(1.0, 1.0, 0.1, one, 0.3), mode(1.0, 1.0, 0.1, meant, 0.3)
        )
        found = gradient_descent_mse(case["k_train_train"], case["y"], l2=0.1, degree=one)
        assert found.task.degree == meant
