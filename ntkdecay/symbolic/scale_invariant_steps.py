"""Li, Lyu & Arora (2020), discrete steps: exponential schedules, momentum, AdamW.

The continuous-time statements are in `symbolic.intrinsic_lr`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import sympy as sp

from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import statement

eta, lam_e, c = sp.symbols("eta lambda_e c", positive=True)


def _toy(w):
    """x²/(x² + y² + z²) with a tilt: a scale-invariant loss with a generic gradient."""
    return (w[0] ** 2 + 0.3 * w[0] * w[1] - 0.2 * w[1] * w[2]) / (w @ w)


@statement(
    "intrinsic_lr",
    "Lemma B.4, steps",
    "w ← (1−λ_e)w − η∇L has the directions of w ← w − η(1−λ_e)^{−2t−1} ∇L from the same start",
    kind="identity",
    tolerance=1e-11,
    mutants={
        "printed: (1−λ_e)^{−2t}": {"exponent": lambda t: -2 * t},
        "(1−λ_e)^{−t}": {"exponent": lambda t: -t},
    },
    scope="40 steps of gradient descent on a tilted quotient of quadratics; with the printed "
    "exponent the two agree after η is divided by 1 − λ_e, that is from another start",
)
def exponential_steps(exponent=lambda t: -2 * t - 1):
    rate, decay, slope = 0.1, 0.02, jax.jit(jax.grad(_toy))
    decayed = growing = jnp.array([1.0, -0.7, 0.4])
    for step in range(40):
        decayed = (1 - decay) * decayed - rate * slope(decayed)
        growing = growing - rate * (1 - decay) ** exponent(step) * slope(growing)
    return relative(decayed / jnp.linalg.norm(decayed), growing / jnp.linalg.norm(growing))


@statement(
    "intrinsic_lr",
    "C.1",
    "heavy ball with L2 is w' − (1+β−λ_e)w + βw⁻ = −η∇L, and η drops out for w/√η",
    kind="proof",
    mutants={
        "1 + β + λ_e": {"decay": -1},
        "w/η": {"power": 1},
        "v ← βv + (1−β)(∇L + λw)": {"damping": True},
    },
    scope="one coordinate of any scale-invariant loss: ∇L(√η w') = ∇L(w')/√η",
)
def momentum_form(decay=1, power=sp.S.Half, damping=False):
    beta, slope, now, before = sp.symbols("beta g w w_-", real=True)
    velocity = (before - now) / eta  # v_t, since w_t = w_{t−1} − η v_t
    force = slope + lam_e / eta * now
    after = now - eta * (beta * velocity + ((1 - beta) if damping else 1) * force)
    left = after - (1 + beta - decay * lam_e) * now + beta * before
    # In w' = w/η^power the gradient at w is that at w', over η^power.
    rescaled_rate = eta * (1 / eta**power) / eta**power
    return [sp.expand(left + eta * slope), sp.simplify(rescaled_rate - 1)]


@statement(
    "intrinsic_lr",
    "C.1, text",
    "for slowly varying gradients heavy ball moves like SGD with learning rate η/(1−β)",
    kind="proof",
    mutants={
        "printed: ηλ/(1−γ)": {"extra": sp.Symbol("lambda", positive=True)},
        "η(1−β)": {"power": 1},
    },
    scope="the fixed point of v ← βv + g at constant g",
)
def momentum_rate(extra=1, power=-1):
    beta, slope, v = sp.symbols("beta g v", positive=True)
    settled = sp.solve(beta * v + slope - v, v)[0]
    return sp.simplify(eta * settled - eta * extra * (1 - beta) ** power * slope)


@statement(
    "intrinsic_lr",
    "Theorem C.2",
    "AdamW, ε = 0, scale-invariant loss: W_0 and α times C leave the function unchanged",
    kind="identity",
    tolerance=1e-10,
    mutants={
        "α unchanged": {"rate_power": 0},
        "α times C²": {"rate_power": 2},
        "ε = 0.01": {"eps": 1e-2},
        "L2 in the gradient (line 6)": {"coupled": True},
    },
    scope="100 steps on a tilted quotient of quadratics, C = 3.7; the step from t to t + 1 is "
    "exact: g scales by 1/C, so m̂/√v̂ does not",
)
def theorem_c_2(rate_power=1, eps=0.0, coupled=False):
    slope = jax.jit(jax.grad(_toy))

    def run(scale, rate, decay=0.1):
        w = scale * jnp.array([1.0, -0.7, 0.4])
        m = v = jnp.zeros(3)
        for step in range(1, 101):
            g = slope(w) + (decay * w if coupled else 0.0)
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.99**step)
            w = w - (rate * m_hat / (jnp.sqrt(v_hat) + eps) + 0.01 * (0 if coupled else w))
        return w

    scale = 3.7
    return relative(run(scale, 0.02 * scale**rate_power) / scale, run(1.0, 0.02))


@statement(
    "intrinsic_lr",
    "Theorem C.2, proof",
    "α m̂/√v̂ is C times larger in the rescaled history, as C θ_{T+1} = θ'_{T+1} needs",
    kind="proof",
    mutants={"printed: equal in both": {"factor": 1}},
)
def theorem_c_2_step(factor=c):
    first, second, alpha = sp.symbols("m v alpha", positive=True)
    update = alpha * first / sp.sqrt(second)
    # g' = g/C: moments scale with C^{−1} and C^{−2}, α' = Cα.
    rescaled_update = c * alpha * (first / c) / sp.sqrt(second / c**2)
    return sp.simplify(rescaled_update - factor * update)
