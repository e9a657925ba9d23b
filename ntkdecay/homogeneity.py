r"""The degree k of a homogeneous network, and what homogeneity says of its derivatives.

.. math:: f_{a\theta}(x) = a^k f_\theta(x), \qquad a > 0

Networks with piecewise linear activations and pooling, without biases, are homogeneous: a network
of L layers has degree L. Section 2 of `l2` (Lewkowycz & Gur-Ari 2020).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._blocks import block_labels, blocks_of
from ntkdecay._checks import (
    array,
    checked,
    either,
    function,
    instance,
    number,
    optional,
    sequence,
    tree,
)
from ntkdecay._program import Program, read

ApplyFn = Callable[[Any, Any], Any]


class Degree(NamedTuple):
    """A measured degree k and the relative residual ‖θ·∂f − k f‖ / ‖f‖ left by it."""

    degree: float
    residual: float


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x=array(),
    tolerance=optional(number(low=0)),
)
def degree(
    apply_fn: ApplyFn, params: Any, x: ArrayLike, *, tolerance: float | None = None
) -> Degree:
    r"""The degree of homogeneity of a network in its parameters.

    .. math:: \sum_\mu \theta_\mu \partial_\mu f(x) = k f(x)

    Euler's identity, Lemma 1 with m = 0 of `l2` (SM B); k by least squares over samples and
    outputs. Parameters that are exactly zero, as biases are at initialization, would hide the
    terms they belong to: other values take their place. The identity is measured at one point,
    so it can refute homogeneity but not prove it.

    Args:
        apply_fn: the network, f(params, x) -> array.
        params: pytree of floating-point arrays.
        x: inputs with f(x) not all zero; more samples and outputs make a sharper test.
        tolerance: the largest residual allowed; None: the square root of the dtype's precision,
            1.5e-8 in float64.

    Returns:
        `Degree(degree, residual)`.

    Raises:
        ValueError: if the network is not homogeneous, or zero or not finite at x.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import homogeneity
    >>> def f(params, x):
    ...     return x @ params[0] @ params[1]
    ...
    >>> params = (2 * jnp.eye(2), jnp.ones((2, 1)))
    >>> round(homogeneity.degree(f, params, jnp.ones((3, 2))).degree, 6)
    2.0
    """
    f, euler = _euler(_read(apply_fn, params, x), params, x)
    return _measured("its parameters", f, euler, tolerance)


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x=array(),
    blocks=optional(block_labels()),
    tolerance=optional(number(low=0)),
)
def degrees(
    apply_fn: ApplyFn,
    params: Any,
    x: ArrayLike,
    blocks: Any = None,
    *,
    tolerance: float | None = None,
) -> dict[Any, Degree]:
    r"""The degree of homogeneity of a network in each block of its parameters.

    .. math:: \sum_{\mu \in b} \theta_\mu \partial_\mu f(x) = k_b f(x)

    as `degree` measures that of all. A body with normalization under a head without has 0 and 1, a network of L
    layers 1 in each. Where all blocks have one, their sum is the network's. What `predict.gradient_descent` and
    `predict.sgd` take as `degree` beside an `l2` of each block.

    Args:
        apply_fn: the network, f(params, x) -> array.
        params: pytree of floating-point arrays.
        x: inputs with f(x) not all zero.
        blocks: labels of the arrays as in `optax.multi_transform`: a tree like params or a prefix of it, as
            {"body": "body", "head": "head"}, or a function of params that gives one; None: the entries of its first
            level that has several.
        tolerance: as in `degree`.

    Returns:
        `Degree(degree, residual)` of each label.

    Raises:
        ValueError: if the network is not homogeneous in a block, as in biases; or zero or not finite at x.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import homogeneity
    >>> def f(params, x):
    ...     return x @ (params["body"] / jnp.linalg.norm(params["body"])) @ params["head"]
    ...
    >>> params = {"body": 2 * jnp.eye(2), "head": jnp.ones((2, 1))}
    >>> found = homogeneity.degrees(f, params, jnp.ones((3, 2)))
    >>> {block: abs(round(k.degree, 6)) for block, k in found.items()}
    {'body': 0.0, 'head': 1.0}
    """
    names, parts = blocks_of(params, blocks)
    f, sides = _euler_of_each(_read(apply_fn, params, x), params, x, parts)
    found = zip(names, sides, strict=True)
    return {
        b: _measured(f"the parameters of block {b!r}", f, euler, tolerance) for b, euler in found
    }


def _measured(of: str, f: Any, euler: Any, tolerance: float | None) -> Degree:
    """k by least squares, or an error where it leaves too much."""
    f, euler = np.asarray(f).ravel(), np.asarray(euler).ravel()
    f_norm = np.linalg.norm(f)
    if not (np.isfinite(f_norm) and f_norm > 0):
        raise ValueError(
            f"`apply_fn`'s output has norm {float(f_norm)} at x, where its degree cannot be seen: "
            "take other inputs or parameters."
        )
    k = np.vdot(f / f_norm, euler / f_norm)
    residual = np.linalg.norm(euler - k * f) / f_norm
    allowed = float(jnp.finfo(f.dtype).eps) ** 0.5 if tolerance is None else float(tolerance)
    if not residual <= allowed:
        raise ValueError(
            f"`apply_fn` is not homogeneous in {of}: Euler's identity with the best degree, "
            f"{float(k):.4g}, leaves a relative residual of {float(residual):.1e}, above "
            f"{allowed:.1e}; the usual causes are biases, identity skips (x + F(x) adds degree 0 to F's), the "
            "epsilon of batch or layer normalization, and smooth activations such as tanh or gelu."
        )
    return Degree(float(k), float(residual))


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x=array(),
    degree=either(number(), instance(Degree, "a `Degree`")),
    directions=sequence(tree(), empty=True),
)
def lemma_1(
    apply_fn: ApplyFn,
    params: Any,
    x: ArrayLike,
    degree: float | Degree,
    directions: Sequence[Any] = (),
) -> tuple[Array, Array]:
    r"""The two sides of Lemma 1, the derivative tensors contracted with m directions.

    .. math:: \sum_\mu \theta_\mu \partial_\mu \partial_{\nu_1} \cdots \partial_{\nu_m} f(x)
              = (k - m)\, \partial_{\nu_1} \cdots \partial_{\nu_m} f(x)

    Lemma 1 of `l2` (SM B). It is the whole identity if it holds for enough directions.

    Args:
        apply_fn: the network, f(params, x) -> array, homogeneous of the given degree.
        params: pytree of arrays θ.
        x: inputs.
        degree: k, a number or as `degree` measured it.
        directions: v_1, …, v_m, each a pytree like params, contracted with ν_1, …, ν_m; m = 0, 1,
            2, … as many as there are.

    Returns:
        The left and the right side, each of the shape of f(x).

    >>> import jax.numpy as jnp
    >>> from ntkdecay import homogeneity
    >>> def f(w, x):
    ...     return x * w**3
    ...
    >>> left, right = homogeneity.lemma_1(f, jnp.array(2.0), jnp.array(1.0), degree=3)
    >>> float(left), float(right)
    (24.0, 24.0)
    """
    k = degree.degree if isinstance(degree, Degree) else degree
    return _lemma_1(_read(apply_fn, params, x), params, x, k, tuple(directions))


@jax.jit
def _lemma_1(
    f: Program, params: Any, x: Array, degree: Array, directions: tuple[Any, ...]
) -> tuple[Array, Array]:
    derivative = functools.reduce(_along, directions, lambda p: f(p, x))
    value, left = jax.jvp(derivative, (params,), (params,))
    return left, (degree - len(directions)) * value


def _along(f: Callable[[Any], Array], direction: Any) -> Callable[[Any], Array]:
    return lambda params: jax.jvp(f, (params,), (direction,))[1]


def _read(apply_fn: ApplyFn, params: Any, x: ArrayLike) -> Program:
    with jax.numpy_rank_promotion("allow"):  # stax adds biases so
        return read(apply_fn, params, x)


@jax.jit
def _euler(f: Program, params: Any, x: Array) -> tuple[Array, Array]:
    """f and Σ θ ∂f, with no θ zero."""
    params = _without_zeros(params)
    return jax.jvp(lambda p: f(p, x), (params,), (params,))


@functools.partial(jax.jit, static_argnums=3)
def _euler_of_each(f: Program, params: Any, x: Array, parts: tuple[int, ...]) -> Any:
    """f, and Σ θ ∂f over each part, with no θ zero; f is linear in what it moves along."""
    leaves, treedef = jax.tree.flatten(_without_zeros(params))
    value, push = jax.linearize(lambda p: f(p, x), treedef.unflatten(leaves))

    def along(part: Array) -> Array:
        kept = [jnp.where(at == part, p, 0) for at, p in zip(parts, leaves, strict=True)]
        return push(treedef.unflatten(kept))

    return value, jax.vmap(along)(jnp.arange(max(parts) + 1))


def _without_zeros(params: Any) -> Any:
    """params with numbers of no pattern, of the size of the others, for exact zeros."""
    leaves, treedef = jax.tree.flatten(params)
    square, size = sum(jnp.sum(p**2) for p in leaves), sum(p.size for p in leaves)
    scale = jnp.where(square > 0, jnp.sqrt(square / max(size, 1)), 1.0)

    def fill(i: int, p: Array) -> Array:
        values = scale * jnp.cos(1.0 + i + jnp.arange(p.size))
        return jnp.where(p == 0, values.reshape(p.shape).astype(p.dtype), p)

    return treedef.unflatten([fill(i, p) for i, p in enumerate(leaves)])
