"""Li, Lyu & Arora (2020), discrete steps: exponential schedules, momentum, AdamW.

The continuous-time statements are in `symbolic.intrinsic_lr`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp

from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import statement

eta, lam_e = sp.symbols("η λ_e", positive=True)
START = np.array([1.0, -0.7, 0.4])


def _toy(w):
    """x²/(x² + y² + z²) with a tilt: a scale-invariant loss with a generic gradient."""
    return (w[0] ** 2 + 0.3 * w[0] * w[1] - 0.2 * w[1] * w[2]) / (w @ w)


@functools.cache
def _slope():
    compiled = jax.jit(jax.grad(_toy))
    return lambda w: np.asarray(compiled(jnp.asarray(w)))


@statement(
    "intrinsic_lr",
    "Lemma B.4, steps",
    "steps with L2, and steps without it at a growing learning rate, with the same directions",
    "w_next == (1 - λ_e)*w - η*L_w; v_next == v - η*(1 - λ_e)**(-2*t - 1)*L_v",
    kind="identity",
    tolerance=1e-11,
    refuted={
        "printed: (1−λ_e)^{−2t}": "w_next == (1 - λ_e)*w - η*L_w; "
        "v_next == v - η*(1 - λ_e)**(-2*t)*L_v"
    },
    show={"L_w": "∇L(w)", "L_v": "∇L(v)"},
    scope="41 steps of gradient descent on a tilted quotient of quadratics; with the printed "
    "exponent the two agree after η is divided by 1 − λ_e, that is from another start",
)
def exponential_steps(claim):
    w = v = START
    for step in range(41):
        w, v = claim.sides(λ_e=0.02, η=0.1, t=step, w=w, v=v, L_w=_slope()(w), L_v=_slope()(v))
    return relative(w / np.linalg.norm(w), v / np.linalg.norm(v))


@statement(
    "intrinsic_lr",
    "C.1",
    "heavy ball with L2 in one equation, and the coordinate u in which η drops out of it",
    "w_after - (1 + β - λ_e)*w + β*w_before == -η*g; u == w/sqrt(η)",
    kind="proof",
    refuted={
        "damped, v ← βv + (1−β)(∇L + λw)": "w_after - (1 + β - (1 - β)*λ_e)*w + β*w_before "
        "== -(1 - β)*η*g; u == w/sqrt(η)"
    },
    show={"g": "∇L(w)"},
    survivors={
        "w/√η → −w/√η": "−u has the equation of u: gradients are odd under reflection of "
        "the coordinate"
    },
    scope="one coordinate of any scale-invariant loss: ∇L(√η u) = ∇L(u)/√η",
)
def momentum_form(claim):
    beta, slope, now, before = sp.symbols("β g w w_before", real=True)
    velocity = (before - now) / eta  # v_t, since w_t = w_{t−1} − η v_t
    after = now - eta * (beta * velocity + slope + lam_e / eta * now)
    form, frame = claim.relations(beta, eta, lam_e, slope, now, before, w_after=after, u=0)
    scale = frame.right / now
    # u's force is scale · η ∇L(w), and ∇L(w) = scale · ∇L(u).
    return [form.residual, scale**2 * eta - 1]


@statement(
    "intrinsic_lr",
    "C.1, text",
    "the learning rate of SGD like which heavy ball moves where gradients vary slowly",
    "rate == η/(1 - β)",
    kind="proof",
    refuted={"printed: ηλ/(1−γ)": "rate == η*λ/(1 - β)"},
    scope="the fixed point of v ← βv + g at constant g",
)
def momentum_rate(claim):
    beta, slope, v, lam = sp.symbols("β g v λ", positive=True)
    settled = sp.solve(beta * v + slope - v, v)[0]
    return claim(eta, beta, lam, rate=eta * settled / slope)


@statement(
    "intrinsic_lr",
    "Theorem C.2",
    "what to change together and leave the function of AdamW on a scale-invariant loss unchanged, "
    "with its ε and its share of λW in the gradient",
    "ε = 0; coupled = 0; W_prime == C*W; α_prime == C*α",
    kind="identity",
    tolerance=1e-10,
    refuted={
        "α unchanged": "ε = 0; coupled = 0; W_prime == C*W; α_prime == α",
        "ε = 0.01": "ε = 0.01; coupled = 0; W_prime == C*W; α_prime == C*α",
        "L2 in the gradient (line 6)": "ε = 0; coupled = 0.1; W_prime == C*W; α_prime == C*α",
    },
    scope="100 steps on a tilted quotient of quadratics, C = 3.7; the step from t to t + 1 is "
    "exact: g scales by 1/C, so m̂/√v̂ does not",
)
def theorem_c_2(claim):
    known = {"C": 3.7, "α": 0.02, "W": START}
    eps, coupled = (claim.value(name, **known) for name in ("ε", "coupled"))
    start, rate = claim.sides(**known)
    return relative(_adamw(start, rate, eps, coupled), _adamw(START, 0.02, eps, coupled))


def _adamw(w, rate, eps, coupled):
    """The direction after 100 steps with decay 0.01, first moments at 0.9, second at 0.99."""
    return np.asarray(_adamw_path(jnp.asarray(w), float(rate), float(eps), float(coupled)))


@jax.jit
def _adamw_path(w, rate, eps, coupled):
    def step(carry, count):
        w, m, v = carry
        g = jax.grad(_toy)(w) + coupled * w
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        m_hat, v_hat = m / (1 - 0.9**count), v / (1 - 0.99**count)
        w = w - (rate * m_hat / (jnp.sqrt(v_hat) + eps) + 0.01 * w)
        return (w, m, v), None

    start = (w, jnp.zeros(3), jnp.zeros(3))
    final = jax.lax.scan(step, start, jnp.arange(1.0, 101.0))[0][0]
    return final / jnp.linalg.norm(final)


@statement(
    "intrinsic_lr",
    "Theorem C.2, proof",
    "the update in the rescaled history (m' = m/C, v' = v/C², α' = Cα), as Cθ_{T+1} = θ'_{T+1} needs",
    "α_prime*m_prime/sqrt(v_prime) == C*α*m/sqrt(v)",
    kind="proof",
    refuted={"printed: equal in both": "α_prime*m_prime/sqrt(v_prime) == α*m/sqrt(v)"},
)
def theorem_c_2_step(claim):
    m, v, alpha, C = sp.symbols("m v α C", positive=True)
    return claim(m, v, alpha, C, α_prime=C * alpha, m_prime=m / C, v_prime=v / C**2)
