"""Li, Lyu & Arora (2020), on the intrinsic learning rate: Lemmas 3.1, 5.2, B.1–B.4, eqs. (4)–(14).

Vectors are three-dimensional with symbolic entries; a vector orthogonal to W is written as W × p
with p free, so what is proved for it holds for every tangent vector. What is read off these
equations is in `symbolic.intrinsic_lr_rates`, steps of an optimizer in
`symbolic.scale_invariant_steps`.
"""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.calculus import integral, opened
from ntkdecay.symbolic.homogeneous import GEOMETRY, gradient, homogeneous, rescaled
from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import positive

eta, lam_e, t, c, eps, sigma, dt = sp.symbols("η λ_e t c ε σ dt", positive=True)
W = sp.Matrix(sp.symbols("w1:4", real=True))
P, B1, B2 = (sp.Matrix(sp.symbols(f"{name}1:4", real=True)) for name in "pbd")
DB = sp.Matrix(sp.symbols("dB1:3", real=True))
G = W.dot(W)
SLOPES, ROOT = W.cross(P), sp.Matrix.hstack(W.cross(B1), W.cross(B2))  # ∇L and Σ^½ at W
_NOTHING = "twice nothing is nothing"


@statement(
    "intrinsic_lr",
    "Lemma 3.1",
    "a scale-invariant f, its gradient and its Hessian at w and at cw",
    "grad_c == grad_w/c; hess_c == hess_w/c**2; dot(θ, grad_w) == 0",
    kind="proof",
    show={"grad_c": "∇f(cw)", "grad_w": "∇f(w)", "hess_c": "∇²f(cw)", "hess_w": "∇²f(w)", "θ": "w"},
    survivors={"w → 2w": _NOTHING, "∇f(w) → 2 ∇f(w) (2)": _NOTHING},
    scope="any scale-invariant function of three parameters",
)
def lemma_3_1(claim):
    slopes = sp.Matrix(gradient(homogeneous("f", 0)))
    curvatures = sp.Matrix([gradient(slope) for slope in slopes])
    values = {"grad_w": slopes, "hess_w": curvatures}
    values |= {"grad_c": _at_c(slopes), "hess_c": _at_c(curvatures)}
    return claim(c, **values, **GEOMETRY)


def _at_c(matrix):
    return matrix.applyfunc(lambda entry: rescaled(entry, c))


@statement(
    "intrinsic_lr",
    "(4), (5)",
    "the SDE whose unit Euler step has the mean and the covariance of SGD (4)",
    "dW == -η*(L_prime*dt + Σ_root*dB) - λ_e*W*dt",
    kind="proof",
    show={"L_prime": "∇L", "Σ_root": "Σ^½"},
    survivors={"∇L dt + Σ^½ dB → ∇L dt − Σ^½ dB": "−dB has the law of dB"},
    scope="three dimensions, Σ = A Aᵀ with A of rank two; Gaussian moments of dB",
)
def sde_4_5(claim):
    (step,) = claim.sides(eta, lam_e, W=W, L_prime=SLOPES, Σ_root=ROOT, dB=DB, dt=sp.Integer(1))
    average = step.applyfunc(_mean)
    spread = (step - average) * (step - average).T
    return [
        (average + lam_e * W + eta * SLOPES).applyfunc(sp.expand),
        (spread.applyfunc(_mean) - eta**2 * ROOT * ROOT.T).applyfunc(sp.expand),
    ]


def _mean(expression):
    """Of a polynomial in the independent standard normals DB."""
    for x in DB:
        poly = sp.Poly(sp.expand(expression), x)
        moments = {0: 1, 1: 0, 2: 1, 3: 0, 4: 3}
        expression = sum(k * moments[degree[0]] for degree, k in poly.terms())
    return expression


def _ito(h, drift, root):
    """Itô's lemma: the drift of h(W), and its coefficients on dB."""
    slopes = sp.Matrix([sp.diff(h, w) for w in W])
    curvature = sp.Matrix(3, 3, lambda i, j: sp.diff(h, W[i], W[j]))
    return slopes.dot(drift) + (root.T * curvature * root).trace() / 2, slopes.T * root


