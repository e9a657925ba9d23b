import jax
import jax.numpy as jnp
import numpy as np
import optax

from ntkdecay import scale_invariant as si
from surface import EXEMPT, RESULT, Call, call


def series(other: bool, size: int = 4) -> np.ndarray:
    return np.random.default_rng(int(other)).uniform(1, 2, size)


def weights(other: bool) -> dict[str, jax.Array]:
    return {"w": jnp.asarray(series(other))}


def record(other: bool) -> dict[str, np.ndarray]:
    names = ("loss", "norm2", "effective_gradient_norm", "cosine_distance")
    return {name: series(other, 9) for name in names} | {"step": np.arange(9) + other}


def rates(other: bool) -> dict[str, float]:
    return {"learning_rate": 0.01 * (1 + other), "l2": 0.1 * (1 + other)}


def noise(direction):
    return 0.1 * jnp.stack([-direction[1], direction[0]])[:, None]


def covariance(direction):
    return noise(direction) @ noise(direction).T


def losses(z):
    return jnp.stack([z[0], z[1], z[0] + z[1]]) ** 2 / (z @ z)


def scaled(params, x):
    return x @ params["w"] / jnp.linalg.norm(params["w"])


def direction(other: bool) -> np.ndarray:
    return np.array([0.6, 0.8]) if other else np.array([0.8, 0.6])


def numbers(name: str, *agree: str, **arguments) -> None:
    """Register a function of numbers: each is moved a little for the other call."""
    function = getattr(si, name)

    @call(f"scale_invariant.{name}")
    def maker(other=False):
        return Call(
            function,
            {
                key: value * (1 + 0.01 * other) if isinstance(value, (float, np.ndarray)) else value
                for key, value in arguments.items()
            },
            agree,
        )


FOUR, FIVE = np.linspace(1.0, 2.0, 4), np.linspace(0.0, 4.0, 5)
RATES = {"learning_rate": np.full(4, 0.01), "l2": np.full(4, 0.1)}
LEVELS = {"least": FOUR / 10, "most": 2 * FOUR}
A_B = {"least": 0.1 * FOUR, "most": 0.2 * FOUR}
SHARE = np.full(4, 0.1)

numbers("intrinsic_learning_rate", *RATES, **RATES, momentum=0.9)
numbers("effective_learning_rate", "norm2", norm2=FOUR, learning_rate=RATES["learning_rate"])
numbers("gamma", "norm2", norm2=FOUR, learning_rate=RATES["learning_rate"])
numbers("gamma_constant_noise", "t", t=FOUR, gamma_0=FOUR, trace=1.0, intrinsic_lr=1e-3)
numbers("gamma_path", "t", "trace", t=FIVE, gamma_0=2.0, trace=FOUR, intrinsic_lr=1e-3)
numbers(
    "gamma_band", "t", t=FOUR, gamma_0=1.0, sigma2=FOUR, epsilon=0.5, intrinsic_lr=np.full(4, 1e-3)
)
numbers("relaxation_time", intrinsic_lr=1e-3)
numbers("stationary_learning_rate", "sigma2", sigma2=FOUR, intrinsic_lr=np.full(4, 1e-3))
numbers(
    "norm_convergence_time", "gamma_0", gamma_0=FOUR, intrinsic_lr=np.full(4, 1e-3), sigma2=2.0, factor=4.0
)  # fmt: skip
numbers("exponential_schedule", learning_rate=0.1, l2=0.5)
numbers("schedule_without_decay", *RATES, **RATES)
numbers("norm2_path", "norm2_0", norm2_0=FOUR, effective_gradient_norm=np.ones((3, 4)), learning_rate=0.01, l2=0.1)  # fmt: skip
numbers("norm2_from_gradients", "norm2_0", norm2_0=FOUR, gradient_norm=np.ones((3, 4)), learning_rate=0.01, l2=0.1)  # fmt: skip
numbers("cosine_distance", "norm2", norm2=FOUR, effective_gradient_norm=FOUR, **RATES)
numbers("jump_threshold", "delta", effective_gradient_norm=FOUR, delta=SHARE, **RATES, exact=True)
numbers("jump_times", "norm2_0", *LEVELS, norm2_0=FOUR, **LEVELS, delta=1e-3, **RATES)
numbers("equilibrium_norm2", *LEVELS, **LEVELS, **RATES)
numbers("equilibrium_learning_rate", *LEVELS, **LEVELS, **RATES)
numbers("power_envelope", effective_gradient_norm=FOUR, power=(1.0, 2.0), valid_from=1)
numbers("sequence", "x_0", x_0=FOUR, beta=np.ones((3, 4)), alpha=0.1)
numbers("phi", "ratio", ratio=FOUR, alpha=SHARE)
numbers("stationary_point", "beta", beta=FOUR, alpha=SHARE)
numbers("hop_threshold", alpha=SHARE)
numbers("turning_point", alpha=SHARE)
numbers("least_value", alpha=SHARE)
numbers("determined_bounds", "t", "x_0", t=FOUR, x_0=5 + FOUR, beta=0.1 * FOUR, alpha=SHARE)
numbers("bounding_sequences", *A_B, x_0=5 + FOUR, **A_B, alpha=0.1, steps=3)
numbers("rate_bounds", "t", *A_B, t=FOUR, x_0=FOUR, **A_B, alpha=SHARE)
numbers("attracts", *A_B, **A_B, alpha=SHARE)
numbers("attracting_interval", *A_B, **A_B, alpha=SHARE)
numbers("toy_loss", z=np.array([1.0, 2.0]))
numbers("descend", z_0=np.array([1.0, 2.0]), learning_rate=0.1, l2=0.1, steps=5)
numbers("lyapunov_exponent", z_0=np.array([1.0, 2.0]), learning_rate=0.1, l2=0.1, steps=5)
numbers("flow_ratio", "z_0", t=FOUR, z_0=np.array([1.0, 2.0]), learning_rate=0.1, l2=0.1)


