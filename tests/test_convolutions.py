"""A convolution made fast is the convolution, with its derivatives, wherever a network has it."""

import re
from collections import Counter
from functools import partial

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ntkdecay import _cpu_convolutions, stax
from ntkdecay._convolutions import fast

ORDERS = {
    1: [("NHC", "HIO", "NHC"), ("CNH", "OIH", "HNC")],
    2: [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("CWNH", "WOHI", "HNCW")],
    3: [("NHWDC", "HWDIO", "NHWDC"), ("NDCHW", "OHIWD", "CNHWD")],
}
OPTIONS = [
    {"strides": (1, 1), "padding": "SAME"},
    {"strides": (2, 3), "padding": "VALID"},
    {"strides": (3, 2), "padding": "SAME_LOWER"},
    {"strides": (2, 1), "padding": ((1, 2), (0, -1)), "rhs_dilation": (2, 1)},
    {"strides": (2, 1), "padding": ((-2, 3), (-1, -1))},
    {"strides": (1, 2), "padding": ((2, 0), (1, 1)), "lhs_dilation": (2, 1)},
    {
        "strides": (2, 2),
        "padding": ((2, 0), (1, 1)),
        "lhs_dilation": (3, 2),
        "rhs_dilation": (2, 1),
    },
    {"strides": (1, 1), "padding": "SAME", "groups": 2},
    {"strides": (2, 1), "padding": "VALID", "groups": 4},
    {"strides": (2,), "padding": ((1, 3),), "rhs_dilation": (2,)},
    {"strides": (1,), "padding": "SAME", "groups": 4},
    {"strides": (2, 1, 1), "padding": ((1, 0), (0, 2), (-1, 1)), "lhs_dilation": (1, 2, 1)},
    {"strides": (1, 2, 1), "padding": "SAME", "groups": 2},
]


def drawn(orders, filter_shape, groups, dtype):
    rng = np.random.default_rng(0)
    sizes = dict(zip("NHWDC", (3, 9, 8, 5, 4), strict=True))
    x = rng.normal(size=[sizes[c] for c in orders[0]])
    sizes = dict(zip("HWDIO", (*filter_shape, 2, 2, 4 // groups, 8)[-5:], strict=True))
    sizes |= dict(zip("HWD", filter_shape, strict=False))
    w = rng.normal(size=[sizes[c] for c in orders[1]])
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def convolutions(function, *args) -> int:
    return str(jax.make_jaxpr(function)(*args)).count("conv_general_dilated")


def all_of(f, *args):
    """f, its gradient, and the gradient's derivative along one direction."""

    def half_square(*args):
        return 0.5 * sum(jnp.sum(jnp.sin(y) ** 2) for y in jax.tree.leaves(f(*args)))

    gradient = jax.grad(half_square, tuple(range(len(args))))
    return f(*args), gradient(*args), jax.jvp(gradient, args, args)[1]


def agree(f, *args, rtol=1e-12):
    """All of f's arrays are those without the change, to rtol of their largest entry."""
    assert convolutions(f, *args) and not convolutions(fast(f), *args)
    found, expected = jax.jit(lambda: (all_of(fast(f), *args), all_of(f, *args)))()
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(abs(b).max()))


@pytest.fixture(params=["library", "products"])
def way(request, monkeypatch):
    """What a CPU does, whatever it would choose."""
    chosen = request.param == "library"
    monkeypatch.setattr(_cpu_convolutions, "_library_is_faster", lambda *_: chosen)


def convolution(options, order=None):
    options = dict(options)
    strides, padding = options.pop("strides"), options.pop("padding")
    orders = ORDERS[len(strides)]
    orders = orders[sum(strides) % len(orders)] if order is None else orders[order]
    groups = options.pop("groups", 1)
    options |= {"dimension_numbers": orders, "feature_group_count": groups}
    return partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    ), orders


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_forward_and_derivatives(options, way):
    f, orders = convolution(options)
    agree(f, *drawn(orders, (3, 2), options.get("groups", 1), float))


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_in_float32(options, way):
    """Near the exact sums, to 1e-6 of their norm."""
    f, orders = convolution(options)
    x, w = drawn(orders, (3, 2), options.get("groups", 1), float)
    near_the_sums(f, x, w)


def near_the_sums(f, x, w):
    y = jnp.asarray(np.random.default_rng(1).normal(size=jax.eval_shape(f, x, w).shape))

    def sums(f, x, w, y):
        value, back = jax.vjp(f, x, w)
        return value, *back(y)

    args = (x, w, y)
    single = [a.astype(jnp.float32) for a in args]
    both = jax.jit(lambda: (sums(fast(f), *single), sums(f, *[a.astype(float) for a in single])))()
    for found, exact in zip(*both, strict=True):
        assert found.dtype == jnp.float32
        assert float(jnp.linalg.norm(found - exact)) < 1e-6 * float(jnp.linalg.norm(exact))


@pytest.mark.parametrize(
    "axes", [(0, None), (None, 3), (2, 1), ((1, 0), (None, 2)), ((0, 2), (1, 0))]
)
@pytest.mark.parametrize("number", [3, 7, 8])
def test_under_vmap(number, axes, way):
    """Over images, over filters, over pairs; and over derivatives with one factor in common."""
    f, orders = convolution(OPTIONS[number])
    x, w = drawn(orders, (3, 2), OPTIONS[number].get("groups", 1), float)
    levels = zip(*axes, strict=True) if isinstance(axes[0], tuple) else [axes]
    for i, (of_x, of_w) in enumerate(levels):
        scales = jnp.arange(1.0, 3.0 + i)
        x = x if of_x is None else jnp.stack([x * jnp.cos(s * x) for s in scales], of_x)
        w = w if of_w is None else jnp.stack([w * jnp.cos(s * w) for s in scales], of_w)
        inner = f
        f = lambda x, w, inner=inner, axes=(of_x, of_w): jax.vmap(inner, axes, 1)(x, w)  # noqa: E731
    agree(f, x, w)


@pytest.mark.parametrize("number", [3, 7, 8])
def test_derivatives_under_vmap(number, way):
    f, orders = convolution(OPTIONS[number])
    x, w = drawn(orders, (3, 2), OPTIONS[number].get("groups", 1), float)

    def jacobians(f):
        return jax.jacrev(lambda x, w: jnp.sum(f(x, w) ** 3, 0)[..., :2], (0, 1))(x, w)

    found, expected = jax.jit(lambda: (jacobians(fast(f)), jacobians(f)))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * float(abs(b).max()))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize(
    ("channels", "features", "filter_"), [(16, 24, 3), (24, 40, 3), (3, 20, 9), (20, 8, 1)]
)
def test_what_is_chosen(channels, features, filter_, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(20, 10, 9, channels)), dtype)
    w = jnp.asarray(rng.normal(size=(filter_, filter_, channels, features)) / 16, dtype)
    f, _ = convolution({"strides": (2, 1), "padding": "SAME"}, 0)
    if dtype == "float64":
        agree(f, x, w)
        near_the_sums(f, x, w)
    else:
        agree(f, x, w, rtol=2e-2)