@statement(
    "intrinsic_lr",
    "Lemma B.2",
    "Itô's lemma for dX = μ dt + A dB: df = drift dt + noise dB",
    "drift == f_t + dot(grad_f, μ) + Tr(transposed(A)*hess_f*A)/2; noise == transposed(grad_f)*A",
    kind="proof",
    show={"f_t": "∂f/∂t", "grad_f": "∇f", "hess_f": "∇²f"},
    scope="the terms in √dt and dt of f(t + dt, X + μ dt + A√dt ξ), ξ standard normal, the second "
    "in the mean, for a general quartic f of two variables and time",
)
def lemma_b_2(claim):
    x, y = sp.symbols("x y", real=True)
    mu, g = sp.Matrix(sp.symbols("mu1:3")), sp.Matrix(2, 2, sp.symbols("g1:5"))
    powers = [(i, j, k) for i in range(5) for j in range(5 - i) for k in range(2)]
    f = sp.Add(*(sp.Symbol(f"a{i}{j}{k}") * x**i * y**j * t**k for i, j, k in powers))
    root = sp.Symbol("q", positive=True)  # √dt: the dt terms are those of second order
    moved = sp.Matrix([x, y]) + mu * root**2 + root * g * DB
    shifted = f.subs({x: moved[0], y: moved[1], t: t + root**2}, simultaneous=True)
    first, second = (sp.diff(shifted, root, n).subs(root, 0) / n for n in (1, 2))
    slopes = sp.Matrix([sp.diff(f, v) for v in (x, y)])
    return claim(
        drift=_mean(second),
        noise=sp.Matrix([[sp.expand(first).coeff(xi) for xi in DB]]),
        f_t=sp.diff(f, t),
        grad_f=slopes,
        hess_f=sp.hessian(f, (x, y)),
        μ=mu,
        A=g,
        dot=lambda a, b: a.dot(b),
        Tr=lambda m: m.trace(),
        transposed=lambda m: m.T,
    )


@statement(
    "intrinsic_lr",
    "(6), (7)",
    "the SDE of the direction W̄ = W/√G and of the squared norm G, ∇L and Σ at W̄",
    "dW_bar == -η/G*(L_prime*dt + Σ_root*dB) - η**2/(2*G**2)*TrΣ*W_bar*dt; "
    "dG == (-2*λ_e*G + η**2/G*TrΣ)*dt",
    kind="proof",
    show={"L_prime": "∇L", "Σ_root": "Σ^½", "TrΣ": "Tr Σ"},
    scope="three dimensions, ∇L and the two columns of Σ^½ any vectors orthogonal to W",
)
def theorem_5_1(claim):
    drift, noise = -eta * SLOPES - lam_e * W, -eta * ROOT
    growth, no_noise = _ito(G, drift, noise)
    moves = [_ito(w / sp.sqrt(G), drift, noise) for w in W]
    # At W̄ = W/√G gradients and Σ^½ are √G times larger (Lemmas 3.1, B.1).
    slopes, root = sp.sqrt(G) * SLOPES, sp.sqrt(G) * ROOT
    direction, norm = claim.relations(
        *(eta, lam_e, dt),
        dW_bar=sp.Matrix([mean * dt + (noises * DB)[0] for mean, noises in moves]),
        dG=growth * dt + (no_noise * DB)[0],
        W_bar=W / sp.sqrt(G),
        L_prime=slopes,
        Σ_root=root,
        TrΣ=(root.T * root).trace(),
        G=G,
        dB=DB,
    )
    return [norm.residual, direction.residual]


_trace = sp.Function("T", positive=True)
_norm, _tr = sp.symbols("G T", positive=True)


def _norm_velocity(rate=eta, decay=lam_e):
    """dG/dt of (7) at learning rate η."""
    return -2 * decay * _norm + rate**2 / _norm * _tr


