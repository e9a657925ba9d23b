r"""How correlation functions of a wide network scale with its width, by counting.

.. math:: C = \sum_{\text{indices}} \mathbb{E}_\theta[\partial f(x_1) \cdots \partial f(x_m)]
          = O(n^{s}), \qquad s = n_e + \frac{n_o - m}{2}

The conjecture of Dyer & Gur-Ari (2020). Each derivative tensor is a vertex of the cluster graph,
an edge joins two that share a summed index, and n_e (n_o) of its components are of even (odd) size.
"""

import dataclasses
import itertools
from collections import Counter
from fractions import Fraction

from ntkdecay._checks import checked, text


@dataclasses.dataclass(frozen=True)
class Correlation:
    r"""A correlation function, each derivative tensor of f given by the letters of its indices.

    .. math:: \mathbb{E}_\theta[\partial_{\mu\nu} f\, \partial_\mu f\, \partial_\nu f\, f]
              \quad \text{is} \quad \texttt{Correlation("mn", "m", "n", "")}

    Every tensor is at a sample of its own; which samples does not matter.

    Raises:
        ValueError: if there is no tensor, or an index is not shared by exactly two of them.

    >>> from ntkdecay.power_counting import Correlation
    >>> kernel = Correlation("m", "m")
    >>> print(kernel, kernel.exponent)
    E[∂m f ∂m f] 0
    >>> [str(term) for term in kernel.velocity()]
    ['E[∂ma f ∂m f ∂a f]', 'E[∂m f ∂ma f ∂a f]']
    """

    tensors: tuple[str, ...]

    @checked(tensors=text())
    def __init__(self, *tensors: str) -> None:
        if not tensors:
            raise ValueError(
                "`tensors` is empty; a correlation function needs at least one tensor."
            )
        for index, count in Counter("".join(tensors)).items():
            if count != 2 or any(tensor.count(index) > 1 for tensor in tensors):
                raise ValueError(
                    f"`tensors`: index {index!r} must be shared by exactly two tensors; they are {tensors}."
                )
        object.__setattr__(self, "tensors", tensors)

    @property
    def edges(self) -> frozenset[tuple[int, int]]:
        """The edges of the cluster graph: pairs of tensors that share an index."""
        pairs = itertools.combinations(range(len(self.tensors)), 2)
        return frozenset((i, j) for i, j in pairs if set(self.tensors[i]) & set(self.tensors[j]))

    @property
    def components(self) -> tuple[int, ...]:
        """Sizes of the components of the cluster graph, ascending."""
        component = list(range(len(self.tensors)))
        for i, j in self.edges:
            old, new = component[j], component[i]
            component = [new if c == old else c for c in component]
        return tuple(sorted(Counter(component).values()))

    @property
    def n_even(self) -> int:
        """n_e, the number of components of even size."""
        return sum(size % 2 == 0 for size in self.components)

    @property
    def n_odd(self) -> int:
        """n_o, the number of components of odd size."""
        return sum(size % 2 == 1 for size in self.components)

    @property
    def exponent(self) -> Fraction:
        """s = n_e + (n_o − m)/2: the function is O(n^s) if the conjecture holds."""
        return self.n_even + Fraction(self.n_odd - len(self.tensors), 2)

    def __mul__(self, other: "Correlation") -> "Correlation":
        """Both under one expectation, as in a second moment; the exponents add."""
        fresh = _fresh(self)
        renamed = {letter: next(fresh) for letter in sorted(set("".join(other.tensors)))}
        theirs = ("".join(renamed[letter] for letter in tensor) for tensor in other.tensors)
        return Correlation(*self.tensors, *theirs)

    def step(self, b: int) -> "Correlation":
        r"""Lemma 2's step: tensor b differentiated along the gradient at a training sample.

        .. math:: \partial_{\mu_1 \ldots \mu_a} f(x_b) \to
                  \sum_\nu \partial_{\mu_1 \ldots \mu_a \nu} f(x_b)\, \partial_\nu f(x')

        The first term of (S3) of `l2` (SM B), where ℓ' leaves the exponent as it is. The
        component of b gains a vertex and changes its parity, so that the exponent stays (odd to
        even) or falls by one (even to odd).
        """
        index = next(_fresh(self))
        tensors = list(self.tensors)
        tensors[b] += index
        return Correlation(*tensors, index)

    def velocity(self) -> tuple["Correlation", ...]:
        """What the gradient of the loss adds to dC/dt: one step at each tensor, Σ_b C_b."""
        return tuple(self.step(b) for b in range(len(self.tensors)))

    def __str__(self) -> str:
        return "E[" + " ".join(f"∂{tensor} f" if tensor else "f" for tensor in self.tensors) + "]"


def _fresh(correlation: Correlation):
    """Letters that are not yet indices."""
    used = set("".join(correlation.tensors))
    return (letter for letter in map(chr, itertools.count(ord("a"))) if letter not in used)
