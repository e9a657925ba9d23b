"""`kernels.analytic`: networks as they are written against the same in neural-tangents' `stax`."""

import warnings

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkdecay import networks, stax
from ntkdecay._convolutions import fast
from ntkdecay.kernels import analytic, empirical_ntk
from ntkdecay.scale_invariant import networks as scale_invariant_networks

V = np.random.default_rng(0).normal(size=(4, 6))
V2 = np.random.default_rng(1).normal(size=(3, 6))
IMAGES = np.random.default_rng(2).normal(size=(3, 8, 8, 3))
IMAGES2 = np.random.default_rng(3).normal(size=(2, 8, 8, 3))
KEY = jax.random.key(0)


def dense(n, w=1.5, b=0.1):
    return stax.Dense(n, w**0.5, None if b is None else b, parameterization="standard")


def conv(n, shape, strides=None, padding="SAME", w=1.5, b=0.1):
    return stax.Conv(n, shape, strides, padding, w**0.5, b, parameterization="standard")


def fan_in_variances(params, weight, w=1.5, b=0.01):
    """W of variance w/fan-in where `weight` of the name says so, b elsewhere, 0 for a norm's scale."""

    def variance(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "scale" in name:
            return 0.0
        fan_in = weight(leaf.shape) if leaf.ndim > 1 and "bias" not in name else None
        return b if fan_in is None else w / fan_in

    return jax.tree.map_with_path(variance, params)


def last(shape):
    return np.prod(shape[:-1])


def assert_same(apply_fn, params, variances, kernel_fn, x1, x2, rtol=1e-12):
    for get in ("ntk", "nngp"):
        k = analytic(apply_fn, params, x1, x2, get, variances=variances)
        with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that FanInSum takes independence on trust
            expected = kernel_fn(jnp.asarray(x1), jnp.asarray(x2), get)
        assert k.dtype == jnp.float64
        np.testing.assert_allclose(k, expected, rtol=rtol, atol=1e-13)


def numerical(f, degree):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its accuracy
        return stax.ElementwiseNumerical(f, degree)


ACTIVATIONS = {
    "relu": (nn.relu, stax.Relu()),
    "leaky_relu": (lambda x: nn.leaky_relu(x, 0.2), stax.LeakyRelu(0.2)),
    "abs": (jnp.abs, stax.Abs()),
    "erf": (jax.lax.erf, stax.Erf()),
    "scaled erf": (lambda x: 0.5 * jax.lax.erf(x / np.sqrt(2)) + 0.5, stax.Erf(0.5, 0.5**0.5, 0.5)),
    "gelu": (lambda x: nn.gelu(x, approximate=False), stax.Gelu()),
    "sin": (lambda x: jnp.sin(2 * x), stax.Sin(1.0, 2.0)),
    "cos": (jnp.cos, stax.Cos()),
    "rbf": (lambda x: np.sqrt(2) * jnp.sin(np.sqrt(2 * 0.5) * x + np.pi / 4), stax.Rbf(0.5)),
    "monomial": (lambda x: x**3, stax.Monomial(3)),
    "polynomial": (lambda x: 0.5 + x - 0.25 * x * x, stax.Polynomial([0.5, 1.0, -0.25])),
    "rectified": (lambda x: nn.relu(x) ** 2, stax.RectifiedMonomial(2)),
    "exp": (lambda x: jnp.exp(0.3 * x), stax.Exp(1.0, 0.3)),
    "gaussian": (lambda x: jnp.exp(-(x**2)), stax.Gaussian()),
    "tanh": (jnp.tanh, numerical(jnp.tanh, 40)),
    "sigmoid": (nn.sigmoid, numerical(jax.nn.sigmoid, 40)),
    "gelu by tanh": (nn.gelu, numerical(jax.nn.gelu, 40)),
}


QUADRATURE = ("tanh", "sigmoid", "gelu by tanh")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in QUADRATURE else n for n in ACTIVATIONS],
)
def test_every_activation_in_plain_jax(name):
    f, layer = ACTIVATIONS[name]

    def apply(params, x):
        return f(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    params = {"w1": jnp.ones((6, 9)), "b1": jnp.ones(9), "w2": jnp.ones((9, 2)), "b2": jnp.ones(2)}
    variances = {"w1": 1.5 / 6, "b1": 0.01, "w2": 1.5 / 9, "b2": 0.01}
    _, _, kernel = stax.serial(dense(9), layer, dense(2))
    size = 0.5 if name in QUADRATURE else 1.0
    assert_same(apply, params, variances, kernel, size * V, size * V2)


def test_a_quadrature_beyond_its_reach_is_refused():
    def apply(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"]

    params, x, deviation = {"w": jnp.ones((1, 9)), "v": jnp.ones((9, 1))}, np.ones((1, 1)), 1.6
    variances = {"w": deviation**2, "v": 1 / 9}
    with pytest.raises(ValueError, match=r"`quadrature` is 40, which is exact .* 1\.2 or less"):
        analytic(apply, params, x, variances=variances)
    traced = jax.jit(lambda x: analytic(apply, params, x, variances=variances))(x)
    assert np.isnan(traced).all()
    found = analytic(apply, params, x, get="nngp", variances=variances, quadrature=80)
    z = np.linspace(-10, 10, 10001)
    exact = (np.tanh(deviation * z) ** 2 * np.exp(-(z**2) / 2)).sum() * (z[1] - z[0])
    np.testing.assert_allclose(found, exact / np.sqrt(2 * np.pi), rtol=1e-3)


def linen_module(function):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(x)

    return Network()


def linen(function, x):
    module = linen_module(function)
    with jax.numpy_rank_promotion("allow"):  # flax promotes ranks
        return module.apply, jax.eval_shape(module.init, KEY, x)


def residual_dense(x):
    x = nn.Dense(12)(x)
    for _ in range(2):
        x = x + nn.Dense(12)(nn.relu(x))
    return nn.Dense(3)(nn.relu(x))


def residual_conv(x):
    x = nn.Conv(4, (3, 3))(x)
    x = x + nn.Conv(4, (3, 3))(nn.relu(x))
    return nn.Dense(2)(nn.relu(x).mean((1, 2)))


def norm(x):
    x = nn.LayerNorm(use_bias=False, use_scale=False)(nn.Dense(8)(x))
    return nn.Dense(2)(nn.relu(x))


def norm_in_images(x):
    x = nn.LayerNorm(use_bias=False, use_scale=False)(nn.Conv(8, (3, 3))(x))
    return nn.Dense(2)(nn.relu(x).reshape(len(x), -1))


def rms(x):
    x = nn.RMSNorm(use_scale=False)(nn.Dense(8)(x))
    return nn.Dense(2)(nn.relu(x))


RESIDUAL = [dense(12)] + 2 * [
    stax.serial(
        stax.FanOut(2),
        stax.parallel(stax.Identity(), stax.serial(stax.Relu(), dense(12))),
        stax.FanInSum(),
    )
]
RESIDUAL_CONV = stax.serial(
    stax.FanOut(2),
    stax.parallel(stax.Identity(), stax.serial(stax.Relu(), conv(4, (3, 3)))),
    stax.FanInSum(),
)
LINEN = {
    "linear": (lambda x: nn.Dense(3)(x), dense(3), V, V2),
    "residual": (residual_dense, stax.serial(*RESIDUAL, stax.Relu(), dense(3)), V, V2),
    "layer norm": (norm, stax.serial(dense(8), stax.LayerNorm(eps=1e-6), stax.Relu(), dense(2)), V, V2),
    "rms norm": (rms, stax.serial(dense(8), stax.LayerNorm(eps=1e-6), stax.Relu(), dense(2)), V, V2),
    "flat images": (
        lambda x: nn.Dense(2)(nn.relu(nn.Dense(8)(x.reshape(len(x), -1)))),
        stax.serial(stax.Flatten(), dense(8), stax.Relu(), dense(2)), IMAGES, IMAGES2,
    ),
    "conv, flatten": (
        lambda x: nn.Dense(2)(nn.relu(nn.Conv(4, (3, 3))(x)).reshape(len(x), -1)),
        stax.serial(conv(4, (3, 3)), stax.Relu(), stax.Flatten(), dense(2)), IMAGES, IMAGES2,
    ),
    "conv, global average": (
        lambda x: nn.Dense(2)(nn.relu(nn.Conv(4, (3, 2))(x)).mean((1, 2))),
        stax.serial(conv(4, (3, 2)), stax.Relu(), stax.GlobalAvgPool(), dense(2)), IMAGES, IMAGES2,
    ),
    "strides, valid": (
        lambda x: nn.Dense(2)(
            nn.relu(nn.Conv(4, (3, 2), (2, 1), padding="VALID")(nn.relu(nn.Conv(4, (3, 3), 2)(x)))).mean((1, 2))
        ),
        stax.serial(
            conv(4, (3, 3), (2, 2)), stax.Relu(), conv(4, (3, 2), (2, 1), "VALID"), stax.Relu(),
            stax.GlobalAvgPool(), dense(2),
        ), IMAGES, IMAGES2,
    ),
    "average pooling": (
        lambda x: nn.Dense(2)(nn.avg_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2)).reshape(len(x), -1)),
        stax.serial(conv(4, (3, 3)), stax.Relu(), stax.AvgPool((2, 2), (2, 2)), stax.Flatten(), dense(2)),
        IMAGES, IMAGES2,
    ),
    "residual images": (
        residual_conv,
        stax.serial(conv(4, (3, 3)), RESIDUAL_CONV, stax.Relu(), stax.GlobalAvgPool(), dense(2)), IMAGES, IMAGES2,
    ),
    "layer norm of images": (
        norm_in_images,
        stax.serial(conv(8, (3, 3)), stax.LayerNorm(eps=1e-6), stax.Relu(), stax.Flatten(), dense(2)),
        IMAGES, IMAGES2,
    ),
    "concatenation": (
        lambda x: nn.Dense(2)(
            jnp.concatenate([nn.relu(nn.Dense(8)(x)), jax.lax.erf(nn.Dense(4)(nn.relu(nn.Dense(4)(x))))], -1)
        ),
        stax.serial(
            stax.FanOut(2),
            stax.parallel(
                stax.serial(dense(8), stax.Relu()), stax.serial(dense(4), stax.Relu(), dense(4), stax.Erf())
            ),
            stax.FanInConcat(), dense(2),
        ), V, V2,
    ),
    "dropout at rate 0": (
        lambda x: nn.Dense(3)(nn.Dropout(0.0, deterministic=False)(nn.relu(nn.Dense(8)(x)))),
        stax.serial(dense(8), stax.Relu(), dense(3)), V, V2,
    ),
    "3-D": (
        lambda x: nn.Dense(2)(nn.relu(nn.Conv(4, (3, 2, 2))(x)).mean((1, 2, 3))),
        stax.serial(
            stax.Conv(4, (3, 2, 2), None, "SAME", 1.5**0.5, 0.1, ("NHWDC", "HWDIO", "NHWDC"), parameterization="standard"),
            stax.Relu(), stax.GlobalAvgPool(), dense(2),
        ), IMAGES.reshape(3, 4, 2, 4, 6), IMAGES2.reshape(2, 4, 2, 4, 6),
    ),
    "1-D": (
        lambda x: nn.Dense(2)(nn.relu(nn.Conv(4, (3,))(x)).mean(1)),
        stax.serial(
            stax.Conv(4, (3,), None, "SAME", 1.5**0.5, 0.1, ("NHC", "HIO", "NHC"), parameterization="standard"),
            stax.Relu(), stax.GlobalAvgPool(), dense(2),
        ), IMAGES[:, :, 0], IMAGES2[:, :, 0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEN)
def test_flax_linen(name):
    function, (_, _, kernel), x1, x2 = LINEN[name]
    apply, params = linen(function, x1)
    params = jax.tree.map(lambda p: jnp.ones(p.shape), params)
    assert_same(apply, params, fan_in_variances(params, last), kernel, x1, x2)


def test_flax_nnx():
    model = nnx.Sequential(
        nnx.Linear(6, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 2, rngs=nnx.Rngs(1))
    )
    graph, params = nnx.split(model)
    _, _, kernel = stax.serial(dense(8), stax.Relu(), dense(2))
    variances = fan_in_variances(params, last)
    assert_same(lambda p, x: nnx.merge(graph, p)(x), params, variances, kernel, V, V2)


def test_equinox():
    model = eqx.nn.MLP(6, 2, 8, 2, key=KEY)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    _, _, kernel = stax.serial(dense(8), stax.Relu(), dense(8), stax.Relu(), dense(2))
    variances = fan_in_variances(params, lambda shape: shape[1])
    assert_same(lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, variances, kernel, V, V2)


def test_equinox_images_with_channels_first():
    layers = [
        eqx.nn.Conv2d(3, 4, 3, padding=1, key=KEY),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.AvgPool2d(2, 2),
    ]
    model = eqx.nn.Sequential([*layers, eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64, 2, key=KEY)])
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def variance(path, leaf):
        return 0.01 if "bias" in jax.tree_util.keystr(path) else 1.5 / np.prod(leaf.shape[1:])

    variances = jax.tree.map_with_path(variance, params)
    layers = [conv(4, (3, 3)), stax.Relu(), stax.AvgPool((2, 2), (2, 2)), stax.Flatten(), dense(2)]
    kernel = stax.serial(*layers)[2]
    first = jnp.moveaxis(jnp.asarray(IMAGES), 3, 1)
    ours = analytic(
        lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, first, variances=variances
    )
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(ours[off], kernel(jnp.asarray(IMAGES), None, "ntk")[off], rtol=1e-12)


def test_convolutions_that_were_made_fast():
    """As those of the library's own networks are."""
    model = nn.Sequential(
        [nn.Conv(4, (3, 3)), nn.relu, nn.Conv(2, (2, 2)), lambda x: x.mean((1, 2))]
    )
    params = model.init(KEY, IMAGES)
    variances = fan_in_variances(params, last)
    found, expected = (
        analytic(f, params, IMAGES, IMAGES2, variances=variances)
        for f in (fast(model.apply), model.apply)
    )
    np.testing.assert_array_equal(found, expected)


def test_ntk_parameterization_and_layer_norm_scales():
    def apply(p, x):
        h = np.sqrt(2 / 6) * x @ p["w"] + 0.3 * p["b"]
        return jax.nn.relu(h) @ p["v"] / np.sqrt(9)

    params = {"w": jnp.ones((6, 9)), "b": jnp.ones(9), "v": jnp.ones((9, 1))}
    _, _, kernel = stax.serial(stax.Dense(9, 2**0.5, 0.3), stax.Relu(), stax.Dense(1))
    assert_same(apply, params, {"*": 1.0}, kernel, V, V2)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    depth=st.integers(1, 3),
    names=st.lists(st.sampled_from(["relu", "erf", "gelu", "sin", "abs"]), min_size=3, max_size=3),
    skip=st.booleans(),
    standard=st.booleans(),
)
def test_random_architectures_in_both_forms(depth, names, skip, standard):
    width, sizes = 5, [6] + [5] * depth
    params = {f"w{i}": jnp.ones((n, width)) for i, n in enumerate(sizes)}
    unit = {key: 1 / len(w) if standard else 1.0 for key, w in params.items()}

    def apply(p, x):
        def linear(i, x):
            return x @ p[f"w{i}"] / (1 if standard else np.sqrt(sizes[i]))

        x = linear(0, x)
        for i in range(1, depth + 1):
            h = linear(i, ACTIVATIONS[names[i - 1]][0](x))
            x = x + h if skip else h
        return x

    form = "standard" if standard else "ntk"
    layers = [stax.Dense(width, parameterization=form)]
    for name in names[:depth]:
        block = stax.serial(ACTIVATIONS[name][1], stax.Dense(width, parameterization=form))
        both = (stax.FanOut(2), stax.parallel(stax.Identity(), block), stax.FanInSum())
        layers.append(stax.serial(*both) if skip else block)
    assert_same(apply, params, unit, stax.serial(*layers)[2], V, V2)