@statement(
    "intrinsic_lr",
    "(8)–(10)",
    "the equations in γ, with nothing else of η",
    "γ = (G/η)**2; q_dot == -2*λ_e*G/η + η/G*T; γ_dot == -4*λ_e*γ + 2*T; "
    "η/G == γ**(-1/2); η**2/(2*G**2) == 1/(2*γ)",
    kind="proof",
    show={"T": "Tr Σ", "q_dot": "d(G/η)/dt", "γ_dot": "dγ/dt"},
    scope="from (6), (7)",
)
def norm_8_to_10(claim):
    gamma = claim.value("γ", eta, _norm, lam_e, _tr)
    rates = {"q_dot": _norm_velocity() / eta, "γ_dot": sp.diff(gamma, _norm) * _norm_velocity()}
    return claim(eta, _norm, lam_e, _tr, **rates)


@statement(
    "intrinsic_lr",
    "(10), text",
    "what γ_t is in terms of the effective learning rate, the factor of −∇L(W̄) in dW̄",
    "γ == 1/rate**2",
    kind="proof",
    refuted={"printed: the squared effective LR": "γ == rate**2"},
    scope="the factor is read off the drift of W/√G; the right-hand side then has to solve (10)",
)
def gamma_is_inverse(claim):
    moved = _ito(W[0] / sp.sqrt(G), -eta * SLOPES - lam_e * W, 0 * ROOT)[0]
    rate = -sp.simplify(moved / (sp.sqrt(G) * SLOPES[0]) * G) / _norm
    (gamma,) = claim.sides(rate=rate)
    return [
        rate - eta / _norm,
        sp.diff(gamma, _norm) * _norm_velocity() + 4 * lam_e * gamma - 2 * _tr,
    ]


@statement(
    "intrinsic_lr",
    "(11)",
    "the solution of (10) from γ_0",
    "γ_t == exp(-4*λ_e*t)*γ_0 + 2*Integral(exp(-4*λ_e*(t - τ))*TrΣ(τ), τ, 0, t)",
    kind="proof",
    show={"TrΣ": "Tr Σ"},
    scope="any Tr Σ_τ",
)
def running_average_11(claim):
    tau, start = sp.symbols("τ γ_0", positive=True)
    (gamma,) = claim.sides(lam_e, t, start, tau, TrΣ=_trace, Integral=integral)
    residual = sp.diff(gamma, t) + 4 * lam_e * gamma - 2 * _trace(t)
    return [opened(residual), opened(gamma.subs(t, 0)) - start]


@statement(
    "intrinsic_lr",
    "Lemma 5.2, (12)",
    "bounds of γ_t where σ² ≤ Tr Σ ≤ (1 + ε)σ²",
    "κ = 1 - exp(-4*λ_e*t); exp(-4*λ_e*t)*γ_0 + σ**2/(2*λ_e)*κ <= γ_t "
    "<= exp(-4*λ_e*t)*γ_0 + (1 + ε)*σ**2/(2*λ_e)*κ",
    kind="proof",
    refuted={
        "printed in the proof: a factor t": "κ = (1 - exp(-4*λ_e*t))*t; "
        "exp(-4*λ_e*t)*γ_0 + σ**2/(2*λ_e)*κ <= γ_t "
        "<= exp(-4*λ_e*t)*γ_0 + (1 + ε)*σ**2/(2*λ_e)*κ",
    },
    scope="each bound solves (10) from γ_0 with Tr Σ at its end of the interval, so it is attained; "
    "the weight of Tr Σ in (11) is positive, so no other Tr Σ passes it",
)
def lemma_5_2(claim):
    start, gamma, tau = sp.symbols("γ_0 γ_t τ", positive=True)
    low, high = claim.relations(lam_e, t, sigma, eps, start, gamma)
    residuals = [low.greater - gamma, high.lesser - gamma]
    for bound, level in ((low.lesser, sigma**2), (high.greater, (1 + eps) * sigma**2)):
        velocity = sp.diff(bound, t)
        residuals += [velocity + 4 * lam_e * bound - 2 * level, bound.subs(t, 0) - start]
    return [*residuals, positive(2 * sp.exp(-4 * lam_e * (t - tau)))]


