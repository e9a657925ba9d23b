"""The networks of the papers do not see the scale of their weights, whatever normalizes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import homogeneity
from ntkdecay.scale_invariant import is_scale_invariant
from ntkdecay.scale_invariant.networks import cnn, conv_net, fc, pre_resnet, resnet_18

X = np.random.default_rng(0).normal(size=(6, 8, 8, 3))
NETWORKS = {
    "fc": fc(3, width=5),
    "cnn": cnn(3, channels=(4, 4), pooled=(0, 1)),
    "conv_net": conv_net(3, width=4),
    "layer": conv_net(3, width=4, norm="layer"),
    "group": conv_net(3, width=4, norm="group", groups=2),
    "instance": conv_net(3, width=4, norm="instance"),
    "pre_resnet": pre_resnet(8, 3, width=4),
    "resnet_18": resnet_18(3, width=4),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    net = NETWORKS[request.param]
    params = jax.tree.map(lambda p: p.astype(float), net.init(jax.random.key(0), X))
    return net.apply, params, jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(net.apply(p, X)))))(params)


def test_it_is_scale_invariant(network):
    apply_fn, params, _ = network
    holds, residual = is_scale_invariant(apply_fn, params, X)
    assert holds and residual < 1e-7


def test_gradients_are_orthogonal_to_the_weights(network):
    _, params, gradient = network
    inner = sum(
        jnp.vdot(g, p) for g, p in zip(*map(jax.tree.leaves, (gradient, params)), strict=True)
    )
    size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    assert size > 1e-3 and abs(inner) < 1e-6 * size


def test_layers_before_a_normalization_are_invariant_one_by_one():
    net = NETWORKS["resnet_18"]
    params = jax.tree.map(lambda p: p.astype(float), net.init(jax.random.key(0), X))
    name = next(iter(params))
    scaled = params | {name: jax.tree.map(lambda p: 3 * p, params[name])}
    np.testing.assert_allclose(net.apply(scaled, X), net.apply(params, X), rtol=1e-6, atol=1e-8)


def test_the_degree_is_0():
    net = NETWORKS["cnn"]
    params = jax.tree.map(lambda p: p.astype(float), net.init(jax.random.key(0), X))
    assert homogeneity.degree(net.apply, params, X).degree == pytest.approx(0, abs=1e-6)


def test_the_last_layer_is_frozen_and_of_the_norm_that_was_set():
    params = NETWORKS["conv_net"].init(jax.random.key(0), X)
    five, ten = (conv_net(3, width=4, head_norm=norm).apply(params, X) for norm in (5.0, 10.0))
    np.testing.assert_allclose(2 * five, ten, rtol=1e-6)
    assert all(leaf.ndim == 4 for leaf in jax.tree.leaves(params))  # convolutions only


def test_parameter_counts():
    def count(net, channels=3):
        x = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
        shapes = jax.eval_shape(lambda key: net.init(key, x), jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    assert count(conv_net()) == 9 * (3 * 32 + 32 * 64 + 64 * 128)
    # ResNet-18's published 11.17 M has 9600 of normalization and 5130 of the last layer
    assert count(resnet_18()) == 11_173_962 - 9600 - 5130
    # 270 k of ResNet-20, and 464 k of ResNet-32
    assert 0.265e6 < count(pre_resnet(20)) < 0.275e6 and 0.46e6 < count(pre_resnet(32)) < 0.47e6


def test_a_network_that_is_not_invariant_is_found_out():
    holds, residual = is_scale_invariant(lambda p, x: x @ p, jnp.ones((3, 1)), jnp.ones((2, 3)))
    assert not holds and residual == pytest.approx(1.0)


def test_an_unknown_keyword_is_named():
    with pytest.raises(TypeError, match="`norms` is no argument of a network"):
        cnn(3, norms="batch")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: conv_net(norm="weight"), "one of 'batch'"),  # pyright: ignore
        (lambda: fc(norm="instance"), "its variance is 0"),
        (lambda: cnn(channels=(4,), pooled=(1,)), "`pooled` is"),
        (lambda: conv_net(3).init(jax.random.key(0), X[0]), "`x` is of shape"),
        (lambda: is_scale_invariant(lambda p, x: p * jnp.nan, jnp.ones(2), X), "`apply_fn` gives NaN"),
        (lambda: pre_resnet(18), r"`depth` is 18; .* 6 n \+ 2"),
        (lambda: conv_net(head_norm=-1.0), "head_norm"),
        (lambda: conv_net(3, width=3, norm="group").init(jax.random.key(0), X), "`groups` is 8; 3 channels do not divide"),
        (lambda: conv_net(3).init(jax.random.key(0), X, b_std=1.0), "`b_std`.* no biases"),
    ],
)  # fmt: skip
def test_a_bad_argument_gets_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
