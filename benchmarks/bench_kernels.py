"""The empirical NTK against neural-tangents' implementations and torch.func.

Each group is one run on one machine, in float32; a table of all seconds is printed at its end.
A rival whose Jacobians, of n × outputs × parameters numbers, do not fit in 2 GB gets as many of the
samples as do, a power of two, and its time is multiplied by what is left out of n: too little for
it, since its contraction takes n². These, marked ≥, and all that take seconds run a single round.
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import stax
from ntkdecay._neural_tangents import empirical_ntk_fn
from ntkdecay.kernels import empirical_ntk

IMPLEMENTATIONS = {"default, Jacobians": 1, "NTK-vector products": 2, "structured": 3}


def dense(width, outputs):
    """Four layers."""
    hidden = [stax.Dense(width, b_std=None), stax.Relu()] * 3
    return stax.serial(*hidden, stax.Dense(outputs, b_std=None))


def convolutional(outputs):
    """Five layers of 64 channels."""
    hidden = [stax.Conv(64, (3, 3), padding="SAME", b_std=None), stax.Relu()] * 4
    return stax.serial(*hidden, stax.GlobalAvgPool(), stax.Dense(outputs, b_std=None))


CASES = {
    f"dense, width {width}, N = {n}, O = {outputs}": (dense(width, outputs), (n, 64))
    for width in (512, 2048)
    for n in (64, 256)
    for outputs in (1, 10)
}
CASES |= {f"CNN, N = 32, O = {o}": (convolutional(o), (32, 16, 16, 3)) for o in (1, 10)}
RIVALS = ("ntkdecay", *IMPLEMENTATIONS, "torch.func")


class Measured(NamedTuple):
    """Median seconds for all n samples, from this many of them."""

    seconds: float
    samples: int


@pytest.fixture(scope="module")
def measured():
    """By case and name; the table of seconds, and of their ratios to ours, ends the module."""
    found: dict[tuple[str, str], Measured] = {}
    yield found
    print("\n" + " | ".join(("seconds (times ours)", *RIVALS)))
    for case, (_, shape) in CASES.items():
        row = []
        for name in RIVALS:
            if (case, name) in found:
                seconds, samples = found[case, name]
                ours = found.get((case, "ntkdecay"))
                ratio = f" ({seconds / ours.seconds:.3g})" if ours else ""
                row.append(f"{'≥ ' * (samples < shape[0])}{seconds:.3g}{ratio}")
            else:
                row.append("")
        print(" | ".join((case, *row)))


def problem(case):
    (init, apply_fn, _), shape = CASES[case]
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = jax.tree.map(lambda p: p.astype(x.dtype), init(jax.random.key(0), shape)[1])
    return apply_fn, params, x


def torch_ntk(params, x):
    """The method of PyTorch's tutorial: Jacobians by vmap(jacrev)."""
    torch = pytest.importorskip("torch")
    weights = [torch.tensor(np.asarray(p)) for p in jax.tree.leaves(params)]
    inputs = torch.tensor(np.asarray(x))
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2)
        weights[:-1] = [w.permute(3, 2, 0, 1) for w in weights[:-1]]

    def f(weights, x):
        for w in weights[:-1]:
            if w.ndim == 4:
                x = torch.relu(torch.nn.functional.conv2d(x, w, padding=1) / w[0].numel() ** 0.5)
            else:
                x = torch.relu(x @ w / w.shape[0] ** 0.5)
        x = x.mean((1, 2)) if x.ndim == 3 else x
        return x @ weights[-1] / weights[-1].shape[0] ** 0.5

    def ntk():
        jacobians = torch.func.vmap(torch.func.jacrev(f), (None, 0))(weights, inputs)
        flat = [j.flatten(2) for j in jacobians]
        return sum(torch.einsum("aof,bof->ab", j, j) for j in flat) / flat[0].shape[1]

    return ntk


def peak(apply_fn, params, x) -> str:
    """What ours takes beside the parameters and the inputs."""
    compiled = jax.jit(lambda p, x: empirical_ntk(apply_fn, p, x)).lower(params, x).compile()
    memory = compiled.memory_analysis()
    return f"{(memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6:.0f} MB"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RIVALS)
def test_empirical_ntk(benchmark, measured, case, name):
    apply_fn, params, x = problem(case)
    n, samples = len(x), len(x)
    outputs = jax.eval_shape(apply_fn, params, x).shape[1]
    size = sum(p.size for p in jax.tree.leaves(params))
    if name == "ntkdecay":
        print(f"\n{case}: ours takes {peak(apply_fn, params, x)}")
    elif name != "structured":
        while 4 * samples * outputs * size > 2e9:
            samples //= 2
    x = x[:samples]
    if name == "ntkdecay":
        run = lambda: empirical_ntk(apply_fn, params, x)  # noqa: E731
    elif name == "torch.func":
        run = torch_ntk(params, x)
    else:
        ntk_fn = jax.jit(empirical_ntk_fn(apply_fn, (-1,), (), 0, IMPLEMENTATIONS[name]))
        run = lambda: ntk_fn(x, None, params)  # noqa: E731

    # torch sums its 40 million products at width 2048, O = 10 in float32 and is 1% too low
    expected = np.asarray(empirical_ntk(apply_fn, params, x))
    np.testing.assert_allclose(np.asarray(run()), expected, rtol=2e-2, atol=1e-4 * expected.max())
    start = time.perf_counter()
    jax.block_until_ready(run())
    rounds = 9 if time.perf_counter() - start < 1 else 1
    benchmark.group = case
    benchmark.extra_info["samples"] = samples
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=rounds)
    measured[case, name] = Measured(benchmark.stats.stats.median * n / samples, samples)
