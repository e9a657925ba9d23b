"""The empirical NTK against neural-tangents' implementations and torch.func.

Each group is one run on one machine, in float32; the ratios are printed at its end. Where a rival
is missing its Jacobians, of n × outputs × parameters numbers, do not fit in 4 GB.
"""

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


@pytest.fixture(scope="module")
def medians():
    """Median seconds by case and name; the ratios are printed when the module ends."""
    found = {}
    yield found
    for (case, name), seconds in found.items():
        if name != "ntkdecay":
            print(f"\n{case}: {name} / ntkdecay: {seconds / found[case, 'ntkdecay']:.2f}", end="")
    print()


def problem(case):
    (init, apply_fn, _), shape = CASES[case]
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = jax.tree.map(lambda p: p.astype(x.dtype), init(jax.random.key(0), shape)[1])
    return apply_fn, params, x


def torch_ntk(params, x):
    """The method of PyTorch's tutorial, for the dense networks: Jacobians by vmap(jacrev)."""
    torch = pytest.importorskip("torch")
    weights = [torch.tensor(np.asarray(p)) for p in jax.tree.leaves(params)]
    inputs = torch.tensor(np.asarray(x))

    def f(weights, x):
        for w in weights[:-1]:
            x = torch.relu(x @ w / w.shape[0] ** 0.5)
        return x @ weights[-1] / weights[-1].shape[0] ** 0.5

    def ntk():
        jacobians = torch.func.vmap(torch.func.jacrev(f), (None, 0))(weights, inputs)
        flat = [j.flatten(2) for j in jacobians]
        return sum(torch.einsum("aof,bof->ab", j, j) for j in flat) / flat[0].shape[1]

    return ntk


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RIVALS)
def test_empirical_ntk(benchmark, medians, case, name):
    apply_fn, params, x = problem(case)
    outputs = jax.eval_shape(apply_fn, params, x).shape[1]
    size = sum(p.size for p in jax.tree.leaves(params))
    if name not in ("ntkdecay", "structured") and 4 * len(x) * outputs * size > 4e9:
        pytest.skip("its Jacobians do not fit in 4 GB")
    if name == "ntkdecay":
        run = lambda: empirical_ntk(apply_fn, params, x)  # noqa: E731
        compiled = jax.jit(lambda p, x: empirical_ntk(apply_fn, p, x)).lower(params, x).compile()
        memory = compiled.memory_analysis()
        peak = memory.temp_size_in_bytes + memory.output_size_in_bytes
        print(f"\n{case}: {peak / 1e6:.0f} MB beside {4e-6 * size:.0f} MB of parameters")
    elif name == "torch.func":
        if not case.startswith("dense"):
            pytest.skip("the dense networks stand for it")
        run = torch_ntk(params, x)
    else:
        ntk_fn = jax.jit(empirical_ntk_fn(apply_fn, (-1,), (), 0, IMPLEMENTATIONS[name]))
        run = lambda: ntk_fn(x, None, params)  # noqa: E731

    expected = np.asarray(empirical_ntk(apply_fn, params, x))
    np.testing.assert_allclose(np.asarray(run()), expected, rtol=1e-2, atol=1e-4 * expected.max())
    benchmark.group = case
    fast = name in ("ntkdecay", "structured")
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=9 if fast else 3)
    medians[case, name] = benchmark.stats.stats.median
