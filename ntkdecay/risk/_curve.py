r"""The expected test error of a spectral filter over draws of the training set.

With γ the eigenvalues of K/n, g = 1 − h, population eigenvalues Λ_i and a target Σ_i c_i √Λ_i φ_i(x),

.. math:: E = \Big(\frac{-1}{2\pi i}\Big)^2 \oint\oint \frac{g(z) g(z')}{z z'}
              \frac{\sum_i c_i^2 \Lambda_i \frac{\kappa}{\Lambda_i + \kappa} \frac{\kappa'}{\Lambda_i + \kappa'}}
                   {1 - \frac1n \sum_i \frac{\Lambda_i^2}{(\Lambda_i + \kappa)(\Lambda_i + \kappa')}}\, dz\, dz'
              + \frac{s^2}{n} \frac{-1}{2\pi i} \oint \frac{h(z)^2}{z} \frac{-\kappa}{z} \sum_i \frac{\Lambda_i}{\Lambda_i + \kappa}\, dz

where κ(z) (1 − (1/n) Σ Λ_i/(Λ_i + κ)) = −z, and s is the deviation of the labels' noise: Cauchy's formula for g(Ĉ), and the
deterministic equivalents of one and two resolvents (Atanasov et al. 2024, arXiv 2405.00592; Velikanov, Panov & Yarotsky,
ICLR 2024, arXiv 2403.11696, of any filter). The contours go around the spectrum and 0: from −δ along a ray, whose distance
to the spectrum grows with |z|, and back along its mirror image.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntkdecay.risk._filter import Pieces, scheduled, time

PANELS, POINTS, ARC = 20, 12, 2
ANGLE = np.pi / 3
NEWTON = 4
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(POINTS)


def contour(start: Array, radius: Array) -> tuple[Array, Array]:
    """Nodes z and weights dz of its upper half, from −`start` to `radius`."""
    edges = start * (radius / start) ** jnp.linspace(0, 1, PANELS + 1, dtype=start.dtype)
    edges = jnp.concatenate([jnp.array([0, 0.5], edges.dtype) * start, edges])
    r, dr = _panels(edges)
    turn = jnp.exp(1j * ANGLE)
    end = -start + radius * turn
    # the arc around 0 that goes on from there to the real axis
    angle, dangle = _panels(jnp.angle(end) * jnp.linspace(1, 0, ARC + 1, dtype=start.dtype))
    arc = jnp.abs(end) * jnp.exp(1j * angle)
    return jnp.concatenate([-start + r * turn, arc]), jnp.concatenate(
        [dr * turn, 1j * arc * dangle]
    )


def _panels(edges: Array) -> tuple[Array, Array]:
    half = jnp.diff(edges) / 2
    nodes, weights = (jnp.asarray(x, edges.dtype) for x in (_NODES, _WEIGHTS))
    at = (edges[:-1] + half)[:, None] + half[:, None] * nodes
    return at.reshape(-1), (half[:, None] * weights).reshape(-1)


def effective(z: Array, eigenvalues: Array, multiplicity: Array, n: Array) -> Array:
    """κ at the nodes of a contour that begins on the negative axis, where it is real: followed from there."""

    def residual(kappa: Array, z: Array) -> tuple[Array, Array]:
        """κ(1 − (1/n)ΣΛ/(Λ+κ)) + z, and its derivative 1 − (1/n)ΣΛ²/(Λ+κ)²."""
        share = eigenvalues / (eigenvalues + kappa)
        return kappa * (1 - share @ multiplicity / n) + z, 1 - share**2 @ multiplicity / n

    def newton(kappa: Array, z: Array) -> Array:
        value, slope = residual(kappa, z)
        return kappa - value / slope

    def following(carry: tuple[Array, Array], z: Array) -> tuple[tuple[Array, Array], Array]:
        before, kappa = carry
        slope = residual(kappa, z)[1]
        guess = kappa - (z - before) / slope
        found = lax.fori_loop(0, NEWTON, lambda _, kappa: newton(kappa, z), guess)
        return (z, found), found

    first = -z[0].real
    kappa = lax.stop_gradient(_on_the_axis(first, eigenvalues, multiplicity, n))
    begin = (-first + 0j, kappa + 0j)
    _, found = lax.scan(following, lax.stop_gradient(begin), lax.stop_gradient(z))
    return jax.vmap(newton)(lax.stop_gradient(found), z)  # as differentiable as its equation


def _on_the_axis(x: Array, eigenvalues: Array, multiplicity: Array, n: Array) -> Array:
    """κ(−x) > 0: between x and x + ΣΛ/n, by bisection in its logarithm."""
    low, high = jnp.log(x), jnp.log(x + eigenvalues @ multiplicity / n)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        kappa = jnp.exp(middle)
        above = kappa * (1 - eigenvalues / (eigenvalues + kappa) @ multiplicity / n) > x
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = lax.fori_loop(0, 60, halve, (low, high))
    return jnp.exp((low + high) / 2)


class Population(NamedTuple):
    """What the error depends on of the kernel, the target and the labels."""

    eigenvalues: Array  # (modes,)
    coefficients: Array  # (modes,) or (modes, outputs)
    multiplicity: Array  # () or (modes,)
    noise: Array  # its standard deviation

    @property
    def modes(self) -> Array:
        """How many there are of each eigenvalue."""
        return jnp.broadcast_to(self.multiplicity, self.eigenvalues.shape)

    @property
    def power(self) -> Array:
        """c²Λ, summed over outputs."""
        squares = self.coefficients.reshape(self.eigenvalues.size, -1) ** 2
        return squares.sum(1) * self.eigenvalues

    @property
    def variance(self) -> Array:
        """Of the noise, summed over outputs."""
        return self.coefficients[0].size * self.noise**2

    def reach(self, n: Array, fastest: Array) -> tuple[Array, Array]:
        """Start and radius of a contour for n samples or more, and filters that need 1/`fastest` of time."""
        # no eigenvalue of K/n is above 4 `top`
        top = self.eigenvalues.max() + self.eigenvalues @ self.modes / n
        return lax.stop_gradient((jnp.minimum(fastest, top), 4 * top))


class Forms(NamedTuple):
    """The expected error as a quadratic form in a filter on the contour's upper half."""

    same: Array
    across: Array
    variance: Array

    def errors(self, z: Array, dz: Array, h: Array, pairs: bool = False) -> Array:
        """Of filters h (t, nodes): (t,), or with `pairs` the matrix whose form it is in their mixtures."""
        a = (1 - h) / z * dz
        if pairs:
            bias = a @ self.across @ a.conj().T - a @ self.same @ a.T
            noise = (h / z**2 * dz * self.variance) @ h.T
        else:
            bias = jnp.einsum("ta,ab,tb->t", a, self.across, a.conj())
            bias = bias - jnp.einsum("ta,ab,tb->t", a, self.same, a)
            noise = ((h / z) ** 2 * dz) @ self.variance
        return bias.real / (2 * np.pi**2) + noise.imag