def test_variances_are_measured_from_init_and_the_kernel_is_checked():
    model = nn.Sequential([nn.Dense(256), nn.relu, nn.Dense(1)])
    init = lambda key: model.init(key, V)  # noqa: E731
    params = init(KEY)
    k = analytic(model.apply, params, V, V2, init=init, check=True)
    exact = analytic(model.apply, params, V, V2, variances=fan_in_variances(params, last, 1.0, 0.0))
    np.testing.assert_allclose(k, exact, rtol=0.02)
    orthogonal = nn.Sequential(
        [nn.Dense(32, kernel_init=nn.initializers.orthogonal()), nn.relu, nn.Dense(1)]
    )
    with pytest.raises(ValueError, match="depend on each other"):
        analytic(
            orthogonal.apply, orthogonal.init(KEY, V), V, init=lambda key: orthogonal.init(key, V)
        )


CHANNELS = 64
SENTENCES = np.random.default_rng(4).normal(size=(3, 5, 6))
SENTENCES2 = np.random.default_rng(5).normal(size=(2, 5, 6))


def attention(mechanism, *, tied=True, power=1, channels=CHANNELS):
    """In the NTK parameterization, a layer with ReLU and one more behind it."""

    def apply(p, x):
        k = x @ p["k"] / np.sqrt(6)
        q = 1.3 * (k if tied else x @ p["q"] / np.sqrt(6))
        weights = mechanism(jnp.einsum("nsd,ntd->nst", q, k) / channels**power)
        values = x @ p["v"] / np.sqrt(6)
        h = jnp.einsum("nst,nte->nse", weights, values) @ p["o"] / np.sqrt(p["o"].shape[0])
        return jax.nn.relu(h).mean(1) @ p["w"] / np.sqrt(p["w"].shape[0])

    return apply


