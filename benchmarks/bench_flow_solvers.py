"""The default solver of `predict.gradient_descent` beside those of diffrax and scipy, at equal measured accuracy.

A cell is a flow: samples × outputs, loss, the kernel's ratio of eigenvalues, λ, momentum β, last time t, with momentum
(1 − β)t, for then time counts for so much more. The default runs at its own tolerances; its error is measured against
itself at tight ones. Another solver runs at one tolerance after the other until its error is as small, and its time
there is interpolated between them, both in logarithms. Seconds are of the processor, on one thread, after the first
call. One that is over CAP times the default's is given up; its row then says so.

`python benchmarks/bench_flow_solvers.py` takes a Latin hypercube of 21 cells and the stiffest ones, `--all` the whole
grid, `--cells N` so many.
"""

import argparse
import itertools
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # before the libraries start their threads
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get(
        "XLA_FLAGS", ""
    )
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from conftest import machine, today, versions
from scipy.integrate import solve_ivp

from ntkdecay.predict import gradient_descent

CAP = 20
OUT = Path(__file__).parent / "results" / "flow_solvers.json"
GRID = {
    "shape": [(10, 2), (20, 10), (200, 2), (100, 10), (500, 2), (400, 10), (1000, 4)],
    "loss": ["MSE", "cross entropy", "non-convex"],
    "ratio": [1e2, 1e5, 1e8],
    "l2": [0.0, 1e-3],
    "momentum": [None, 0.9],
    "t": [1e1, 1e3, 1e5],
}
TOLERANCES = [1e-3, 1e-5, 1e-7, 1e-9]
MAX_STEPS = 20_000  # of a solver of diffrax
DIFFRAX = {
    "Tsit5": (diffrax.Tsit5(), 6),
    "Dopri8": (diffrax.Dopri8(), 13),
    "Kvaerno3": (diffrax.Kvaerno3(), 0),
    "Kvaerno5": (diffrax.Kvaerno5(), 0),
}
SCIPY = ["DOP853", "LSODA", "BDF", "Radau"]


class Cell(NamedTuple):
    """A flow of the grid."""

    shape: tuple[int, int]
    loss: str
    ratio: float
    l2: float
    momentum: float | None
    t: float


STIFFEST = [  # a quadratic loss whose curvature never fades, and nothing that ends it
    Cell((20, 10), "MSE", 1e8, 0.0, None, 1e5),
    Cell((200, 2), "MSE", 1e8, 0.0, None, 1e5),
    Cell((100, 10), "MSE", 1e5, 0.0, None, 1e5),
]


def mse(f, y):
    return jnp.sum((f - y) ** 2) / (2 * len(y))


def cross_entropy(f, y):
    return -jnp.sum(jax.nn.log_softmax(f) * y) / len(y)


def bounded(f, y):
    """½(σ(f) − y)²: a mistake that is large enough has no weight."""
    return jnp.sum((jax.nn.sigmoid(f) - y) ** 2) / (2 * len(y))


