r"""The layers of a network as maps of neural-tangents' `Kernel`.

A random linear map with weights of variance v and a constant c before them gives, of its inputs'
kernels K and Θ and by one rule A of neural-tangents (with W_std = c √fan-in),

.. math:: K' = v\,A(K), \qquad \Theta' = A(K) + A(v\,\Theta)

which is its NTK parameterization for v = 1, and its standard one for c = 1.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntkdecay._neural_tangents import Kernel, Requirement, requirement, stax

Laws = Array  # (leaves, 2): mean and variance
Run = Callable[..., Any]  # run(laws, *kernels) -> Kernel


@dataclass(frozen=True, eq=False)
class Node:
    """run(laws, *kernels of inputs); `gaussian` of each input is what its rule may rely on."""

    run: Run
    inputs: tuple[int, ...]
    requires: Any = None
    leaf: int | None = None  # the parameter that it takes
    entry: Callable | None = None  # of the network's inputs: x -> (n, ..., channels)


def layer(rule: Any, *inputs: int) -> Node:
    """A layer without weights."""
    return Node(lambda laws, k: rule(k), inputs, requirement(rule))


def quadrature(rule: Any, reach: float, source: int) -> Node:
    """A function by quadrature: NaN where its input deviates by more than `reach`."""

    def run(laws: Laws, k: Any) -> Any:
        far = _largest(k) > reach**2
        out = rule(k)
        kept = [*_covariances(out), *([] if out.ntk is None else [("ntk", out.ntk)])]
        return out.replace(**{name: jnp.where(far, jnp.nan, one) for name, one in kept})

    return Node(run, (source,), requirement(rule))


def random_linear(rule: Any, leaf: int, source: int) -> Node:
    """A layer with weights: `rule` has W_std = c √fan-in and no bias."""

    def run(laws: Laws, k: Any) -> Any:
        v = laws[leaf, 1].astype(k.nngp.dtype)
        k = rule(k.replace(ntk=None if k.ntk is None else v * k.ntk))
        return k.replace(**{name: one * v for name, one in _covariances(k)})

    return Node(run, (source,), requirement(rule), leaf)


def untrained(factor: float, outputs: int, source: int) -> Node:
    """factor · f in the mean over so many outputs: a layer of which the weights stay as they are."""

    def run(laws: Laws, k: Any) -> Any:
        shapes = {name: (*getattr(k, name)[:-1], outputs) for name in ("shape1", "shape2")}
        return scaled(factor, source).run(laws, k).replace(**shapes)

    return Node(run, (source,))


def scaled(factor: float, source: int) -> Node:
    """factor · f."""

    def run(laws: Laws, k: Any) -> Any:
        ntk = None if k.ntk is None else factor**2 * k.ntk
        return k.replace(ntk=ntk, **{n: factor**2 * one for n, one in _covariances(k)})

    return Node(run, (source,))


def biased(leaf: int, scale: float, source: int) -> Node:
    """f + scale · b, one b for each channel."""

    def run(laws: Laws, k: Any) -> Any:
        shift = scale**2 * laws[leaf, 1].astype(k.nngp.dtype)
        ntk = None if k.ntk is None else k.ntk + scale**2 * jnp.ones_like(k.nngp)
        return k.replace(ntk=ntk, **{n: one + shift for n, one in _covariances(k)})

    return Node(run, (source,), leaf=leaf)


def gained(leaf: int, scale: float, source: int) -> Node:
    """scale · m · f, of a trained m for each channel that starts as one number."""

    def run(laws: Laws, k: Any) -> Any:
        m2 = (scale * laws[leaf, 0].astype(k.nngp.dtype)) ** 2
        ntk = None if k.ntk is None else m2 * k.ntk + scale**2 * k.nngp
        return k.replace(ntk=ntk, **{n: m2 * one for n, one in _covariances(k)})

    return Node(run, (source,), leaf=leaf)


def padded(widths: tuple[tuple[int, int], ...], source: int) -> Node:
    """Zeros around each spatial axis."""

    def run(laws: Laws, k: Any) -> Any:
        order = widths[::-1] if k.is_reversed else widths
        around = order if k.diagonal_spatial else tuple(w for w in order for _ in range(2))

        def pad(one: Array) -> Array:
            if not one.ndim:
                return one
            return jnp.pad(one, ((0, 0),) * (one.ndim - len(around)) + around)

        def shape(old: tuple[int, ...]) -> tuple[int, ...]:
            inner = [n + low + high for n, (low, high) in zip(old[1:-1], widths, strict=True)]
            return (old[0], *inner, old[-1])

        return k.replace(
            ntk=None if k.ntk is None else pad(k.ntk),
            shape1=shape(k.shape1),
            shape2=shape(k.shape2),
            **{name: pad(one) for name, one in _covariances(k)},
        )

    return Node(run, (source,))


def joined(rule: Any, *sources: int) -> Node:
    """A sum or concatenation of terms without covariance, as the walk has made sure."""

    def run(laws: Laws, *ks: Any) -> Any:
        shape = jnp.broadcast_shapes(*(k.nngp.shape for k in ks))
        ks = tuple(
            k.replace(
                is_gaussian=True, ntk=None if k.ntk is None else jnp.broadcast_to(k.ntk, shape)
            )
            for k in ks
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that independence is not verified: it is
            return rule(ks)

    return Node(run, sources, requirement(rule))


def attention(
    weights: Callable, fluctuation: float, requires: Any, queries: int, keys: int, values: int
) -> Node:
    """Σ_t G_st f(t), with G = weights(covariances of the keys); NaN where their scores stay random.

    They fluctuate by `fluctuation` times the deviations of a query and a key.
    """

    def run(laws: Laws, q: Any, k: Any, v: Any) -> Any:
        far = fluctuation**2 * _largest(q) * _largest(k) >= 0.25
        g1 = jnp.where(far, jnp.nan, weights(k.cov1))
        g2 = g1 if k.cov2 is None else jnp.where(far, jnp.nan, weights(k.cov2))

        def between(one: Any) -> Any:
            return (
                one
                if one is None or not one.ndim
                else jnp.einsum("nsu,mtv,nmuv->nmst", g1, g2, one)
            )

        def within(one: Any, g: Array) -> Any:
            return one if one is None else jnp.einsum("nsu,ntv,nuv->nst", g, g, one)

        return v.replace(
            nngp=between(v.nngp),
            ntk=between(v.ntk),
            cov1=within(v.cov1, g1),
            cov2=within(v.cov2, g2),
        )

    return Node(run, (queries, keys, values), requires)


def kernel_of(
    nodes: list[Node],
    gaussian: list[bool],
    end: int,
    laws: Laws,
    x1: Array,
    x2: Array | None,
    ntk: bool,
) -> Any:
    """The Kernel of node `end`."""
    diagonal = _diagonal(nodes, end)
    kernels: dict[int, Any] = {}

    def at(i: int) -> Any:
        if i in kernels:
            return kernels[i]
        node = nodes[i]
        if node.entry is not None:
            a, b = node.entry(x1), None if x2 is None else node.entry(x2)
            k = stax.Identity()[2](a, b, None, diagonal_batch=True, diagonal_spatial=diagonal)
            kernels[i] = k.replace(ntk=k.ntk if ntk else None)
        else:
            ks = [at(j).replace(is_gaussian=gaussian[j]) for j in node.inputs]
            kernels[i] = node.run(laws, *ks)
        return kernels[i]

    for i in range(end + 1):
        if i in _needed(nodes, end):
            at(i)
    return kernels[end]


def _needed(nodes: list[Node], end: int) -> set[int]:
    found, todo = set(), [end]
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo += nodes[i].inputs
    return found


def _diagonal(nodes: list[Node], end: int) -> bool:
    """Whether the network asks only for each position's kernel with itself."""
    later: dict[int, Any] = {}
    for i in sorted(_needed(nodes, end), reverse=True):
        after, own = later.get(i), nodes[i].requires
        here = after if own is None else own if after is None else own >> after
        if not nodes[i].inputs:
            later[i] = here
        for j in nodes[i].inputs:
            if here is not None:
                later[j] = here & later[j] if j in later else here
    entries = [later.get(i) for i in _needed(nodes, end) if nodes[i].entry is not None]
    return all(isinstance(one, Requirement) and bool(one) for one in entries)


def _largest(k: Any) -> Array:
    """The largest variance of a signal."""
    variances = [one.max() for one in (k.cov1, k.cov2) if one is not None]
    return functools.reduce(jnp.maximum, variances)


def _covariances(k: Any) -> list[tuple[str, Array]]:
    named = [("nngp", k.nngp), ("cov1", k.cov1), ("cov2", k.cov2)]
    return [(name, one) for name, one in named if one is not None]


__all__ = [
    "Kernel",
    "Node",
    "attention",
    "biased",
    "gained",
    "joined",
    "kernel_of",
    "layer",
    "padded",
    "quadrature",
    "random_linear",
    "scaled",
    "untrained",
]
