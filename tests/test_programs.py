"""What the public functions compile: few programs, once, which every accelerator takes.

Both calls of `surface.CALLS` and `surface.HARDER` have equal shapes, dtypes, options and function objects. A maker whose call gives a
closure registers one that makes and calls it, so that a new closure of other numbers is held to the same.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
import pytest
import surface
from jax._src.interpreters import pxla  # JAX has no public way to see what a library compiles
from jax.extend.core import jaxpr_as_fun

from ntkdecay.kernels import _choice
from ntkdecay.training import _program

COMPILED = "/jax/core/compile/backend_compile_duration"
CALLS = surface.CALLS | surface.HARDER
ACCELERATORS = ("cuda", "tpu")
BY_DIFFRAX = {
    "scale_invariant.direction_sde along one path for every dt"
}  # its own checks call Python back
"""Calls whose programs no accelerator takes."""
ON_HOST = {
    "datasets.standardized": "images and labels are NumPy's before training",
    "datasets.one_hot": "images and labels are NumPy's before training",
    "datasets.parity": "images and labels are NumPy's before training",
    "deep_linear.fixed_points": "roots of polynomials, few numbers",
    "deep_linear.fixed_points_per_mode": "roots of polynomials, few numbers",
    "deep_linear.critical_l2": "roots of polynomials, few numbers",
    "finite_width.attributions": "measures the degree and chooses",
    "finite_width.critical_l2": "follows a fold by steps that it chooses",
    "finite_width.departure_time": "chooses its steps",
    "finite_width.next_order": "chooses its steps",
    "finite_width.next_order()": "chooses its steps",
    "homogeneity.degree": "says in words what breaks homogeneity",
    "homogeneity.degrees": "says in words what breaks homogeneity",
    "kernels.analytic of images, checked and by tiles": "compares with sampled networks and says how far away they are",
    "kernels.velocity": "measures the degree",
    "optimizers.measure_c": "trains",
    "output_scale.one_against_all": "images and labels are NumPy's before training",
    "risk.best_schedule": "an optimizer of SciPy's around programs",
    "risk.spectrum": "LAPACK's eigenvectors, in float64",
    "scale_invariant.bounds": "few numbers",
    "scale_invariant.direction_sde along one path for every dt": "as diffrax",
    "scale_invariant.is_scale_invariant": "says in words what breaks the invariance",
    "scale_invariant.periods": "counts in a recorded curve",
    "scale_invariant.power_envelope": "few numbers",
    "training.estimate": "compiles its own programs",
    "training.sweep": "compiles its own programs",
    "training.sweep of images, with a store": "compiles its own programs",
    "training.train": "compiles its own programs",
    "training.train of images in bfloat16": "compiles its own programs",
    "training.train of images, with a schedule and a store": "compiles its own programs",
}
"""Functions that are not for a caller's own program, and why; what they compile themselves runs on an accelerator."""

_counters: list[list[Any]] = []
_programs: list[list[Any]] = []


def _count(event: str, duration: float, **_: object) -> None:
    del duration
    if event == COMPILED:
        for counter in _counters:
            counter.append(event)


def _recorded(jaxpr: Any, *args: Any, **options: Any) -> Any:
    for programs in _programs:
        programs.append(jaxpr)
    return _lower(jaxpr, *args, **options)


jax.monitoring.register_event_duration_secs_listener(_count)
_lower, pxla.lower_sharding_computation = pxla.lower_sharding_computation, _recorded


@contextlib.contextmanager
def _kept(lists: list[list[Any]]) -> Iterator[list[Any]]:
    found: list[Any] = []
    lists.append(found)
    try:
        yield found
    finally:
        lists.remove(found)


def compilations() -> contextlib.AbstractContextManager[list[Any]]:
    """Holds an entry for each program that is compiled inside."""
    return _kept(_counters)


class Compiled(NamedTuple):
    """How many programs the first and the second call of a function compile, when nothing is compiled yet."""

    first: int
    second: int
    programs: tuple[Any, ...]  # of the first


def run(call: surface.Call) -> None:
    jax.block_until_ready([leaf for leaf in jax.tree.leaves(call()) if hasattr(leaf, "dtype")])


@functools.cache
def compiled(name: str) -> Compiled:
    """What an entry of the surface compiles in two calls with other numbers."""
    calls = CALLS[name](), CALLS[name](other=True)
    jax.clear_caches()
    _program._compiled.clear()
    _choice._known.clear()
    counts = []
    with _kept(_programs) as programs:
        for call in calls:
            with compilations() as counter:
                run(call)
            counts.append(len(counter))
    return Compiled(*counts, tuple(programs))


@pytest.mark.parametrize("name", CALLS)
def test_a_first_call_compiles_at_most_five_programs(name):
    count = compiled(name).first
    assert count <= 5, f"{name} compiled {count} programs at its first call"


@pytest.mark.parametrize("name", CALLS)
def test_another_call_compiles_nothing(name):
    count = compiled(name).second
    assert not count, f"{name} compiled {count} programs at its second call"


def test_a_network_is_tried_and_recognized_without_a_program():
    for function in ("empirical_ntk of images, by tiles", "analytic of images"):
        assert compiled(f"kernels.{function}").first == 1, (
            f"{function} compiles more than the kernel"
        )


@pytest.mark.parametrize("name", CALLS)
def test_an_accelerator_takes_every_program(name):
    found = compiled(name)
    assert len(found.programs) >= found.first
    for program in found.programs:
        inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in program.in_avals]
        function = jax.jit(jaxpr_as_fun(program))
        calls = _program.host_calls(function.trace(*inputs))
        if name in BY_DIFFRAX and calls:
            continue
        assert not calls, f"{name} calls Python back"
        jax.export.export(function, platforms=ACCELERATORS)(*inputs)


def traceable(name: str, dtype: Any) -> tuple[Any, list[Any]]:
    """A call as a function of all its arrays, and these, of one floating dtype."""
    call = CALLS[name]()
    leaves, tree = jax.tree.flatten(call.arguments)
    known = {id(call.arguments.get("ts"))}  # an SDE's times say how many steps there are
    places = [
        i
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, (np.ndarray, jax.Array)) and id(leaf) not in known
    ]

    def function(arrays: list[Any]) -> list[Any]:
        given = dict(enumerate(leaves)) | dict(zip(places, arrays, strict=True))
        found = call(**jax.tree.unflatten(tree, given.values()))
        return [leaf for leaf in jax.tree.leaves(found) if hasattr(leaf, "dtype")]

    arrays = [leaves[i] for i in places]
    floating = [jax.numpy.issubdtype(a.dtype, np.floating) for a in arrays]
    return function, [a.astype(dtype) if f else a for a, f in zip(arrays, floating, strict=True)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ON_HOST])
def test_a_program_of_the_callers_own_lowers_for_an_accelerator(name, dtype):
    function, arrays = traceable(name, dtype)
    if name.startswith("predict.gradient_descent_mse_matrix_free") and dtype == np.float32:
        pytest.skip("the product that the call holds is of float64")
    if arrays:
        exported = jax.export.export(jax.jit(function), platforms=ACCELERATORS)(arrays)
        assert "callback" not in exported.mlir_module()


@pytest.mark.parametrize("name", [name for name in ON_HOST if name not in BY_DIFFRAX])
def test_what_is_for_the_host_says_so(name):
    """One that has become a function of traced arrays leaves the list."""
    function, arrays = traceable(name, np.float64)
    with pytest.raises((TypeError, ValueError)):
        jax.jit(function).lower(arrays)
