"""Lewkowycz & Gur-Ari (2020): Lemmas 1 and 2, Theorem 2, equations (3), (S1)–(S9), proved.

The same on random networks and (S10) are in `symbolic.l2_networks`, AutoL2 in `symbolic.auto_l2`,
Theorem 1 on trained networks in `symbolic.width`, (S11)–(S21) in `symbolic.deep_linear`.
"""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.calculus import opened
from ntkdecay.symbolic.homogeneous import (
    GEOMETRY,
    THETA,
    dot,
    euler,
    gradient,
    homogeneous,
    rescaled,
)
from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import nonnegative

k, m, a, slope = sp.symbols("k m a ell_prime", real=True)
lam, gamma, t, tau = sp.symbols("λ γ t τ", positive=True)
f0, y = sp.symbols("f_0 y", real=True)


@statement(
    "l2",
    "Lemma 1",
    "Euler's identity for any m-th derivative D = ∂_ν1…∂_νm f",
    "dot(θ, grad(D)) == (k - m)*D",
    kind="proof",
    scope="symbolic k; base m = 0 and the induction step for symbolic m; three parameters",
)
def lemma_1(claim):
    base = claim(k, m=sp.Integer(0), D=homogeneous("f", k), **GEOMETRY)
    # By the induction hypothesis m − 1 derivatives of f are homogeneous of degree k − (m − 1).
    step = gradient(homogeneous("F", k - (m - 1)))
    return [base, [claim(k, m, D=derivative, **GEOMETRY) for derivative in step]]


@statement(
    "l2",
    "(S1)",
    "the slope of f(aθ) in a, at a = 1",
    "slope == dot(θ, grad(f)) == k*f",
    kind="proof",
    show={"slope": "df(aθ)/da"},
)
def s1(claim):
    f = homogeneous("f", k)
    return claim(k, f=f, slope=sp.diff(rescaled(f, a), a).subs(a, 1), **GEOMETRY)


@statement(
    "l2",
    "(S2)",
    "Euler's operator and a derivative ∂_ν commute up to that derivative",
    "dot(θ, grad(F_ν)) == G_ν - F_ν",
    kind="proof",
    show={"F_ν": "∂_νF", "G_ν": "∂_ν(θ·∇F)"},
    scope="any twice differentiable F of three parameters, homogeneous or not",
)
def s2(claim):
    general = sp.Function("F")(*homogeneous("g", 1).free_symbols)
    pairs = zip(gradient(general), gradient(euler(general)), strict=True)
    return [claim(F_ν=d, G_ν=after, **GEOMETRY) for d, after in pairs]


def _flow(other):
    """dθ_ν/dt = −∂_ν f(x') ℓ' − λ θ_ν for one training sample x'."""
    return [-g * slope - lam * p for g, p in zip(gradient(other), THETA, strict=True)]


@statement(
    "l2",
    "(S3)",
    "velocity of a derivative F = ∂^a f(x) under gradient flow on a sample x', f' = f(x')",
    "F_dot == -dot(grad(F), grad(f_prime))*ell_prime - (k - a)*λ*F",
    kind="proof",
    refuted={
        "printed: ∂_μ f(x')": "F_dot == -dot(grad(F), along_μ(f_prime))*ell_prime - (k - a)*λ*F"
    },
    show={"along_μ": "∂_μ"},
    scope="symbolic k and a, one training sample (the sum over samples is linear)",
)
def s3(claim):
    tensor, other = homogeneous("F", k - a), homogeneous("h", k)
    return claim(
        *(k, a, lam, slope),
        F=tensor,
        f_prime=other,
        F_dot=dot(gradient(tensor), _flow(other)),
        along_μ=lambda f: sp.Matrix([gradient(f)[0]] * 3),
        **GEOMETRY,
    )


@statement(
    "l2",
    "Lemma 2",
    "a gradient-flow step never raises a cluster graph's order (n_e even, n_o odd components, "
    "m vertices)",
    "order = n_e + (n_o - m)/2; order_after <= order_before",
    kind="proof",
    scope="the counting step, for any graph, by parity: the new vertex joins an even component "
    "(n_e − 1, n_o + 1), an odd one (n_e + 1, n_o − 1) or is one of its own (n_o + 1); the order "
    "changes by −1, 0 and 0; not the conjecture itself",
)
def lemma_2(claim):
    n_e, n_o, m = sp.symbols("n_e n_o m", integer=True, nonnegative=True)

    def order(*step):
        even, odd, vertices = step
        return claim.value("order", n_e=n_e + even, n_o=n_o + odd, m=m + vertices)

    moves = {(-1, 1, 1): -1, (1, -1, 1): 0, (0, 1, 1): 0}
    before = order(0, 0, 0)
    return [
        [order(*move) - before - change for move, change in moves.items()],
        [claim(n_e, n_o, m, order_after=order(*s), order_before=before) for s in moves],
        [before.subs({n_e: 1, n_o: 0, m: 2}), before.subs({n_e: 0, n_o: 2, m: 2})],
    ]


