"""Eight devices, in a process that makes eight of its CPU: members dealt out, one network split, kernels in rows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
import jax.export, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from ntkdecay import kernels, predict, stax, training
from ntkdecay.training import _programs

DEVICES = jax.devices()
assert len(DEVICES) == 8
rng = np.random.default_rng(0)


def loss(fx, y):
    return ((fx - y) ** 2).mean()


compiled, lowered = _programs.compiled, []


def lowering(function, *args, donate=()):
    # what is compiled is for other accelerators, too
    exported = jax.export.export(jax.jit(function), platforms=("cuda", "tpu"))(*args)
    assert "callback" not in exported.mlir_module()
    lowered.append(exported.nr_devices)
    return compiled(function, *args, donate=donate)


_programs.compiled = lowering


def leaves(*trees):
    return zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
"""
MEMBERS = """
init, apply_fn, _ = stax.serial(stax.Dense(16), stax.Relu(), stax.Dense(2))
x, y = rng.normal(size=(24, 3)), rng.normal(size=(24, 2))
grid = {"learning_rate": [0.1, 0.2], "l2": [0.0, 0.01, 0.1], "seed": [0, 1, 2]}


def run(number, optimizer):
    return training.sweep(
        lambda key: init(key, (-1, 3))[1], apply_fn, loss, optimizer, grid, x, y,
        steps=30, record=5, batch_size=8, members_per_batch=2, devices=DEVICES[:number], return_params=True)


def sgd(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


def adam(learning_rate):
    return optax.adam(learning_rate)


# XLA divides by a broadcast number in a program of several devices, and multiplies by its inverse in one of one: Adam's bits
for few, many, optimizer in ((1, 8, sgd), (2, 8, adam)):
    (a, a_params), (b, b_params) = run(few, optimizer), run(many, optimizer)
    assert (a.members_per_batch == 2).all() and a.identical(b.assign_attrs(a.attrs))
    assert all((p == q).all() for p, q in leaves(a_params, b_params))
for p, q in leaves(a_params, run(1, adam)[1]):
    np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-12)
assert set(lowered) == {1, 2, 8}
"""
ONE = """
Programs = _programs.Programs
WIDTH, DIM, SAMPLES = 1024, 4, 512
init, apply_fn, _ = stax.serial(stax.Dense(WIDTH, b_std=None), stax.Relu(), stax.Dense(1, b_std=None))
x, y = rng.normal(size=(SAMPLES, DIM)), rng.normal(size=(SAMPLES, 1))
params, usages = init(jax.random.key(0), (-1, DIM))[1], {}
_compile = Programs._compile


def seen(self, block):
    program = _compile(self, block)
    usages[self.places.shard if len(self.places.devices) > 1 else 1] = program.memory_analysis()
    return program


Programs._compile = seen


def run(**options):
    return training.train(
        apply_fn, params, loss, x, y, optax.adam(1e-3), l2=0.01, steps=10, record=4, **options)


one, batch, width = run(devices=DEVICES[:1]), run(shard="batch"), run(shard="width")
assert lowered == [1, 8, 8]
assert np.abs(one.data.loss / one.data.loss[0] - 1)[-1] > 0.02
for other in (batch, width):
    np.testing.assert_allclose(other.data.loss, one.data.loss, rtol=1e-10)
    for a, b in leaves(one.params, other.params):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)

# memory of one device: parameters, Adam's two moments and the data, in and, but for the data, out in place
samples = 8 * (x.size + y.size)
state = 3 * 8 * WIDTH * (DIM + 1)
within = dict(rtol=0.02, atol=4000)
np.testing.assert_allclose(usages[1].argument_size_in_bytes, state + samples, **within)
np.testing.assert_allclose(usages["batch"].argument_size_in_bytes, state + samples, **within)
np.testing.assert_allclose(usages["width"].argument_size_in_bytes, state / 8 + samples, **within)
hidden, (one, batch, width) = 8 * SAMPLES * WIDTH, (usages[n].temp_size_in_bytes for n in (1, "batch", "width"))
assert one > hidden and batch < one / 4 and width < one / 4, (one, batch, width)
"""
ROWS = """
mesh = Mesh(np.array(DEVICES), ("rows",))
rows = NamedSharding(mesh, P("rows"))
x, y = rng.normal(size=(64, 5)), rng.normal(size=(64, 1))
_, _, kernel_fn = stax.serial(stax.Dense(1, b_std=None), stax.Relu(), stax.Dense(1, b_std=None))
split = jax.device_put(x, rows)

k = kernels.analytic_kernel(kernel_fn, x)
of_rows = jax.jit(lambda x1, x2: kernels.analytic_kernel(kernel_fn, x1, x2))(split, x)
assert of_rows.sharding == rows and {s.data.shape for s in of_rows.addressable_shards} == {(8, 64)}
np.testing.assert_allclose(of_rows, k, rtol=1e-12, atol=1e-13)
np.testing.assert_allclose(kernels.analytic_kernel(kernel_fn, split, tile=8), k, rtol=1e-12, atol=1e-13)


def solve(k):
    return predict.gradient_descent_mse_matrix_free(lambda v: k @ v, y, l2=0.01, degree=2)([1.0, 30.0])


f = solve(of_rows)
assert f.sharding.device_set == set(DEVICES)
np.testing.assert_allclose(f, solve(jnp.asarray(k)), rtol=0, atol=1e-10)
"""


@pytest.mark.parametrize("what", [MEMBERS, ONE, ROWS], ids=["members", "one network", "rows"])
def test_eight_devices_give_what_one_gives(what):
    root = Path(__file__).parents[1]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + what],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
