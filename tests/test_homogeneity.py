import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ntkdecay import stax
from ntkdecay.homogeneity import Degree, degree, degrees, lemma_1

IMAGES = np.random.default_rng(0).normal(size=(3, 2, 6, 6))
FLAT = IMAGES.reshape(3, -1)
SHAPES = {
    "ReLU": [(72, 12), (12, 10), (10, 2)],
    "linear": [(72, 12), (12, 10), (10, 2)],
    "convolutional": [(3, 2, 3, 3), (2, 3, 2, 2), (18, 2)],
    "max-pooled": [(3, 2, 3, 3), (2, 3, 2, 2), (2, 2)],
}


def network(kind, params, x):
    """Three layers, and so of degree 3; biases, if params ends with two of them."""
    w1, w2, w3, *biases = params
    b1, b2 = (b[None] for b in biases) if biases else (0, 0)
    if kind in ("ReLU", "linear"):
        activation = jax.nn.relu if kind == "ReLU" else lambda h: h
        return activation(activation(x.reshape(3, -1) @ w1 + b1) @ w2 + b2) @ w3
    x = jax.nn.relu(lax.conv(x, w1, (1, 1), "VALID"))
    if kind == "max-pooled":
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jax.nn.relu(lax.conv(x, w2, (1, 1), "VALID"))
    return x.reshape(3, -1) @ w3


NETWORKS = {kind: functools.partial(network, kind) for kind in SHAPES}


def draw(kind, seed, *more):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in (*SHAPES[kind], *more)]


@functools.partial(jax.jit, static_argnums=0)
def both_sides(apply_fn, params, *directions):
    """The sides of Lemma 1 for m = 0, …, the number of directions."""
    return [
        lemma_1(apply_fn, params, IMAGES, Degree(3, 0.0), directions[:m])
        for m in range(len(directions) + 1)
    ]


@pytest.mark.parametrize("kind", SHAPES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_lemma_1_for_m_0_1_2(kind, seed):
    params, *directions = (draw(kind, (seed, i)) for i in range(3))
    for left, right in both_sides(NETWORKS[kind], params, *directions):
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12 * abs(right).max())


def test_lemma_1_speaks_of_derivatives_that_do_not_vanish_and_fails_with_biases():
    params, *directions = (draw("ReLU", i) for i in range(3))
    for left, _ in both_sides(NETWORKS["ReLU"], params, *directions):
        assert abs(left).max() > 1
    params, *directions = (draw("ReLU", i, (12,), (10,)) for i in range(3))
    for left, right in both_sides(NETWORKS["ReLU"], params, *directions):
        assert abs(left - right).max() > 1e-3 * abs(right).max()


@pytest.mark.parametrize("kind", SHAPES)
def test_degree_is_the_number_of_layers(kind):
    measured = degree(NETWORKS[kind], draw(kind, 0), IMAGES)
    np.testing.assert_allclose(measured.degree, 3, rtol=1e-13)
    assert measured.residual < 1e-13


@pytest.mark.parametrize("k", [0, 0.5, 1, 2, 4.5])
def test_degree_may_be_any_number(k):
    apply_fn = lambda w, x: (x @ w) * jnp.linalg.norm(w) ** (k - 1)  # noqa: E731
    measured = degree(apply_fn, np.random.default_rng(1).normal(size=(72, 2)), FLAT)
    np.testing.assert_allclose(measured.degree, k, atol=1e-13)


def test_degree_in_float32():
    params = [p.astype(np.float32) for p in draw("ReLU", 0)]
    measured = degree(NETWORKS["ReLU"], params, IMAGES.astype(np.float32))
    np.testing.assert_allclose(measured.degree, 3, rtol=1e-5)


