"""What it costs to record the metrics of a scale-invariant run, and paths of its SDE a second against plain loops.

Each comparison is in one process, its rivals one after another in each of the rounds, the least CPU seconds of each
taken; ratios are printed. Recording is every 10 steps at full batch and once per epoch with minibatches, as in Section B of
`periodic`. A pass through all samples is itself the work of a step at full batch and of an epoch of minibatches; metrics of
the steps are of gradients that are there already.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import datasets
from ntkdecay import scale_invariant as si
from ntkdecay.scale_invariant import networks
from ntkdecay.training import METRICS, _choice, _engine, _problem

SAMPLES, ROUNDS = 512, 7
RECORDED = {None: 10, 64: SAMPLES // 64}  # steps between records, by batch size
TS, DT, PATHS = np.linspace(0.0, 20.0, 11), 0.1, 1024
ETA, L2, DIM, BATCH = 0.5, 0.05, 10, 2


def best(rivals):
    """CPU seconds of the fastest round of each; the rounds of all are interleaved."""
    for call in rivals.values():
        jax.block_until_ready(call())
    seconds = dict.fromkeys(rivals, np.inf)
    for _ in range(ROUNDS):
        for name, call in rivals.items():
            begin = time.process_time()
            jax.block_until_ready(call())
            seconds[name] = min(seconds[name], time.process_time() - begin)
    return seconds


def advance(data, network, size, optimizer, metrics, ends):
    """A call of the engine that makes `ends[-1]` steps and measures at each of `ends`."""
    chosen = {name: METRICS[m] if isinstance(m, str) else m for name, m in metrics.items()}
    problem = _problem.Problem(
        lambda key: network.init(key, data.x), network.apply,
        lambda fx, y: optax.softmax_cross_entropy(fx, y).mean(),
        optimizer, None,
        tuple(chosen.items()), size, None,
    )  # fmt: skip
    cells = {
        "learning_rate": jnp.array([0.5]),
        "l2": jnp.array([1e-3]),
        "seed": jnp.zeros(1, jnp.int32),
    }
    states = _engine.started(problem, data, cells)
    programs = _choice.Programs(problem, data, cells, states, (jax.devices()[0],))
    return lambda: programs.advance(
        1, jax.tree.map(jnp.copy, states), np.ones(1, bool), 0, np.array(ends)
    )


@pytest.mark.parametrize("size", RECORDED, ids=["full batch", "batches of 64"])
@pytest.mark.parametrize("architecture", ["fully connected", "ConvNet"])
def test_overhead_of_metrics(architecture, size):
    """A dense net of 128 units on digits; the paper's ConvNet, of half its width, on digits of 16 × 16."""
    digits = datasets.load("digits")
    x, y = jnp.asarray(digits.x_train[:SAMPLES] - 0.3), np.eye(10)[digits.y_train[:SAMPLES]]
    network, records = networks.fc(10, width=128), 32
    if architecture == "ConvNet":
        network, records, x = networks.conv_net(10, width=16), 4, datasets.upsampled(x, 16)
    data, every = _problem.Data(x, jnp.asarray(y, x.dtype)), RECORDED[size]
    ends = [every * (i + 1) for i in range(records)]
    last = ends[-1:]
    seconds = best(
        {
            "off": advance(data, network, size, optax.sgd, {}, last),
            "steps": advance(data, network, size, lambda learning_rate: si.measured(optax.sgd(learning_rate)), si.step_metrics(), ends),
            "all samples": advance(data, network, size, optax.sgd, si.metrics(), ends),
        }
    )  # fmt: skip
    rate = last[0] / seconds["off"]
    print(f"\n{architecture}: {rate:.0f} steps/s without metrics, a record every {every} steps")
    for name in ("steps", "all samples"):
        print(f"metrics of {name}: {100 * (seconds[name] / seconds['off'] - 1):+.1f} % CPU time")


def losses(w):
    """Scale-invariant losses of four samples: sin² of the angle to each."""
    points = jnp.asarray(np.random.default_rng(0).normal(size=(4, DIM)))
    return 1 - (points @ w) ** 2 / (w @ w) / jnp.sum(points**2, axis=1)


def loss(w):
    return jnp.mean(losses(w))


def plain(start, keys):
    """(5) by Euler and Maruyama, a scan of `DT` steps over all paths, the state recorded at TS."""
    root = si.minibatch_root(losses, BATCH)

    def drift(w):
        return -ETA * jax.grad(loss)(w) - ETA * L2 * w

    def noise(w, normal):
        norm = jnp.linalg.norm(w)
        return -ETA * root(w / norm) @ normal / norm

    def path(key):
        steps = round((TS[-1] - TS[0]) / DT)
        normals = jax.random.normal(key, (steps, 4)) * jnp.sqrt(DT)

        def step(w, normal):
            w = w + DT * drift(w) + noise(w, normal)
            return w, w

        return jax.lax.scan(step, start, normals)[1][:: steps // (len(TS) - 1)]

    return jax.vmap(path)(keys)


def test_paths_of_the_sde():
    root, keys = si.minibatch_root(losses, BATCH), jax.random.split(jax.random.key(0), PATHS)
    start = jnp.ones(DIM)
    unit, gamma_0 = start / jnp.linalg.norm(start), (start @ start / ETA) ** 2

    def weights(key):
        return si.weights_sde(loss, root, start, TS, learning_rate=ETA, l2=L2, key=key, dt=DT)

    def direction(key):
        return si.direction_sde(
            loss, root, unit, gamma_0, TS, intrinsic_lr=ETA * L2, key=key, dt=DT
        ).gamma.mean()

    w, d = (jax.jit(jax.vmap(one)) for one in (weights, direction))
    euler = jax.jit(lambda keys: plain(start, keys))
    seconds = best(
        {
            "weights_sde": lambda: w(keys),
            "direction_sde": lambda: d(keys),
            "plain Euler–Maruyama": lambda: euler(keys),
        }
    )
    report(seconds)


def test_torchsde():
    torch = pytest.importorskip("torch")
    torchsde = pytest.importorskip("torchsde")
    points = torch.tensor(np.random.default_rng(0).normal(size=(4, DIM)), dtype=torch.float32)

    class Weights(torch.nn.Module):
        """(5) for a batch of paths, with the losses' gradients written out."""

        noise_type, sde_type = "general", "ito"

        def slopes(self, w):
            square, inner = (w * w).sum(-1)[:, None, None], (w @ points.T)[..., None]
            size = (points**2).sum(-1)[:, None]
            return -2 * inner / size / square * (points - inner / square * w[:, None])

        def f(self, t, w):
            return -ETA * self.slopes(w).mean(1) - ETA * L2 * w

        def g(self, t, w):
            slopes = self.slopes(w)
            centred = slopes - slopes.mean(1, keepdim=True)
            return -ETA * centred.transpose(1, 2) / (4 * BATCH) ** 0.5

    start, ts = torch.ones(PATHS, DIM), torch.tensor(TS, dtype=torch.float32)

    def paths():
        with torch.no_grad():
            return torchsde.sdeint(Weights(), start, ts, method="euler", dt=DT).numpy()

    report(best({"torchsde": paths}))


def report(seconds):
    print()
    for name, one in seconds.items():
        print(
            f"{name}: {PATHS / one:.0f} paths a CPU second, of {round((TS[-1] - TS[0]) / DT)} steps, d = {DIM}"
        )
