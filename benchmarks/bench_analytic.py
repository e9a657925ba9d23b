"""`kernels.analytic` of networks as they are written in flax beside the same network's kernel in `stax`, by hand.

Seconds of a call that is compiled, in float32; the rivals take turns. `stax` jitted is what a user of neural-tangents
would write; `analytic_kernel` is this project's tiled call of it.
"""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import kernels, stax

RIVALS = ("stax, jitted", "analytic_kernel", "analytic")


def conv():
    return stax.Conv(16, (3, 3), padding="SAME", b_std=None, parameterization="standard")


def dense():
    return stax.Dense(16, b_std=None, parameterization="standard")


def fully_connected(x):
    for _ in range(3):
        x = nn.relu(nn.Dense(16, use_bias=False)(x))
    return nn.Dense(16, use_bias=False)(x)


def flattened(x):
    for _ in range(2):
        x = nn.relu(nn.Conv(16, (3, 3), use_bias=False)(x))
    return nn.Dense(16, use_bias=False)(x.reshape(len(x), -1))


def averaged(x):
    for _ in range(2):
        x = nn.relu(nn.Conv(16, (3, 3), use_bias=False)(x))
    return nn.Dense(16, use_bias=False)(x.mean((1, 2)))


CASES = {
    "dense, N = 500": (fully_connected, [dense(), stax.Relu()] * 3 + [dense()], (500, 64)),
    "conv, flatten, N = 100": (
        flattened,
        [conv(), stax.Relu()] * 2 + [stax.Flatten(), dense()],
        (100, 8, 8, 3),
    ),
    "conv, global average, N = 20": (
        averaged,
        [conv(), stax.Relu()] * 2 + [stax.GlobalAvgPool(), dense()],
        (20, 8, 8, 3),
    ),
}


class Network(nn.Module):
    function: object

    @nn.compact
    def __call__(self, x):
        return self.function(x)  # pyright: ignore[reportCallIssue]


RATIOS = [(f"{case}: {name}", f"{case}: {RIVALS[0]}") for case in CASES for name in RIVALS[1:]]


def runs(case):
    function, layers, shape = CASES[case]
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    module, kernel_fn = Network(function), stax.serial(*layers)[2]
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    params = jax.tree.map(lambda p: np.ones(p.shape, np.float32), params)
    variances = jax.tree.map(lambda p: 1 / np.prod(p.shape[:-1]), params)
    jitted = jax.jit(lambda x: kernel_fn(x, None, "ntk"))
    return {
        "stax, jitted": lambda: jitted(x),
        "analytic_kernel": lambda: kernels.analytic_kernel(kernel_fn, x),
        "analytic": lambda: kernels.analytic(module.apply, params, x, variances=variances),
    }


@pytest.mark.parametrize("case", CASES)
def test_analytic(benchmark, medians, case):
    with jax.numpy_rank_promotion("allow"):
        calls = runs(case)
        found = {name: np.asarray(call()) for name, call in calls.items()}
        np.testing.assert_allclose(found["analytic"], found["stax, jitted"], rtol=2e-3)
        seconds = dict.fromkeys(calls, np.inf)
        for _ in range(9):
            for name, call in calls.items():
                start = time.perf_counter()
                jax.block_until_ready(call())
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    benchmark.group = case
    for name in RIVALS:
        ratio = seconds[name] / seconds[RIVALS[0]]
        medians[f"{case}: {name}"] = seconds[name]
        print(f"\n{case}: {name}: {1e3 * seconds[name]:.1f} ms, {ratio:.2f} times {RIVALS[0]}")
    benchmark.pedantic(lambda: jax.block_until_ready(calls["analytic"]()), rounds=3)
