r"""The one door to neural-tangents: its last release, 0.6.5, unmodified, on today's JAX.

Importing neural-tangents needs names that JAX has removed, and imports TensorFlow through its
`experimental` package. Here JAX is lent those names while the import runs and is then left as it
was found: a name that JAX has is never replaced, and a lent one is always taken back. TensorFlow
is kept out by an empty `neural_tangents.experimental`, which goes as well.

`STRUCTURED_DERIVATIVES`, `AUTO` and `predict.max_learning_rate` use more that has gone, when
they are called. That is repaired in neural-tangents' own modules by rebinding private functions.
"""

import contextlib
import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
from jax import Array, lax
from jax.interpreters import ad

from ntkdecay._convolutions import convolution_p
from ntkdecay._patches import by_slices

_TESTED = "0.10.2 and 0.12.0"


def _safe_map(f, *sequences):
    return [f(*items) for items in zip(*sequences, strict=True)]


def _safe_zip(*sequences):
    return list(zip(*sequences, strict=True))


def _module(name: str, **names: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(names)
    return module


@contextlib.contextmanager
def _lent_names() -> Iterator[None]:
    """Gives JAX the names that importing neural-tangents needs; takes them back on leaving."""
    util = _module("jax.util", safe_map=_safe_map, safe_zip=_safe_zip)
    wanted: list[tuple[Any, str, Any]] = [
        (jax.core, name, getattr(jax.extend.core, name))
        for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    ]
    wanted += [(jax, "util", util), (ad, "zeros_like_p", object())]  # the latter: a dictionary key
    lent = [(owner, name, value) for owner, name, value in wanted if not hasattr(owner, name)]
    modules = {
        name: module
        for name, module in {
            "jax.util": util,
            "neural_tangents.experimental": _module("neural_tangents.experimental"),
        }.items()
        if name not in sys.modules
    }
    try:
        for owner, name, value in lent:
            setattr(owner, name, value)
        sys.modules.update(modules)
        yield
    finally:
        for owner, name, _ in lent:
            delattr(owner, name)
        for name in modules:
            sys.modules.pop(name, None)


def _import() -> Any:
    if "neural_tangents" not in sys.modules:
        # An earlier attempt that failed leaves submodules behind, bound to a dead parent.
        for name in [n for n in sys.modules if n.startswith("neural_tangents.")]:
            del sys.modules[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations that the import meets in JAX
        with _lent_names():
            try:
                module: Any = importlib.import_module("neural_tangents")
            except ModuleNotFoundError as error:
                if error.name != "neural_tangents":
                    raise
                raise ModuleNotFoundError(
                    "This part of ntkdecay needs neural-tangents, without the TensorFlow that it asks for: "
                    "pip install --no-deps neural-tangents==0.6.5",
                    name=error.name,
                ) from None
    ours = getattr(module, "experimental", None)
    if ours is not None and ours.__spec__ is None:
        del module.experimental  # so that importing it asks for the real one, and for TensorFlow
    return module


def _linear_jaxpr(fn: Callable, *primals: Any) -> tuple[Any, jax.extend.core.ClosedJaxpr]:
    """fn(*primals), and its derivative there as a jaxpr of single primitives, without calls."""
    with jax.disable_jit():
        out, jvp_fn = jax.linearize(fn, *primals)
        return out, jax.make_jaxpr(jvp_fn)(*primals)


def _backward(
    closed: jax.extend.core.ClosedJaxpr,
    mode: Any,
    cotangents: list[Array],
    _j_rules: bool = True,
    _s_rules: bool = True,
    _fwd: bool | None = None,
) -> list:
    """neural-tangents' walk back through a linear jaxpr: ∂f/∂y or ∂y/∂w at each use y of each w."""
    empirical: Any = importlib.import_module("neural_tangents._src.empirical")
    return empirical._backward_pass(
        closed.jaxpr,
        mode=mode,
        consts=closed.consts,
        primals_in=[ad.UndefinedPrimal(v.aval) for v in closed.jaxpr.invars],
        cotangents_in=tuple(cotangents),
        _j_rules=_j_rules,
        _s_rules=_s_rules,
        _fwd=_fwd,
    )


def structured_derivatives(f: Callable[[Any], Array], params: Any, seeds: Array) -> list[list]:
    r"""The factors of the Jacobian of f that neural-tangents' structure rules find.

    .. math:: s \cdot \frac{\partial f}{\partial w}
              = \sum_y \left(s \cdot \frac{\partial f}{\partial y}\right) \frac{\partial y}{\partial w}

    Args:
        f: a function of the parameters alone, to one array.
        params: pytree of arrays.
        seeds: (S, *f.shape), the cotangents s.

    Returns:
        For each leaf w of params and each primitive y that takes it: s·∂f/∂y of shape
        (S, *y.shape), ∂y/∂w without what its structure says of it, and that structure.
    """
    empirical: Any = importlib.import_module("neural_tangents._src.empirical")
    _, closed = _linear_jaxpr(f, params)
    df_dys = jax.vmap(lambda s: _backward(closed, empirical._MODE.DF_DY, [s]))(seeds)
    dy_dws = _backward(closed, empirical._MODE.DY_DW, [seeds[0]])
    return [
        [(df_dy, *dy_dw) for df_dy, dy_dw in zip(*leaf, strict=True)]
        for leaf in zip(df_dys, dy_dws, strict=True)
    ]


def _repair() -> None:
    """Rebinds the private functions of neural-tangents that call what JAX and scipy removed."""
    empirical: Any = importlib.import_module("neural_tangents._src.empirical")
    predict: Any = importlib.import_module("neural_tangents._src.predict")
    rules: Any = importlib.import_module("neural_tangents._src.utils.rules")

    def get_primals_out_and_pullback(fn, mode, _j_rules, _s_rules, _fwd, *primals_in):
        primals_out, closed = _linear_jaxpr(fn, *primals_in)
        in_tree = jax.tree.structure(primals_in)

        def pullback_fn(*cts_in):
            cts_out = _backward(closed, mode, jax.tree.leaves(cts_in), _j_rules, _s_rules, _fwd)
            return jax.tree.unflatten(in_tree, cts_out)

        return primals_out, pullback_fn

    def read_primal(env, v):
        if isinstance(v, jax.extend.core.Literal):
            return v.val
        return env.get(v, ad.UndefinedPrimal(v.aval))

    def eqn_vjp_fn(eqn, cts_in, *invals):
        if eqn is None:  # the identity
            return (cts_in,)
        if isinstance(cts_in, ad.Zero):
            return (None,) * len(invals)
        linear = [i for i, value in enumerate(invals) if ad.is_undefined_primal(value)]

        def apply(*linear_invals):
            all_invals = list(invals)
            for i, value in zip(linear, linear_invals, strict=True):
                all_invals[i] = value
            out = eqn.primitive.bind(*all_invals, **eqn.params)
            return out[0] if eqn.primitive.multiple_results else out

        cts_out = jax.linear_transpose(apply, *(invals[i].aval for i in linear))(cts_in)
        by_index = dict(zip(linear, cts_out, strict=True))
        return tuple(by_index.get(i) for i in range(len(invals)))

    def get_flops(f, optimize, *args, **kwargs):
        lowered = jax.jit(f).lower(*args, **kwargs)
        analysis: Any = (lowered.compile() if optimize else lowered).cost_analysis()
        return analysis["flops"]

    def std_basis(tree):
        leaves = jax.tree.leaves(tree)
        eye = jnp.eye(sum(leaf.size for leaf in leaves), dtype=jnp.result_type(*leaves))
        return unravel_array_into_pytree(tree, 1, eye)

    def unravel_array_into_pytree(tree, axis, array):
        leaves, treedef = jax.tree.flatten(tree)
        axis %= max(array.ndim, 1)
        head, tail = array.shape[:axis], array.shape[axis + 1 :]
        parts = jnp.split(array, list(accumulate(leaf.size for leaf in leaves[:-1])), axis)
        shaped = [
            p.reshape(head + leaf.shape + tail) for p, leaf in zip(parts, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, shaped)

    def get_fx_axis_and_dtype(fx, fx_axis, params):
        fx_axis = jax.tree.map(lambda _: None, fx) if fx_axis is None else fx_axis
        leaves = jax.tree.leaves(params)
        return fx_axis, jnp.result_type(*leaves) if leaves else None

    empirical._get_primals_out_and_pullback = get_primals_out_and_pullback
    empirical._read_primal = read_primal
    empirical._eqn_vjp_fn = eqn_vjp_fn
    empirical._get_flops = get_flops
    # These would use an array as a dtype, or take jnp.size of an abstract one: both deprecated.
    empirical._get_fx_axis_and_dtype = get_fx_axis_and_dtype
    empirical._std_basis = std_basis
    empirical._unravel_array_into_pytree = unravel_array_into_pytree
    empirical.ad = _module(
        "ad",
        add_tangents=ad.add_tangents,
        is_undefined_primal=ad.is_undefined_primal,
        primitive_jvps=ad.primitive_jvps,
        config=types.SimpleNamespace(jax_enable_checks=False),
        source_info_util=types.SimpleNamespace(
            transform_name_stack=lambda _: contextlib.nullcontext()
        ),
    )
    conv = lax.conv_general_dilated_p
    rules.JACOBIAN_RULES[conv] = by_slices(rules.JACOBIAN_RULES[conv])
    for table in (rules.JACOBIAN_RULES, rules.STRUCTURE_RULES, rules.EQN_PARAMS_RULES):
        table[convolution_p] = table[conv]
    # On a CPU max_learning_rate would pass scipy's eigvalsh an argument it no longer takes.
    predict._is_on_cpu = lambda _: False


def _open() -> Any:
    try:
        module = _import()
        _repair()
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("jax"):
            raise  # something is not installed: that says it all
        raise ImportError(
            f"neural-tangents cannot be loaded on JAX {jax.__version__} ({error}); ntkdecay is "
            f"tested with JAX {_TESTED}: install one of these."
        ) from error
    return module


_nt = _open()

Kernel = _nt.Kernel
NtkImplementation = _nt.NtkImplementation
batch = _nt.batch
empirical_kernel_fn = _nt.empirical_kernel_fn
empirical_nngp_fn = _nt.empirical_nngp_fn
empirical_ntk_fn = _nt.empirical_ntk_fn
empirical_ntk_vp_fn = _nt.empirical_ntk_vp_fn
linearize = _nt.linearize
monte_carlo_kernel_fn = _nt.monte_carlo_kernel_fn
predict = _nt.predict
stax = _nt.stax
taylor_expand = _nt.taylor_expand

_requirements: Any = importlib.import_module("neural_tangents._src.stax.requirements")
Requirement = _requirements.Diagonal


def requirement(rule: Any) -> Any:
    """What a layer asks of its input's spatial covariance; `>>` composes and `&` joins them."""
    return (_requirements.get_req(rule) or {}).get("diagonal_spatial", Requirement())
