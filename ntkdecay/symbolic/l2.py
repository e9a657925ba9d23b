"""Lewkowycz & Gur-Ari (2020): Lemmas 1 and 2, Theorems 1 and 2, equations (1)–(3), (S1)–(S10).

Theorem 1 measured on trained networks is in `symbolic.width`, the deep linear fixed points
(S11)–(S21) in `symbolic.deep_linear`.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm
from sympy.utilities.iterables import partitions

from ntkdecay.symbolic.homogeneous import THETA, dot, euler, gradient, homogeneous, rescaled
from ntkdecay.symbolic.networks import along, examples, relative
from ntkdecay.symbolic.registry import positive, statement

k, m, a, slope = sp.symbols("k m a ell", real=True)
lam, gamma, t, tau = sp.symbols("lambda gamma t tau", positive=True)
f0, y = sp.symbols("f_0 y", real=True)
HALF = sp.Rational(1, 2)


@statement(
    "l2",
    "Lemma 1",
    "Σ_μ θ_μ ∂_μ ∂_ν1…∂_νm f = (k − m) ∂_ν1…∂_νm f",
    kind="proof",
    mutants={
        "k − m + 1": {"factor": lambda k, m: k - m + 1},
        "k + m": {"factor": lambda k, m: k + m},
        "m − k": {"factor": lambda k, m: m - k},
    },
    scope="symbolic k; base m = 0 and the induction step for symbolic m; three parameters",
)
def lemma_1(factor=lambda k, m: k - m):
    base = homogeneous("f", k)
    # By the induction hypothesis m − 1 derivatives of f are homogeneous of degree k − (m − 1).
    step = gradient(homogeneous("F", k - (m - 1)))
    return [euler(base) - factor(k, 0) * base] + [euler(d) - factor(k, m) * d for d in step]


@statement(
    "l2",
    "Lemma 1, networks",
    "Euler's identity for m = 0, 1, 2 of ReLU, linear and max-pooled networks",
    kind="identity",
    tolerance=1e-12,
    mutants={
        "k − m + 1": {"factor": lambda k, m: k - m + 1},
        "k + m": {"factor": lambda k, m: k + m},
    },
)
def lemma_1_networks(factor=lambda k, m: k - m):
    return [
        float(jnp.abs(along_theta - factor(degree, order) * value).max() / jnp.abs(value).max())
        for degree, order, value, along_theta in _euler_terms()
    ]


@functools.cache
def _euler_terms():
    """(k, m, ∂^m f, Σ_μ θ_μ ∂_μ ∂^m f) of random networks, summed over inputs, m = 0, 1, 2."""
    terms = []
    for degree, f, theta, x in examples():

        def total(p, f=f, x=x):
            return f(p, x).sum()

        for order, derivative in enumerate((total, jax.grad(total), jax.hessian(total))):
            terms.append((degree, order, *along(derivative, theta, theta)))
    return terms


@statement(
    "l2",
    "(S1)",
    "d/da f(aθ) at a = 1 is Σ_μ θ_μ ∂_μ f, and equals k f",
    kind="proof",
    mutants={"k + 1": {"degree": k + 1}, "−k": {"degree": -k}},
)
def s1(degree=k):
    f = homogeneous("f", k)
    slope_in_a = sp.diff(rescaled(f, a), a).subs(a, 1)
    return [slope_in_a - dot(THETA, gradient(f)), slope_in_a - degree * f]


@statement(
    "l2",
    "(S2)",
    "Σ_μ θ_μ ∂_μ ∂_ν F = ∂_ν Σ_μ θ_μ ∂_μ F − ∂_ν F for any F",
    kind="proof",
    mutants={"+ ∂_ν F": {"commutator": 1}, "no commutator": {"commutator": 0}},
    scope="any twice differentiable F of three parameters, homogeneous or not",
)
def s2(commutator=-1):
    general = sp.Function("F")(*homogeneous("g", 1).free_symbols)
    outer = gradient(euler(general))
    return [
        euler(d) - (after + commutator * d)
        for d, after in zip(gradient(general), outer, strict=True)
    ]


def _flow(residual_slope, other):
    """dθ_ν/dt = −∂_ν f(x') ℓ' − λ θ_ν for one training sample x'."""
    return [-g * residual_slope - lam * p for g, p in zip(gradient(other), THETA, strict=True)]


@statement(
    "l2",
    "(S3)",
    "d/dt ∂^a f(x) = −Σ_ν ∂_ν ∂^a f(x) ∂_ν f(x') ℓ'(x') − (k − a) λ ∂^a f(x)",
    kind="proof",
    mutants={
        "printed: ∂_μ f(x')": {"index": 0},
        "(k + a) λ": {"degree": k + a},
        "k λ": {"degree": k},
    },
    scope="symbolic k and a, one training sample (the sum over samples is linear)",
)
def s3(index=None, degree=k - a):
    tensor, other = homogeneous("F", k - a), homogeneous("h", k)
    left = dot(gradient(tensor), _flow(slope, other))
    factors = gradient(other)
    factors = factors if index is None else [factors[index]] * 3
    return left + dot(gradient(tensor), factors) * slope + degree * lam * tensor


@statement(
    "l2",
    "Lemma 2",
    "a gradient-flow step keeps n_e + (n_o − m)/2 of a cluster graph from growing",
    kind="proof",
    mutants={
        "always decreases": {"relation": lambda after, before: after < before},
        "n_o weighs 1": {"odd_weight": sp.Integer(1)},
        "m not counted": {"vertex_weight": sp.Integer(0)},
    },
    scope="the counting step, for every partition of up to 12 vertices; not the conjecture itself",
)
def lemma_2(
    relation=lambda after, before: after <= before,
    odd_weight=HALF,
    vertex_weight=HALF,
):
    def order(sizes):
        odd = sum(size % 2 for size in sizes)
        return len(sizes) - odd + odd_weight * odd - vertex_weight * sum(sizes)

    changes = []
    for vertices in range(1, 13):
        for partition in partitions(vertices):
            counts: Any = partition  # {component size: how many}
            sizes = [size for size in counts for _ in range(counts[size])]
            # ∂_ν f(x') joins the component of ∂_ν ∂^a f(x), any of them; a factor of ℓ' = f − y
            # is a component of its own.
            joined = [[*sizes[:i], s + 1, *sizes[i + 1 :]] for i, s in enumerate(sizes)]
            changes += [bool(relation(order(after), order(sizes))) for after in joined]
            changes.append(order([*sizes, 1]) == order(sizes))
    return changes


@statement(
    "l2",
    "(S4)",
    "df_t(x)/dt = −Σ_x' Θ_t(x, x') ℓ'(x') − k λ f_t(x), at any width",
    kind="proof",
    mutants={"(k − 1) λ": {"degree": k - 1}, "+ k λ": {"degree": -k}},
    scope="symbolic k, one training sample (the sum over samples is linear)",
)
def s4(degree=k):
    f, other = homogeneous("f", k), homogeneous("h", k)
    kernel = dot(gradient(f), gradient(other))
    return dot(gradient(f), _flow(slope, other)) + kernel * slope + degree * lam * f


@statement(
    "l2",
    "(S5), (S6)",
    "dΘ_t(x, x')/dt = −2(k − 1) λ Θ_t + T_t(x, x') + T_t(x', x), at any width",
    kind="proof",
    mutants={
        "2 k λ": {"rate": 2 * k},
        "(k − 1) λ": {"rate": k - 1},
        "T with the wrong sign": {"sign": 1},
        "T not symmetrized": {"symmetrized": False},
    },
    scope="symbolic k, one sample x'' in T (the sum over samples is linear)",
)
def s5(rate=2 * (k - 1), sign=-1, symmetrized=True):
    f, other, sample = (homogeneous(name, k) for name in ("f", "h", "q"))

    def tensor(one, two):
        contracted = [dot(gradient(d), gradient(sample)) for d in gradient(one)]
        return sign * slope * dot(contracted, gradient(two))

    kernel = dot(gradient(f), gradient(other))
    velocity = tensor(f, other) + (tensor(other, f) if symmetrized else 0)
    return dot(gradient(kernel), _flow(slope, sample)) + rate * lam * kernel - velocity


@statement(
    "l2",
    "(S4)–(S6), networks",
    "the velocities of f and Θ on random networks with random ℓ'",
    kind="identity",
    tolerance=1e-11,
    mutants={
        "(k − 1) λ f": {"degree": lambda k: k - 1},
        "2 k λ Θ": {"rate": lambda k: 2 * k},
        "T with the wrong sign": {"sign": 1.0},
    },
)
def s4_to_s6_networks(degree=lambda k: k, rate=lambda k: 2 * (k - 1), sign=-1.0):
    residuals = []
    for k, l2, values in _velocities():
        f_velocity = -values["kernel"] @ SLOPES - degree(k) * l2 * values["f"]
        residuals.append(relative(f_velocity, values["df/dt"]))
        one = sign * values["hessian along"] @ values["jacobian"].T
        kernel_velocity = -rate(k) * l2 * values["kernel"] + one + one.T
        residuals.append(relative(kernel_velocity, values["dkernel/dt"]))
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
                "jacobian": jac,
                "kernel": jac @ jac.T,
                "df/dt": jac @ velocity,
                "dkernel/dt": jac_velocity @ jac.T + jac @ jac_velocity.T,
                "hessian along": jax.jvp(jacobian, (theta,), (SLOPES @ jac,))[1],
            }

        cases.append((degree, l2, measure(theta)))
    return cases


