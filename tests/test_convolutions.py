"""A convolution by products is the convolution, with its derivatives, wherever a network has it."""

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ntkdecay import stax
from ntkdecay._convolutions import by_products

ORDERS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("CWNH", "WOHI", "HNCW")]
OPTIONS = [
    {"strides": (1, 1), "padding": "SAME"},
    {"strides": (2, 3), "padding": "VALID"},
    {"strides": (2, 1), "padding": ((1, 2), (0, -1)), "rhs_dilation": (2, 1)},
    {"strides": (1, 2), "padding": ((2, 0), (1, 1)), "lhs_dilation": (2, 1)},
    {"strides": (1, 1), "padding": "SAME", "groups": 2},
    {"strides": (2, 1), "padding": "VALID", "groups": 4},
]


def drawn(orders, filter_shape, groups, dtype):
    rng = np.random.default_rng(0)
    sizes = dict(zip("NHWC", (3, 9, 8, 4), strict=True))
    x = rng.normal(size=[sizes[c] for c in orders[0]])
    sizes = dict(zip("HWIO", (*filter_shape, 4 // groups, 8), strict=True))
    w = rng.normal(size=[sizes[c] for c in orders[1]])
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def convolutions(function, *args) -> int:
    return str(jax.make_jaxpr(function)(*args)).count("conv_general_dilated")


def agree(f, *args, rtol=1e-12):
    """f by products, its gradient and its second derivative along one direction are f's."""

    def all_of(f):
        def half_square(*args):
            return 0.5 * sum(jnp.sum(jnp.sin(y) ** 2) for y in jax.tree.leaves(f(*args)))

        gradient = jax.grad(half_square, tuple(range(len(args))))
        return f(*args), gradient(*args), jax.jvp(gradient, args, args)[1]

    assert convolutions(f, *args) and not convolutions(by_products(f), *args)
    found, expected = jax.jit(lambda: (all_of(by_products(f)), all_of(f)))()
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(abs(b).max()))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_forward_and_derivatives(options, dtype):
    options = dict(options)
    strides, padding = options.pop("strides"), options.pop("padding")
    groups = options.pop("groups", 1)
    orders = ORDERS[sum(strides) % 3]

    def conv(x, w):
        more = {"dimension_numbers": orders, "feature_group_count": groups, **options}
        return lax.conv_general_dilated(x, w, strides, padding, **more)

    agree(conv, *drawn(orders, (3, 2), groups, dtype), rtol=1e-12 if dtype == "float64" else 2e-6)


X, W = drawn(ORDERS[0], (3, 3), 1, float)
W = W[..., :4]


def conv(x, w):
    return jnp.tanh(lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=ORDERS[0]))


def scanned(x, w):
    return lax.scan(lambda h, w: (conv(h, w), h.mean()), x, jnp.stack([w, w / 2]))


def branched(x, w):
    return lax.cond(x.sum() > 0, conv, lambda x, w: conv(-x, w), x, w)


def looped(x, w):
    return lax.fori_loop(0, 3, lambda i, h: conv(h, w) + i, x)


@pytest.mark.parametrize(
    "f",
    [
        scanned,
        branched,
        looped,
        jax.jit(conv),
        jax.checkpoint(conv),
        lambda x, w: jax.vmap(conv, (0, None))(x[:, None], w),
        lambda x, w: jax.checkpoint(jax.jit(scanned))(x, w),
    ],
    ids=["scan", "cond", "loop", "jit", "remat", "vmap", "all"],
)
def test_inside_other_programs(f):
    agree(f, X, W)


def test_a_derivative_of_the_user_s_own_stays():
    f = jax.custom_jvp(conv)
    f.defjvp(lambda primals, tangents: (f(*primals), 3 * tangents[0]))
    found = jax.jvp(by_products(f), (X, W), (X, W))
    np.testing.assert_allclose(found[0], conv(X, W), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found[1], 3 * X)
    g = jax.custom_vjp(conv)
    g.defvjp(lambda x, w: (conv(x, w), w), lambda w, ct: (5 * ct, 7 * w))
    found = jax.grad(lambda x, w: by_products(g)(x, w).sum(), (0, 1))(X, W)
    np.testing.assert_array_equal(found[0], np.full(X.shape, 5.0))
    np.testing.assert_array_equal(found[1], 7 * W)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(5, (3, 3), (2, 1), kernel_dilation=(1, 2), param_dtype=float)(x)
        return nn.Conv(6, (2, 2), feature_group_count=1, param_dtype=float)(nn.relu(x))


def linen():
    params = Linen().init(jax.random.key(0), X)
    return lambda p, x: Linen().apply(p, x), params


def nnx_():
    graph, params = nnx.split(nnx.Conv(4, 5, (3, 3), rngs=nnx.Rngs(0), param_dtype=float))
    return lambda p, x: nnx.merge(graph, p)(x), params


def equinox():
    eqx = pytest.importorskip("equinox")
    params, static = eqx.partition(
        eqx.nn.Conv2d(4, 5, 3, groups=1, key=jax.random.key(0)), eqx.is_array
    )
    return lambda p, x: jax.vmap(eqx.combine(p, static))(x.transpose(0, 3, 1, 2)), params


def stax_():
    init, apply_fn, _ = stax.serial(stax.Conv(5, (3, 3), padding="CIRCULAR"), stax.Relu())
    return apply_fn, init(jax.random.key(0), X.shape)[1]


@pytest.mark.parametrize("library", [linen, nnx_, equinox, stax_])
def test_the_libraries(library):
    with jax.numpy_rank_promotion("allow"):
        f, params = library()
        agree(lambda p: f(p, X), jax.tree.map(lambda p: jnp.asarray(p, float), params))


def test_nothing_is_changed_elsewhere(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert convolutions(by_products(conv), X, W) == 1
