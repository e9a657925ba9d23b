"""The paper's networks: their sizes, symmetries and kernels, on tiny ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.example_libraries import stax as layers

from ntkdecay import homogeneity, kernels, networks, stax
from ntkdecay._convolutions import convolution_p

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(4, 9, 9, 2))
CNN = functools.partial(networks.cnn, 3, filters=5, dense=6, pool=2, epsilon=0.0)
RESNET = networks.wide_resnet(10, 1, 3, epsilon=0.0)
NORMALIZED = CNN(batch_norm=True)
TINY = {
    "fully connected": networks.fully_connected((7, 6), 3, parameterization="ntk"),
    "CNN": NORMALIZED,
    "residual": RESNET,
}
each = pytest.mark.parametrize("network", TINY.values(), ids=TINY.keys())


def shapes(network, *x):
    return jax.eval_shape(network.init, KEY, jax.ShapeDtypeStruct(x, float))


def size(network, *x) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(network, *x)))


def rescaled(params, factor, chosen):
    """The chosen parameters times a factor; chosen by their path."""
    return jax.tree.map_with_path(
        lambda path, p: factor * p if chosen(jax.tree_util.keystr(path)) else p, params
    )


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 1, 0.6), (40, 4, 8.9), (16, 8, 11.0), (22, 10, 26.8), (28, 10, 36.5), (28, 12, 52.5)],
)
def test_wide_residual_networks_have_the_published_numbers_of_parameters(depth, width, millions):
    """Zagoruyko & Komodakis (2016), their tables of CIFAR results."""
    assert round(size(networks.wide_resnet(depth, width), 1, 32, 32, 3) / 1e6, 1) == millions


def test_the_papers_networks_have_the_parameters_of_their_formulas():
    fc = 784 * 2048 + 2 * 2048**2 + 2048 * 10
    assert size(networks.fully_connected(), 1, 28, 28, 1) == fc + 3 * 2048 + 10
    assert size(networks.fully_connected(bias=False), 1, 28, 28, 1) == fc
    pixels = (((32 - 2) - 5) - 2 - 5) ** 2  # two convolutions and two maxima that are not padded
    conv = 9 * 300 * (3 + 3 * 300)
    dense = pixels * 300 * 500 + 500 * 10
    assert size(networks.cnn(batch_norm=False, bias=False), 1, 32, 32, 3) == conv + dense
    with_biases = conv + 4 * 300 + dense + 500 + 10
    assert size(networks.cnn(batch_norm=False), 1, 32, 32, 3) == with_biases
    assert size(networks.cnn(batch_norm=True), 1, 32, 32, 3) == with_biases + 3 * (2 - 1) * 300


def test_weights_are_drawn_by_lecuns_rule_times_w_std():
    for parameterization, expected in [("standard", 1.7 / np.sqrt(400)), ("ntk", 1.7)]:
        network = networks.fully_connected((500,), 300, parameterization=parameterization)
        first, last = network.init(KEY, np.zeros((1, 400)), w_std=1.7, b_std=0.3).values()
        np.testing.assert_allclose(first["kernel"].std(), expected, rtol=0.01)
        np.testing.assert_allclose(
            jnp.concatenate([first["bias"], last["bias"]]).std(), 0.3, rtol=0.1
        )
        assert (
            abs(
                np.corrcoef(first["kernel"][:300, :300].ravel(), last["kernel"][:300].ravel())[0, 1]
            )
            < 0.02
        )
    for network, layer, w_std in [
        (NORMALIZED, "Conv_3", np.sqrt(2)),
        (RESNET, "_Block_2", 1),
    ]:
        drawn = network.init(KEY, IMAGES)[layer]
        kernel = drawn.get("conv2", drawn)["kernel"]
        expected = w_std / np.sqrt(np.prod(kernel.shape[:-1]))
        np.testing.assert_allclose(kernel.std(), expected, rtol=3 / np.sqrt(2 * kernel.size))
    assert not NORMALIZED.init(KEY, IMAGES)["Conv_3"]["bias"].any()  # σ_b is 0 in the paper


def test_networks_without_biases_are_homogeneous_of_their_depth():
    fc = networks.fully_connected((7, 6), 3, bias=False)
    for network, k in [(fc, 3), (CNN(batch_norm=False, bias=False), 6)]:
        params = network.init(KEY, IMAGES)
        np.testing.assert_allclose(
            homogeneity.degree(network.apply, params, IMAGES)[0], k, rtol=1e-12
        )


def test_batch_normalization_takes_its_layers_and_those_before_out_of_the_degree():
    """What is left of the CNN: scale and offset of the last normalization, a convolution, two dense layers."""
    network = CNN(batch_norm=True, bias=False)
    measured = homogeneity.degree(network.apply, network.init(KEY, IMAGES), IMAGES)
    np.testing.assert_allclose(measured.degree, 4, rtol=1e-10)


@pytest.mark.parametrize(
    ("network", "scale_invariant", "others"),
    [
        (NORMALIZED, "Conv_0 Conv_1 Conv_2", "Conv_3 Dense_0 Dense_1"),
        (RESNET, "conv1", "Conv_0 conv2 shortcut Dense_0"),
    ],
    ids=["CNN", "residual"],
)
def test_weights_before_batch_normalization_are_scale_invariant(network, scale_invariant, others):
    params, apply = network.init(KEY, IMAGES), jax.jit(network.apply)
    fx = apply(params, IMAGES)

    def change(layer):
        moved = rescaled(params, 3.0, lambda path: layer in path and "kernel" in path)
        return abs(apply(moved, IMAGES) - fx).max() / abs(fx).max()

    for layer in scale_invariant.split():
        assert change(layer) < 1e-11, layer
    for layer in others.split():
        assert change(layer) > 1e-2, layer


def test_batch_normalization_takes_the_statistics_of_the_batch():
    params, apply = NORMALIZED.init(KEY, IMAGES), jax.jit(NORMALIZED.apply)
    fx = apply(params, IMAGES)
    np.testing.assert_allclose(apply(params, IMAGES[::-1]), fx[::-1], rtol=1e-9)
    assert abs(apply(params, IMAGES[:2]) - fx[:2]).max() > 1e-2 * abs(fx).max()


def test_the_cnn_is_the_papers_in_the_library_the_paper_used():
    """SM A, layer by layer, with jax.example_libraries.stax and its batch normalization."""
    act = (layers.BatchNorm(epsilon=0.0), layers.Relu)
    conv1, conv2 = (layers.Conv(5, (3, 3), padding=padding) for padding in ("SAME", "VALID"))
    pool = layers.MaxPool((2, 2), padding="VALID")
    _, apply = layers.serial(
        *(conv1, *act, conv2, *act, pool, conv1, *act, conv2, pool),
        *(layers.Flatten, layers.Dense(6), layers.Dense(3)),
    )
    ours = NORMALIZED.init(KEY, IMAGES, b_std=0.5)
    ours = jax.tree.map_with_path(
        lambda path, p: p + path[-1].key.startswith("offset") * jnp.arange(p.size).reshape(p.shape),
        rescaled(ours, 1.5, lambda path: "scale" in path),
    )
    conv = [
        (layer["kernel"], layer.get("bias", jnp.zeros(5)).reshape(1, 1, 1, 5))
        for layer in (ours[f"Conv_{i}"] for i in range(4))
    ]
    norm = [(ours[f"_BatchNorm_{i}"]["offset"], ours[f"_BatchNorm_{i}"]["scale"]) for i in range(3)]
    dense = [(ours[f"Dense_{i}"]["kernel"], ours[f"Dense_{i}"]["bias"]) for i in range(2)]
    theirs = [conv[0], norm[0], (), conv[1], norm[1], (), (), conv[2], norm[2], (), conv[3], ()]
    with jax.numpy_rank_promotion("allow"):
        expected = jax.jit(apply)([*theirs, (), *dense], IMAGES)
    np.testing.assert_allclose(jax.jit(NORMALIZED.apply)(ours, IMAGES), expected, rtol=1e-9)


def operations(jaxpr):
    """Those of the programs within too: some versions of JAX inline them, some do not."""
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        yield from [equation] if inner is None else operations(getattr(inner, "jaxpr", inner))


def test_the_residual_networks_groups_have_the_published_sizes():
    """Table 1 of Zagoruyko & Komodakis (2016), with N = 2 and k = 3."""
    network, x = networks.wide_resnet(16, 3), jax.ShapeDtypeStruct((1, 32, 32, 3), float)
    convolutions = [
        (eqn.invars[1].aval.shape[0], eqn.outvars[0].aval.shape[1:])
        for eqn in operations(jax.make_jaxpr(network.apply)(shapes(network, *x.shape), x).jaxpr)
        if eqn.primitive is convolution_p
    ]
    groups = [(32, 32, 48), (16, 16, 96), (8, 8, 192)]
    blocks = [conv for group in groups for conv in [(1, group)] + [(3, group)] * 4]
    assert convolutions == [(3, (32, 32, 16)), *blocks]


def test_the_ntk_parameterization_has_neural_tangents_kernel_at_large_width():
    """At σ_w = σ_b = s the analytic kernel, of parameters outside of which s stands, is s² times ours."""
    s, x = 1.3, IMAGES[:, :3, :3]
    hidden = [stax.Dense(1, s, s), stax.Relu()] * 2
    analytic = kernels.analytic_kernel(
        stax.serial(stax.Flatten(), *hidden, stax.Dense(1, s, s))[2], x
    )

    def error(width):
        network = networks.fully_connected((width, width), 1, parameterization="ntk")

        def theta(key):
            params = network.init(key, x, s, s)
            jacobian = jax.tree.leaves(jax.jacobian(network.apply)(params, x))
            flat = jnp.concatenate([j.reshape(len(x), -1) for j in jacobian], 1)
            return s**2 * flat @ flat.T

        thetas = jax.jit(lambda keys: jax.lax.map(theta, keys))(jax.random.split(KEY, 64))
        off = jnp.linalg.norm(thetas - analytic[None], axis=(1, 2)) / jnp.linalg.norm(analytic)
        return float(jnp.sqrt((off**2).mean()))

    for width in (32, 512):  # of 400 draws the error is 1.75 / √width
        assert 1.2 < error(width) * np.sqrt(width) < 2.3, width


def test_both_parameterizations_are_the_same_function_of_the_same_draw():
    standard, ntk = networks.fully_connected((7, 6), 3), TINY["fully connected"]
    functions = [net.apply(net.init(KEY, IMAGES, 1.3, 0.4), IMAGES) for net in (standard, ntk)]
    np.testing.assert_allclose(*functions, rtol=1e-12)
    assert networks.fully_connected([7, 6], 3) is standard  # so that jit compiles it once


@pytest.mark.parametrize("network", [TINY["fully connected"], NORMALIZED], ids=["FC", "CNN"])
def test_seeds_and_w_std_may_be_vmapped(network):
    keys, w_std = jax.random.split(KEY, 2), jnp.array([0.5, 2.0])
    x = jax.ShapeDtypeStruct(IMAGES.shape, jnp.uint8)
    params = jax.vmap(lambda key, w: network.init(key, x, w, 0.1))(keys, w_std)
    one = network.init(keys[1], IMAGES, 2.0, 0.1)
    jax.tree.map(lambda many, p: np.testing.assert_allclose(many[1], p, rtol=1e-12), params, one)
    fx = jax.jit(jax.vmap(network.apply, (0, None)))(params, IMAGES)
    assert fx.shape == (2, 4, 3)
    np.testing.assert_allclose(fx[1], jax.jit(network.apply)(one, IMAGES), rtol=1e-8)


@each
def test_the_parameters_dtype_is_the_networks(network):
    params, apply = network.init(KEY, IMAGES), jax.jit(network.apply)
    fx = apply(params, IMAGES)
    assert fx.dtype == jnp.float64
    for dtype, tolerance in [(jnp.float32, 1e-5), (jnp.bfloat16, 0.1)]:
        low = apply(jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), params), IMAGES)
        assert low.dtype == dtype
        assert jnp.linalg.norm(low - fx) < tolerance * jnp.linalg.norm(fx)


def test_what_makes_no_network_is_refused():
    for wrong, message in [
        (lambda: networks.wide_resnet(27), "`depth` is 27; allowed are 6 n"),
        (lambda: networks.wide_resnet(4), "`depth` is 4"),
        (lambda: networks.wide_resnet(width=0), "`width` is 0"),
        (lambda: networks.fully_connected((3, 0)), r"`widths\[1\]` is 0"),
        (lambda: networks.fully_connected(parameterization="mup"), "`parameterization` is 'mup'"),  # pyright: ignore
        (lambda: networks.cnn(batch_norm=True, pool=0), "`pool` is 0"),
        (lambda: shapes(networks.cnn(batch_norm=True), 1, 8, 8, 1), "15 × 15 or more: enlarge"),
        (lambda: shapes(CNN(batch_norm=False), 4, 81), "height, width, channels"),
        (lambda: RESNET.init(KEY, IMAGES, jnp.ones(2)), r"`w_std` is of shape \(2,\).*vmap"),
        (
            lambda: networks.fully_connected((3,), bias=False).init(KEY, IMAGES, b_std=0.1),
            "`b_std` is 0.1, but the network has no biases",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


@pytest.mark.parametrize(
    ("network", "module"),
    [
        (NORMALIZED, networks._CNN(3, True, 5, 6, 2, True, 0.0)),
        (RESNET, networks._WideResNet(1, 1, 3, "batch", 0.0)),
    ],
    ids=["CNN", "residual"],
)
def test_a_network_is_its_flax_module_with_fast_convolutions(network, module):
    """Called as it is, too, not in `training` alone."""
    params = network.init(KEY, IMAGES)
    plain = functools.partial(module.apply, {"params": params})
    np.testing.assert_allclose(network.apply(params, IMAGES), plain(IMAGES), rtol=1e-9, atol=1e-12)
    assert "conv_general_dilated" in str(jax.make_jaxpr(plain)(IMAGES))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(network.apply)(params, IMAGES))