def attention_params(channels=CHANNELS, value=lambda name, shape: jnp.ones(shape)):
    shapes = {"q": (6, channels), "k": (6, channels), "v": (6, 16), "o": (16, 64), "w": (64, 1)}
    return {name: value(name, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "mechanism"), [("SOFTMAX", jax.nn.softmax), ("RELU", jax.nn.relu)]
)
def test_attention_of_tied_queries(name, mechanism):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that weights are tied
        layer = stax.GlobalSelfAttention(
            64, CHANNELS, 16, 1, True, W_query_std=1.3, attention_mechanism=name
        )
    kernel = stax.serial(layer, stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))[2]
    params = attention_params()
    assert_same(attention(mechanism), params, {"*": 1.0}, kernel, SENTENCES, SENTENCES2)


def test_attention_of_independent_queries_is_an_average_and_masks_are_kept():
    found = analytic(
        attention(jax.nn.softmax, tied=False), attention_params(), SENTENCES, variances={"*": 1.0}
    )
    average = attention(lambda scores: 0 * scores + 0.2)
    expected = analytic(average, attention_params(), SENTENCES, variances={"*": 1.0})
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    def causal(scores):
        return jax.nn.softmax(jnp.where(np.tri(5, dtype=bool)[None], scores, -1e9))

    def init(key):
        keys = dict(zip("qkvow", jax.random.split(key, 5), strict=True))
        return attention_params(value=lambda name, shape: jax.random.normal(keys[name], shape))

    masked = attention(causal)
    analytic(masked, init(KEY), SENTENCES, init=init, check=True)
    with pytest.raises(ValueError, match=r"scores fluctuate .* 1/√channels"):
        analytic(attention(jax.nn.softmax, power=0.5), init(KEY), SENTENCES, variances={"*": 1.0})


