import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay.homogeneity import degree, lemma_1

IMAGES = np.random.default_rng(0).normal(size=(3, 6, 6, 2))
FLAT = IMAGES.reshape(3, -1)


class Net(nn.Module):
    """Three layers, and so of degree 3 without biases."""

    kind: str
    bias: bool = False

    @nn.compact
    def __call__(self, x):
        dense = functools.partial(nn.Dense, use_bias=self.bias, param_dtype=float)
        conv = functools.partial(nn.Conv, use_bias=self.bias, param_dtype=float)
        if self.kind in ("convolutional", "max-pooled"):
            x = nn.relu(conv(4, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2)) if self.kind == "max-pooled" else x
            x = nn.relu(conv(3, (2, 2))(x)).reshape(len(x), -1)
        else:
            activation = (lambda h: h) if self.kind == "linear" else nn.relu
            x = activation(dense(24)(x.reshape(len(x), -1)))
            x = activation(dense(16)(x))
        return dense(2)(x)


KINDS = ("ReLU", "linear", "convolutional", "max-pooled")


@functools.cache
def network(kind, bias=False):
    net = Net(kind, bias)
    apply_fn = lambda params, x: net.apply(params, x)  # noqa: E731
    with jax.numpy_rank_promotion("allow"):
        return apply_fn, net.init(jax.random.key(0), IMAGES)


def draw(params, key):
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten([jax.random.normal(k, p.shape) for k, p in zip(keys, leaves)])  # noqa: B905


@functools.cache
def sides(kind, m, bias=False):
    apply_fn, template = network(kind, bias)

    @jax.jit
    def sides(seed):
        params, *directions = (
            draw(template, k) for k in jax.random.split(jax.random.key(seed), m + 1)
        )
        return lemma_1(apply_fn, params, IMAGES, 3, directions)

    return sides


@pytest.mark.parametrize("m", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_lemma_1(kind, m, seed):
    left, right = sides(kind, m)(seed)
    size = abs(right).max()
    assert size > 0
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12 * size)


@pytest.mark.parametrize("m", [0, 1, 2])
def test_lemma_1_fails_with_biases(m):
    with jax.numpy_rank_promotion("allow"):
        left, right = sides("ReLU", m, bias=True)(0)
    assert abs(left - right).max() > 1e-3 * abs(right).max()


@pytest.mark.parametrize("kind", KINDS)
def test_degree_is_the_number_of_layers(kind):
    measured = degree(*network(kind), IMAGES)
    np.testing.assert_allclose(measured.degree, 3, rtol=1e-13)
    assert measured.residual < 1e-13


@pytest.mark.parametrize("k", [0, 0.5, 1, 2, 4.5])
def test_degree_may_be_any_number(k):
    apply_fn = lambda w, x: (x @ w) * jnp.linalg.norm(w) ** (k - 1)  # noqa: E731
    measured = degree(apply_fn, np.random.default_rng(1).normal(size=(72, 2)), FLAT)
    np.testing.assert_allclose(measured.degree, k, atol=1e-13)


def test_degree_in_float32():
    apply_fn, params = network("ReLU")
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    measured = degree(apply_fn, params, IMAGES.astype(np.float32))
    np.testing.assert_allclose(measured.degree, 3, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_biases_are_refused_though_they_are_zero_at_initialization(kind):
    apply_fn, params = network(kind, bias=True)
    assert not any(leaf.any() for leaf in jax.tree.leaves(params) if leaf.ndim == 1)
    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises(ValueError, match=r"not homogeneous .* relative residual .* biases"),
    ):
        degree(apply_fn, params, IMAGES)


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


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_output_without_a_degree_is_refused(value):
    with pytest.raises(ValueError, match="where its degree cannot be seen"):
        degree(lambda w, x: value * (x @ w), np.ones((72, 2)), FLAT)