@statement(
    "l2",
    "(S4)",
    "velocity of the function on a sample with slope ℓ' of the loss, at any width",
    "f_dot == -Θ*ell_prime - k*λ*f",
    kind="proof",
    scope="symbolic k, one training sample (the sum over samples is linear)",
)
def s4(claim):
    f, other = homogeneous("f", k), homogeneous("h", k)
    velocity, kernel = dot(gradient(f), _flow(other)), dot(gradient(f), gradient(other))
    return claim(k, lam, slope, f=f, Θ=kernel, f_dot=velocity)


@statement(
    "l2",
    "(S5), (S6)",
    "velocity of the kernel Θ of f = f(x), f' = f(x') on a sample q = f(x''), at any width",
    "T_ff = -dot(hess(f, q), grad(f_prime))*ell_prime; "
    "T_ff_prime = -dot(hess(f_prime, q), grad(f))*ell_prime; "
    "Θ_dot == -2*(k - 1)*λ*Θ + T_ff + T_ff_prime",
    kind="proof",
    refuted={
        "T not symmetrized": "T = -dot(hess(f, q), grad(f_prime))*ell_prime; "
        "Θ_dot == -2*(k - 1)*λ*Θ + 2*T"
    },
    show={"T_ff": "T(x, x')", "T_ff_prime": "T(x', x)", "hess": "∇²"},
    scope="symbolic k, one sample x'' in T (the sum over samples is linear); ∇²(f, q) is ∇²f ∇q",
)
def s5(claim):
    f, other, sample = (homogeneous(name, k) for name in ("f", "h", "q"))

    def curved(g, along):
        return sp.Matrix([dot(gradient(d), gradient(along)) for d in gradient(g)])

    kernel = dot(gradient(f), gradient(other))
    velocity = dot(gradient(kernel), _flow(sample))
    values = {"f": f, "f_prime": other, "q": sample, "Θ": kernel, "Θ_dot": velocity}
    return claim(k, lam, slope, hess=curved, **values, **GEOMETRY)


@statement(
    "l2",
    "(S7), (S8)",
    "all derivatives of the kernel at t = 0 sum to an exponential, which solves (2)",
    "Sum((-2*(k - 1)*λ*t)**m/factorial(m), m, 0, oo)*Θ_0 == exp(-2*(k - 1)*λ*t)*Θ_0",
    kind="proof",
    show={"oo": "∞"},
    survivors={"∞ → 2∞": "twice infinity is infinity"},
)
def s7_s8(claim):
    order, start = sp.Symbol("m", integer=True, nonnegative=True), sp.Symbol("Θ_0", positive=True)
    sums = {"Sum": lambda *s: sp.summation(s[0], s[1:]), "factorial": sp.factorial, "oo": sp.oo}
    (relation,) = claim.relations(k, lam, t, start, m=order, **sums)
    solution = relation.right
    return [
        relation.residual,
        sp.diff(solution, t) + 2 * (k - 1) * lam * solution,
        solution.subs(t, 0) - start,
    ]


@statement(
    "l2",
    "(3)",
    "Theorem 2: the solution of df/dt = −γ e^{−ct} (f − y) − kλf from f_0",
    "c = 2*(k - 1)*λ; γ_t = γ*exp(-c*t); γ_τ = γ*exp(-c*τ); "
    "f_t == exp(γ_t/c - k*λ*t)*(exp(-γ/c)*f_0 + γ*y*Integral(exp(-γ_τ/c - (k - 2)*λ*τ), τ, 0, t))",
    kind="proof",
    scope="symbolic k, γ, λ, y, f_0",
)
def theorem_2(claim):
    c = sp.Symbol("c", positive=True)
    degree = 1 + c / (2 * lam)  # every exponent is then linear in λ and c
    (f,) = claim.sides(lam, gamma, t, tau, y, f0, k=degree)
    velocity = -gamma * sp.exp(-c * t) * (f - y) - sp.expand(degree * lam) * f
    at_zero = f.subs(t, 0)
    return [opened(sp.diff(f, t) - velocity), opened(at_zero) - f0]