def forms(z: Array, population: Population, n: Array) -> Forms:
    """At n samples."""
    values, modes = population.eigenvalues, population.modes
    kappa = effective(z, values, modes, n)
    share, left = values / (values + kappa[:, None]), kappa[:, None] / (values + kappa[:, None])

    top, bottom = _products(left, population.power), _products(share, modes)
    same, across = (a / (1 - b / n) for a, b in zip(top, bottom, strict=True))
    variance = -kappa * (share @ modes) * population.variance / (np.pi * n)
    return Forms(same, across, variance)


def _products(u: Array, weights: Array) -> tuple[Array, Array]:
    """u W uᵀ and u W uᴴ of complex u, in three real products."""
    real, imaginary = (u.real * weights) @ u.real.T, (u.imag * weights) @ u.imag.T
    mixed = (u.real * weights) @ u.imag.T
    return real - imaginary + 1j * (mixed + mixed.T), real + imaginary + 1j * (mixed.T - mixed)


@partial(jax.jit, static_argnames="degree")
def curve(population: Population, n: Array, t: Array, l2: Pieces, degree: float) -> Array:
    """(*n.shape, *t.shape), where the pieces of λ, (pieces, …), are as many for all t or broadcast with them."""
    t = jnp.broadcast_to(t, jnp.broadcast_shapes(t.shape, l2.l2.shape[1:]))
    shape, t = (*n.shape, *t.shape), t.reshape(-1)
    pieces = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (len(x), *shape[n.ndim :])).reshape(len(x), -1), l2
    )
    # one contour, and the filter on it, serve all n
    fastest = 1 / time(t, pieces, degree) + (pieces.l2[-1] / 2 if degree == 1 else 0.0)
    z, dz = contour(*population.reach(n.min(), fastest.min()))
    h = scheduled(z, t, pieces, degree)
    errors = lax.map(lambda n: forms(z, population, n).errors(z, dz, h), n.reshape(-1))
    return errors.reshape(shape)
