import importlib
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explicit import explicit_layers, explicit_ntk
from test_programs import compilations

from ntkdecay import stax
from ntkdecay.kernels import empirical_ntk, ntk_vector_product

rules = importlib.import_module("neural_tangents._src.utils.rules")
X1 = np.random.default_rng(0).normal(size=(7, 5))
X2 = np.random.default_rng(1).normal(size=(4, 5))
INIT, STAX, _ = stax.serial(stax.Dense(6), stax.Relu(), stax.Dense(3))


def plain(params, x):
    return jnp.maximum(x @ params["in"], 0) @ params["out"]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


PLAIN = {"in": normal(0, 5, 6), "out": normal(1, 6, 3)}


NETWORKS = {
    "plain": (plain, PLAIN),
}
with jax.numpy_rank_promotion("allow"):
    NETWORKS["stax"] = (STAX, INIT(jax.random.key(0), (7, 5))[1])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tile", [None, 3])
def test_empirical_ntk_is_the_product_of_jacobians(name, tile):
    f, params = NETWORKS[name]
    for x2 in (None, X2) if name == "plain" else (None,):
        k = empirical_ntk(f, params, X1, x2, trace_axes=(), tile=tile)
        expected = explicit_ntk(f, params, X1, X1 if x2 is None else x2)
        assert k.dtype == jnp.float64
        np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)
        if x2 is None:
            assert (k == k.transpose(1, 0, 3, 2)).all()


@pytest.mark.parametrize("tile", [None, 3, 100])
def test_trace_and_diagonal_axes(tile):
    full = explicit_ntk(plain, PLAIN, X1, X1)

    def check(expected, **axes):
        k = empirical_ntk(plain, PLAIN, X1, tile=tile, **axes)
        np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)

    check(np.einsum("aboo->ab", full) / 3)
    check(np.einsum("aboo->abo", full), trace_axes=(), diagonal_axes=(1,))
    check(np.einsum("aaoo->a", full) / 3, diagonal_axes=(0,))
    check(np.einsum("aaoq->aoq", full), trace_axes=(), diagonal_axes=0)


def test_diagonal_of_two_batches_by_tiles():
    expected = np.einsum("aaoo->a", explicit_ntk(plain, PLAIN, X1[:4], X2)) / 3
    k = empirical_ntk(plain, PLAIN, X1[:4], X2, diagonal_axes=0, tile=3)
    np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tile", [None, 3])
def test_trace_over_the_samples(tile):
    expected = np.einsum("aaoo->", explicit_ntk(plain, PLAIN, X1, X1)) / 21
    k = empirical_ntk(plain, PLAIN, X1, trace_axes=(0, 1), tile=tile)
    np.testing.assert_allclose(k, expected, rtol=1e-12)


@pytest.mark.parametrize("tile", [None, 3])
def test_layers_add_up_to_the_kernel(tile):
    layers = empirical_ntk(plain, PLAIN, X1, trace_axes=(), per_layer=True, tile=tile)
    expected = dict(zip(("in", "out"), explicit_layers(plain, PLAIN, X1, X1), strict=True))
    assert layers.keys() == PLAIN.keys()
    for name, k in expected.items():
        np.testing.assert_allclose(layers[name], k, rtol=1e-12, atol=1e-13)
    total = empirical_ntk(plain, PLAIN, X1, trace_axes=())
    np.testing.assert_allclose(layers["in"] + layers["out"], total, rtol=1e-13, atol=1e-14)


def test_a_memory_bound_chooses_the_tile(capsys):
    rng = np.random.default_rng(5)
    params = {"in": rng.normal(size=(5, 200)), "out": rng.normal(size=(200, 3))}
    x = rng.normal(size=(200, 5))
    whole = empirical_ntk(plain, params, x)
    tiled = empirical_ntk(plain, params, x, max_bytes=400_000, progress="kernel")
    np.testing.assert_allclose(tiled, whole, rtol=1e-12, atol=1e-13)
    bar = capsys.readouterr().err
    assert "kernel: 100%" in bar and "1/1 " not in bar
    for progress in (True, False):
        empirical_ntk(plain, params, x, max_bytes=400_000, progress=progress)
        assert bool(capsys.readouterr().err) == progress


def test_the_tiles_are_dealt_to_all_devices():
    code = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
