"""The kernel of every kind of network is the product of its Jacobians."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explicit import explicit_layers
from jax import lax

from ntkdecay import stax
from ntkdecay.kernels import _empirical, _factors, empirical_ntk

FLAT = np.random.default_rng(0).normal(size=(4, 6))
IMAGES = np.random.default_rng(1).normal(size=(4, 8, 8, 2))
WORDS = np.random.default_rng(2).normal(size=(4, 5, 6))
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(w, x, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=DIMENSIONS, **options)


def dense(p, x):
    h = jnp.tanh(x @ p[0] + p[1])
    return jax.nn.relu(h @ p[2] + p[3]) @ p[4] * p[5]


def strided(p, x):
    h = jnp.tanh(conv(p[0], x, (2, 1), ((1, 2), (0, 1))))
    h = jnp.tanh(conv(p[1], h, rhs_dilation=(2, 1)) + p[2])
    return h.reshape(len(x), -1) @ p[3]


def grouped(p, x):
    h = jnp.tanh(conv(p[0], x, feature_group_count=2))
    return conv(p[1], h, padding=((0, 1), (1, 1)), lhs_dilation=(1, 2)).sum((1, 2))


def pooled(p, x):
    h = jax.nn.relu(conv(p[0], x))
    h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    h = lax.reduce_window(conv(p[1], h), 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9
    return h.mean((1, 2))


def residual(p, x):
    for w in p[:-1]:
        x = x + jax.nn.relu(x) @ w
    return x @ p[-1]


def shared(p, x):
    return jnp.tanh(jnp.tanh(x @ p[0]) @ p[0]) @ p[0].T @ p[1] + x @ p[1]


def batch_normalized(p, x):
    h = x @ p[0]
    h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-3) * p[1] + p[2]
    return jax.nn.relu(h) @ p[3]


def attention(p, x):
    q, k, v = (jnp.einsum("nsd,dhe->nshe", x, w) for w in p[:3])
    scores = jax.nn.softmax(jnp.einsum("nshe,nthe->nhst", q, k) / 2, -1)
    return jnp.einsum("nhst,nthe,hed->nsd", scores, v, p[3]).mean(1)


def scanned(p, x):
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p[0])[0] @ p[1]


def twice_batched(p, x):
    """Two uses of p[0], batched over different axes, that neural-tangents' rules take for one."""
    h = x[:, :3]
    a = jnp.einsum("bij,nbj->nbi", p[0], jnp.stack([h, h**2, h + 1], 1))
    b = jnp.einsum("jib,nbj->nbi", p[0], jnp.stack([h**3, h - 1, jnp.cos(h)], 1))
    return (a * b).sum(1)


def weight_normalized(p, x):
    v = p[0] / jnp.sqrt((p[0] ** 2).sum(0))
    return jnp.tanh(x @ (v * p[1])) @ jnp.exp(p[2])


def embedded(p, x):
    h = p[0][jnp.array([2, 0, 2, 1, 3, 3])].T @ x[..., None] @ jnp.sort(p[1])[None]
    return h.reshape(len(x), -1)


pytestmark = pytest.mark.filterwarnings("ignore:.*from the Jacobian:UserWarning")
NETWORKS = {
    dense: (FLAT, [(6, 5), (5,), (5, 4), (4,), (4, 3), ()]),
    strided: (IMAGES, [(3, 3, 2, 3), (2, 3, 3, 2), (2,), (70, 2)]),
    grouped: (IMAGES, [(3, 3, 1, 4), (2, 2, 4, 2)]),
    pooled: (IMAGES, [(3, 3, 2, 3), (2, 2, 3, 2)]),
    residual: (FLAT, [(6, 6), (6, 6), (6, 2)]),
    shared: (FLAT, [(6, 6), (6, 2)]),
    batch_normalized: (FLAT, [(6, 5), (5,), (5,), (5, 2)]),
    attention: (WORDS, [(6, 2, 4), (6, 2, 4), (6, 2, 4), (2, 4, 3)]),
    scanned: (FLAT, [(3, 6, 6), (6, 2)]),
    twice_batched: (FLAT, [(3, 3, 3)]),
    weight_normalized: (FLAT, [(6, 5), (5,), (5, 2)]),
    embedded: (FLAT, [(4, 3), (2,)]),
}


@pytest.fixture(autouse=True)
def _rank_promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def draw(shapes):
    rng = np.random.default_rng(3)
    return [jnp.asarray(rng.normal(size=shape) / 2) for shape in shapes]


