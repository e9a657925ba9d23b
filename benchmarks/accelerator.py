"""What an accelerator makes of ntkdecay: `make accelerator` measures whatever device JAX finds, stage by stage.

Each stage is written to `benchmarks/accelerator/<device>.json` as it ends, and one that is there is not made again unless the code,
JAX or the sizes have changed. Sizes are those of an accelerator (ten minutes), or of a CPU (`--sizes cpu`, its default there).
Goals are of accelerators; a CPU's numbers stand beside them.
"""

import argparse
import dataclasses
import datetime
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay import kernels, networks, predict, scale_invariant, stax, training
from ntkdecay._commit import source

FOLDER = Path(__file__).parent / "accelerator"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the stages."""

    matrix: int = 8192
    width: int = 100_000
    samples: int = 200
    steps: int = 400
    members: int = 64
    member_steps: int = 400
    depth: int = 28
    widen: int = 10
    batch: int = 512
    images: int = 2048
    image_steps: int = 20
    kernel: int = 10_000
    tile: int = 1000
    channels: int = 64
    cnn_images: int = 128
    paths: int = 65_536


SIZES = {
    "accelerator": Sizes(),
    "cpu": Sizes(
        matrix=2048, width=8192, steps=20, member_steps=20, depth=10, widen=1, batch=32, images=64, image_steps=10, kernel=2000,
        channels=8, cnn_images=16, paths=4096,
    ),
    "tiny": Sizes(
        matrix=128, width=256, samples=16, steps=4, members=4, member_steps=8, depth=10, widen=1, batch=4, images=8, image_steps=1,
        kernel=64, tile=16, channels=2, cnn_images=4, paths=16,
    ),
}  # fmt: skip


def loss(fx, y):
    """½ mean squared error."""
    return ((fx - y) ** 2).mean() / 2


def cross_entropy(fx, y):
    """Of class numbers."""
    return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()


def seconds(function: Callable[[], Any], rounds: int = 5) -> float:
    """The fastest of some rounds, after one that compiles."""
    jax.block_until_ready(function())
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return min(times)


def of_a_step(run: Callable[[int], Any], steps: int) -> float:
    """Seconds of one of so many steps, compiling, starting and measuring left out."""
    run(1)
    short, long = (seconds(lambda n=n: run(n), 2) for n in (steps, 3 * steps))
    return max(long - short, 1e-9) / (2 * steps)


def matmul(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """Operations a second of one large product of matrices."""
    found = {}
    for name, dtype, precision in (
        ("float32", jnp.float32, "highest"),
        ("float32, JAX's default precision", jnp.float32, None),
        ("bfloat16", jnp.bfloat16, None),
    ):
        a = jax.random.normal(jax.random.key(0), (sizes.matrix, sizes.matrix), dtype)
        product = jax.jit(lambda a, precision=precision: jnp.matmul(a, a, precision=precision))
        found[f"{name}, operations a second"] = 2 * sizes.matrix**3 / seconds(lambda: product(a))  # noqa: B023
    return found


def agreement(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """The largest relative difference to the same computation on the CPU, which may be `tolerance`."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 32, 8)).astype(np.float32)
    _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))
    init, apply_fn, _ = stax.serial(stax.Dense(64), stax.Relu(), stax.Dense(1))
    options = {"l2": 0.01, "degree": 2}
    with jax.default_device(jax.devices("cpu")[0]):
        k = np.asarray(kernels.analytic_kernel(kernel_fn, x))
        params = jax.device_get(init(jax.random.key(0), (-1, 8))[1])

    def trained():
        run = training.train(apply_fn, params, loss, x, y[:, :1], optax.sgd(0.1), steps=20, record=3, devices=jax.devices()[:1])  # fmt: skip
        return run.params

    tests: dict[str, Callable[[], Any]] = {
        "mode": lambda: predict.mode(np.float32([0.1, 3.0]), np.float32(2.0), 0.01, 2),
        "analytic_kernel": lambda: kernels.analytic_kernel(kernel_fn, x),
        "empirical_ntk": lambda: kernels.empirical_ntk(apply_fn, params, x),
        "gradient_descent_mse": lambda: predict.gradient_descent_mse(k, y, **options)([1.0, 30.0]),
        "gradient_descent": lambda: predict.gradient_descent(loss, k, y, **options)([1.0, 30.0]),
        "sgd": lambda: predict.sgd(loss, k, y, 0.1, **options)([1, 30]),
        "train": trained,
    }
    found, tolerance = {}, 5e-3  # tf32 keeps ten bits
    for name, test in tests.items():
        ours = [np.asarray(a, float) for a in jax.tree.leaves(test())]
        with jax.default_device(jax.devices("cpu")[0]):
            theirs = [np.asarray(a, float) for a in jax.tree.leaves(test())]
        found[name] = max(
            float(np.linalg.norm(a - b) / np.linalg.norm(b))
            for a, b in zip(ours, theirs, strict=True)
        )
    return found | {"tolerance": tolerance, "holds": max(found.values()) < tolerance}


