"""What a sweep costs before and beside its steps: the first sign of life, the first steps, the choice of the blocks.

A grid of small networks on digits, once for a few steps and once for many, from nothing compiled: with the width of its blocks
left to the library, and with each width given. The choice has cost what the first lacks to the best of the others.
"""

import io
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import datasets, training
from ntkdecay.training import _program

MEMBERS, WIDTH, SAMPLES, BATCH = 32, 64, 512, 64
STEPS = {"short": 100, "long": 40_000}
WIDTHS = (1, 4, 32)
RATIOS = [(f"{run}: width chosen", f"{run}: width {width}") for run in STEPS for width in WIDTHS]


def init(key):
    first, second = jax.random.split(key)
    shapes = (64, WIDTH), (WIDTH, 10)
    return [
        jax.random.normal(k, s, jnp.float32) * s[0] ** -0.5
        for k, s in zip((first, second), shapes, strict=True)
    ]


def apply_fn(params, x):
    return jax.nn.relu(x @ params[0]) @ params[1]


def loss(fx, y):
    return optax.softmax_cross_entropy_with_integer_labels(fx, y).mean()


class Watch(io.StringIO):
    """When a progress bar was first seen, and first seen to have moved."""

    def __init__(self):
        super().__init__()
        self._begin, self.sign, self.moved = time.perf_counter(), None, None

    def write(self, text):
        if text.strip():
            now = time.perf_counter() - self._begin
            self.sign = self.sign or now
            self.moved = self.moved or (None if " 0.00/" in text else now)
        return len(text)


@pytest.mark.parametrize("width", [None, *WIDTHS])
@pytest.mark.parametrize("run", STEPS)
def test_a_sweep_from_nothing_compiled(benchmark, medians, monkeypatch, run, width):
    benchmark.group = f"{run} sweep"
    digits = datasets.load("digits")
    x = digits.x_train[:SAMPLES].reshape(SAMPLES, -1).astype(np.float32)
    watches = []

    def forget():
        _program._compiled.clear()
        jax.clear_caches()
        watches.append(Watch())
        monkeypatch.setattr(sys, "stderr", watches[-1])

    def call():
        training.sweep(
            init, apply_fn, loss, lambda learning_rate: optax.sgd(learning_rate),
            {"learning_rate": np.geomspace(0.01, 0.1, MEMBERS)}, x, digits.y_train[:SAMPLES], steps=STEPS[run],
            batch_size=BATCH, record=20, members_per_batch=width, progress=True,
        )  # fmt: skip

    benchmark.pedantic(call, setup=forget, rounds=3 if run == "short" else 1)
    name = f"{run}: width {width or 'chosen'}"
    medians[name] = benchmark.stats.stats.median
    if width is None:
        medians[f"{run}: first sign of life"] = np.median([watch.sign for watch in watches])
        medians[f"{run}: first steps"] = np.median([watch.moved for watch in watches])