WIDENED = {
    "residual": lambda n: (
        lambda x: nn.Dense(1)(nn.relu((h := nn.Dense(n)(x)) + nn.Dense(n)(nn.relu(h))))
    ),
    "layer norm": lambda n: (
        lambda x: nn.Dense(1)(
            nn.gelu(nn.LayerNorm(use_bias=False)(nn.Dense(n)(x)), approximate=False)
        )
    ),
    "images": lambda n: (
        lambda x: nn.Dense(1)(
            nn.relu(nn.Conv(n, (3,))(nn.relu(nn.Conv(n, (3,))(x[..., None])))).mean(1)
        )
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDENED)
def test_the_empirical_kernel_of_wider_copies_comes_to_it_as_width_to_the_minus_half(name):
    widths, away, x = np.array([16, 64, 256]), [], V.astype(np.float32)  # flax draws float32
    for width in widths:
        module = linen_module(WIDENED[name](int(width)))
        draw = lambda key, module=module: module.init(key, x)  # noqa: E731
        params = draw(KEY)
        limit = analytic(
            module.apply, params, x, variances=fan_in_variances(params, last, 1.0, 0.0)
        )
        drawn = jax.vmap(  # (48, 4, 4)
            lambda key, module=module, draw=draw: empirical_ntk(module.apply, draw(key), x)
        )(jax.random.split(KEY, 48))
        away.append(float(jnp.sqrt(((drawn - limit[None]) ** 2).mean()) / jnp.abs(limit).max()))
    slope = np.polyfit(np.log(widths), np.log(away), 1)[0]
    assert away[-1] < 0.1 and abs(slope + 0.5) < 0.1, (away, slope)


def test_own_networks():
    fc = networks.fully_connected((16, 16), 3, parameterization="ntk")
    params = fc.init(KEY, V)
    kernel = stax.serial(stax.Dense(16), stax.Relu(), stax.Dense(16), stax.Relu(), stax.Dense(3))[2]
    variances = {"*kernel": 1.0, "*bias": 0.0}
    k = analytic(fc.apply, params, V, V2, "nngp", variances=variances)
    np.testing.assert_allclose(k, kernel(jnp.asarray(V), jnp.asarray(V2), "nngp"), rtol=1e-12)
    wrn = networks.wide_resnet(depth=10, width=1)
    params = wrn.init(KEY, IMAGES)
    with pytest.raises(ValueError, match="sums over the samples, as batch norm does"):
        analytic(wrn.apply, params, IMAGES, variances={"*kernel": 1.0, "*": 0.0})


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_a_frozen_last_layer_is_one_that_is_not_trained(get):
    """Θ = ‖W‖²/O of what comes before it, without the gradients by W; the papers' ‖W‖ is 10."""
    network = scale_invariant_networks.fc(3, width=64, depth=1, norm="layer")
    params = network.init(KEY, V)
    k = analytic(network.apply, params, V, V2, get, variances={"*": 1 / V.shape[1]})
    features = stax.serial(stax.Dense(1), stax.LayerNorm(eps=1e-10), stax.Relu())[2]
    whole = features(jnp.asarray(V), jnp.asarray(V2), get)
    scale = V.shape[1] if get == "ntk" else 1  # by weights of variance 1/n
    np.testing.assert_allclose(k, 100 / 3 * scale * whole, rtol=1e-12)


def test_a_fixed_matrix_within_a_network():
    def apply(p, x):
        return jax.nn.relu((x @ p["w"]) @ (2 * np.eye(6)) @ p["v"]) @ p["u"]

    params = {name: jnp.ones((6, 6)) for name in "wvu"}
    without = analytic(
        lambda p, x: jax.nn.relu(2 * x @ p["w"] @ p["v"]) @ p["u"], params, V, variances={"*": 0.1}
    )
    np.testing.assert_allclose(
        analytic(apply, params, V, variances={"*": 0.1}), without, rtol=1e-12
    )


@pytest.mark.slow
@pytest.mark.parametrize("get", ["ntk", "nngp"])
@pytest.mark.parametrize(
    "network",
    [
        scale_invariant_networks.pre_resnet(8, 3, width=16, norm="layer"),
        scale_invariant_networks.cnn(3, channels=(32, 32), pooled=(), norm="layer"),
        networks.wide_resnet(10, 2, 3, norm="layer"),
    ],
)
def test_own_networks_with_layer_norm(network, get):
    x = jax.random.normal(KEY, (3, 8, 8, 3))
    init = lambda key: network.init(key, x)  # noqa: E731
    assert analytic(network.apply, init(KEY), x, get=get, init=init, check=True).shape == (3, 3)


@jax.custom_jvp
def straight_through(x):
    return jnp.tanh(x)


@straight_through.defjvp
def _(primals, tangents):
    return straight_through(*primals), tangents[0]


W = {"w": jnp.ones((6, 6)), "v": jnp.ones((6, 6))}
REFUSED = {
    "derivative of its own": (
        lambda p, x: straight_through(x @ p["w"]) @ p["v"],
        "not that of its value",
    ),
    "shared": (lambda p, x: jax.nn.relu(x @ p["w"]) @ p["w"], "'w' a second time"),
    "max": (lambda p, x: jax.lax.cummax(x @ p["w"], axis=1), "'cummax' at .*test_analytic_program"),
    "product": (lambda p, x: (x @ p["w"]) * (x @ p["v"]), "otherwise than by a sum"),
    "dependent": (
        lambda p, x: jax.nn.relu(x @ p["w"]) + jax.nn.relu(x @ p["v"]),
        "may depend on each other",
    ),
    "dependent, a layer later": (
        lambda p, x: (h := x @ p["w"]) + jax.nn.relu(h + jax.nn.relu(h) @ p["v"]),
        "may depend on each other",
    ),
    "rough": (lambda p, x: jnp.clip(x @ p["w"], -1, 1) @ p["v"], "too rough for quadrature"),
    "no weights between": (
        lambda p, x: jnp.sin(jax.nn.relu(x @ p["w"]) + jax.nn.relu(x @ p["w"])),
        "second time",
    ),
    "batch norm": (lambda p, x: x @ p["w"] - (x @ p["v"]).mean(0), "batch norm"),
    "fixed matrix": (
        lambda p, x: jax.nn.relu(x @ p["w"]) @ np.ones((6, 6)) @ p["v"],
        "do not sum to about 0",
    ),
    "function after a fixed matrix": (
        lambda p, x: jax.nn.relu((x @ p["w"]) @ np.eye(6)) @ p["v"],
        "not Gaussian at infinite width",
    ),
    "loop": (
        lambda p, x: jax.lax.fori_loop(0, 3, lambda i, x: x @ p["w"], x),
        "at .*test_analytic_program",
    ),
    "a product of signals": (
        lambda p, x: (x @ p["w"]) @ (x @ p["v"]).T,
        "otherwise than attention",
    ),
    "samples": (lambda p, x: (x - x.mean(0)) @ p["w"], "takes the samples together"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_with_its_line(name):
    apply, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        analytic(apply, W, V, variances={"*": 0.1})


def test_tiles_and_float32():
    apply, params = linen(LINEN["average pooling"][0], IMAGES)
    params = jax.tree.map(lambda p: jnp.ones(p.shape), params)
    variances = fan_in_variances(params, last)
    whole = analytic(apply, params, IMAGES, variances=variances)
    tiled = analytic(apply, params, IMAGES, variances=variances, tile=2)
    bounded = analytic(apply, params, IMAGES, variances=variances, max_bytes=200_000)
    np.testing.assert_allclose(tiled, whole, rtol=1e-7)
    np.testing.assert_allclose(bounded, whole, rtol=1e-7)
    with jax.enable_x64(False):
        single = analytic(apply, params, IMAGES.astype(np.float32), variances=variances)
        assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, whole, rtol=2e-3)
