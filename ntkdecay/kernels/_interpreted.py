"""Kernels at infinite width of a network as it is written."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from ntkdecay._arrays import own
from ntkdecay._bar import PROGRESS, title
from ntkdecay._checks import (
    anything,
    array,
    checked,
    choice,
    flag,
    function,
    integer,
    is_traced,
    optional,
    prng_key,
    tree,
)
from ntkdecay._program import Program as Read
from ntkdecay._program import read
from ntkdecay._tiles import by_tiles, bytes_of, on_devices, placed_shapes, shapes_of, tile_within
from ntkdecay.kernels._checks import check_dtypes, exact
from ntkdecay.kernels._program._builder import BATCH
from ntkdecay.kernels._program._nodes import kernel_of
from ntkdecay.kernels._program._source import Refused
from ntkdecay.kernels._program._values import Data, Expression, Local, Parameter, Signal
from ntkdecay.kernels._program._variances import given, given_key, measured, names_of
from ntkdecay.kernels._program._walk import Walk


@checked(
    apply_fn=function("of params and x"),
    params=tree(),
    x1=array(),
    x2=optional(array()),
    get=choice("ntk", "nngp"),
    variances=anything(),
    init=optional(function("of a key")),
    key=optional(prng_key()),
    tile=optional(integer(low=1)),
    max_bytes=optional(integer(low=1)),
    progress=PROGRESS,
    check=flag(),
    quadrature=integer(low=2, high=128),
)
def analytic(
    apply_fn: Callable[[Any, Any], Any],
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike | None = None,
    get: Literal["ntk", "nngp"] = "ntk",
    *,
    variances: Any = None,
    init: Callable[[Any], Any] | None = None,
    key: Any = None,
    tile: int | None = None,
    max_bytes: int | None = None,
    progress: str | bool | None = None,
    check: bool = False,
    quadrature: int = 40,
) -> Array:
    r"""The NTK or NNGP kernel at infinite width of a network as it is written: flax, equinox, plain JAX.

    .. math:: \Theta(x, x') = \frac{1}{O} \sum_{o, \mu} \partial_\mu f_o(x)\, \partial_\mu f_o(x'), \qquad
              K(x, x') = \frac{1}{O} \sum_o f_o(x) f_o(x')

    at initialization, to leading order in the widths of the hidden layers. The network's program
    is walked once; layers with weights, functions of one entry, sums, pooling and norms are handed
    to the rules of neural-tangents, anything else is refused with its line. Gradients are those by
    the entries of `params`: in the standard parameterization (weights of variance ∝ 1/fan-in) Θ
    grows with the widths, which are then those of `params`.

    Self-attention goes through where its limit is a deterministic average: scores c q·k with c ∝ 1/channels, of queries that
    are the keys or independent of them, and any function of a sample's scores (Hron et al. 2020).

    A constant matrix is a layer that is not trained, as the frozen last one of `scale_invariant.networks` (there with layer norm; batch
    norm takes samples together and has no kernel of two): it multiplies the kernel by ‖W‖²/outputs.

    The theory asks of each weight for independent entries of mean 0 and one variance, not for a
    Gaussian law: truncated normal and uniform initializers have the same limit.

    Args:
        apply_fn: f(params, x) -> (n, O). Walked once for each function object and shape.
        params: its parameters, of which the shapes count; also the values of those of variance 0.
        x1: (n1, ...), floating; x2: (n2, ...), or None for x1, and then exactly symmetric.
        get: which kernel.
        variances: of the entries of each array: a tree like params of numbers, or rules
            {pattern: number} by its path as in "*/kernel", the first that fits. 0: not random.
        init: init(key) -> params, instead of `variances`: they are measured over 64 draws, to a
            relative √(2/(64 size)) of each array, and entries that depend on each other refused.
        key: of these draws and of `check`; by default jax.random.key(0).
        tile: compute the kernel in blocks of tile × tile samples, dealt to all devices.
        max_bytes: what a block may take beside its inputs; chooses the tile.
        progress: a bar over the tiles of this name, or with True one without; none when False or None.
        check: compare with the mean over 32 draws of the network itself on up to 4 samples; needs
            `init`. Finite widths differ by O(1/width): a difference above six standard errors and
            a third of the kernel is an error.
        quadrature: points, up to 128 in each of two directions, by which functions without a rule are integrated, as tanh and
            sigmoid. Where what they are applied to deviates by more than they are exact to 1e-3 for, that is an error
            (under `jit` the kernel is NaN): with 40 points 1.2 for tanh and 2.4 for sigmoid.

    Returns:
        (n1, n2), in float64 if JAX has it enabled.

    Raises:
        TypeError: if an input is not floating.
        ValueError: where the program is not understood, with its line; for parameters that are no
            independent entries of mean 0; if the check fails.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import kernels
    >>> def f(w, x):
    ...     return x @ w
    ...
    >>> kernels.analytic(f, jnp.ones((2, 1)), jnp.array([[3.0, 4.0]]), get="nngp", variances=0.5).round(3).tolist()
    [[12.5]]
    """
    check_dtypes((), x1=x1, x2=x2)
    a, b = own(x1), None if x2 is None else own(x2)
    if b is not None and a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"`x2` has samples of shape {b.shape[1:]}, `x1` of shape {a.shape[1:]}: both go through one network."
        )
    if not a.ndim or not len(a) or (b is not None and not len(b)):
        raise ValueError(
            f"`x1` has shape {a.shape}; it must be (samples, ...), of one sample or more."
        )
    if (variances is None) == (init is None):
        raise ValueError(
            "`variances` or `init` must say how the parameters are drawn: exactly one of them, as "
            'variances={"*kernel": 0.01, "*bias": 0.0} or init=lambda key: model.init(key, x).'
        )
    if check and init is None:
        raise ValueError(
            "`check` is True, which draws networks: give `init` instead of `variances`."
        )
    drawing = None if init is None else read(init, jax.eval_shape(partial(given_key, key)))
    laws = given(params, variances) if drawing is None else measured(params, drawing, key)
    leaves, structure = jax.tree.flatten(params)
    kinds = tuple((float(mean != 0) and mean, float(v != 0)) for mean, v in laws)
    shapes = tuple(tuple(np.shape(leaf)) for leaf in leaves)
    program = _program(
        apply_fn, structure, shapes, tuple(names_of(params)), kinds, a.shape[1:], quadrature
    )
    numbers = own(np.array(laws, float).reshape(-1, 2))
    block: Any = partial(_block, program, get)
    largest = max(len(a), 0 if b is None else len(b))
    if max_bytes is not None:
        whole = bytes_of(_whole.lower(program, get, None, *shapes_of((numbers, a, b))))
        needed = partial(_needed, program, get, numbers, a)
        tile = tile_within(needed, largest, whole, max_bytes, tile)
    kernel = None
    if tile is not None and tile < largest and not any(isinstance(v, Tracer) for v in (a, b)):
        kernel = on_devices(block, numbers, (1, 0), a, b, tile, False, title(progress))
    if kernel is None:
        kernel = _whole(program, get, tile, numbers, a, b)
    program.check(kernel)
    if check and drawing is not None:
        some = own(np.asarray(a)[:4])
        found = _whole(program, get, None, numbers, some, None)
        _compare(apply_fn, drawing, key, get, some, found)
    return kernel


class Program(NamedTuple):
    """kernel(laws, x1, x2, get) of a network, and why it may be NaN."""

    kernel: Callable[..., Array]
    cautions: tuple[str, ...]

    def check(self, kernel: Array) -> None:
        """Refuses numbers that are not known."""
        if self.cautions and not is_traced(kernel) and bool(jnp.isnan(kernel).any()):
            raise ValueError(" Or: ".join(self.cautions))


@lru_cache(maxsize=256)
def _program(
    apply_fn: Callable,
    structure: Any,
    shapes: tuple,
    names: tuple,
    kinds: tuple,
    sample: tuple,
    points: int,
) -> Program:
    """What the walk through a network finds."""
    with exact(), jax.enable_x64(True):
        leaves = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
        x = jax.ShapeDtypeStruct((BATCH, *sample), jnp.float64)
        closed, out = jax.make_jaxpr(apply_fn, return_shape=True)(structure.unflatten(leaves), x)
        if not isinstance(out, jax.ShapeDtypeStruct):
            raise ValueError(
                f"`apply_fn` gives {type(out).__name__}; it must give one array (n, outputs)."
            )
        walk = Walk(kinds, list(names), points)
        arguments = [Parameter(i, s, (True,) * len(s)) for i, s in enumerate(shapes)]
        [value] = walk.run(closed, *arguments, Data(Expression(None, (x.shape,)), x.shape))
        if not isinstance(value, (Signal, Local)):
            raise Refused(
                "`apply_fn` gives no layer of its inputs: its output depends on no weights."
            )
        signal = walk.signal(closed.jaxpr.eqns[-1], value)
    rest = [t for t in signal.tags if t is not None]
    if rest not in (["batch", "channel"], ["batch"]) or signal.tags[0] != "batch":
        raise Refused(
            f"`apply_fn` gives an output of shape (n, {', '.join(map(str, signal.shape[1:]))}); it must be "
            "(n, outputs): flatten it, or average over its pixels."
        )

    def kernel(laws: Array, x1: Array, x2: Array | None, get: str) -> Array:
        k = kernel_of(walk.nodes, walk.gaussian, signal.node, laws, x1, x2, get == "ntk")
        return getattr(k, get)

    return Program(kernel, tuple(dict.fromkeys(walk.cautions)))


@partial(jax.jit, static_argnums=(0, 1))
def _block(program: Program, get: str, laws: Array, x1: Array, x2: Array) -> Array:
    with exact():
        return program.kernel(laws, x1, x2, get)


def _needed(program: Program, get: str, laws: Array, x: Array, tile: int) -> int:
    """Bytes that a block of so many samples takes."""
    samples = jax.ShapeDtypeStruct((tile, *x.shape[1:]), x.dtype)
    return bytes_of(_block.lower(program, get, *placed_shapes((laws, samples, samples))))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _whole(program: Program, get: str, tile: int | None, laws: Array, x1: Array, x2: Any) -> Array:
    with exact():
        return by_tiles(lambda a, b: program.kernel(laws, a, b, get), (1, 0), x1, x2, tile)


@partial(jax.jit, static_argnums=0)
def _draws(get: str, init: Read, network: Read, key: Any, x: Array) -> Array:
    """The kernel of each of 32 networks."""

    def drawn(key: Any) -> Array:
        params = init(key)
        if get == "nngp":
            f = network(params, x).reshape(len(x), -1)
            return f @ f.T / f.shape[1]
        jacobian = jax.jacobian(lambda p: network(p, x).reshape(len(x), -1))(params)
        flat = [j.reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jacobian)]
        return sum((jnp.einsum("aok,bok->ab", j, j) / j.shape[1] for j in flat), jnp.zeros(()))

    return jax.lax.map(drawn, jax.random.split(given_key(key), 32))


def _compare(apply_fn: Callable, init: Read, key: Any, get: str, x: Array, kernel: Array) -> None:
    """Refuses a kernel that the mean over draws of the network contradicts."""
    draws = np.asarray(_draws(get, init, read(apply_fn, init.out, x), key, x), float)
    mean, error = draws.mean(0), draws.std(0) / np.sqrt(len(draws))
    away = np.abs(mean - np.asarray(kernel))
    if (away > 6 * error + np.abs(mean).max() / 3).any():
        at = np.unravel_index(away.argmax(), away.shape)
        raise ValueError(
            f"`check` found {mean[at]:.4g} ± {error[at]:.1g} for the kernel of samples {at[0]} and {at[1]} over 32 "
            f"draws of the network, where its limit is {float(kernel[at]):.4g}: it is too narrow, or not what it looks like."
        )