def wide(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """The network of Figure 5c of `l2`: two layers, full batch, 784 inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sizes.samples, 784)).astype(np.float32)
    y = rng.normal(size=(sizes.samples, 1)).astype(np.float32)
    init, apply_fn, _ = stax.serial(stax.Dense(sizes.width, b_std=None), stax.Relu(), stax.Dense(1, b_std=None))  # fmt: skip
    params = jax.tree.map(lambda p: p.astype(jnp.float32), init(jax.random.key(0), x.shape)[1])
    optimizer = optax.sgd(0.1)

    def run(steps):
        return training.train(apply_fn, params, loss, x, y, optimizer, steps=steps, l2=0.01, record=[0], devices=jax.devices()[:1]).params  # fmt: skip

    step = of_a_step(run, sizes.steps)
    operations = (
        4.0 * sizes.samples * 784 * sizes.width
    )  # forwards, and the gradient of the weights
    return _share(step, operations, so_far, "float32, JAX's default precision", 0.6)


def grid(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """A grid of small networks in one program, against each by a jitted loop of its own."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(512, 64)).astype(np.float32), rng.integers(0, 10, 512)
    network = networks.fully_connected((128, 128))
    rates = np.geomspace(0.01, 0.1, sizes.members)

    def run(steps):
        return training.sweep(
            lambda key: network.init(key, x[:2]), network.apply, cross_entropy, optax.sgd, {"learning_rate": rates}, x, y,
            steps=steps, record=[0], members_per_batch=sizes.members, devices=jax.devices()[:1],
        ).last_step  # fmt: skip

    samples, labels = jnp.asarray(x), jnp.asarray(y)

    @jax.jit
    def alone(params, rate, steps):
        def step(_, params):
            slope = jax.grad(lambda p: cross_entropy(network.apply(p, samples), labels))(params)
            return jax.tree.map(lambda p, g: p - rate * g, params, slope)

        return jax.lax.fori_loop(0, steps, step, params)

    start = network.init(jax.random.key(0), x[:2])

    def loop(steps):
        return [alone(start, jnp.float32(rate), steps) for rate in rates]

    together, apart = of_a_step(run, sizes.member_steps), of_a_step(loop, sizes.member_steps)
    ratio = apart / together
    return {"members": sizes.members, "members' steps a second": sizes.members / together, "times as fast as a jitted loop": ratio,
            "goal": 20, "holds": ratio > 20}  # fmt: skip


def wide_resnet(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """Training on images of CIFAR-10's shape, in bfloat16."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(sizes.images, 32, 32, 3)).astype(np.float32)
    y = rng.integers(0, 10, sizes.images)
    network = networks.wide_resnet(sizes.depth, sizes.widen)
    params = network.init(jax.random.key(0), x[:2])
    options = {
        "batch_size": sizes.batch,
        "record": [0],
        "metrics": ["norm2"],
        "compute_dtype": jnp.bfloat16,
    }
    optimizer = optax.sgd(0.1, momentum=0.9)

    def run(steps):
        return training.train(network.apply, params, cross_entropy, x, y, optimizer, steps=steps, devices=jax.devices()[:1], **options).params  # fmt: skip

    step = of_a_step(run, sizes.image_steps)
    counted = training.estimate(
        lambda key: params, network.apply, cross_entropy, lambda: optimizer, {"seed": [0]}, x, y, steps=1, device="H100", **options
    )  # fmt: skip
    name = f"WRN-{sizes.depth}-{sizes.widen}, images a second"
    return {name: sizes.batch / step} | _share(step, counted.flops, so_far, "bfloat16", 0.4)


def _share(
    step: float, operations: float, so_far: dict[str, Any], of: str, goal: float
) -> dict[str, Any]:
    peak = so_far["matmul"][f"{of}, operations a second"]
    share = operations / step / peak
    return {"milliseconds of a step": 1e3 * step, "operations a second": operations / step,
            f"share of the product of matrices in {of}": share, "goal": goal, "holds": share > goal}  # fmt: skip


def analytic(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """The kernel of a network of three layers between many samples, by tiles."""
    x = np.random.default_rng(0).normal(size=(sizes.kernel, 784)).astype(np.float32)
    _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1), stax.Relu(), stax.Dense(1))  # fmt: skip
    took = seconds(lambda: kernels.analytic_kernel(kernel_fn, x, tile=sizes.tile), 2)
    return {"samples": sizes.kernel, "seconds": took}


def empirical(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """The empirical kernel of a CNN, against the three implementations of neural-tangents."""
    from ntkdecay._neural_tangents import empirical_ntk_fn

    x = np.random.default_rng(0).normal(size=(sizes.cnn_images, 16, 16, 3)).astype(np.float32)
    conv = [part for _ in range(3) for part in (stax.Conv(sizes.channels, (3, 3), padding="SAME"), stax.Relu())]  # fmt: skip
    init, apply_fn, _ = stax.serial(*conv, stax.GlobalAvgPool(), stax.Dense(10))
    params = jax.tree.map(lambda p: p.astype(jnp.float32), init(jax.random.key(0), x.shape)[1])
    ours = seconds(lambda: kernels.empirical_ntk(apply_fn, params, x), 2)
    theirs = {}
    for number, name in ((1, "Jacobian contraction"), (2, "NTK-vector products"), (3, "structured derivatives")):  # fmt: skip
        ntk_fn = jax.jit(empirical_ntk_fn(apply_fn, (-1,), (), 0, number))
        theirs[name] = seconds(lambda: ntk_fn(x, None, params), 2)  # noqa: B023
    return {"seconds": ours} | {f"{name} / ours": one / ours for name, one in theirs.items()}


def sde(sizes: Sizes, so_far: dict[str, Any]) -> dict[str, Any]:
    """Paths of SGD as a stochastic differential equation: ten dimensions, 200 steps."""
    points = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)

    def losses(w):
        return (points @ w) ** 2 / (w @ w)

    root, start = scale_invariant.minibatch_root(losses, 2), jnp.ones(10)

    @jax.jit
    @jax.vmap
    def paths(key):
        return scale_invariant.weights_sde(
            lambda w: losses(w).mean(), root, start, np.linspace(0, 20, 11), learning_rate=0.1, l2=0.01, key=key, dt=0.1
        )[-1]  # fmt: skip

    keys = jax.random.split(jax.random.key(0), sizes.paths)
    return {"paths a second": sizes.paths / seconds(lambda: paths(keys), 3)}


STAGES = (matmul, agreement, wide, grid, wide_resnet, analytic, empirical, sde)


def measure(sizes: Sizes, folder: Path, stages=STAGES) -> Path:
    """Every stage that the device's file lacks; the file."""
    device = jax.devices()[0]
    kind = device.device_kind if device.platform != "cpu" else "CPU"
    path = folder / (re.sub(r"[^A-Za-z0-9]+", "-", kind).strip("-") + ".json")
    known = {
        "device": f"{jax.device_count()} × {device.device_kind}, {device.platform}",
        "versions": {
            "jax": jax.__version__,
            "jaxlib": jax.lib.__version__,
            "numpy": np.__version__,
        },
        "sizes": dataclasses.asdict(sizes),
        "commit": source(),
    }
    found = json.loads(path.read_text()) if path.exists() else {}
    if any(found.get(name) != value for name, value in known.items()):
        found = known | {"stages": {}}
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        if stage.__name__ in found["stages"]:
            continue
        print(f"{stage.__name__}: {stage.__doc__.splitlines()[0]}", flush=True)
        begin = time.perf_counter()
        try:
            with jax.enable_x64(False):  # whatever the environment says
                result = stage(sizes, found["stages"])
        except Exception as error:  # the next stages are still worth having
            result = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        if device.platform == "cpu" and "goal" in result:
            result["holds"] = None  # the goal is an accelerator's
        result["seconds in all"] = round(time.perf_counter() - begin, 1)
        found["stages"][stage.__name__] = result
        found["date"] = datetime.date.today().isoformat()
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        for name, value in result.items():
            print(
                f"    {name}: {value:.4g}" if isinstance(value, float) else f"    {name}: {value}"
            )
    return path


def table(found: dict[str, Any]) -> list[str]:
    """A device's file as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"### {found['device']}",
        "",
        f"{versions}; commit {found['commit']}; {found['date']}",
        "",
    ]
    lines += ["| stage | what | |", "| --- | --- | ---: |"]
    verdicts = {True: "yes", False: "no", None: "needs an accelerator"}
    for stage, result in found["stages"].items():
        for name, value in result.items():
            shown = verdicts[value] if name == "holds" else f"{value:.3g}" if isinstance(value, float) else value  # fmt: skip
            lines.append(f"| {stage} | {name} | {shown} |")
    return [*lines, ""]


def main() -> None:
    """Measure the device."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = "cpu" if jax.devices()[0].platform == "cpu" else "accelerator"
    parser.add_argument("--sizes", choices=SIZES, default=default)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    print(f"{measure(SIZES[options.sizes], options.out)} written")


if __name__ == "__main__":
    main()
