r"""What holds of a homogeneous network of any width under L2, proved."""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.homogeneous import (
    GEOMETRY,
    THETA,
    dot,
    gradient,
    homogeneous,
    rescaled,
)
from ntkdecay.symbolic.registry import statement

k, slope, slope_2 = sp.symbols("k ell_prime ell_2_prime", real=True)
lam, eta, beta, t, a = sp.symbols("λ η β t a", positive=True)


@statement(
    "ntkdecay",
    "stationary point",
    "f at a point x by the kernel with the training samples, g = ∇L + λθ the gradient that is left there",
    "f == -(Θ_1*ell_prime + Θ_2*ell_2_prime)/(k*λ) + dot(grad(f), g)/(k*λ)",
    kind="proof",
    show={"ell_prime": "ℓ'_1", "ell_2_prime": "ℓ'_2", "grad": "∇"},
    scope="any parameters, any loss, symbolic k, two training samples (a sum, which is linear)",
)
def stationary_point(claim):
    f, one, two = (homogeneous(name, k) for name in "fhm")
    left = sp.Matrix(gradient(one)) * slope + sp.Matrix(gradient(two)) * slope_2
    kernels = {
        "Θ_1": dot(gradient(f), gradient(one)),
        "Θ_2": dot(gradient(f), gradient(two)),
    }
    g = left + lam * sp.Matrix(THETA)
    return claim(k, lam, slope, slope_2, f=f, g=g, **kernels, **GEOMETRY)


def _loss_along(scale, of):
    """∇f of a training sample at scale·φ, times ℓ' of it."""
    return [rescaled(p, scale) * slope for p in gradient(of)]


@statement(
    "ntkdecay",
    "without L2, flow",
    "gradient flow with L2 of θ = aφ, as a flow of φ without it",
    "a = exp(-λ*t); φ_dot == -a**(k - 2)*ell_prime*grad(f); output == a**k*f",
    kind="proof",
    show={"grad": "∇", "output": "f(aφ)"},
    scope="any loss of the output, symbolic k, one training sample; f and its gradient at φ",
)
def flow_without_l2(claim):
    f, phi = homogeneous("f", k), sp.Matrix(THETA)
    shrink = claim.value("a", λ=lam, t=t)
    moved, output = claim.sides(k, lam, t, slope, f=f, **GEOMETRY)
    theta_dot = sp.diff(shrink, t) * phi + shrink * moved
    flow = -sp.Matrix(_loss_along(shrink, f)) - lam * shrink * phi
    return [sp.powsimp(sp.expand(p)) for p in theta_dot - flow] + [output - rescaled(f, shrink)]


@statement(
    "ntkdecay",
    "without L2, steps",
    "a step of gradient descent with L2 of θ = aφ, as a step of φ without it on the loss of a^k f(φ)",
    "α = 1 - η*λ; a_next == α*a; rate == η/(a*a_next); φ_next == φ - rate*a**k*ell_prime*grad(f)",
    kind="proof",
    show={"grad": "∇"},
    scope="any loss, symbolic k, one training sample (a minibatch is a sum, which is linear); a^k ℓ' ∇f(φ) is the "
    "gradient of the loss of a^k f(φ)",
)
def steps_without_l2(claim):
    f, phi, p = homogeneous("f", k), sp.Matrix(THETA), sp.Symbol("p", positive=True)
    lam = 1 / (eta * (1 + p))  # any ηλ < 1
    known = {"λ": lam, "f": f, "φ": phi} | GEOMETRY
    shrunk, _, moved = claim.sides(k, a, eta, slope, **known)
    theta = a * phi - eta * (sp.Matrix(_loss_along(a, f)) + lam * a * phi)
    return [sp.powsimp(sp.expand(sp.simplify(q))) for q in shrunk * moved - theta]


@statement(
    "ntkdecay",
    "without L2, momentum",
    "heavy ball with L2 of θ = aφ with velocity v, as heavy ball of φ without it with velocity u = av − v_aθ",
    "v_a_next == β*v_a + λ*a; a_next == a - η*v_a_next; u_next == β*u + a*g; "
    "φ_next == φ - η*u_next/(a*a_next)",
    kind="proof",
    show={"g": "∇L(θ)"},
    scope="one coordinate, any η and λ of the step; a∇L(θ) is the gradient of the loss of a^k f(φ), and u = 0 where "
    "v = v_a = 0; Nesterov's step is not of this form",
)
def momentum_without_l2(claim):
    theta, v, v_a, g = sp.symbols("θ v v_a g", real=True)
    state = {"u": a * v - v_a * theta, "φ": theta / a}
    v_a_next, a_next, u_next, moved = claim.sides(a, lam, eta, beta, v_a, g, **state)
    v_next = beta * v + g + lam * theta
    after = theta - eta * v_next
    return [u_next - (a_next * v_next - v_a_next * after), sp.together(moved - after / a_next)]