@statement(
    "intrinsic_lr",
    "Lemma B.1",
    "the noise's covariance of a scale-invariant loss, at w and at cw",
    "Σ_c == Σ_w/c**2; dot(θ, Σ_w*θ) == 0",
    kind="proof",
    show={"Σ_c": "Σ_{cw}", "θ": "w"},
    survivors={"w → 2w": _NOTHING, "w → 2w (2)": _NOTHING, "Σ_w → 2 Σ_w (2)": _NOTHING},
    scope="two minibatches (Σ is then a product of one difference), three parameters",
)
def lemma_b_1(claim):
    one, two = (sp.Matrix(gradient(homogeneous(name, 0))) for name in "fg")
    noise = (one - two) / 2
    covariance = noise * noise.T
    return claim(c, Σ_w=covariance, Σ_c=_at_c(covariance), **GEOMETRY)


@statement(
    "intrinsic_lr",
    "Lemma B.3, (14)",
    "curvature of f(w) = g(w̄), w̄ = w/‖w‖, along v ⟂ w",
    "dot(v, hess_f*v) == (dot(v, hess_g*v) - dot(w_bar, grad_g)*norm(v)**2)/norm(w)**2",
    kind="proof",
    refuted={
        "printed in the proof: ∇g(w̄)ᵀv": "dot(v, hess_f*v) == "
        "(dot(v, hess_g*v) - dot(v, grad_g)*norm(v)**2)/norm(w)**2"
    },
    show={"hess_f": "∇²f(w)", "hess_g": "∇²g(w̄)", "grad_g": "∇g(w̄)"},
    scope="symbolic w, any gradient and Hessian of g at w̄, v = w × p; three dimensions",
)
def lemma_b_3(claim):
    a, b = sp.Matrix(sp.symbols("a1:4", real=True)), sp.symbols("B1:7", real=True)
    curved = sp.Matrix([[b[0], b[1], b[2]], [b[1], b[3], b[4]], [b[2], b[4], b[5]]])
    # ∇²f by the chain rule through w̄(w) = w/‖w‖: (∂w̄)ᵀ ∇²g ∂w̄ + ∇g · ∂²w̄.
    unit = W / sp.sqrt(G)
    jacobian = unit.jacobian(W)
    bent = sp.Matrix(3, 3, lambda i, j: a.dot(sp.diff(unit, W[i], W[j])))
    (relation,) = claim.relations(
        hess_f=jacobian.T * curved * jacobian + bent,
        hess_g=curved,
        grad_g=a,
        w_bar=unit,
        w=W,
        v=W.cross(P),
        dot=lambda a, b: a.dot(b),
        norm=lambda x: sp.sqrt(x.dot(x)),
    )
    return relation.residual


@statement(
    "intrinsic_lr",
    "Lemma B.4",
    "the flow with an exponential schedule whose frame U follows (5)",
    "dW == -exp(2*λ_e*t)*η*(L_W*dt + R_W*dB); U == exp(-λ_e*t)*W; "
    "dU == -λ_e*U*dt - η*(L_U*dt + R_U*dB); γ == norm(W)**4*exp(-4*λ_e*t)/η**2",
    kind="proof",
    refuted={
        "printed in the proof: dU = … + ∇L dt, no η, wrong sign": "dW == "
        "-exp(2*λ_e*t)*η*(L_W*dt + R_W*dB); U == exp(-λ_e*t)*W; "
        "dU == -λ_e*U*dt + L_U*dt + R_U*dB; γ == norm(W)**4*exp(-4*λ_e*t)/η**2"
    },
    show={"L_W": "∇L(W)", "L_U": "∇L(U)", "R_W": "Σ_W^½", "R_U": "Σ_U^½"},
    scope="three dimensions; dU by the product rule (U is linear in W); γ is (‖U‖²/η)²",
)
def lemma_b_4(claim):
    known = {"L_W": SLOPES, "R_W": ROOT, "dB": DB, "norm": lambda x: sp.sqrt(x.dot(x))}
    frame = sp.exp(lam_e * t)  # gradients and Σ^½ at U = e^{−λ_e t} W are so much larger
    known |= {"L_U": SLOPES * frame, "R_U": ROOT * frame}
    moved, inner, expected, gamma = claim.sides(eta, lam_e, t, dt, W=W, **known)
    ratio = inner[0] / W[0]
    velocity = sp.diff(inner, t) * dt + ratio * moved
    return [velocity - expected, inner - ratio * W, (inner.dot(inner) / eta) ** 2 - gamma]
