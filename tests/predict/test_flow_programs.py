"""What a flow compiles: few programs at its first call, none at a second with other numbers, none kept for ever."""

import gc

import jax.numpy as jnp
import numpy as np
import pytest
from test_programs import compilations

from ntkdecay.predict import gradient_descent, sgd
from ntkdecay.predict._state import program

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 8))


def make(predictor, loss, **options):
    k, y = A @ A.T / 8, RNG.normal(size=(6, 2))
    return predictor(loss, k, y, l2=RNG.uniform(), degree=2, learning_rate=0.1, **options)


@pytest.mark.parametrize("predictor", [gradient_descent, sgd])
def test_a_first_call_compiles_at_most_five_programs(predictor):
    def loss(fx, y):
        return jnp.mean((fx - y) ** 4)

    with compilations() as counter:
        make(predictor, loss)(np.array([1.0, 3.0]), RNG.normal(size=(6, 2)))
    assert 1 <= len(counter) <= 5
    with compilations() as counter:
        make(predictor, loss)(np.array([2.0, 9.0]), RNG.normal(size=(6, 2)))
    assert not counter


def test_programs_of_losses_that_are_gone_are_dropped():
    kept = program.cache_info().maxsize
    assert kept is not None
    for _ in range(kept + 3):  # compiled when called, so cheap
        make(sgd, lambda fx, y: jnp.sum((fx - y) ** 2))
    gc.collect()
    assert program.cache_info().currsize == kept