def test_a_product_that_is_summed_in_another_type(way):
    x, w = (a.astype(jnp.bfloat16) for a in drawn(ORDERS[2][0], (3, 2), 1, float))
    f, _ = convolution(
        {"strides": (1, 1), "padding": "SAME", "preferred_element_type": jnp.float32}, 0
    )
    agree(f, x, w, rtol=2e-2)


X, W = drawn(ORDERS[2][0], (3, 3), 1, float)
W = W[..., :4]


def conv(x, w):
    return jnp.tanh(lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=ORDERS[2][0]))


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
    found = jax.jvp(fast(f), (X, W), (X, W))
    np.testing.assert_allclose(found[0], conv(X, W), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found[1], 3 * X)
    g = jax.custom_vjp(conv)
    g.defvjp(lambda x, w: (conv(x, w), w), lambda w, ct: (5 * ct, 7 * w))
    found = jax.grad(lambda x, w: fast(g)(x, w).sum(), (0, 1))(X, W)
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


@pytest.mark.parametrize(
    "f", [conv, scanned, lambda x, w: jax.vmap(conv)(x[:, None], w[None] * x[:, :1, :1, :1, None])]
)
def test_elsewhere_a_program_is_that_of_jax(f):
    """Followed is the platform that a program is lowered for, not the one at hand."""

    def text(f, platform):
        exported = jax.export.export(
            jax.jit(lambda *args: all_of(f, *args)[:2]), platforms=[platform]
        )(X, W)
        return exported.mlir_module()

    def words(text):
        return Counter(re.findall(r"stablehlo\.(?!constant|reshape)\w+", text))

    assert words(text(fast(f), "cuda")) == words(text(f, "cuda"))
    assert words(text(fast(f), "cpu")) != words(text(f, "cpu"))


def test_what_a_checkpoint_may_save_knows_convolutions():
    """A policy that saves them has none computed again."""

    def f(x, w):
        inner = jax.checkpoint(conv, policy=jax.checkpoint_policies.checkpoint_dots)
        return inner(x, w).sum()

    text = str(jax.make_jaxpr(jax.grad(fast(f), (0, 1)))(X, W))
    assert text.count("wanted=2") == 1
