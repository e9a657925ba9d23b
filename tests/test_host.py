"""NumPy's rules of JAX's operations against JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ntkdecay import _host
from ntkdecay._convolutions import fast
from ntkdecay._host import on_host
from ntkdecay._host_rules import RULES

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 4, 6, 5))
INSIDE = RNG.uniform(-0.9, 0.9, size=7)
ABOVE = 1 + RNG.uniform(size=7)
WHOLE = RNG.integers(-5, 5, size=(4, 6))
IMAGES, WEIGHTS = RNG.normal(size=(2, 9, 8, 4)), RNG.normal(size=(3, 2, 4, 6))
NHWC = ("NHWC", "HWIO", "NHWC")


def convolution(x, w, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=NHWC, **options)


def grouped(x, w):
    return convolution(x, w[:, :, :2], (2, 1), [(2, 1), (-1, 3)], feature_group_count=2)


def dilated(x, w):
    return convolution(x, w, (1, 2), [(1, 0), (2, 1)], lhs_dilation=(2, 3), rhs_dilation=(2, 1))


def channels_first(x, w):
    return lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), (1, 1), "SAME"
    )


def pooled(reduce, start):
    def pool(x):
        return lax.reduce_window(
            x, start, reduce, (1, 3, 2, 1), (1, 2, 1, 1), "SAME", (1, 1, 2, 1), (1, 1, 2, 1)
        )

    return pool


def largest(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 3, 1), (1, 2, 2, 1), "SAME")


def gradients(f):
    return lambda *args: jax.grad(lambda *args: jnp.sum(jnp.sin(f(*args))), range(len(args)))(*args)


def loop(x):
    return lax.scan(lambda c, y: (jnp.sin(c) + y, c * y), x[0], x, reverse=True)


CASES = {
    "arithmetic": (lambda x, y: [x + y, x - y, x * y, x / y, -x, abs(x), x**3, x**-2, jnp.square(x)], X, Y),
    "order": (lambda x, y: [x > y, x < y, x >= y, x <= y, x == y, x != y, lax.max(x, y), lax.min(x, y)], X, Y),
    "of whole numbers": (lambda i: [i + 1, i % 3, lax.rem(i, 3), abs(i), lax.sign(i), i > 0, ~i, i & 1, i | 2, i ^ 3], WHOLE),
    "of verdicts": (lambda i: [(i > 0) & (i < 3), (i > 0) | (i < -2), ~(i > 0), (i > 0) ^ (i < 3), (i > 0).all(0), (i > 0).any(1)], WHOLE),
    "inside one": (lambda x: [f(x) for f in (lax.acos, lax.asin, lax.atanh, lax.erf_inv, lax.log1p, lax.expm1)], INSIDE),
    "above one": (lambda x: [f(x) for f in (lax.acosh, lax.sqrt, lax.rsqrt, lax.log)] + [lax.pow(x, 2.5)], ABOVE),
    "everywhere": (
        lambda x: [f(x) for f in (
            lax.asinh, lax.atan, lax.cbrt, lax.ceil, lax.cos, lax.cosh, lax.erf, lax.erfc, lax.exp, lax.exp2, lax.floor,
            lax.is_finite, lax.logistic, lax.sign, lax.sin, lax.sinh, lax.tan, lax.tanh, lax.stop_gradient, jnp.round,
        )], X,
    ),
    "bits": (lambda x: [lax.bitcast_convert_type(x, np.int64), lax.bitcast_convert_type(x[0, 0, 0], np.uint64)], X),
    "polynomials": (lambda x: lax.polynomial(x, [1.0, -2.0, 3.0]) if hasattr(lax, "polynomial") else x, X),
    "two angles": (lambda x, y: [lax.atan2(x, y), lax.clamp(-0.5, x, 0.5), lax.rem(x, y)], X, Y),
    "chosen": (lambda x, y: [jnp.where(x > 0, x, y), lax.select_n(jnp.array([0, 2, 1, 2]), *3 * (x[:, 0, 0],))], X, Y),
    "moved": (
        lambda x: [x.T, x.reshape(8, -1), x[:, None], x[1], x[1:, ::2], jnp.flip(x, 1), jnp.broadcast_to(x[:, :1], x.shape),
                   jnp.stack([x, x], 1), jnp.concatenate([x, x], 2), *jnp.split(x, [2], 1), lax.squeeze(x[:1], (0,))], X,
    ),
    "made": (lambda x: [x + jnp.arange(5.0), lax.iota(int, 3) + 0 * x[0, 0, 0].astype(bool), jnp.eye(5) * x[0, :5]], X),
    "padded": (lambda x: lax.pad(x, 7.0, [(1, -2, 0), (-1, 2, 1), (0, 0, 2)]), X),
    "sliced at": (lambda x: [lax.dynamic_slice(x, (i, 0, -1), (2, 3, 2)) for i in (-4, 1, 9)], X),
    "reduced": (lambda x: [x.sum((0, 2)), x.max(1), x.min(), jnp.argmax(x, 1), jnp.argmin(x, 0), jnp.cumsum(x, 1)], X),
    "summed from the end": (lambda x: lax.cumsum(x, 1, reverse=True), X),
    "products": (lambda x, y: [jnp.einsum("abc,abd->bcd", x, y), jnp.einsum("abc,dbc->ad", x, y), x[:, 0] @ x[0].T], X, Y),
    "loops": (loop, X),
    "mapped": (lambda x: lax.map(jnp.sin, x), X),
    "branch": (lambda x: lax.cond(x[0, 0, 0] > 9, jnp.sin, jnp.cos, x), X),
    "by platform": (lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos), X),
    "convolution": (convolution, IMAGES, WEIGHTS),
    "convolution in groups": (grouped, IMAGES, WEIGHTS),
    "convolution dilated": (dilated, IMAGES, WEIGHTS),
    "convolution of channels first": (channels_first, IMAGES, WEIGHTS),
    "derivatives of convolutions": (gradients(convolution), IMAGES, WEIGHTS),
    "fast convolutions": (fast(convolution), IMAGES, WEIGHTS),
    "derivatives of fast ones": (fast(gradients(fast(dilated))), IMAGES, WEIGHTS),
    "sums of windows": (pooled(lax.add, 0.0), IMAGES),
    "largest of windows": (pooled(lax.max, -np.inf), IMAGES),
    "smallest of windows": (pooled(lax.min, np.inf), IMAGES),
    "derivatives of windows": (gradients(largest), IMAGES),
    "derivatives of sums of windows": (gradients(pooled(lax.add, 0.0)), IMAGES),
    "functions in functions": (jax.checkpoint(lambda x: jax.nn.relu(x) + jax.nn.gelu(x, approximate=False)), X),
    "derivatives of functions": (gradients(lambda x: x * jax.nn.silu(x) + jax.nn.relu(x)), X),
    "copies": (lambda x: jnp.array(x, copy=True), X),
}  # fmt: skip


@pytest.fixture(scope="module")
def expected():
    """What JAX makes of all of them, in one program."""
    every = {name: (function, args) for name, (function, *args) in CASES.items()}
    inputs = {name: args for name, (_, args) in every.items()}
    with jax.numpy_rank_promotion("allow"):
        return jax.jit(lambda inputs: {n: every[n][0](*args) for n, args in inputs.items()})(inputs)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_gives_what_jax_gives(name, expected, monkeypatch):
    monkeypatch.setattr(jax, "jit", None)  # nothing is compiled
    function, *args = CASES[name]
    with jax.numpy_rank_promotion("allow"):
        found = on_host(function, *args)
    assert jax.tree.structure(found) == jax.tree.structure(expected[name])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected[name]), strict=True):
        assert isinstance(a, np.ndarray) and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_every_rule_is_held_to_jax(monkeypatch):
    met = set()

    def operation(equation, inputs, of=_host.operation):
        met.add(equation.primitive.name)
        return of(equation, inputs)

    monkeypatch.setattr(_host, "operation", operation)
    with jax.numpy_rank_promotion("allow"):
        for function, *args in CASES.values():
            on_host(function, *args)
    assert not RULES.keys() - met


def test_what_has_no_rule_is_compiled():
    np.testing.assert_array_equal(on_host(lambda x: jnp.sort(x), X), np.sort(X))
    drawn = on_host(lambda x: x + jax.random.normal(jax.random.key(0)), np.zeros(3))
    np.testing.assert_array_equal(drawn, np.full(3, jax.random.normal(jax.random.key(0))))
    traced = jax.jit(lambda x: x * on_host(jnp.sort, X)[0, 0, 0])(1.0)
    assert traced == np.sort(X)[0, 0, 0]


def test_the_numbers_keep_their_precision():
    single = on_host(lambda x: jax.nn.softmax(x * 2), X.astype(np.float32))
    assert single.dtype == np.float32
    half = on_host(lambda x: jnp.exp(x) * 2, X.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
