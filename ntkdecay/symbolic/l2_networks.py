"""Lewkowycz & Gur-Ari (2020) on random networks and kernels: Lemma 1, (S4)–(S6), (S10)."""

from __future__ import annotations

import functools

import jax
import numpy as np
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm

from ntkdecay.symbolic.networks import along, examples, relative
from ntkdecay.symbolic.registry import statement


@statement(
    "l2",
    "Lemma 1, networks",
    "Euler's identity for m = 0, 1, 2 of ReLU, linear and max-pooled networks",
    "euler == (k - m)*D",
    kind="identity",
    tolerance=1e-12,
    show={"euler": "θ·∇D"},
)
def lemma_1_networks(claim):
    residuals = []
    for degree, order, value, along_theta in _euler_terms():
        (relation,) = claim.relations(k=degree, m=order, D=value, euler=along_theta)
        residuals.append(np.abs(relation.residual).max() / np.abs(value).max())
    return residuals


@functools.cache
def _euler_terms():
    """(k, m, ∂^m f, Σ_μ θ_μ ∂_μ ∂^m f) of random networks, summed over inputs, m = 0, 1, 2."""
    terms = []
    for degree, f, theta, x in examples():

        def total(p, f=f, x=x):
            return f(p, x).sum()

        for order, derivative in enumerate((total, jax.grad(total), jax.hessian(total))):
            terms.append((degree, order, *map(np.asarray, along(derivative, theta, theta))))
    return terms


@statement(
    "l2",
    "(S4)–(S6), networks",
    "velocities of f and Θ on random networks with random ℓ'",
    "f_dot == -dot(Θ, ell_prime) - k*λ*f; T = -dot(H, J_T); "
    "Θ_dot == -2*(k - 1)*λ*Θ + T + transpose(T)",
    kind="identity",
    tolerance=1e-11,
    show={"H": "∇²f(∇f·ℓ')", "J_T": "∇f", "transpose": "transposed"},
)
def s4_to_s6_networks(claim):
    residuals = []
    for degree, l2, values in _velocities():
        known = {"k": degree, "λ": l2, "ell_prime": SLOPES, "dot": np.dot}
        relations = claim.relations(transpose=np.transpose, **known, **values)
        residuals += [relative(r.right, r.left) for r in relations]
    return residuals


SLOPES = np.array([0.7, -1.1, 0.4, 0.9])  # ℓ' at the four inputs: any numbers will do


@functools.cache
def _velocities(l2=0.3):
    """What (S4)–(S6) speak of, for random networks moving by dθ/dt = −Jᵀℓ' − λθ."""
    cases = []
    for degree, f, theta, x in examples(seed=1):

        def outputs(p, f=f, x=x):
            return f(p, x)

        jacobian = jax.jacrev(outputs)

        @jax.jit
        def measure(theta, outputs=outputs, jacobian=jacobian):
            f, jac = outputs(theta), jacobian(theta)
            velocity = -(SLOPES @ jac) - l2 * theta
            jac_velocity = jax.jvp(jacobian, (theta,), (velocity,))[1]
            return {
                "f": f,
                "J_T": jac.T,
                "Θ": jac @ jac.T,
                "f_dot": jac @ velocity,
                "Θ_dot": jac_velocity @ jac.T + jac @ jac_velocity.T,
                "H": jax.jvp(jacobian, (theta,), (SLOPES @ jac,))[1],
            }

        values = {name: np.asarray(value) for name, value in measure(theta).items()}
        cases.append((degree, l2, values))
    return cases


@statement(
    "l2",
    "(S10)",
    "eq. (3) in functional form, by matrix exponentials, solves (1) on the training set",
    "c = 2*(k - 1)*λ; "
    "h_s = exp(-(k - 2)*λ*s)*dot(expm((Θ_t - Θ_s)/c), dot(Θ_0, y)); "
    "f_t == exp(-k*λ*t)*(dot(expm((Θ_t - Θ_0)/c), f_0) + Y)",
    kind="identity",
    tolerance=1e-9,
    show={"expm": "exp", "Y": "∫_0^t h_s ds"},
    scope="random positive kernels, k = 2, 3 and 4.5, against an ODE solver",
)
def s10(claim):
    rng = np.random.default_rng(5)

    def residual(degree, l2=0.2, end=1.7):
        root, rate = rng.normal(size=(4, 5)), 2 * (degree - 1) * l2
        labels, start = rng.normal(size=(2, 4))

        def theta(s):
            return np.exp(-rate * s) * root @ root.T

        known = {"k": degree, "λ": l2, "t": end, "y": labels, "f_0": start}
        known |= {"Θ_t": theta(end), "Θ_0": theta(0.0), "dot": np.dot, "expm": expm}

        def integrand(s):
            return claim.value("h_s", s=s, Θ_s=theta(s), **known)

        def velocity(s, g):
            return -theta(s) @ (g - labels) - degree * l2 * g

        integral = quad_vec(integrand, 0, end, epsabs=1e-11, limit=50)[0]
        solved = solve_ivp(velocity, (0, end), start, method="DOP853", rtol=1e-12, atol=1e-13)
        (stated,) = claim.sides(s=0.0, Θ_s=0.0, Y=integral, **known)
        return relative(stated, solved.y[:, -1])

    return [residual(degree) for degree in (2.0, 3.0, 4.5)]