@statement(
    "l2",
    "(S7), (S8)",
    "all derivatives [−2(k−1)λ]^m Θ_0 at t = 0 sum to e^{−2(k−1)λt} Θ_0, which solves (2)",
    kind="proof",
    mutants={"e^{+2(k−1)λt}": {"rate": -2 * (k - 1)}, "e^{−(k−1)λt}": {"rate": k - 1}},
)
def s7_s8(rate=2 * (k - 1)):
    order = sp.Symbol("m", integer=True, nonnegative=True)
    term = (-2 * (k - 1) * lam * t) ** order / sp.factorial(order)
    series = sp.summation(term, (order, 0, sp.oo))
    solution = sp.exp(-rate * lam * t)
    return [series - solution, sp.diff(solution, t) + 2 * (k - 1) * lam * solution]


@statement(
    "l2",
    "(3)",
    "Theorem 2: eq. (3) solves df/dt = −γ e^{−2(k−1)λt} (f − y) − kλ f with f(0) = f_0",
    kind="proof",
    mutants={
        "−(k − 1)λt' in the integral": {"inner": lambda k: k - 1},
        "+γ(t') in the integral": {"sign": 1},
        "kernel decays at (k − 1)λ": {"rate": lambda k: k - 1},
        "kernel decays at 2kλ": {"rate": lambda k: 2 * k},
    },
    scope="symbolic k, γ, λ, y, f_0",
)
def theorem_2(rate=lambda k: 2 * (k - 1), inner=lambda k: k - 2, sign=-1):
    c = sp.Symbol("c", positive=True)
    degree = 1 + c / (2 * lam)  # c = 2(k − 1)λ: every exponent is then linear in λ and c
    at = lambda s: gamma * sp.exp(-sp.expand(rate(degree) * lam) * s) / c  # noqa: E731
    integral = sp.Integral(sp.exp(sign * at(tau) - inner(degree) * lam * tau), (tau, 0, t))
    f = sp.exp(at(t) - sp.expand(degree * lam) * t) * (sp.exp(-at(0)) * f0 + gamma * y * integral)
    velocity = -gamma * sp.exp(-c * t) * (f - y) - degree * lam * f
    residual = sp.expand(sp.diff(f, t) - velocity, power_exp=False)
    at_zero = f.subs(integral, 0).subs(t, 0)  # the integral from 0 to 0
    return [residual.xreplace({integral: sp.Symbol("I")}), at_zero - f0]


