import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkdecay.power_counting import Correlation

T = Correlation("mn", "m", "n", "")


@pytest.mark.parametrize(
    ("tensors", "components", "exponent"),
    [  # counted by hand
        (("", ""), (1, 1), 0),
        (("m", "m"), (2,), 0),
        (("m", "m", "n", "n"), (2, 2), 0),
        (("mn", "m", "n", ""), (1, 3), -1),
        (("mn", "m", "n"), (3,), -1),
        (("mnr", "m", "n", "r"), (4,), -1),
        (("mn", "mr", "n", "r"), (4,), -1),
        (("mn", "mn"), (2,), 0),
        (("m", "m", ""), (1, 2), 0),
        (("",), (1,), 0),
        (("", "", "", "mn", "mr", "ns", "r", "s"), (1, 1, 1, 5), -2),
    ],
)
def test_components_and_exponents(tensors, components, exponent):
    correlation = Correlation(*tensors)
    assert correlation.components == components
    assert correlation.exponent == exponent


def test_the_exponents_that_theorem_1_needs():
    assert T.exponent == -1  # E[T_0]
    assert (T * T).exponent == -2  # Var[T_0]
    assert all(c.exponent <= -1 for c in T.velocity())  # dE[T]/dt
    assert {c.exponent for c in Correlation("m", "m").velocity()} == {-1}  # T from Θ


def graphs(n):
    """Every graph on n vertices, as a correlation function with one index for each edge."""
    pairs = list(itertools.combinations(range(n), 2))
    for edges in itertools.product((False, True), repeat=len(pairs)):
        tensors = [""] * n
        for number, (pair, present) in enumerate(zip(pairs, edges, strict=True)):
            if present:
                for vertex in pair:
                    tensors[vertex] += chr(ord("a") + number)
        yield Correlation(*tensors)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
def test_lemma_2_the_step_never_raises_the_exponent(n):
    changes = set()
    for correlation in graphs(n):
        for stepped in correlation.velocity():
            assert len(stepped.tensors) == n + 1
            changes.add(stepped.exponent - correlation.exponent)
    assert changes == ({0} if n == 1 else {0, -1})


def test_lemma_2_for_every_cluster_graph_of_six_vertices():
    """The step depends on the components alone: one graph for each partition is every graph."""

    def partitions(n, largest):
        if n == 0:
            yield ()
        for first in range(min(n, largest), 0, -1):
            for rest in partitions(n - first, first):
                yield (first, *rest)

    def chain(size):
        letters = "abcdef"[: size - 1]
        return Correlation(*(letters[max(i - 1, 0) : i + 1] for i in range(size)))

    seen = set()
    for n in range(1, 7):
        for parts in partitions(n, n):
            correlation = chain(parts[0])
            for size in parts[1:]:
                correlation *= chain(size)
            assert correlation.components == tuple(sorted(parts))
            for stepped in correlation.velocity():
                assert stepped.exponent - correlation.exponent in (0, -1)
            seen.add(parts)
    assert len(seen) == 1 + 2 + 3 + 5 + 7 + 11


def test_the_exponent_falls_by_one_from_an_even_component_and_stays_from_an_odd_one():
    assert Correlation("m", "m").step(0) == Correlation("ma", "m", "a")
    assert Correlation("m", "m").step(0).exponent == Correlation("m", "m").exponent - 1
    assert Correlation("mn", "m", "n").step(1).exponent == Correlation("mn", "m", "n").exponent


SOME = [T, Correlation("m", "m"), Correlation(""), Correlation("mn", "m", "n"), T.step(0)]


@given(st.sampled_from(SOME), st.sampled_from(SOME))
def test_products_add_the_exponents(a, b):
    product = a * b
    assert product.exponent == a.exponent + b.exponent
    assert product.n_even + Fraction(product.n_odd - len(product.tensors), 2) == product.exponent
    assert str(T) == "E[∂mn f ∂m f ∂n f f]"


@pytest.mark.parametrize("tensors", [("m",), ("m", "m", "m"), ("mm", ""), ("mm",)])
def test_an_index_must_be_shared_by_two(tensors):
    with pytest.raises(ValueError, match="index 'm' must be shared by exactly two"):
        Correlation(*tensors)


def test_no_tensor_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Correlation()
