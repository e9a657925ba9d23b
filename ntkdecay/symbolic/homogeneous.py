r"""Every homogeneous function, as a symbol.

On θ_1 > 0 a function with f(aθ) = a^k f(θ) is f = r^k g(z_1, z_2), where r = θ_1,
z_i = θ_{i+1}/θ_1 and g is arbitrary. In these coordinates

.. math:: \partial_1 = \partial_r - \tfrac{z_1}{r}\partial_{z_1} - \tfrac{z_2}{r}\partial_{z_2},
          \qquad \partial_{i+1} = \tfrac1r \partial_{z_i},

so an identity that holds here for a free g holds for every homogeneous function of three
parameters. Further parameters only add terms of the same form as z_2's.
"""

from __future__ import annotations

import sympy as sp

R = sp.Symbol("r", positive=True)
Z1, Z2 = sp.symbols("z1 z2", real=True)
THETA = (R, R * Z1, R * Z2)


def homogeneous(name: str, degree: sp.Expr | int) -> sp.Expr:
    """The general function of this degree, as an expression in r, z_1, z_2."""
    return R**degree * sp.Function(name)(Z1, Z2)


def gradient(f: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """(∂_1 f, ∂_2 f, ∂_3 f) with respect to θ."""
    along_z1, along_z2 = sp.diff(f, Z1) / R, sp.diff(f, Z2) / R
    return sp.diff(f, R) - Z1 * along_z1 - Z2 * along_z2, along_z1, along_z2


def euler(f: sp.Expr) -> sp.Expr:
    """Σ_μ θ_μ ∂_μ f."""
    return dot(THETA, gradient(f))


def dot(a, b) -> sp.Expr:
    return sp.Add(*(x * y for x, y in zip(a, b, strict=True)))


def rescaled(f: sp.Expr, scale: sp.Expr) -> sp.Expr:
    """f at the point scale·θ."""
    return f.subs(R, scale * R)


# What a claim's θ, ∇ and · stand for.
GEOMETRY = {
    "θ": sp.Matrix(THETA),
    "grad": lambda f: sp.Matrix(gradient(f)),
    "dot": lambda a, b: a.dot(b),
}