@statement(
    "l2",
    "(S9)",
    "|f| ≤ e^{−kλt} [e^{(γ(t)−γ)/c} |f_0| + |γ y| e^{γ(t)/c} t] → 0 for k ≥ 2, c = 2(k−1)λ",
    kind="proof",
    mutants={
        "k ≥ 0 by this bound": {"least": 0},
        "e^{+kλt}": {"sign": 1},
    },
    scope="the exponent under the integral of (3) is ≤ 0, and both factors of the bound converge",
)
def s9(least=2, sign=-1):
    rate, degree = sp.symbols("c k", positive=True)
    excess = sp.Symbol("p", nonnegative=True)
    u = gamma * sp.exp(-rate * t) / rate
    return [
        positive(u + (least + excess - 2) * lam * t),  # minus the exponent
        sp.limit(sp.exp(sign * degree * lam * t) * (1 + gamma * t), t, sp.oo),
        sp.limit(sp.exp(u), t, sp.oo) - 1,
    ]


@statement(
    "l2",
    "(S10)",
    "eq. (3) in functional form, by matrix exponentials, solves (1) on the training set",
    kind="identity",
    tolerance=1e-9,
    mutants={
        "Θ_t' − Θ_t": {"sign": -1.0},
        "e^{−(k−1)λt'}": {"inner": lambda k: k - 1},
        "Θ_t in place of Θ_0": {"frozen": False},
    },
    scope="random positive kernels, k = 2, 3 and 4.5, against an ODE solver",
)
def s10(sign=1.0, inner=lambda k: k - 2, frozen=True):
    rng = np.random.default_rng(5)

    def residual(degree, l2=0.2, end=1.7):
        root, rate = rng.normal(size=(4, 5)), 2 * (degree - 1) * l2
        labels, start = rng.normal(size=(2, 4))

        def theta(s):
            return np.exp(-rate * s) * root @ root.T

        def integrand(s):
            source = theta(0.0 if frozen else s) @ labels
            return np.exp(-inner(degree) * l2 * s) * transport(s) @ source

        def transport(s):
            return expm(sign * (theta(end) - theta(s)) / rate)

        def velocity(s, g):
            return -theta(s) @ (g - labels) - degree * l2 * g

        free = expm((theta(end) - theta(0.0)) / rate) @ start
        integral = quad_vec(integrand, 0, end, epsabs=1e-13)[0]
        solved = solve_ivp(velocity, (0, end), start, method="DOP853", rtol=1e-12, atol=1e-13)
        return relative(np.exp(-degree * l2 * end) * (free + integral), solved.y[:, -1])

    return [residual(degree) for degree in (2.0, 3.0, 4.5)]


