"""What the scripts of trained networks share: data, networks, runs by (stochastic) gradient descent, and what is read off them.

Quick presets train a fully connected network on digits, desk presets on CIFAR-10, the paper's its ConvNet; every weight that is
trained is scale-invariant, from PyTorch's initial variance 1/(3 n), under the mean cross entropy.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
import xarray as xr
from scipy.signal import find_peaks

from ntkdecay import datasets, optimizers, report, training
from ntkdecay import scale_invariant as si
from ntkdecay.networks import Network
from ntkdecay.report import colors as colors
from ntkdecay.scale_invariant import networks

INITIAL = 3**-0.5  # times 1/√n: PyTorch's uniform initialization of a layer with n inputs
PHASES = {"A": "tab:blue", "B": "tab:green", "C": "tab:red"}


@dataclasses.dataclass(frozen=True)
class Setup(report.Options):
    """A network, its data and how it is measured."""

    data: datasets.Name = "digits"
    """Which images."""
    network: Literal["fc", "conv_net", "resnet_18"] = "fc"
    """Architecture."""
    width: report.Count = 32
    """Units of a layer, or channels of the first."""
    head_norm: report.Positive = 10.0
    """Frobenius norm of the last layer, frozen; the paper has 20 on CIFAR-100, with width 64 (Figures 17 and 18)."""
    samples: report.Count = 256
    """Training samples."""
    test_samples: report.Count = 512
    """Test samples."""
    batch_size: report.Count | None = None
    """Samples of a step; none: all."""
    every: report.Count = 10
    """Steps between measurements."""
    eval_batch_size: report.Count | None = None
    """Samples measured at a time; none: all."""
    members_per_batch: report.Count | None = 1
    """Runs side by side; none: measured."""

    @property
    def words(self) -> str:
        return (
            f"{self.data}, {self.samples} training and {self.test_samples} test samples, "
            f"{self.network} of width {self.width}"
        )

    def net(self, **options: Any) -> Network:
        """The network, its last layer frozen; `norm` and `head_norm` are options."""
        options = {"head_norm": self.head_norm} | options
        return getattr(networks, self.network)(
            datasets.classes(self.data), width=self.width, **options
        )


DESK: dict[str, Any] = dict(
    data="cifar10", test_samples=10_000, every=32, batch_size=64, samples=512
)
PAPER: dict[str, Any] = dict(
    data="cifar10", network="conv_net", width=32, samples=50_000, test_samples=10_000,
    batch_size=128, every=391, eval_batch_size=1000, members_per_batch=None,
)  # fmt: skip


def images(options: Setup) -> datasets.Dataset:
    """The first images of a data set, of mean 0 and variance 1, with one-hot labels; training images left over join the test set.

    Raises:
        ValueError: if there are fewer images.
    """
    data = datasets.load(options.data, options.data_dir)
    x, y, x_test, y_test = datasets.standardized(data, options.samples, options.test_samples)
    classes = datasets.classes(options.data)
    y, y_test = (datasets.one_hot(labels, classes) for labels in (y, y_test))
    return datasets.Dataset(x, y, x_test, y_test)


def loss(fx: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross entropy."""
    return optax.softmax_cross_entropy(fx, y).mean()


def run(
    options: Setup,
    grid: Mapping[str, Sequence[float]],
    steps: Any,
    *,
    network: Network | None = None,
    init: Callable[..., Any] | None = None,
    apply_fn: Callable[..., jax.Array] | None = None,
    optimizer: Callable[..., optax.GradientTransformation] = optax.sgd,
    metrics: Mapping[str, Any] | None = None,
    record: Iterable[int] | None = None,
    progress: str | None = None,
    **more: Any,
) -> Any:
    """A grid of runs with the metrics that `periods` and `bounds` read; what is not said is that of the setup."""
    if optimizer is not optax.adam:  # whose steps are of one length, however long the gradient
        check_decay(grid)
    x, y, x_test, y_test = images(options)
    network = network or options.net()
    return training.sweep(
        init or (lambda key: network.init(key, x, INITIAL)),
        apply_fn or network.apply,
        loss,
        optimizer,
        grid,
        x,
        y,
        steps=steps,
        record=range(0, steps + 1, options.every) if record is None else list(record),
        x_test=x_test,
        y_test=y_test,
        batch_size=options.batch_size,
        metrics=metrics
        or si.metrics(batch_size=options.batch_size) | {"test_accuracy": "test_accuracy"},
        eval_batch_size=options.eval_batch_size,
        members_per_batch=options.members_per_batch,
        store=options.store,
        progress=progress,
        **more,
    )


def check_decay(grid: Mapping[str, Sequence[float]]) -> None:
    """Weight decay by itself shrinks the weights, |1 − ηλ| < 1, in every run.

    Raises:
        ValueError: if it does not.
    """
    product = max(grid.get("learning_rate", (0.0,))) * max(grid.get("l2", (0.0,)))
    if product >= 2:
        raise ValueError(
            f"`--learning-rate` times `--l2` is {product:g}; it must be below 2: weight decay alone would make the weights grow "
            "without end."
        )


