"""First calls, each in a fresh process, beside that of the function of neural-tangents with the same role.

Seconds are what a user waits for the call with all it compiles, and what the processor works, in more threads than
one, after both libraries are imported and JAX has compiled something: each the least of a few processes, on a machine
that does nothing else. `python benchmarks/bench_first_calls.py` measures all, `--only NAME` some.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from conftest import machine, today, versions

from ntkdecay import _neural_tangents as nt
from ntkdecay import kernels, predict, stax

if __name__ == "__main__":  # before arrays are made
    jax.config.update("jax_enable_x64", True)

OUT = Path(__file__).parent / "results" / "first_calls.json"
RNG = np.random.default_rng(0)
N, N_TEST, OUTPUTS = 100, 20, 10
A = RNG.normal(size=(N + N_TEST, 2 * N))
K = A @ A.T / (2 * N)
K_TRAIN, K_TEST = K[:N, :N], K[N:, :N]
Y = np.eye(OUTPUTS)[RNG.integers(0, OUTPUTS, N)]
START, START_TEST = RNG.normal(size=(N, OUTPUTS)), RNG.normal(size=(N_TEST, OUTPUTS))
X, X_TEST = RNG.normal(size=(N, 16)), RNG.normal(size=(N_TEST, 16))
T = np.array([1.0, 10.0])
INIT, APPLY, KERNEL = stax.serial(
    *[stax.Dense(64, b_std=None), stax.Relu()] * 2, stax.Dense(OUTPUTS, b_std=None)
)
CONV = stax.Conv(16, (3, 3), padding="SAME", b_std=None)
INIT_CNN, APPLY_CNN, _ = stax.serial(
    *[CONV, stax.Relu()] * 2, stax.Flatten(), stax.Dense(OUTPUTS, b_std=None)
)
IMAGES = RNG.normal(size=(32, 8, 8, 1))
THEIRS = tuple(map(jnp.asarray, (START, START_TEST, K_TEST)))


def mse(f, y):
    return jnp.sum((f - y) ** 2) / (2 * len(y))


def cross_entropy(f, y):
    return -jnp.sum(jax.nn.log_softmax(f) * y) / len(y)


def flow(loss, momentum=None):
    ours = predict.gradient_descent(loss, K_TRAIN, Y, l2=0.0, degree=2, momentum=momentum)
    return ours(T, START, START_TEST, K_TEST)


def their_flow(loss, momentum=None):
    k, y = jnp.asarray(K_TRAIN), jnp.asarray(Y)
    return nt.predict.gradient_descent(loss, k, y, 1.0, momentum)(T, *THEIRS)


def closed_form():
    predict_fn = predict.gradient_descent_mse(K_TRAIN, Y, l2=0.0, degree=3)
    return predict_fn(T, START, START_TEST, K_TEST)


def their_closed_form():
    return nt.predict.gradient_descent_mse(jnp.asarray(K_TRAIN), jnp.asarray(Y))(T, *THEIRS)


def ensemble():
    ours = predict.gradient_descent_mse_ensemble(KERNEL, X, Y, l2=0.0, degree=3)
    return ours(10.0, X_TEST, "ntk", True)


def their_ensemble():
    theirs = nt.predict.gradient_descent_mse_ensemble(KERNEL, jnp.asarray(X), jnp.asarray(Y))
    return theirs(10.0, jnp.asarray(X_TEST), "ntk", True)


def params():
    return [INIT(jax.random.key(0), X.shape)[1], INIT_CNN(jax.random.key(0), IMAGES.shape)[1]]


CALLS = {  # ours, theirs, and what both are given
    "predict.gradient_descent, MSE": (lambda: flow(mse), lambda: their_flow(mse)),
    "predict.gradient_descent, cross entropy": (
        lambda: flow(cross_entropy),
        lambda: their_flow(cross_entropy),
    ),
    "predict.gradient_descent, cross entropy, momentum": (
        lambda: flow(cross_entropy, 0.9),
        lambda: their_flow(cross_entropy, 0.9),
    ),
    "predict.gradient_descent_mse": (closed_form, their_closed_form),
    "predict.gradient_descent_mse_ensemble": (ensemble, their_ensemble),
    "kernels.analytic_kernel": (
        lambda: kernels.analytic_kernel(KERNEL, X, X_TEST),
        lambda: KERNEL(X, X_TEST, "ntk"),
    ),
    "kernels.analytic": (
        lambda: kernels.analytic(APPLY, PARAMS[0], X, X_TEST, variances={"*": 1.0}),
        lambda: KERNEL(X, X_TEST, "ntk"),
    ),
    "kernels.empirical_ntk": (
        lambda: kernels.empirical_ntk(APPLY, PARAMS[0], X, X_TEST),
        lambda: jax.jit(nt.empirical_ntk_fn(APPLY))(X, X_TEST, PARAMS[0]),
    ),
    "kernels.empirical_ntk, CNN": (
        lambda: kernels.empirical_ntk(APPLY_CNN, PARAMS[1], IMAGES, IMAGES[:8]),
        lambda: jax.jit(nt.empirical_ntk_fn(APPLY_CNN))(IMAGES, IMAGES[:8], PARAMS[1]),
    ),
}
SIDES = ("ntkdecay", "neural-tangents")


def seconds(name: str, side: str) -> list[float]:
    """Of the clock and of the processor, in a process of its own."""
    command = [sys.executable, __file__, "--here", name, side]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return list(map(float, printed.split()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of calls")
    parser.add_argument("--times", type=int, default=3, help="processes of each")
    parser.add_argument("--out", type=Path, default=OUT, help="a JSON file")
    options = parser.parse_args()
    found, worked, ratios = {}, {}, {}
    for name in options.only or CALLS:
        pairs = [[seconds(name, side) for side in SIDES] for _ in range(options.times)]
        least = np.min(pairs, axis=0)
        for side, (waited, work) in zip(SIDES, least.tolist(), strict=True):
            found[f"{name}: {side}"], worked[f"{name}: {side}"] = waited, work
        ours, theirs = least
        ratios[f"{name}: neural-tangents / ntkdecay"] = float(theirs[0] / ours[0])
        print(
            f"{name}: {ours[0]:.2f} s, {theirs[0]:.2f} s, {ours[0] / theirs[0]:.2f} times; "
            f"of the processor {ours[1] / theirs[1]:.2f} times",
            flush=True,
        )
    result = {"machine": machine(), "versions": versions(), "date": today()}
    result |= {"seconds": found, "processor seconds": worked, "ratios": ratios}
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if "--here" not in sys.argv:
        sys.exit(main())
    call = CALLS[sys.argv[2]][SIDES.index(sys.argv[3])]
    PARAMS = params()
    begun = np.array([time.perf_counter(), time.process_time()])
    jax.block_until_ready(jax.tree.leaves(call()))
    print(*np.array([time.perf_counter(), time.process_time()]) - begun)