@statement(
    "l2",
    "§4, k = 1",
    "gradient flow of a linear model ends at Θ(x, X) (Θ + λI)^{-1} y",
    kind="proof",
    mutants={"Θ − λI": {"sign": -1}, "Θ + 2λI": {"sign": 2}},
    scope="any symmetric 2×2 kernel, a test point included",
)
def linear_limit(sign=1):
    k11, k12, k22, s1, s2, y1, y2 = sp.symbols("k11 k12 k22 s1 s2 y1 y2", real=True)
    kernel, cross, labels = (
        sp.Matrix([[k11, k12], [k12, k22]]),
        sp.Matrix([[s1, s2]]),
        sp.Matrix([y1, y2]),
    )
    weights = (kernel + sign * lam * sp.eye(2)).inv() * labels
    on_train, on_test = kernel * weights, cross * weights
    velocity = [-kernel * (on_train - labels) - lam * on_train]
    velocity.append(-cross * (on_train - labels) - lam * on_test)
    return [v.applyfunc(sp.factor) for v in velocity]


@statement(
    "l2",
    "SM A, loss",
    "the softmax loss is −Σ_i y_i log p_i up to its prefactor: descent raises the label's logit",
    kind="proof",
    mutants={"printed: +Σ_i y_i log p_i": {"sign": 1}},
    scope="three classes, a one-hot label",
)
def softmax_loss(sign=-1):
    logits = sp.symbols("f1:4", real=True)
    probabilities = [sp.exp(f) / sp.Add(*(sp.exp(g) for g in logits)) for f in logits]
    loss = sign * sp.log(probabilities[0])
    descent = [-sp.diff(loss, f) for f in logits]
    return [descent[0] - (1 - probabilities[0]), descent[1] + probabilities[1]]


@statement(
    "l2",
    "SM E, Algorithm 1",
    "AutoL2 must compare the error with MINERROR for a rise of the error alone to lower λ",
    kind="simulation",
    tolerance=0.1,
    mutants={"printed: ERROR_t > ERROR": {"reference": lambda error, minimum: error}},
    scope="a run whose error rises for three measurements while its loss falls",
)
def auto_l2_compares_with_the_minimum(reference=lambda error, minimum: minimum):
    errors, decays, minimum = [0.5, 0.3, 0.2, 0.25, 0.3, 0.35], 0, np.inf
    for before, now in itertools.pairwise(errors):
        if now > reference(now, minimum) and before > reference(now, minimum):
            decays += 1
        else:
            minimum = min(before, minimum)
    return float(decays == 0)
