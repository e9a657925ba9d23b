"""`kernels.analytic`: networks as they are written against the same in neural-tangents' `stax`."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import stax
from ntkdecay.kernels import analytic

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


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_in_plain_jax(name):
    f, layer = ACTIVATIONS[name]

    def apply(params, x):
        return f(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]

    params = {"w1": jnp.ones((6, 9)), "b1": jnp.ones(9), "w2": jnp.ones((9, 2)), "b2": jnp.ones(2)}
    variances = {"w1": 1.5 / 6, "b1": 0.01, "w2": 1.5 / 9, "b2": 0.01}
    _, _, kernel = stax.serial(dense(9), layer, dense(2))
    assert_same(apply, params, variances, kernel, V, V2)


def linen(function, x):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(x)

    module = Network()
    with jax.numpy_rank_promotion("allow"):  # flax promotes ranks
        return module.apply, jax.eval_shape(module.init, KEY, x)


def residual_dense(x):
    x = nn.Dense(12)(x)
    for _ in range(2):
        x = x + nn.Dense(12)(nn.relu(x))
    return nn.Dense(3)(nn.relu(x))


RESIDUAL = [dense(12)] + 2 * [
    stax.serial(
        stax.FanOut(2),
        stax.parallel(stax.Identity(), stax.serial(stax.Relu(), dense(12))),
        stax.FanInSum(),
    )
]
LINEN = {
    "linear": (lambda x: nn.Dense(3)(x), dense(3), V, V2),
    "residual": (residual_dense, stax.serial(*RESIDUAL, stax.Relu(), dense(3)), V, V2),
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
}  # fmt: skip


@pytest.mark.parametrize("name", LINEN)
def test_flax_linen(name):
    function, (_, _, kernel), x1, x2 = LINEN[name]
    apply, params = linen(function, x1)
    params = jax.tree.map(lambda p: jnp.ones(p.shape), params)
    assert_same(apply, params, fan_in_variances(params, last), kernel, x1, x2)


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