from ntkdecay import _tiles, kernels
rng = np.random.default_rng(0)
w, x = rng.normal(size=(5, 3)), rng.normal(size=(10, 5))
used, put = set(), jax.device_put
jax.device_put = lambda value, device=None: (used.add(device), put(value, device))[1]
f = lambda w, x: jnp.tanh(x @ w)
k = kernels.empirical_ntk(f, jnp.asarray(w), x, tile=3)
used.discard(None)
assert used == set(jax.devices()) and len(used) == 4, used
np.testing.assert_allclose(k, kernels.empirical_ntk(f, jnp.asarray(w), x), rtol=1e-12, atol=1e-14)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **flags})
    assert done.returncode == 0, done.stderr


def two_uses(w, x):
    """Two uses of w, batched over different axes, that neural-tangents' rules take for one."""
    h = x[:, :4].reshape(-1, 2, 2)
    return jnp.einsum("bij,nbj->nbi", w, h).sum(1) * jnp.einsum("jib,nbj->nbi", w, h**2).sum(1)


def test_a_rule_that_is_wrong_is_noticed(monkeypatch):
    rule = rules.JACOBIAN_RULES[jax.lax.add_p]
    monkeypatch.setitem(rules.JACOBIAN_RULES, jax.lax.add_p, lambda *args: 1.01 * rule(*args))
    f = lambda p, x: 1e3 * plain(p, x) + p["b"]  # noqa: E731
    params = {**PLAIN, "b": normal(3, 1, 3)}
    with pytest.warns(UserWarning, match="give another kernel"):
        k = empirical_ntk(f, params, X1, trace_axes=())
    np.testing.assert_allclose(k, explicit_ntk(f, params, X1, X1), rtol=1e-12, atol=1e-7)


def test_a_network_that_the_rules_cannot_read_has_the_jacobian_and_says_so_once():
    w = normal(7, 2, 2, 2)
    f = lambda w, x: two_uses(w, x)  # noqa: E731
    expected = explicit_ntk(f, w, X1, X1)
    with pytest.warns(UserWarning, match="give another kernel .* from the Jacobian") as said:
        for _ in range(2):
            k = empirical_ntk(f, w, X1, trace_axes=())
            np.testing.assert_allclose(k, expected, rtol=1e-12, atol=1e-13)
    assert [warning.filename for warning in said] == [__file__]


def test_a_network_is_tried_under_jit_too():
    twice = lambda w, x: 2 * two_uses(w, x)  # noqa: E731
    f = jax.jit(lambda w: empirical_ntk(twice, w, X1, trace_axes=()))
    w = normal(8, 2, 2, 2)
    with pytest.warns(UserWarning, match="from the Jacobian"):
        k = f(w)
    np.testing.assert_allclose(k, explicit_ntk(twice, w, X1, X1), rtol=1e-12, atol=1e-13)


def test_a_zero_layer_does_not_hide_what_is_below_it():
    params = {"w": normal(9, 2, 2, 2), "out": jnp.zeros((2, 1))}
    f = lambda p, x: two_uses(p["w"], x) @ p["out"]  # noqa: E731
    with pytest.warns(UserWarning, match="from the Jacobian"):
        empirical_ntk(f, params, X1)


def test_a_network_that_depends_on_traced_values():
    def kernel(scale):
        return empirical_ntk(lambda p, x: scale * plain(p, x), PLAIN, X1, tile=3)

    expected = 4 * empirical_ntk(plain, PLAIN, X1)
    np.testing.assert_allclose(jax.jit(kernel)(2.0), expected, rtol=1e-12)
    with pytest.warns(UserWarning, match="depends on traced values"):  # an integer: of what range?
        np.testing.assert_allclose(jax.jit(kernel)(2), expected, rtol=1e-12)


@pytest.mark.parametrize("tile", [None, 3])
def test_ntk_vector_product(tile):
    kernel = explicit_ntk(plain, PLAIN, X1, X2)
    v = np.random.default_rng(4).normal(size=(4, 3))
    product = ntk_vector_product(plain, PLAIN, X1, X2, tile=tile)
    expected = np.einsum("aboq,bq->ao", kernel, v)
    np.testing.assert_allclose(jax.jit(product)(v), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"`v` has shape \(7, 3\); it must .* \(4, 3\)"):
        product(np.zeros((7, 3)))


def test_float32_stays_float32():
    params = jax.tree.map(lambda p: p.astype(jnp.float32), PLAIN)
    k = empirical_ntk(plain, params, X1.astype(np.float32))
    assert k.dtype == jnp.float32
    expected = np.einsum("aboo->ab", explicit_ntk(plain, PLAIN, X1, X1)) / 3
    np.testing.assert_allclose(k, expected, rtol=1e-5, atol=1e-5)