def softmax(f):
    e = np.exp(f - f.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(f):
    return 1 / (1 + np.exp(-np.clip(f, -700, 700)))


def bounded_slope(f, y):
    s = sigmoid(f)
    return (s - y) * s * (1 - s) / len(y)


def each(values):
    """(n, o) as the diagonal blocks of one matrix for each sample."""
    return values[:, :, None] * np.eye(values.shape[1])


def bounded_curvature(f, y):
    s = sigmoid(f)
    return each(s * (1 - s) * (s * (1 - s) + (s - y) * (1 - 2 * s)) / len(y))


def softmax_curvature(f, y):
    p = softmax(f)
    return (each(p) - p[:, :, None] * p[:, None]) / len(y)


LOSSES = {  # and ∂ℓ/∂f and ∂²ℓ/∂f² in numpy
    "MSE": (mse, lambda f, y: (f - y) / len(y), lambda f, y: each(np.ones_like(f) / len(y))),
    "cross entropy": (cross_entropy, lambda f, y: (softmax(f) - y) / len(y), softmax_curvature),
    "non-convex": (bounded, bounded_slope, bounded_curvature),
}


def cells(number: int | None) -> list[Cell]:
    """All of the grid, or a Latin hypercube of it, in which each value of a factor is as frequent.

    Three cells in a row have shape, loss and momentum in common, and so their compiled programs.
    """
    if number is None:
        return [Cell(*values) for values in itertools.product(*GRID.values())]
    rng = np.random.default_rng(0)

    def spread(name: str, count: int) -> list:
        return [GRID[name][i] for i in rng.permutation(np.arange(count) % len(GRID[name]))]

    common = {name: spread(name, number // 3) for name in ("shape", "loss", "momentum")}
    own = {name: spread(name, number) for name in ("ratio", "l2", "t")}
    found = [
        Cell(*[common[name][i // 3] if name in common else own[name][i] for name in GRID])
        for i in range(number // 3 * 3)
    ]
    order = np.argsort([np.prod(cell.shape) for cell in found[::3]], kind="stable")
    return [cell for i in order for cell in found[3 * i : 3 * i + 3]]


class Flow:
    """The arrays of a cell; its largest eigenvalue is the number of samples, and the loss is a mean over them."""

    def __init__(self, cell: Cell):
        n, o = cell.shape
        rng = np.random.default_rng(1)
        q, _ = np.linalg.qr(rng.normal(size=(n, n)))
        k = (q * np.geomspace(1, 1 / cell.ratio, n)) @ q.T * n
        self.cell, self.k = cell, (k + k.T) / 2
        self.y = np.eye(o)[rng.integers(0, o, n)]
        self.start = 0.5 * rng.normal(size=(n, o))
        self.last = cell.t if cell.momentum is None else cell.t * (1 - cell.momentum)
        self.marks = self.last * np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])

    def ours(self, tolerance: float | None = None, solver=None, max_steps: int = 100_000):
        """f at the marks, (5, n, o), and seconds: of the default, or of a solver of diffrax on the same state."""
        cell, atol = self.cell, None if tolerance is None else tolerance / 100
        predict_fn = gradient_descent(
            LOSSES[cell.loss][0], self.k, self.y, l2=cell.l2, degree=2, momentum=cell.momentum,
            solver=solver, max_steps=max_steps, rtol=tolerance, atol=atol,
        )  # fmt: skip
        return lambda: np.asarray(predict_fn(self.marks, self.start))

    def scipy(self, method: str, tolerance: float, limit: float):
        """f at the marks by scipy, on the ODE in f; with momentum on that of Θw and its velocity."""
        friction = None if self.cell.momentum is None else 1 - self.cell.momentum
        ode = self.first_order() if friction is None else self.second_order(friction)
        velocity, jacobian, first, outputs = ode
        begun = time.process_time()

        def in_time(function):
            def checked(t, y):
                if time.process_time() - begun > limit:
                    raise TimeoutError
                return function(t, y)

            return checked

        options = {"rtol": tolerance, "atol": tolerance / 100, "t_eval": self.marks}
        if method != "DOP853":
            options["jac"] = in_time(jacobian)
        found = solve_ivp(in_time(velocity), (0, self.last), first, method, **options)
        if not found.success:
            raise TimeoutError
        return np.stack([outputs(t, y) for t, y in zip(found.t, found.y.T, strict=True)])

    def stiffness(self, f):
        """Θ_0 ∂²ℓ/∂f² as a matrix."""
        h = LOSSES[self.cell.loss][2](f, self.y)
        return np.einsum("ij,jab->iajb", self.k, h).reshape(f.size, f.size)

    def first_order(self):
        """f' = −e^{−2λt} Θ_0 ∂ℓ/∂f − 2λf."""
        l2, shape, slope = self.cell.l2, self.y.shape, LOSSES[self.cell.loss][1]

        def velocity(t, f):
            f = f.reshape(shape)
            return (-np.exp(-2 * l2 * t) * (self.k @ slope(f, self.y)) - 2 * l2 * f).ravel()

        def jacobian(t, f):
            j = -np.exp(-2 * l2 * t) * self.stiffness(f.reshape(shape))
            j.flat[:: f.size + 1] -= 2 * l2
            return j

        return velocity, jacobian, self.start.ravel(), lambda t, f: f.reshape(shape)

    def second_order(self, friction: float):
        """g'' = −a Θ_0 ∂ℓ/∂f − λg − μg' for f = a² f_0 + a g, and a'' = −λa − μa'."""
        l2, shape, slope = self.cell.l2, self.y.shape, LOSSES[self.cell.loss][1]
        size, root = self.y.size, np.sqrt(complex(friction**2 / 4 - l2))

        def scale(t):
            up, down = np.exp((root - friction / 2) * t), np.exp((-root - friction / 2) * t)
            return float(((up + down) / 2 + friction * (up - down) / (4 * root)).real)

        def outputs(t, y):
            return scale(t) ** 2 * self.start + scale(t) * y[:size].reshape(shape)

        def velocity(t, y):
            g, v = y.reshape(2, *shape)
            force = -scale(t) * (self.k @ slope(outputs(t, y), self.y)) - l2 * g
            return np.stack([v, force - friction * v]).ravel()

        def jacobian(t, y):
            one = np.eye(size)
            pull = scale(t) ** 2 * self.stiffness(outputs(t, y)) + l2 * one
            return np.block([[0 * one, one], [-pull, -friction * one]])

        return velocity, jacobian, np.zeros(2 * size), outputs


def seconds(call, budget: float = 0.2) -> float:
    """The least of a few calls."""
    found = []
    while not found or (sum(found) < budget and len(found) < 20):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def distance(f, exact) -> float:
    """Largest root mean square over the marks, in units of the largest of f."""
    return float(np.sqrt(((f - exact) ** 2).mean((1, 2)).max() / (exact**2).mean((1, 2)).max()))


def at_error(points: list[tuple[float, float]], error: float) -> float | None:
    """Seconds at which a solver's error would be `error`, from (error, seconds) at falling tolerances."""
    if not points or points[-1][0] > error:
        return None
    for before, after in itertools.pairwise(points):
        if before[0] > error >= after[0]:
            share = np.log(before[0] / error) / np.log(before[0] / after[0])
            return float(before[1] * (after[1] / before[1]) ** share)
    return points[0][1]


def by_tolerance(run, exact, error: float, limit: float) -> float | None:
    """Seconds of `run(tolerance)`, a call, at `error`."""
    points = []
    for tolerance in TOLERANCES:
        try:
            call = run(tolerance)
            start = time.process_time()
            f = call()  # compiles
            first = time.process_time() - start
            best = first if first > limit + 20 else seconds(call)
        except (TimeoutError, ValueError):
            break
        points.append((max(distance(f, exact), 1e-16), best))
        if points[-1][0] <= error or best > limit:
            break
    return at_error(points, error)


def measure(cell: Cell) -> dict:
    """A row of the table: seconds of each solver, None where it is not reached within the cap."""
    flow = Flow(cell)
    default = flow.ours()
    begun = time.process_time()
    f = default()
    first = time.process_time() - begun
    cost = seconds(default)
    exact = flow.ours(1e-10)()
    error = distance(f, exact)
    limit = CAP * cost
    size = flow.y.size
    product = seconds(lambda: flow.k @ flow.start, 0.01)
    order = size if cell.momentum is None else 2 * size
    row = {"cell": cell._asdict(), "error": error, "first": first, "default": cost}
    runs = {}
    for name, (solver, stages) in DIFFRAX.items():
        price = stages * product if stages else order * product + order**3 / 1e10
        if limit > (6 if stages else 30) * price:
            runs[name] = partial(flow.ours, solver=solver, max_steps=MAX_STEPS)
    for name in SCIPY:
        if name == "DOP853" or limit > 5 * order**3 / 1e10:
            runs[name] = lambda tolerance, name=name: partial(flow.scipy, name, tolerance, limit)
    for name in (*DIFFRAX, *SCIPY):
        row[name] = by_tolerance(runs[name], exact, error, limit) if name in runs else None
    for group, names in (("diffrax", DIFFRAX), ("scipy", SCIPY)):
        times = [row[name] for name in names if row[name] is not None]
        row[f"over best of {group}"] = cost / min(times) if times else None
    return row


def shown(row: dict) -> str:
    cell = row["cell"]
    head = f"{cell['shape'][0]}×{cell['shape'][1]} {cell['loss']}, {cell['ratio']:.0e}, λ {cell['l2']:g}, β {cell['momentum']}, t {cell['t']:.0e}"
    times = ", ".join(
        f"{name} {'-' if row[name] is None else format(row[name], '.2g')}"
        for name in ("default", *DIFFRAX, *SCIPY)
    )
    over = [row[f"over best of {group}"] for group in ("diffrax", "scipy")]
    ratios = " ".join("-" if one is None else f"{one:.2f}" for one in over)
    return f"{head}: {ratios} | error {row['error']:.0e} first {row['first']:.1f} | {times}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every cell of the grid")
    parser.add_argument("--cells", type=int, default=21, help="of the sample")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the sample's cells")
    parser.add_argument("--out", type=Path, default=OUT, help="a JSON file")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sample = cells(None) if options.all else cells(options.cells) + STIFFEST
    rows = []
    for i, cell in enumerate(sample):
        if options.only and i not in options.only:
            continue
        rows.append(measure(cell))
        print(i, shown(rows[-1]), flush=True)
        result = {"machine": machine(), "versions": versions(), "date": today(), "rows": rows}
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
