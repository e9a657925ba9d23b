r"""The flow of the state as an ODE whose one costly operation is a product with the kernels.

With g_l = Θ_l w_l carried beside w_l, and a known in closed form, f = A f_0 + Σ_l F_l g_l and

.. math:: \dot w_l = -\lambda_l w_l - F_l\, \partial L/\partial f, \qquad
          \dot g_l = -\lambda_l g_l - F_l\, \Theta_l\, \partial L/\partial f,

with momentum the same as a force, :math:`\ddot w_l = -\lambda_l w_l - F_l \partial L/\partial f - \mu \dot w_l`.
The Jacobian is that of Σ_l F_l² Θ_l H, H = ∂²L/∂f², and so is what an implicit step has to solve.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntkdecay.predict._state import Loss, Wide


def oscillator(
    t: Array, a: Array, velocity: Array, l2: Array, friction: Array
) -> tuple[Array, Array]:
    """a and ȧ at t, of ä = −λa − μȧ."""
    x = (friction**2 / 4 - l2) * t**2
    # C = cosh √x, S = sinh √x / √x, entire in x; with e^{−μt/2} nothing overflows
    small, above = jnp.abs(x) < 0.01, x > 0
    near = jnp.where(small, x, 0.0)[None]
    entire = jnp.ones((2, *x.shape), x.dtype)
    for n in range(5, 0, -1):
        terms = np.array([[(2 * n - 1) * 2 * n], [2 * n * (2 * n + 1)]], x.dtype)
        entire = 1 + entire * (near / terms)
    cosh, sinhc = entire
    root, half = jnp.sqrt(jnp.where(small, 1.0, jnp.abs(x))), friction * t / 2
    # the slower of the two real rates, −μt/2 + √x, without cancellation; one exp is compiled faster than three
    slow = l2 * t**2 / (half + jnp.where(above, root, 1.0))
    exponents = jnp.broadcast_arrays(half, slow, half + jnp.where(above, root, 0.0))
    damped, slow, fast = jnp.exp(-jnp.stack(exponents))
    c = jnp.where(small, damped * cosh, jnp.where(above, (slow + fast) / 2, damped * jnp.cos(root)))
    s = jnp.where(
        small, damped * sinhc, jnp.where(above, (slow - fast) / 2, damped * jnp.sin(root)) / root
    )
    push = velocity + friction / 2 * a
    return c * a + t * s * push, c * velocity - t * s * (l2 * a + friction / 2 * velocity)


def products(kernels: tuple[Array, ...], w: Array) -> Array:
    """Θ_l w_l of each layer, of symmetric Θ_l as (w_lᵀ Θ_l)ᵀ.

    XLA's product takes half the time on a CPU that way round; without barriers it would be turned back.
    """

    def product(k: Array, w: Array) -> Array:
        if not isinstance(k, Array):
            return k @ w
        return barrier(barrier(w.T) @ k).T

    barrier = jax.lax.optimization_barrier
    return jnp.stack([product(k, one) for k, one in zip(kernels, w, strict=True)])


def weighted(each: Array, g: Array) -> Array:
    """Σ_l each_l g_l, of (…, layers, m, o)."""
    return (each[:, None, None] * g).sum(-3) if each.size > 1 else each[0] * g[..., 0, :, :]


Factors = tuple[Array, Array]  # A, which multiplies f_0, and F_l


@dataclass(frozen=True)
class Dynamics:
    """y' = F(t, y) with y of shape (1 or 2, 2, layers, m, o): w and g, and with momentum their velocities."""

    net: Wide
    loss: Loss
    f0: Array  # (m, o)
    l2: Array  # (layers,)
    friction: Array | None  # μ of momentum
    start: Array  # the time from which a is counted
    a: Array  # (layers,), at `start`
    velocity: Array  # of a
    changes: bool = False  # whether λ does

    def still(self) -> "Dynamics":
        """The same, as a constant to derivatives."""
        names = ("net", "f0", "l2", "friction", "start", "a", "velocity")
        return replace(self, **{name: jax.lax.stop_gradient(getattr(self, name)) for name in names})

    def falling(self, t: Array) -> tuple[Factors, Array]:
        """`factors`, and how fast F_l change."""
        a, velocity = self.scale(t)
        if self.friction is None:
            velocity = jnp.zeros_like(a) if self.net.l2_from == "init" else -self.l2 * a
        at, (_, fall) = jax.jvp(self.net.factors, (a,), (velocity,))
        return at, fall

    def scale(self, t: Array) -> tuple[Array, Array]:
        """a and its velocity at t."""
        if self.net.l2_from == "init":
            return self.a, self.velocity
        if self.friction is None:
            return self.a * jnp.exp(-self.l2 * (t - self.start)), self.velocity
        return oscillator(t - self.start, self.a, self.velocity, self.l2, self.friction)

    def products(self, w: Array) -> Array:
        """Θ_l w_l."""
        return products(self.net.kernels, w)

    def factors(self, t: Array) -> Factors:
        """A and F_l at t."""
        return self.net.factors(self.scale(t)[0])

    def first(self, t: Array) -> Factors:
        """`factors` at `start`, where a is known; `t` is as differentiable as it is."""
        return self.net.factors(self.a + 0 * t)

    def outputs(self, at: Factors, y: Array) -> Array:
        """f, (m, o)."""
        return at[0] * self.f0 + weighted(at[1], y[0, 1])

    def change(self, at: Factors, y: Array) -> Array:
        """What an increment of the outermost part of `y` is in f, (1 or 2, m, o)."""
        return weighted(at[1], y[:, 1])

    def slope(self, f: Array) -> Array:
        """∂L/∂f."""
        return self.net.slope(self.loss, f, self.net.y)

    def force(self, at: Factors, y: Array) -> Array:
        """−λ(w, g) − F (∂L/∂f, Θ ∂L/∂f), (2, layers, m, o)."""
        w = at[1][:, None, None] * self.slope(self.outputs(at, y))[None]
        return -self.l2[None, :, None, None] * y[0] - jnp.stack([w, self.products(w)])

    def __call__(self, t: Array, y: Array) -> Array:
        return self.flow(self.factors(t), y)

    def flow(self, at: Factors, y: Array) -> Array:
        """F where the factors are known."""
        force = self.force(at, y)
        if self.friction is None:
            return force[None]
        return jnp.stack([y[1], force - self.friction * y[1]])

    def curvature(self, f: Array, v: Array) -> Array:
        """H v."""
        return jax.jvp(self.slope, (f,), (v,))[1]

    def values(self, at: Factors, y: Array) -> Array:
        """f, and with momentum its velocity but for that of the start, (1 or 2, m, o)."""
        f = self.outputs(at, y)[None]
        return f if self.friction is None else jnp.concatenate([f, self.change(at, y)[1:]])

    def stiffest(self, at: Factors, y: Array, v: Array) -> tuple[Array, Array]:
        """The fastest rate, from below, by two steps of power iteration on Σ F_l² Θ_l H, and the next `v`.

        In the product of Θ, in which it is self-adjoint: |Hv|² = Hv·(Σ F_l² Θ_l Hv).
        """
        f, tiny, each = self.outputs(at, y), jnp.finfo(v.dtype).tiny, at[1]

        def onward(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            v, size, _ = state
            w = self.curvature(f, v / jnp.maximum(size, tiny))
            v = weighted(each, self.products(each[:, None, None] * w[None]))
            size = jnp.sqrt(jnp.maximum(jnp.vdot(w, v), 0.0))
            return v, size, size

        size = jnp.linalg.norm(v)
        v, _, rate = jax.lax.fori_loop(0, 2, onward, (v, size, jnp.zeros_like(size)))
        return self._rate(rate), v

    def rate(self, at: Factors, apart: Array, change: Array) -> tuple[Array, Array]:
        """The same from two points that are `apart` and how F changes between them."""
        force = (
            change[0, 1] if self.friction is None else change[1, 1] + self.friction * apart[1, 1]
        )
        v, apart = weighted(at[1], force), weighted(at[1], apart[0, 1])
        tiny = jnp.finfo(v.dtype).tiny
        return self._rate(jnp.linalg.norm(v) / jnp.maximum(jnp.linalg.norm(apart), tiny)), v

    def _rate(self, rate: Array) -> Array:
        rate = rate if self.friction is None else jnp.sqrt(rate)
        return jnp.maximum(rate, self.slow())

    def ahead(self, at: Factors, fall: Array, rate: Array, left: Array) -> Array:
        """∫ of the fastest rate, now `rate`, until `left` later: the kernel's part of it decays, λ and μ do not.

        `fall` is how fast F_l changes.
        """
        power = 2 if self.friction is None else 1
        decay = power * (-fall / jnp.maximum(at[1], jnp.finfo(fall.dtype).tiny)).min()
        decays = decay > 0
        safe = jnp.where(decays, decay, 1.0)
        lasting = jnp.where(decays, -jnp.expm1(-safe * left) / safe, left)
        return rate * lasting + self.slow() * left

    def slow(self) -> Array:
        """The rate that does not decay."""
        return self.l2.max() if self.friction is None else self.friction

    def solver(self, t: Array, y: Array, sigma: Array) -> Callable[[Array], Array]:
        """r ↦ (σ − J)^{−1} r: eliminating w leaves an equation in f, (1 + Σ_l F_l²/rate_l Θ_l H) δf = r'."""
        at = self.factors(t)
        each, f = at[1], self.outputs(at, y)
        if self.friction is None:
            rate = sigma + self.l2
        else:
            rate = sigma * (sigma + self.friction) + self.l2
        solve_f = self.factorized(f, each**2 / rate)
        column = rate[None, :, None, None]

        def solved(r: Array) -> Array:
            right = r[0] if self.friction is None else r[1] + (sigma + self.friction) * r[0]
            moved = solve_f(weighted(each / rate, right[1]))
            w = each[:, None, None] * self.curvature(f, moved)[None]
            found = (right - jnp.stack([w, self.products(w)])) / column
            return (
                found[None] if self.friction is None else jnp.stack([found, sigma * found - r[0]])
            )

        return solved

    def factorized(self, f: Array, weights: Array) -> Callable[[Array], Array]:
        """r ↦ (1 + Σ_l weights_l Θ_l H)^{−1} r by a factorization."""
        size, (m, o) = f.size, f.shape
        basis = jnp.eye(size, dtype=f.dtype).reshape(size, m, o)
        columns = jax.vmap(lambda v: self.curvature(f, v))(basis)
        kernel = sum(weights[i] * k for i, k in enumerate(self.net.kernels))
        product = jnp.einsum("ij,bjo->iob", kernel, columns).reshape(size, size)
        factors = jax.scipy.linalg.lu_factor(jnp.eye(size, dtype=f.dtype) + product)
        return lambda r: jax.scipy.linalg.lu_solve(factors, r.reshape(-1)).reshape(m, o)
