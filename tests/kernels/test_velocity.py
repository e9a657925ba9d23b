import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explicit import explicit_ntk

from ntkdecay.kernels import velocity

X = np.random.default_rng(0).normal(size=(6, 5))
Y = np.random.default_rng(1).normal(size=(6, 2))


def network(params, x):
    """Of as many layers as params, and so of that degree."""
    for w in params[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ params[-1]


def draw(degree):
    rng = np.random.default_rng(degree)
    widths = [5, *(7 for _ in range(degree - 1)), 2]
    return [jnp.asarray(rng.normal(size=s)) for s in itertools.pairwise(widths)]


def loss(fx):
    return jnp.sum(jnp.logaddexp(0, -Y * fx)) + 0.5 * jnp.sum((fx - Y) ** 2)


def theta(params):
    """(n, n, O, O) by the Jacobians, as a function that can be differentiated."""
    jacobians = jax.tree.leaves(jax.jacrev(lambda p: network(p, X))(params))
    return sum(jnp.einsum("aoij,bqij->aboq", j, j) for j in jacobians)


@pytest.mark.parametrize(("degree", "trace_axes"), [(1, ()), (2, ()), (3, ()), (4, ()), (3, (-1,))])
def test_s5_is_the_derivative_of_the_kernel_along_gradient_flow(degree, trace_axes):
    params, l2 = draw(degree), 0.3

    def flow(params):
        gradient = jax.grad(lambda p: loss(network(p, X)))(params)
        return jax.tree.map(lambda g, p: -g - l2 * p, gradient, params)

    k, dk_dt = jax.jvp(theta, (params,), (flow(params),))
    decay = -2 * (degree - 1) * l2 * k
    if trace_axes:
        dk_dt, decay = (jnp.einsum("aboo->ab", k) / 2 for k in (dk_dt, decay))
    v = velocity(network, params, X, loss, l2, trace_axes=trace_axes)
    scale = float(abs(k).max())
    np.testing.assert_allclose(v.total, dk_dt, rtol=1e-10, atol=1e-12 * scale)
    np.testing.assert_allclose(v.decay, decay, rtol=1e-10, atol=1e-12 * scale)
    axes = (1, 0) if trace_axes else (1, 0, 3, 2)
    np.testing.assert_allclose(
        v.total, v.decay + v.t + v.t.transpose(axes), rtol=1e-12, atol=1e-14 * scale
    )
    if degree == 1:
        assert not v.t.any()
    else:
        assert abs(v.t).max() > 1e-3 * scale


def test_t_is_s6_by_its_indices():
    params = draw(2)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    f = lambda w: network(unravel(w), X)[:, 0]  # noqa: E731
    first, second = jax.jacrev(f)(flat), jax.hessian(f)(flat)
    slope = jax.grad(lambda fx: 0.5 * jnp.sum((fx - Y[:, 0]) ** 2))(f(flat))
    expected = -jnp.einsum("amn,bm,cn,c->ab", second, first, first, slope)
    one_output = lambda p, x: network(p, x)[:, :1]  # noqa: E731
    half_square = lambda fx: 0.5 * jnp.sum((fx[:, 0] - Y[:, 0]) ** 2)  # noqa: E731
    for tile in (None, 4):
        v = velocity(one_output, params, X, half_square, 0.1, tile=tile)
        np.testing.assert_allclose(v.t, expected, rtol=1e-10, atol=1e-12)


def test_under_jit_and_vmap():
    params = draw(2)
    whole = velocity(network, params, X, loss, 0.1).total
    total = lambda s: velocity(network, [s * params[0], params[1]], X, loss, 0.1, degree=2).total  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(total))(jnp.ones(2))[1], whole, rtol=1e-12)


def test_what_is_refused():
    with pytest.raises(ValueError, match="not homogeneous"):
        velocity(lambda p, x: jnp.tanh(network(p, x)), draw(2), X, loss, 0.1)
    with pytest.raises(ValueError, match="`tile`=2 needs vmap_axes=0"):
        velocity(network, draw(2), X, loss, 0.1, tile=2, vmap_axes=None)


@pytest.mark.parametrize("name", ["l2", "degree"])
def test_a_negative_or_complex_number_is_refused(name):
    for bad in (-0.1, 1j):
        arguments: dict[str, Any] = {"l2": 0.1, "degree": 2.0} | {name: bad}
        with pytest.raises((ValueError, TypeError), match=f"`{name}` is .*; it must be"):
            velocity(network, draw(2), X, loss, **arguments)


def test_explicit_is_the_same_kernel():
    np.testing.assert_allclose(theta(draw(2)), explicit_ntk(network, draw(2), X, X), rtol=1e-12)