@statement(
    "ntkdecay",
    "hierarchy",
    "the hierarchy of kernels with decay, K^(2) = ∇f·∇f and K^(r+1) = ∇K^(r)·∇f of degree d",
    "d = r*(k - 2) + 2; K_dot == -dot(grad(K), grad(f))*ell_prime - λ*d*K; "
    "dot(θ, grad(K_next)) == (d + k - 2)*K_next; dot(θ, grad(Θ)) == (2*k - 2)*Θ",
    kind="proof",
    show={"K": "K^(r)", "K_dot": "dK^(r)/dt", "K_next": "K^(r+1)", "grad": "∇"},
    scope="by induction, symbolic k and r: K^(r) any function of degree d, which r = 2 is and r + 1 after r; one "
    "training sample (a sum, which is linear)",
)
def hierarchy(claim):
    r = sp.Symbol("r", real=True)
    f, other = homogeneous("f", k), homogeneous("h", k)
    d = claim.value("d", k, r=r)
    tensor = homogeneous("F", r * (k - 2) + 2)
    following = dot(gradient(tensor), gradient(f))
    velocity = dot(
        gradient(tensor),
        [-g * slope - lam * p for g, p in zip(gradient(f), THETA, strict=True)],
    )
    base = dot(gradient(f), gradient(other))
    known = {"K": tensor, "K_dot": velocity, "K_next": following, "Θ": base, "f": f, "r": r}
    return [claim(k, lam, slope, **known, **GEOMETRY), d.subs(r, 2) - (2 * k - 2)]


@statement(
    "ntkdecay",
    "critical λ",
    "the rate at which a direction θ grows near f = 0, k = 2, and that of the best ReLU neuron",
    "rate == 2*G/dot(θ, θ) - λ; λ_c == s/sqrt(n)",
    kind="proof",
    show={"G": "(−ℓ'(0)·f_θ)", "s": "|Σ y relu(w·x)|"},
    scope="at a stationary direction of G on the sphere, where ∇G = 2G θ/‖θ‖²; a neuron v relu(w·x)/√n with |v| = ‖w‖, "
    "which is its best ratio",
)
def critical(claim):
    n, s, v, w = sp.symbols("n s v w", positive=True)
    grown, at = claim.sides(
        lam, n, s, G=v * w * s / sp.sqrt(n), θ=sp.Matrix([v, w]), dot=GEOMETRY["dot"]
    )
    flow = sp.Matrix([w, v]) * s / sp.sqrt(n) - lam * sp.Matrix([v, w])  # of v and |w|
    alike = {w: v}
    whole = grown.subs(alike)
    best = sp.diff(v * w / (v**2 + w**2), w).subs(alike)
    return [*(flow.subs(alike) - whole * sp.Matrix([v, v])), at - (whole + lam), best]


@statement(
    "ntkdecay",
    "critical λ, fold",
    "k > 2: the λ at which one mode f = βr^k of norm r is stationary, f where λ is largest, and how that falls with β",
    "λ == k*f*(y - f)/r**2; f_c == (k - 2)/(2*k - 2)*y; λ_c == β**(2/k)*s",
    kind="proof",
    show={"s": "λ_c(β = 1)"},
    scope="MSE of one sample, symbolic k = 2 + p; λ = −(dL/dr)/r, and stationary at f_c, where it is positive and 0 at "
    "both ends of the branch; β^(2/k) of any loss as well, as θ = β^(−1/k)φ shows",
)
def fold(claim):
    r, y, p = sp.symbols("r y p", positive=True)
    degree = 2 + p

    def of(f, r, beta=1, s=1):
        return claim.sides(k=degree, f=f, y=y, r=r, β=beta, s=s)

    f = beta * r**degree
    at, f_c, _ = of(f, r, beta)
    held = -sp.diff((y - f) ** 2 / 2, r) / r
    largest = sp.diff(at, r).subs(r, (f_c / beta) ** (1 / degree))
    unit = of(f_c, f_c ** (1 / degree))[0]
    folded, _, scaled = of(f_c, (f_c / beta) ** (1 / degree), beta, unit)
    return [
        sp.powsimp(sp.expand(at - held)),
        sp.simplify(largest),
        sp.simplify(folded / scaled) - 1,
    ]
