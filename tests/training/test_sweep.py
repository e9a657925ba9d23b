"""The engine against the same steps written out, and the promises of its grid and its store."""

import contextlib

import grid as small
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import training
from ntkdecay.training import _dataset, _engine, accuracy, init_key, sweep, train


@contextlib.contextmanager
def compilations():
    """What XLA compiles meanwhile."""
    made, over = [], []

    def heard(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration" and not over:
            made.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield made
    over.append(True)


RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 1))
LABELS = RNG.integers(0, 3, size=12)


def init(key, w_std=1.0, outputs=1):
    first, second = jax.random.split(key)
    return {
        "w": w_std * jax.random.normal(first, (3, 4)),
        "v": w_std * jax.random.normal(second, (4, outputs)),
    }


PARAMS = init(jax.random.key(0))


def apply_fn(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["v"]


def loss(fx, y):
    return 0.5 * jnp.mean((fx - y) ** 2)


def sgd(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


gradient_of = jax.jit(jax.grad(lambda params, x, y: loss(apply_fn(params, x), y)))


def by_hand(params, optimizer, steps, l2=0.0):
    """The run as a plain Python loop."""
    moments = optimizer.init(params)
    for _ in range(steps):
        gradient = gradient_of(params, X, Y)
        gradient = jax.tree.map(lambda g, p: g + l2 * p, gradient, params)
        change, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, change)
    return params


GRID = {"learning_rate": [0.003, 0.03], "l2": [0.0, 0.2], "seed": [0, 1, 5]}


@pytest.fixture(scope="module")
def grid():
    return sweep(
        init, apply_fn, loss, sgd, GRID, X, Y, steps=20, record=[0, 7], members_per_batch=5, return_params=True,
        metrics={"loss": "loss", "total": "total_loss", "norm2": "norm2", "slope": "gradient_norm", "fx": lambda s: s.fx,
                 "rate": "effective_learning_rate"},
    )  # fmt: skip


def test_every_member_is_the_same_run_by_hand(grid):
    data, params = grid
    for i, rate in enumerate(GRID["learning_rate"]):
        for j, l2 in enumerate(GRID["l2"]):
            for k, seed in enumerate(GRID["seed"]):
                start = init(init_key(seed))
                for step in (0, 7, 20):
                    p = by_hand(start, sgd(rate), step, l2)
                    here = data.isel(learning_rate=i, l2=j, seed=k).sel(step=step)
                    np.testing.assert_allclose(here["fx"], apply_fn(p, X), rtol=1e-10)
                    np.testing.assert_allclose(here["loss"], loss(apply_fn(p, X), Y), rtol=1e-10)
                    norm2 = sum(np.sum(np.square(w)) for w in p.values())
                    np.testing.assert_allclose(here["norm2"], norm2, rtol=1e-10)
                    np.testing.assert_allclose(here["rate"], rate / norm2, rtol=1e-10)
                    total = here["loss"] + l2 / 2 * norm2
                    np.testing.assert_allclose(here["total"], total, rtol=1e-10)
                    slope = optax.tree.norm(gradient_of(p, X, Y))
                    np.testing.assert_allclose(here["slope"], slope, rtol=1e-9)
                np.testing.assert_allclose(params["w"][i, j, k], p["w"], rtol=1e-10)
    assert np.all(data["status"] == "done") and np.all(data["last_step"] == 20)


@pytest.mark.parametrize("members_per_batch", [1, 12])
def test_blocks_of_any_size_give_the_same_grid(grid, members_per_batch):
    data = sweep(
        init, apply_fn, loss, sgd, GRID, X, Y, steps=20, record=[0, 7], members_per_batch=members_per_batch, metrics=["loss"]
    )  # fmt: skip
    np.testing.assert_allclose(data["loss"], grid[0]["loss"], rtol=1e-12)


def test_coupled_l2_is_one_minus_eta_lambda_exactly():
    params = init(jax.random.key(3))
    run = train(
        apply_fn, params, lambda fx, y: 0 * jnp.sum(fx), X, Y, optax.sgd(0.25), steps=3, l2=0.5
    )
    for name, end in run.params.items():
        shrunk = ((params[name] * 0.875) * 0.875) * 0.875
        np.testing.assert_allclose(end, shrunk, rtol=3e-16)


def test_float32_members_stay_float32_under_x64():
    grid = {"learning_rate": [0.01], "l2": [0.1]}
    half = lambda key: jax.tree.map(lambda p: p.astype(jnp.float32), init(key))  # noqa: E731
    x, y = X.astype(np.float32), Y.astype(np.float32)
    data, params = sweep(
        half, apply_fn, loss, sgd, grid, x, y, steps=2, metrics=["loss"], return_params=True
    )
    assert data["loss"].dtype == params["w"].dtype == np.float32


def test_an_epoch_takes_every_sample_once_and_the_next_another_order():
    seen = sweep(
        lambda key: jnp.zeros(12), lambda p, x: p[None] + 0 * x[:, :1],
        lambda fx, y: jnp.sum(fx[jnp.arange(len(y)), y]), lambda: optax.sgd(1.0), {"seed": [0, 1]},
        X, np.arange(12), steps=6, batch_size=4, record=range(7), metrics={"p": lambda s: s.params},
    )["p"].to_numpy()  # fmt: skip
    batches = np.round(-np.diff(seen, axis=1)).astype(int)  # which samples each step saw
    assert np.all(batches.sum(-1) == 4)
    np.testing.assert_array_equal(batches[:, :3].sum(1), 1)
    np.testing.assert_array_equal(batches[:, 3:].sum(1), 1)
    assert not np.array_equal(batches[:, :3], batches[:, 3:])
    assert not np.array_equal(batches[0], batches[1])


def test_members_stop_at_their_own_step_and_stay_as_they_were():
    options = dict(
        record=[0, 2, 5, 9, 30], metrics=["loss"], return_params=True, members_per_batch=4
    )
    grid = {"learning_rate": [0.01, 0.02, 0.05, 0.1]}
    data, params = sweep(
        init, apply_fn, loss, sgd, grid, X, Y, steps=lambda learning_rate: 0.3 / learning_rate, **options
    )  # fmt: skip
    last = [30, 15, 6, 3]
    np.testing.assert_array_equal(data["last_step"], last)
    assert list(data["step"].values) == [0, 2, 3, 5, 6, 9, 15, 30]
    for i, step in enumerate(last):
        np.testing.assert_array_equal(np.isnan(data["loss"][i]), data["step"] > step)
        start = init(init_key(0))
        p = by_hand(start, sgd(grid["learning_rate"][i]), step)
        np.testing.assert_allclose(params["v"][i], p["v"], rtol=1e-10)


@pytest.mark.parametrize("members_per_batch", [1, 2])
def test_metrics_are_computed_only_where_they_are_recorded(members_per_batch):
    seen = []

    def metric(snapshot):
        jax.debug.callback(lambda step: seen.append(int(step)), snapshot.step)
        return snapshot.step

    rates = {"learning_rate": [0.01, 0.02]}
    sweep(
        init, apply_fn, loss, sgd, rates, X, Y,
        steps=300, record=[0, 300], metrics={"mine": metric}, members_per_batch=members_per_batch,
    )  # fmt: skip
    jax.effects_barrier()
    assert set(seen) == {0, 300}  # the chunks, of 16 steps at first, end elsewhere too


def test_a_long_run_that_is_measured_at_every_step():
    """64 steps of a call take no time here, so that each next one may be four times as long: but not without end."""
    cells = {"learning_rate": [0.001], "l2": [0.0], "seed": [0]}
    found, _ = small.grid(None, 4000, cells, record=np.arange(4001))
    assert found.sizes["step"] == 4001 and np.isfinite(found["loss"]).all()
    assert (found["status"] == "done").all()


def test_divergence_is_a_status_and_leaves_the_others_alone():
    data = sweep(
        init, apply_fn, loss, sgd, {"learning_rate": [0.1, 1e4]}, X, Y, steps=400, record=[0, 1, 50, 300], metrics=["loss"]
    )  # fmt: skip
    assert list(data["status"].values) == ["done", "diverged"]
    assert np.all(np.isfinite(data["loss"][0])) and 0 < data["last_step"][1] < 400
    assert np.all(np.isnan(data["loss"][1].where(data["step"] > data["last_step"][1], drop=True)))


def test_test_set_accuracy_and_evaluation_in_batches():
    make = lambda key: init(key, outputs=3)  # noqa: E731

    def cross_entropy(fx, y):
        return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()

    common = dict(steps=10, record=1, x_test=X[:7], y_test=LABELS[:7])
    data = [
        sweep(make, apply_fn, cross_entropy, lambda: optax.sgd(0.1), {}, X, LABELS, eval_batch_size=size, **common)
        for size in (None, 3)
    ]  # fmt: skip
    for name in ("accuracy", "test_accuracy", "test_loss", "loss"):
        np.testing.assert_allclose(data[0][name], data[1][name], rtol=1e-12)
    fx = apply_fn(make(init_key(0)), X)
    assert data[0]["accuracy"][0] == np.mean(np.argmax(fx, -1) == LABELS)


def test_functions_are_told_what_they_name():
    def centred(params, x, params_0, alpha):
        return alpha * (apply_fn(params, x) - apply_fn(params_0, x))

    data = sweep(
        init, centred, lambda fx, y, alpha: loss(fx, y) / alpha**2, lambda: optax.sgd(0.1),
        {"alpha": [0.5, 2.0], "w_std": [1.0, 3.0]}, X, Y, steps=3, record=[0],
        metrics={"loss": "loss", "norm2": "norm2"},
    )  # fmt: skip
    np.testing.assert_allclose(
        data["loss"].sel(step=0), np.mean(Y**2) / 2 / np.array([[0.25], [4]]) * [[1, 1]]
    )
    norms = data["norm2"].sel(step=0).values
    np.testing.assert_allclose(norms[:, 1], 9 * norms[:, 0])


def test_the_optimizer_hears_loss_and_error():
    def stop_when_good(limit):
        def update(updates, state, params=None, *, value, error):
            assert error.shape == value.shape == ()
            return jax.tree.map(lambda u: jnp.where(value > limit, -0.1 * u, 0.0), updates), state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    data = sweep(
        init,
        apply_fn,
        loss,
        stop_when_good,
        {"limit": [0.0, 0.6]},
        X,
        Y,
        steps=100,
        metrics=["loss"],
    )
    good = data["loss"].isel(step=-1).values
    assert good[0] < good[1] and 0.5 < good[1] <= 0.6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"grid": {"l2": [-1.0]}}, r"`grid\['l2'\]` is \[-1.0\]"),
        ({"grid": {"l2": [optax.linear_schedule(0.1, 0.2, 3)]}}, r"`grid\['l2'\]` is a list; it must be .* for a schedule of λ"),
        ({"grid": {"l2": [float("nan")]}}, r"`grid\['l2'\]`"),
        ({"grid": {"l2": [[1.0]]}}, r"`grid\['l2'\]` has shape"),
        ({"grid": {"l2": []}}, r"`grid\['l2'\]` is empty"),
        ({"grid": {"seed": [0.5]}}, r"`grid\['seed'\]`.* array of integers"),
        ({"grid": {"depth": [1]}}, "Nothing reads the `grid`'s `depth`"),
        ({"grid": {"learning_rate": [0.1]}}, "Nothing reads the `grid`'s `learning_rate`"),
        ({"grid": {"step": [1]}}, "`grid` has an axis 'step'"),
        ({"grid": {"loss": [1]}, "optimizer": lambda loss: optax.sgd(loss)}, "`metrics` has 'loss', which is an axis"),
        ({"batch_size": 13}, "`batch_size` is 13; .* the 12 samples"),
        ({"x_test": X}, "both `x_test` and `y_test`"),
        ({"x_test": X[:, :2], "y_test": Y}, "`x_test`'s samples"),
        ({"x": 1j}, "`x` is 1j"),
        ({"x": X[0, 0]}, "a sample in each row"),
        ({"steps": lambda depth: depth}, "`steps` asks for `depth`"),
        ({"steps": lambda l2: -1}, "`steps` gives from -1"),
        ({"steps": lambda l2: "many"}, "`steps` gives 'many'"),
        ({"record": [3, 2]}, r"`record` is \[3, 2\]; .* ascending"),
        ({"record": [0.5]}, r"`record` is \[0.5\]; .* whole"),
        ({"metrics": ["los"]}, "`metrics` asks for 'los'; there are loss"),
        ({"metrics": [lambda s: s.fx]}, "`metrics` has a function; .* a mapping from names"),
        ({"metrics": {"step": "loss"}}, "a name that the result uses"),
        ({"metrics": ["test_loss"]}, "asks for the test set"),
        ({"metrics": ["effective_learning_rate"]}, "needs `learning_rate`"),
        ({"optimizer": optax.sgd(0.1)}, "`optimizer` is a Grad.* `lambda: optax.sgd"),
        ({"optimizer": lambda learning_rate: None}, "`optimizer` asks for `learning_rate`"),
        ({"optimizer": lambda: 0.1}, "`optimizer` is 0.1; it must be a function that gives"),
        ({"init": lambda: None}, "`init` does not take"),
        ({"init": lambda key: 3}, "`init` is 3; .* a function that gives a tree"),
        ({"loss": lambda fx, y: fx - y}, "`loss` must give one number"),
        ({"augment": lambda key, x: x}, r"`augment` does not take .* \(key, x, y\)"),
        ({"eval_batch_size": 0}, "`eval_batch_size` is 0; it must be an integer >= 1"),
        ({"devices": []}, r"`devices` is \[\]"),
        ({"store": ""}, "`store` is empty"),
        ({"store": "a\0b"}, "`store`"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(change, sentence):
    """What the table of bad values does not hold: arguments that do not suit each other, and slips of the pen."""
    ordinary = {
        "init": init, "apply_fn": apply_fn, "loss": loss, "optimizer": lambda: optax.sgd(0.1), "grid": {"l2": [0.0]},
        "x": X, "y": Y, "steps": 1,
    }  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        sweep(**(ordinary | change))
    assert "\n" not in str(caught.value)


def test_what_is_measured_is_told_with_its_name():
    for name in training.METRICS:
        assert f"`{name}`" in (training.__doc__ or "") and _dataset.ATTRIBUTES[name][0]


def test_a_factory_is_no_optimizer_and_a_schedule_no_l2():
    with pytest.raises(
        TypeError, match=r"`optimizer` is a function; .* not a function that gives one"
    ):
        train(apply_fn, PARAMS, loss, X, Y, lambda: optax.sgd(0.1), steps=1)  # pyright: ignore
    with pytest.raises(TypeError, match=r"`l2` is a function; .* belongs into the optimizer"):
        schedule = optax.linear_schedule(0.1, 0.0, 10)
        train(apply_fn, PARAMS, loss, X, Y, optax.sgd(0.1), steps=1, l2=schedule)  # pyright: ignore


def test_training_is_no_part_of_a_traced_program():
    def end(scale):
        return train(apply_fn, PARAMS, loss, scale * X, Y, optax.sgd(0.1), steps=1)

    with pytest.raises(TypeError, match=r"`x` is traced; .* outside of jit, grad and vmap"):
        jax.jit(end)(1.0)


@pytest.mark.parametrize("progress", [None, False, True, "a name"])
def test_progress_is_a_bar_with_or_without_a_name(progress, capsys):
    train(apply_fn, PARAMS, loss, X, Y, optax.sgd(0.1), steps=1, progress=progress)
    said = capsys.readouterr().err
    assert bool(said) == bool(progress) and ("a name" in said) == (progress == "a name")


def test_the_bar_is_there_before_anything_is_compiled(capsys, monkeypatch):
    said, started = [], _engine.started

    def heard(*args):
        said.append(capsys.readouterr().err)
        return started(*args)

    monkeypatch.setattr(_engine, "started", heard)
    sweep(
        init, apply_fn, loss, sgd, {"learning_rate": [0.1, 0.2]}, X, Y, steps=3, progress="a name"
    )
    assert "a name" in said[0] and "initializing" in said[0] and "0.00/6.00" in said[0]
    rest = capsys.readouterr().err
    assert rest.index("compiling for 2 at a time") < rest.index("2 left, 2 at a time")
    assert "6.00/6.00" in rest


def test_accuracy_is_of_answers_alone():
    assert accuracy(np.array([1.0, -2.0]), np.array([1.0, 1.0])) == 0.5
    assert accuracy(np.eye(3), np.array([0, 1, 1])) == pytest.approx(2 / 3)
    for y in (LABELS, RNG.normal(size=(12, 2))):  # one output has no classes
        with pytest.raises(ValueError, match="`y` has shape"):
            accuracy(Y, y)


def test_a_column_of_class_numbers_is_named():
    def cross_entropy(fx, y):
        return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()

    params = init(jax.random.key(0), outputs=3)
    with pytest.raises(ValueError, match=r"integer labels of shape \(12, 1\): class numbers are"):
        train(apply_fn, params, cross_entropy, X, LABELS[:, None], optax.sgd(0.1), steps=1)


def test_seeds_that_would_be_one_member_in_32_bits_are_refused():
    with jax.enable_x64(False), pytest.raises(ValueError, match="4294967296, which int32 does not"):
        sweep(init, apply_fn, loss, lambda: optax.sgd(0.1), {"seed": [0, 2**32]}, X, Y, steps=1)


def test_a_member_whose_loss_is_not_finite_has_diverged():
    found = sweep(
        init, apply_fn, lambda fx, y, bad: loss(fx, y) + jnp.where(bad, jnp.nan, 0.0), lambda: optax.set_to_zero(),
        {"bad": [False, True]}, X, Y, steps=20, record=[0, 3],
    )  # fmt: skip
    assert list(found["status"].values) == ["done", "diverged"]
    assert list(found["last_step"].values) == [20, -1]


def test_a_second_call_compiles_nothing_even_with_functions_made_anew():
    def call(rates, shift=0.0):
        sweep(
            lambda key: init(key), lambda p, x: apply_fn(p, x), lambda fx, y: loss(fx, y), lambda learning_rate: sgd(learning_rate),
            {"learning_rate": rates}, X + shift, Y, steps=9, members_per_batch=2,
        )  # fmt: skip
        train(apply_fn, jax.tree.map(lambda p: p + shift, params), loss, X, Y, rule, steps=4)

    rule, params = optax.sgd(0.1), init(jax.random.key(0))
    call([0.1, 0.2])
    with compilations() as made:
        call([0.3, 0.4], shift=1.0)
    assert made == []
    with compilations() as made:
        sweep(
            init,
            apply_fn,
            lambda fx, y: 2 * loss(fx, y),
            sgd,
            {"learning_rate": [0.1, 0.2]},
            X,
            Y,
            steps=9,
        )
    assert made


SCALE = 1.0


def test_a_changed_global_is_not_an_old_program():
    global SCALE

    def scaled(params, x):
        return SCALE * apply_fn(params, x)

    def end():
        return sweep(
            init, scaled, loss, lambda: optax.sgd(0.1), {}, X, Y, steps=3, members_per_batch=1
        )["loss"][-1]

    first = end()
    SCALE = 2.0
    assert end() != first


def test_a_grid_too_large_says_how_many_members_fit(monkeypatch):
    from ntkdecay.training import _programs

    monkeypatch.setattr(_programs, "available_bytes", lambda device: 180_000)
    with pytest.raises(MemoryError, match=r"members_per_batch=\d+"):
        sweep(
            init,
            apply_fn,
            loss,
            sgd,
            {"learning_rate": [0.1], "seed": range(64)},
            X,
            Y,
            steps=1,
            members_per_batch=64,
        )
