"""The loops of this package are compiled once: another call with other numbers compiles nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import scale_invariant as si

events: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: events.append(event) if "backend_compile" in event else None
)


def quotient(z):
    return z[0] ** 2 / (z @ z)


def noise(direction):
    return 0.1 * jnp.stack([-direction[1], direction[0]])[:, None]


def scaled(p, x):
    return x @ p / jnp.linalg.norm(p)


def calls(c: float):
    """Each function with numbers that depend on c."""
    series = np.linspace(1.0, 2.0, 7) * c
    rates = {"learning_rate": 0.01 * c, "l2": 0.1 * c}
    z = np.array([0.5, 1.0]) * c
    key = jax.random.key(int(10 * c))
    return {
        "gamma_path": lambda: si.gamma_path(np.arange(8.0) * c, 2.0 * c, series, 1e-3 * c),
        "norm2_path": lambda: si.norm2_path(1.0 * c, series, **rates),
        "norm2_from_gradients": lambda: si.norm2_from_gradients(1.0 * c, series, **rates),
        "sequence": lambda: si.sequence(1.0 * c, series, 0.1 * c),
        "sequence, constant": lambda: si.sequence(1.0 * c, 0.3 * c, 0.1 * c, 9),
        "descend": lambda: si.descend(z, **rates, steps=9),
        "lyapunov_exponent": lambda: si.lyapunov_exponent(z, **rates, steps=9),
        "weights_sde": lambda: si.weights_sde(
            quotient, noise, z, [0.0, 1.0, 2.0], **rates, key=key
        ),
        "direction_sde": lambda: si.direction_sde(
            quotient, noise, z / (z @ z) ** 0.5, c, [0.0, 1.0], intrinsic_lr=1e-3 * c, key=key
        ),
        "is_scale_invariant": lambda: si.is_scale_invariant(scaled, z, series[:, None] + z),
    }


@pytest.mark.parametrize("name", calls(1.0))
def test_other_numbers_compile_nothing(name):
    first, second = calls(1.0)[name], calls(1.1)[name]
    jax.block_until_ready(first())
    events.clear()
    jax.block_until_ready(second())
    assert not events


BAD = {
    "complex": lambda: si.gamma_path(np.arange(2.0), 1j, np.ones(1), 0.1),
    "nan": lambda: si.norm2_path(1.0, [np.nan], 0.1, 0.1),
    "text": lambda: si.sequence("1", 1.0, 0.1, 2),
    "none": lambda: si.gamma_constant_noise(None, 1.0, 1.0, 0.1),
    "mapping": lambda: si.norm2_path({}, [1.0], 0.1, 0.1),
    "empty": lambda: si.stationary_learning_rate([], 0.1),
    "complex rate": lambda: si.intrinsic_learning_rate(0.1j, 0.1),
    "a tolerance of 0": lambda: si.weights_sde(
        quotient,
        noise,
        [0.5, 1.0],
        [0.0, 1.0],
        learning_rate=0.1,
        l2=0.1,
        key=jax.random.key(0),
        tol=0.0,
    ),
    "a negative tolerance": lambda: si.weights_sde(
        quotient,
        noise,
        [0.5, 1.0],
        [0.0, 1.0],
        learning_rate=0.1,
        l2=0.1,
        key=jax.random.key(0),
        tol=-1.0,
    ),
    "complex weights": lambda: si.descend(np.array([1j, 1.0]), 0.1, 0.1, 3),
    "a network that is NaN": lambda: si.is_scale_invariant(
        lambda p, x: p * jnp.nan, jnp.ones(2), np.ones(2)
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_passed_without_a_word_is_one_sentence(name):
    with pytest.raises((ValueError, TypeError), match=r"`\w+`") as caught:
        BAD[name]()
    assert len(str(caught.value).splitlines()) == 1
