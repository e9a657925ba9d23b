"""A grid of 64 networks on digits in one program, against the same runs one after another, and a step's overhead.

The rivals train the same members: in a loop or a plain vmap on one device, by one jitted `lax.scan` for each,
compiled once, and by PyTorch. The grid has a device for each core, and its blocks are measured once before the clock
starts; compilation is not counted anywhere. The ratios of the fastest rounds are printed at the end.
"""

import itertools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import datasets
from ntkdecay.training import _engine, _places, _problem, _programs

MEMBERS, WIDTH, SAMPLES = 64, 128, 512
STEPS = {None: 40, 64: 200, 32: 400, 16: 400}  # by batch size
RATES = np.geomspace(0.01, 0.1, MEMBERS)
jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def init(key):
    keys, sizes = jax.random.split(key, 3), (64, WIDTH, WIDTH, 10)
    return [
        jax.random.normal(k, (a, b)) * (2 / a) ** 0.5
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def apply_fn(params, x):
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ params[-1]


def loss(fx, y):
    return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()


@pytest.fixture(scope="module")
def data():
    digits = datasets.load("digits")
    x = jnp.asarray(digits.x_train[:SAMPLES].reshape(SAMPLES, -1))
    return _problem.Data(x, jnp.asarray(digits.y_train[:SAMPLES]))


@pytest.fixture(scope="module")
def fastest():
    found = {}
    yield found
    for size in STEPS:
        name = "full batch" if size is None else f"batch {size}"
        grid = found.get(("grid", size))
        for rival in ("loop", "vmap", "scan", "torch"):
            if grid and (rival, size) in found:
                print(f"\n{name}: {rival} / grid {found[rival, size] / grid:.2f}")
        if ("one", size) in found and ("scan of one", size) in found:
            print(
                f"\n{name}: one member / lax.scan {found['one', size] / found['scan of one', size]:.3f}"
            )


def problem(size):
    return _problem.Problem(
        init, apply_fn, loss, lambda learning_rate: optax.sgd(learning_rate), None,
        (("loss", lambda s: s.loss_fn(s.fx, s.data.y)),), size, None,
    )  # fmt: skip


class Grid:
    """The engine's blocks, and the state that they start from."""

    def __init__(self, data, size, members, devices):
        self.size, self.members = size, members
        cells = {
            "learning_rate": jnp.asarray(RATES[:members]),
            "seed": jnp.zeros(members, jnp.int32),
        }
        states = _engine.started(problem(size), data, cells)
        places = _places.Places(devices)
        cells, self.states, data = (
            places.members(cells),
            places.members(states),
            places.everywhere(data),
        )
        self.programs = _programs.Programs(problem(size), data, cells, self.states, places)

    def chosen(self):
        """The fastest of the widths that a sweep tries."""
        rows = self.programs.rows
        return min((rows, 2 ** round(np.log2(rows) / 2), 1), key=self.seconds)

    def seconds(self, block):
        self.run(block)
        begin = time.perf_counter()
        self.run(block)
        return time.perf_counter() - begin

    def run(self, block):
        states = jax.tree.map(jnp.copy, self.states)
        living, ends = np.ones(self.members, bool), np.array([STEPS[self.size]])
        return jax.block_until_ready(self.programs.advance(block, states, living, 0, ends))


def scanned(data, size):
    """One member's steps as a bare scan, the rate its argument."""
    samples = len(data.x)

    @jax.jit
    def run(params, rate, key):
        optimizer = optax.sgd(rate)

        def step(carry, number):
            params, moments, order = carry
            if size is None:
                x, y = data.x, data.y
            else:
                per_epoch = samples // size
                order = jax.lax.cond(
                    number % per_epoch == 0,
                    lambda: jax.random.permutation(
                        jax.random.fold_in(key, number // per_epoch), samples
                    ),
                    lambda: order,
                )
                chosen = jax.lax.dynamic_slice(order, (number % per_epoch * size,), (size,))
                x, y = data.x[chosen], data.y[chosen]
            gradient = jax.grad(lambda p: loss(apply_fn(p, x), y))(params)
            change, moments = optimizer.update(gradient, moments)
            return (optax.apply_updates(params, change), moments, order), None

        start = params, optimizer.init(params), jnp.arange(samples)
        (params, _, _), _ = jax.lax.scan(step, start, jnp.arange(STEPS[size]))
        return params, loss(apply_fn(params, data.x), data.y)

    return run


@pytest.mark.parametrize("size", STEPS)
@pytest.mark.parametrize("who", ["grid", "loop", "vmap", "scan"])
def test_64_members(benchmark, fastest, data, size, who):
    benchmark.group = f"64 members, batch {size}"
    if who == "scan":
        run, params = scanned(data, size), init(jax.random.key(0))
        keys = jax.random.key(1)
        call = lambda: [jax.block_until_ready(run(params, rate, keys)) for rate in RATES]  # noqa: E731
    else:
        grid = Grid(data, size, MEMBERS, tuple(jax.devices()[: None if who == "grid" else 1]))
        block = {"grid": grid.chosen, "loop": lambda: 1, "vmap": lambda: MEMBERS}[who]()
        if who == "grid":
            print(f"\nbatch {size}: blocks of {block} on {len(jax.devices())} devices")
        call = lambda: grid.run(block)  # noqa: E731
    benchmark.pedantic(call, rounds=5, warmup_rounds=1)
    fastest[who, size] = benchmark.stats.stats.min


@pytest.mark.parametrize("size", STEPS)
@pytest.mark.parametrize("who", ["one", "scan of one"])
def test_overhead_of_a_step(benchmark, fastest, data, size, who):
    benchmark.group = f"one member, batch {size}"
    if who == "one":
        grid = Grid(data, size, 1, (jax.devices()[0],))
        call = lambda: grid.run(1)  # noqa: E731
    else:
        run, params, key = scanned(data, size), init(jax.random.key(0)), jax.random.key(1)
        call = lambda: jax.block_until_ready(run(params, RATES[0], key))  # noqa: E731
    benchmark.pedantic(call, rounds=20, warmup_rounds=2)
    fastest[who, size] = benchmark.stats.stats.min


@pytest.mark.parametrize("size", STEPS)
def test_torch(benchmark, fastest, data, size):
    torch = pytest.importorskip("torch")
    benchmark.group = f"64 members, batch {size}"
    x, y = torch.tensor(np.asarray(data.x)), torch.tensor(np.asarray(data.y)).long()

    def member(rate):
        sizes = (64, WIDTH, WIDTH, 10)
        params = [
            (torch.randn(a, b) * (2 / a) ** 0.5).requires_grad_()
            for a, b in itertools.pairwise(sizes)
        ]
        optimizer = torch.optim.SGD(params, lr=rate)
        order = torch.arange(SAMPLES)
        for step in range(STEPS[size]):
            if size is None:
                rows = slice(None)
            else:
                place = step % (SAMPLES // size)
                order = torch.randperm(SAMPLES) if place == 0 else order
                rows = order[place * size : (place + 1) * size]
            h = x[rows]
            for w in params[:-1]:
                h = torch.relu(h @ w)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(h @ params[-1], y[rows]).backward()
            optimizer.step()

    benchmark.pedantic(lambda: [member(float(rate)) for rate in RATES], rounds=2)
    fastest["torch", size] = benchmark.stats.stats.min