@statement(
    "l2",
    "(S9)",
    "the bound by which every mode decays to zero",
    "c = 2*(k - 1)*λ; γ_t = γ*exp(-c*t); k >= 2; "
    "Abs(f_t) <= exp(-k*λ*t)*(exp((γ_t - γ)/c)*Abs(f_0) + Abs(γ*y)*exp(γ_t/c)*t)",
    kind="proof",
    scope="from (3): the exponent under its integral is −γ_τ/c − (k−2)λτ ≤ 0 for k ≥ 2 and not "
    "below, the integral therefore at most t, which with the triangle inequality is the bound, "
    "attained as γ → 0 at k = 2; its limit t → ∞ is 0",
)
def s9(claim):
    p, c, degree = sp.symbols("p c k", positive=True)
    known = {"k": degree, "f_t": sp.Symbol("f"), "c": c}
    domain, bound = claim.relations(gamma, lam, t, f0, y, **known)
    least, grows = (domain.right, 1) if domain.sign == ">=" else (domain.right, -1)
    exponent = gamma * sp.exp(-c * tau) / c + (least + grows * p - 2) * lam * tau  # minus it
    # (3) with the triangle inequality and the integral at its most, t.
    rate = 2 * (degree - 1) * lam
    shrunk = gamma * sp.exp(-rate * t) / rate
    most = sp.exp(-gamma / rate) * sp.Abs(f0) + gamma * sp.Abs(y) * t
    most *= sp.exp(shrunk - degree * lam * t)
    return [
        nonnegative(exponent),
        sp.limit(exponent.subs(p, 0), gamma, 0),
        domain.left - degree,
        bound.lesser - sp.Abs(sp.Symbol("f")),
        bound.greater - most,
        sp.limit(sp.exp(-degree * lam * t) * (1 + t), t, sp.oo),
        sp.limit(sp.exp(shrunk.subs(rate, c)), t, sp.oo) - 1,
    ]


@statement(
    "l2",
    "§4, k = 1",
    "where gradient flow of a linear model ends, K the kernel of a point with the training set",
    "f == K*inv(Θ + λ*I)*y",
    kind="proof",
    show={"inv": "inverse"},
    scope="any symmetric 2×2 kernel; K = Θ on the training set, K = Θ(x, X) at a test point",
)
def linear_limit(claim):
    k11, k12, k22 = sp.symbols("k11 k12 k22", positive=True)
    kernel, cross = sp.Matrix([[k11, k12], [k12, k22]]), sp.Matrix([sp.symbols("s1 s2")])
    labels = sp.Matrix(sp.symbols("y1 y2", real=True))
    known = {"Θ": kernel, "y": labels, "I": sp.eye(2), "inv": lambda A: A.inv()}
    (on_train,), (on_test,) = (claim.sides(lam, K=K, **known) for K in (kernel, cross))
    velocity = [-kernel * (on_train - labels) - lam * on_train]
    velocity.append(-cross * (on_train - labels) - lam * on_test)
    return [v.applyfunc(sp.factor) for v in velocity]


@statement(
    "l2",
    "SM A, loss",
    "the softmax loss, whose gradient flow pulls p to y",
    "L == -y_1*log(p_1) - y_2*log(p_2) - y_3*log(p_3)",
    kind="proof",
    refuted={"printed: +Σ_i y_i log p_i": "L == y_1*log(p_1) + y_2*log(p_2) + y_3*log(p_3)"},
    survivors={
        f"p_{i} → 2p_{i}": "adds a constant to the loss, which gradient flow does not see"
        for i in (1, 2, 3)
    },
    scope="three classes, any label with Σ y_i = 1; up to the paper's prefactor",
)
def softmax_loss(claim):
    logits, (y_1, y_2) = sp.symbols("f1:4", real=True), sp.symbols("y_1 y_2", positive=True)
    p = [sp.exp(f) / sp.Add(*(sp.exp(g) for g in logits)) for f in logits]
    labels = {"y_1": y_1, "y_2": y_2, "y_3": 1 - y_1 - y_2}
    (loss,) = claim.sides(p_1=p[0], p_2=p[1], p_3=p[2], **labels)
    return [-sp.diff(loss, f) - (y - q) for f, y, q in zip(logits, labels.values(), p, strict=True)]