def test_a_stax_network_with_biases_is_read_and_refused():
    init, apply_fn, _ = stax.serial(stax.Dense(4, b_std=0.1), stax.Relu(), stax.Dense(2, b_std=0.1))
    params = init(jax.random.key(0), FLAT.shape)[1]
    with pytest.raises(ValueError, match="usual causes are biases"):
        degree(apply_fn, params, FLAT)


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_biases_are_refused_though_at_initialization_they_are_zero(scale):
    params = [*draw("ReLU", 0), scale * np.ones(12), scale * np.ones(10)]
    with pytest.raises(ValueError, match=r"not homogeneous .* relative residual .* biases"):
        degree(NETWORKS["ReLU"], params, IMAGES)


def test_the_epsilon_of_normalization_is_refused_unless_allowed():
    def normalized(w, x):
        h = x @ w
        return h / jnp.sqrt((h**2).mean(0, keepdims=True) + 1e-5)

    w = np.random.default_rng(1).normal(size=(72, 2))
    with pytest.raises(ValueError, match="epsilon of batch or layer normalization"):
        degree(normalized, w, FLAT)
    assert abs(degree(normalized, w, FLAT, tolerance=1e-4).degree) < 1e-6


def test_smooth_activations_are_refused():
    with pytest.raises(ValueError, match="smooth activations such as tanh"):
        degree(lambda w, x: jnp.tanh(x @ w), np.random.default_rng(1).normal(size=(72, 2)), FLAT)


def test_an_identity_skip_is_refused():
    with pytest.raises(ValueError, match="identity skips"):
        degree(
            lambda w, x: x + jax.nn.relu(x @ w),
            np.random.default_rng(1).normal(size=(72, 72)),
            FLAT,
        )


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_output_without_a_degree_is_refused(value):
    with pytest.raises(ValueError, match="where its degree cannot be seen"):
        degree(lambda w, x: value * (x @ w), np.ones((72, 2)), FLAT)


POWER = 2


def test_the_degree_is_that_of_what_the_network_computes_now():
    global POWER
    f = lambda w, x: (x @ w) ** POWER  # noqa: E731
    for POWER in (2, 3):
        measured = degree(f, np.random.default_rng(1).normal(size=(72, 2)), FLAT)
        np.testing.assert_allclose(measured.degree, POWER, atol=1e-13)


def normalized(params, x):
    """A body of degree 0 under a head of degree 1, in flax's two levels."""
    h = x.reshape(3, -1) @ params["params"]["body"]["kernel"]
    return jax.nn.relu(h / jnp.linalg.norm(h, axis=1, keepdims=True)) @ params["params"]["head"]


def test_degrees_are_those_of_blocks():
    rng = np.random.default_rng(0)
    head, bias = rng.normal(size=(12, 2)), np.zeros(2)
    params = {"params": {"body": {"kernel": rng.normal(size=(72, 12))}, "head": head}}
    found = degrees(normalized, params, IMAGES)
    assert {block: round(k.degree, 9) for block, k in found.items()} == {"body": 0, "head": 1}
    whole = degrees(normalized, params, IMAGES, {"params": "all"})
    assert whole["all"].degree == pytest.approx(degree(normalized, params, IMAGES).degree)
    layers = draw("ReLU", 0)
    by_function = degrees(NETWORKS["ReLU"], layers, IMAGES, lambda p: ["low", "low", "high"])
    assert [round(by_function[block].degree, 9) for block in ("low", "high")] == [2, 1]
    assert list(degrees(NETWORKS["ReLU"], layers, IMAGES)) == ["0", "1", "2"]

    def biased(params, x):
        return normalized(params["net"], x) + params["bias"][None]

    with pytest.raises(ValueError, match="not homogeneous in the parameters of block 'bias'"):
        degrees(biased, {"net": params, "bias": bias}, IMAGES)
    with pytest.raises(ValueError, match="no prefix of that of `params`"):
        degrees(normalized, params, IMAGES, {"params": {"body": "body"}})
    with pytest.raises(TypeError, match=r"`blocks` is .*; it must be a tree of labels"):
        degrees(normalized, params, IMAGES, {"params": 0.5})