def check(f, params, x, vmap_axes):
    x2 = x[:3] if vmap_axes is None else None
    layers = empirical_ntk(f, params, x, x2, trace_axes=(), per_layer=True, vmap_axes=vmap_axes)
    expected = explicit_layers(f, params, x, x if x2 is None else x2)
    scale = abs(sum(expected)).max()
    for k, k_expected in zip(jax.tree.leaves(layers), expected, strict=True):
        k = np.asarray(k).reshape(k_expected.shape)
        np.testing.assert_allclose(k, k_expected, rtol=1e-10, atol=1e-12 * scale)


@pytest.mark.parametrize("f", NETWORKS, ids=lambda f: f.__name__)
def test_plain_networks(f):
    x, shapes = NETWORKS[f]
    check(f, draw(shapes), x, None if f is batch_normalized else 0)


def stax_residual():
    block = stax.serial(
        stax.FanOut(2),
        stax.parallel(
            stax.serial(stax.Relu(), stax.Conv(3, (3, 3), padding="SAME", b_std=0.1)),
            stax.Identity(),
        ),
        stax.FanInSum(),
    )
    return stax.serial(
        stax.AvgPool((2, 2), (2, 2)),
        stax.Conv(3, (3, 3), padding="CIRCULAR", b_std=0.1),
        block,
        stax.GlobalSelfAttention(4, 2, 2, 2, linear_scaling=False),
        stax.Flatten(),
        stax.Dense(2, parameterization="standard", b_std=0.1),
    )


@pytest.mark.slow
def test_stax():
    init, apply_fn, _ = stax_residual()
    params = init(jax.random.key(0), IMAGES.shape)[1]
    check(apply_fn, jax.tree.map(lambda p: p.astype(float), params), IMAGES, 0)


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), (2, 1), kernel_dilation=(1, 2), param_dtype=float)(x)
        x = nn.BatchNorm(use_running_average=False, param_dtype=float)(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(2, param_dtype=float)(x.reshape(len(x), -1))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(param_dtype=float)(x)
        x = x + nn.MultiHeadDotProductAttention(2, param_dtype=float)(h, h)
        return nn.Dense(2, param_dtype=float)(nn.gelu(x).mean(1))


class Layers(nn.Module):
    @nn.compact
    def __call__(self, x):
        def layer(module, h, _):
            return jnp.tanh(module(h)), None

        scan = nn.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = scan(nn.Dense(6, param_dtype=float), x, None)
        return nn.Dense(2, param_dtype=float)(x)


def flax_convolutional(params, x):
    return Convolutional().apply({"params": params}, x, mutable=["batch_stats"])[0]


def flax_transformer(params, x):
    return Transformer().apply({"params": params}, x)


def flax_layers(params, x):
    return Layers().apply({"params": params}, x)


@pytest.mark.parametrize(
    ("module", "f", "x", "vmap_axes"),
    [
        pytest.param(Convolutional, flax_convolutional, IMAGES, None, marks=pytest.mark.slow),
        pytest.param(Transformer, flax_transformer, WORDS, 0, marks=pytest.mark.slow),
        (Layers, flax_layers, FLAT, 0),
    ],
)
def test_flax(module, f, x, vmap_axes):
    params = jax.jit(module().init)(jax.random.key(0), x)["params"]
    check(f, params, x, vmap_axes)


@pytest.mark.parametrize("outputs", [1, 20])
def test_a_filter_over_many_positions_has_the_cheaper_of_two_jacobians(outputs, monkeypatch):
    """By reverse mode if the patches are larger than the Jacobian, else by the product of the two."""

    def f(p, x):
        return (jnp.tanh(conv(p[0], x)) ** 2).mean((1, 2)) @ p[1]

    params, x = draw([(3, 3, 2, 4), (4, outputs)]), IMAGES
    check(f, params, x, 0)
    seen, einsum = [], _factors._einsum
    monkeypatch.setattr(_factors, "_einsum", lambda *args: (seen.append(args), einsum(*args))[1])
    monkeypatch.setattr(_empirical, "method_for", lambda *_: "structured")
    jax.jit(lambda p: empirical_ntk(f, p, x)).lower(params)
    of_the_filter = [args for args in seen if len(args[0]) > 4]  # of an image, not a vector
    assert bool(of_the_filter) == (outputs == 20)