def test_under_jit_grad_and_vmap():
    def trace(scale, tile=None):
        params = {**PLAIN, "in": scale * PLAIN["in"]}
        return jnp.trace(empirical_ntk(plain, params, X1, tile=tile))

    full = explicit_ntk(plain, PLAIN, X1, X1)
    value = np.einsum("aaoo->", full) / 3
    np.testing.assert_allclose(jax.jit(trace)(1.0), value, rtol=1e-12)
    # the kernel is the output layer's part, of degree 2 in `scale`, and the input layer's, of 0
    h = np.maximum(X1 @ PLAIN["in"], 0)
    np.testing.assert_allclose(jax.grad(trace)(1.0), 2 * (h**2).sum(), rtol=1e-12)
    tiled = jax.grad(lambda s: trace(s, tile=3))(1.0)
    np.testing.assert_allclose(tiled, 2 * (h**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(
        jax.vmap(trace)(jnp.array([1.0, 2.0])), [value, value + 3 * (h**2).sum()], rtol=1e-12
    )


def batch_normalized(params, x):
    h = x @ params["in"]
    h = (h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True)
    return jnp.tanh(h) @ params["out"]


MEETINGS = {
    "rolled by five": lambda x: jnp.roll(x, 5, 0),
    "rolled by six": lambda x: jnp.roll(x, 6, 0),
    "rolled by two": lambda x: jnp.roll(x, 2, 0),
    "the third one": lambda x: jnp.broadcast_to(x[2:3], x.shape),
    "the last but one": lambda x: x[-2:-1] + jnp.zeros_like(x),
    "how many": lambda x: x * (2 if len(x) > 6 else 1),
    "how many, captured": lambda x: x * np.ones(5)[None] * np.array([1.0, 2.0])[int(len(x) > 7)],
    "neighbours": lambda x: jnp.cumsum(x, 0),
    "pairs": lambda x: x.reshape(-1, 2, 5)[:, ::-1].reshape(-1, 5) if len(x) % 2 == 0 else x,
    "in order": lambda x: jnp.sort(x, 0),
    "above the mean": lambda x: x * (x > jax.lax.stop_gradient(x.mean(0, keepdims=True))),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_samples_that_meet_are_noticed_however_they_do(name):
    meet = MEETINGS[name]
    x = np.concatenate([X1, X2, X1 + 0.5])  # 18 samples
    f = lambda p, x: plain(p, meet(x))  # noqa: E731
    with pytest.raises(
        ValueError, match=r"`apply_fn`'s output for a sample .*: pass vmap_axes=None"
    ):
        empirical_ntk(f, PLAIN, x)
    with pytest.raises(
        ValueError, match=r"`apply_fn`'s output for a sample .*: pass vmap_axes=None"
    ):
        ntk_vector_product(f, PLAIN, x, tile=3)
    k = empirical_ntk(f, PLAIN, x, vmap_axes=None)
    expected = np.einsum("aboo->ab", explicit_ntk(f, PLAIN, x, x)) / 3
    np.testing.assert_allclose(k, expected, rtol=1e-10, atol=1e-12)


SCALE = 1.0


def test_what_a_network_computes_now_is_what_counts():
    """Neither JAX's memory of a function object nor a captured array makes the kernel an old one."""
    global SCALE
    captured = np.ones(3)
    f = lambda p, x: SCALE * plain(p, x) * captured[None]  # noqa: E731
    expected = empirical_ntk(f, PLAIN, X1)
    for SCALE in (3.0, -2.0):
        np.testing.assert_allclose(empirical_ntk(f, PLAIN, X1), SCALE**2 * expected, rtol=1e-12)
    captured *= 5.0
    np.testing.assert_allclose(empirical_ntk(f, PLAIN, X1), 100 * expected, rtol=1e-12)
    SCALE = 1.0


def test_a_function_that_computes_the_same_compiles_nothing():
    def kernels(scale, factor):
        f = lambda p, x: jax.nn.relu(scale * plain(p, x))  # noqa: E731
        return (
            empirical_ntk(f, PLAIN, X1),
            empirical_ntk(f, PLAIN, factor * X1, tile=2),
            empirical_ntk(f, PLAIN, factor * X1, max_bytes=2000),
            ntk_vector_product(f, PLAIN, factor * X1)(np.full((7, 3), factor)),
        )

    first = kernels(jnp.ones(()), 1.0)
    with compilations() as compiled:
        second = kernels(2 * jnp.ones(()), 2.0)
    assert len(compiled) <= 1, compiled  # 2 * jnp.ones
    np.testing.assert_allclose(second[0], 4 * first[0], rtol=1e-12)


def test_samples_that_meet_are_noticed():
    with pytest.raises(ValueError, match="batch statistics: pass vmap_axes=None"):
        empirical_ntk(batch_normalized, PLAIN, X1)
    k = empirical_ntk(batch_normalized, PLAIN, X1, trace_axes=(), vmap_axes=None)
    expected = explicit_ntk(batch_normalized, PLAIN, X1, X1)
    np.testing.assert_allclose(k, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (TypeError, "`x1` is float32 but `params` is float64", {"x1": X1.astype(np.float32)}),
        (TypeError, "`x2` is float32 but `params` is float64", {"x2": X2.astype(np.float32)}),
        (TypeError, "`x1` holds int64; .* floating", {"x1": np.ones((7, 5), int)}),
        (TypeError, "`params` holds float; .* arrays", {"params": {**PLAIN, "scale": 1.0}}),
        (TypeError, "gives float32 for float64 inputs", {"apply_fn": lambda p, x: x.astype("f4")}),
        (ValueError, r"one array whose axis 0", {"apply_fn": lambda p, x: plain(p, x).sum()}),
        (ValueError, r"one array whose axis 0", {"apply_fn": lambda p, x: (x, x)}),
        (ValueError, r"`trace_axes`=\(2,\) does not fit .* 2 axes", {"trace_axes": 2}),
        (ValueError, r"`diagonal_axes`=\(-3,\) does not fit", {"diagonal_axes": (-3,)}),
        (ValueError, "`x1` has 7 and `x2` has 4", {"x2": X2, "diagonal_axes": 0}),
        (ValueError, "`x1` has 7 and `x2` has 4", {"x2": X2, "trace_axes": (0, 1)}),
        (ValueError, "`tile` is 0; it must be", {"tile": 0}),
        (ValueError, "`tile` needs vmap_axes=0", {"tile": 2, "vmap_axes": None}),
        (ValueError, "`max_bytes` needs vmap_axes=0", {"max_bytes": 9**9, "vmap_axes": None}),
        (ValueError, "`max_bytes` is 10, but .* single pair .* takes", {"max_bytes": 10}),
        (ValueError, "`vmap_axes` is 1; it must be", {"vmap_axes": 1}),
        (ValueError, "`vmap_axes` is False; it must be", {"vmap_axes": False}),
        (ValueError, r"`trace_axes`=\(1, -1\) names an axis twice", {"trace_axes": (1, -1)}),
    ],
)
def test_what_is_refused(error, match, change):
    with pytest.raises(error, match=match):
        empirical_ntk(**{"apply_fn": plain, "params": PLAIN, "x1": X1, **change})


def test_rounding_to_32_bits_is_refused():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="`params` is float64, which JAX would silently round"):
            empirical_ntk(plain, jax.tree.map(np.asarray, PLAIN), X1)
        params = jax.tree.map(lambda p: p.astype(jnp.float32), PLAIN)
        with pytest.raises(TypeError, match="`x1` is float64 but `params` is float32"):
            empirical_ntk(plain, params, X1)


def test_blocks_part_the_kernel():
    def f(params, x):
        return jax.nn.relu(x @ params["body"][0]) @ params["body"][1] @ params["head"]

    rng = np.random.default_rng(0)
    params = {
        "body": [rng.normal(size=(5, 7)), rng.normal(size=(7, 4))],
        "head": rng.normal(size=(4, 2)),
    }
    x = rng.normal(size=(6, 5))
    layers = empirical_ntk(f, params, x, per_layer=True)
    for tile in (None, 2):
        found = empirical_ntk(f, params, x, blocks={"body": "slow", "head": "fast"}, tile=tile)
        assert list(found) == ["slow", "fast"]
        np.testing.assert_allclose(found["slow"], sum(layers["body"]), rtol=1e-12)
        np.testing.assert_allclose(found["fast"], layers["head"], rtol=1e-12)
    with pytest.raises(ValueError, match="part the kernel in two ways"):
        empirical_ntk(f, params, x, per_layer=True, blocks=lambda p: p)