@call("scale_invariant.exponential_schedule()")
def schedule(other=False):
    made = si.exponential_schedule(**rates(other))
    return Call(made, {"count": np.arange(3) + other})


@call("scale_invariant.rescaled")
def rescaled(other=False):
    return Call(si.rescaled, {"params": weights(other), **rates(other), "scale": 2.0 + other})


@call("scale_invariant.rescaled_adamw")
def rescaled_adamw(other=False):
    more = {"learning_rate": 0.1, "weight_decay": 0.1, "scale": 2.0 + other, "eps": 1e-8}
    return Call(si.rescaled_adamw, {"params": weights(other), **more})


@call("scale_invariant.is_scale_invariant")
def is_scale_invariant(other=False):
    return Call(
        si.is_scale_invariant,
        {"apply_fn": scaled, "params": weights(other), "x": np.ones((3, 4)) + other},
    )


@call("scale_invariant.bounds")
def bounds(other=False):
    more = {"least": np.full(9, 0.5), "most": np.full(9, 3.0), "window": 3}
    return Call(si.bounds, {"record": record(other), **rates(other), **more}, ("least", "most"))


@call("scale_invariant.periods")
def periods(other=False):
    arguments = {"record": record(other), "drop": 1.1 + 0.1 * other, "rise": 1.1, "window": 3}
    return Call(si.periods, arguments)


@call("scale_invariant.metrics")
def metrics(other=False):
    return Call(si.metrics, {"select": np.asarray, "batch_size": 2 + other})


@call("scale_invariant.step_metrics")
def step_metrics(other=False):
    del other
    return Call(si.step_metrics, {})


@call("scale_invariant.measured")
def measured(other=False):
    return Call(si.measured, {"optimizer": optax.sgd(0.1 + other), "select": np.asarray})


@call("scale_invariant.measured().init")
def init(other=False):
    return Call(si.measured(optax.sgd(0.1 + other)).init, {"params": weights(other)})


@call("scale_invariant.measured().update")
def update(other=False):
    optimizer, params = si.measured(optax.sgd(0.1 + other)), weights(other)
    arguments = {"updates": weights(other), "state": optimizer.init(params), "params": params}
    return Call(optimizer.update, arguments | {"value": 1.0 + other})


@call("scale_invariant.covariance_root")
def covariance_root(other=False):
    del other
    return Call(si.covariance_root, {"covariance": covariance})


@call("scale_invariant.covariance_root()")
def root(other=False):
    return Call(si.covariance_root(covariance), {"direction": direction(other)})


@call("scale_invariant.minibatch_root")
def minibatch_root(other=False):
    return Call(si.minibatch_root, {"losses": losses, "batch_size": 2 + other})


@call("scale_invariant.minibatch_root()")
def root_of_batches(other=False):
    return Call(si.minibatch_root(losses, 2 + other), {"direction": direction(other)})


def path(other: bool):
    return {
        "loss": si.toy_loss, "noise_root": noise, "ts": np.array([0.0, 1.0, 3.0]) * (1 + other),
        "key": jax.random.key(other), "dt": 0.5 * (1 + other),
    }  # fmt: skip


@call("scale_invariant.weights_sde")
def weights_sde(other=False):
    return Call(si.weights_sde, path(other) | {"w_0": 2 * direction(other), **rates(other)})


@call("scale_invariant.direction_sde")
def direction_sde(other=False):
    more = {"direction_0": direction(other), "gamma_0": 9.0 + other, "intrinsic_lr": 1e-3}
    return Call(si.direction_sde, path(other) | more)


for name in ("Bounds", "DirectionPath", "Measured", "Periods", "Rescaled", "RescaledAdamW", "Trajectory"):  # fmt: skip
    EXEMPT[f"scale_invariant.{name}"] = RESULT