def product_and_ratio(product: jax.Array, ratio: jax.Array) -> optax.GradientTransformation:
    """SGD with ηλ = product and η/λ = ratio."""
    return optimizers.sgd((product * ratio) ** 0.5, l2=(product / ratio) ** 0.5)


def on_sphere(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    r"""Steps that keep the norm: w ← ‖w‖ (w + Δ)/‖w + Δ‖."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        change, state = optimizer.update(updates, state, params)
        moved = optax.tree.add(params, change)
        scale = optax.tree.norm(params) / optax.tree.norm(moved)
        return jax.tree.map(lambda after, w: scale * after - w, moved, params), state

    return optax.GradientTransformation(optimizer.init, update)


def member(grid: xr.Dataset, rate: float, **cell: float) -> xr.Dataset:
    """One run of a grid up to its last step, with its effective learning rate η/ρ², and the attribute `diverged`."""
    found = grid.sel(cell).squeeze(drop=True)
    diverged = bool(found["status"] == "diverged")
    found = found.where(found["step"] <= found["last_step"], drop=True).drop_vars("status")
    return found.assign(effective_learning_rate=rate / found["norm2"]).assign_attrs(
        diverged=diverged
    )


def bursts(record: xr.Dataset, rise: float = 10.0) -> int:
    """How often the loss grows by the factor `rise` and falls by it again, whatever the norm does."""
    loss = np.log(np.maximum(record["loss"].to_numpy(), np.finfo(np.float32).tiny))
    return find_peaks(loss, prominence=np.log(rise))[0].size


def learned(record: xr.Dataset, found: si.Periods) -> int:
    """The periods in which the network learns: their least loss is below a tenth of that at the start."""
    return int(np.sum(found.loss[:, 1] < float(record["loss"][0]) / 10))


TIMES = 4.0
"""In units of 1/(ηλ): a run so long has periods if there are any; a shorter one without them decides nothing."""


def present(number: int, time: float, least: int = 3) -> bool | None:
    """Whether a run has periods, `least` or more in a time in units of 1/(ηλ); None of one that is too short to say."""
    return True if number >= least else False if time >= TIMES else None


def free_decay(levels: np.ndarray, product: float) -> np.ndarray:
    r"""Steps in which η/ρ² would grow from one level to another by weight decay alone: no period is shorter.

    .. math:: t = \frac{\ln(\tilde\eta_1/\tilde\eta_0)}{-2\ln(1-\eta\lambda)}

    (3) of `periodic` without gradients, which only add to ρ².

    Args:
        levels: effective learning rates, (n, 2): at the start of a period and at its destabilization.
        product: ηλ.
    """
    return np.log(levels[:, 1] / levels[:, 0]) / (-2 * np.log1p(-product))


def settled(found: si.Periods) -> np.ndarray:
    """Which periods count: all but the first, which has the warm-up in it, if there are others."""
    return np.arange(found.number) > 0 if found.number > 1 else np.ones(found.number, bool)


def summary(found: si.Periods, product: float) -> dict[str, Any]:
    """The periods of a run in numbers; lengths and phases are of those that are settled."""
    chosen = settled(found)
    return {
        "number": found.number,
        "lengths": found.lengths[chosen],
        "phases": {name: values[chosen] for name, values in found.phases.items()},
        "from the start to destabilization, over free decay": (
            (found.destabilization - found.start)[chosen]
            / free_decay(found.learning_rate[chosen], product)
        ),
        "loss": found.loss[chosen],
        "effective learning rate": found.learning_rate[chosen],
    }


def median(values: Any) -> float:
    """NaN of nothing."""
    return float(np.median(values)) if np.size(values) else np.nan


def listed(values: Iterable[float], form: str = ".3g") -> str:
    """Numbers in a row."""
    return ", ".join(format(float(value), form) for value in values).replace("-", "−")


def panels(axes: Any, record: xr.Dataset, names: Sequence[str], **line: Any) -> None:
    """Series of one run, one in each panel, over steps."""
    for ax, name in zip(axes, names, strict=True):
        values = 1 - record[name] if name == "test_accuracy" else record[name]
        ax.plot(record["step"], values, lw=0.8, **line)
        ax.set(xlabel="step", ylabel=LABELS[name])
        if name != "test_accuracy":
            ax.set_yscale("log")


LABELS = {
    "loss": "training loss",
    "test_accuracy": "test error",
    "effective_learning_rate": "effective learning rate η/ρ²",
    "effective_gradient_norm": "effective gradient norm ρ‖∇L‖",
    "norm2": "squared norm ρ²",
    "cosine_distance": "1 − cos of a step",
}
SERIES = ("loss", "test_accuracy", "effective_learning_rate", "effective_gradient_norm")


def shade(axes: Iterable[Any], found: si.Periods, number: int) -> None:
    """The phases of a period as coloured bands: A blue, B green, C red."""
    borders = (found.start, found.low, found.destabilization, found.end)
    ends = [border[number] for border in borders]
    for ax in axes:
        for color, begin, end in zip(PHASES.values(), ends[:-1], ends[1:], strict=True):
            ax.axvspan(begin, end, color=color, alpha=0.15, lw=0)
