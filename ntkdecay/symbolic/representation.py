r"""The (a, w) representation of infinite width under L2, proved to give Theorem 1.

With θ = a θ_0 + J_0ᵀ w the network is f = a^k f_0 + a^{k−1} Θ_0 w, its Jacobian a^{k−1} J_0, and

.. math:: \dot a = -\lambda a, \qquad \dot w = -\lambda w - a^{k-1}\, \partial\ell/\partial f.
"""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.registry import statement

k, a, lam, eta, beta, t = sp.symbols("k a λ η β t", positive=True)
f0, w, g, kernel, v_a, v_w = sp.symbols("f_0 w ell_prime Θ_0 v_a v_w", real=True)


@statement(
    "ntkdecay",
    "(a, w), flow",
    "the flow of (a, w) gives Theorem 1 for f",
    "f == a**k*f_0 + a**(k - 1)*Θ_0*w; a_dot == -λ*a; w_dot == -λ*w - a**(k - 1)*ell_prime; "
    "f_dot == -a**(2*(k - 1))*Θ_0*ell_prime - k*λ*f; a_t == exp(-λ*t)",
    kind="proof",
    scope="any loss, one training output (Θ_0 w is linear in w), symbolic k",
)
def flow(claim):
    f, a_dot, w_dot, f_dot, decayed = claim.sides(k, a, lam, t, f0, w, g, kernel)
    velocity = sp.diff(f, a) * a_dot + sp.diff(f, w) * w_dot
    return [
        velocity - f_dot,
        f.subs({a: 1, w: 0}) - f0,
        sp.diff(f, w).subs(a, 1) - kernel,
        sp.diff(decayed, t) - a_dot.subs(a, decayed),
        decayed.subs(t, 0) - 1,
    ]


@statement(
    "ntkdecay",
    "(a, w), steps",
    "gradient descent in one step of f, exactly",
    "α = 1 - η*λ; f_next == α**k*f - η*α**(k - 1)*a**(2*(k - 1))*Θ_0*ell_prime",
    kind="proof",
    scope="full batch, no momentum, any loss, symbolic k",
)
def steps(claim):
    def function(a, w):
        return a**k * f0 + a ** (k - 1) * kernel * w

    p = sp.Symbol("p", positive=True)
    rate = 1 / (lam * (1 + p))  # any ηλ < 1
    (after,) = claim.sides(k, a, lam, g, kernel, η=rate, f=function(a, w))
    shrink = 1 - rate * lam
    next_w = shrink * w - rate * a ** (k - 1) * g
    return sp.expand(sp.expand_power_base(sp.factor(after - function(shrink * a, next_w))))


@statement(
    "ntkdecay",
    "(a, w), momentum",
    "heavy ball on θ = a θ_0 + J_0ᵀ w stays in the span, v = v_a θ_0 + J_0ᵀ v_w",
    "v_a_next == β*v_a + λ*a; v_w_next == β*v_w + λ*w + a**(k - 1)*ell_prime; "
    "a_next == a - η*v_a_next; w_next == w - η*v_w_next",
    kind="proof",
    scope="coefficients of θ_0 and of J_0ᵀ compared; Nesterov's step θ − η(βv + gradient) too",
)
def momentum(claim):
    theta_0, j_0 = sp.symbols("theta_0 J_0", real=True)
    theta, v = a * theta_0 + j_0 * w, v_a * theta_0 + j_0 * v_w
    force = lam * theta + a ** (k - 1) * j_0 * g
    v_next = beta * v + force
    next_a, next_w, after_a, after_w = claim.sides(k, a, lam, eta, beta, w, g, v_a, v_w)
    heavy = theta - eta * v_next - (after_a * theta_0 + j_0 * after_w)
    forces = next_a - beta * v_a, next_w - beta * v_w
    nesterov = (a - eta * (beta * next_a + forces[0])) * theta_0
    nesterov += j_0 * (w - eta * (beta * next_w + forces[1]))
    looked_ahead = theta - eta * (beta * v_next + force)
    return [v_next - next_a * theta_0 - j_0 * next_w, heavy, looked_ahead - nesterov]


@statement(
    "ntkdecay",
    "(a, w), per layer",
    "a λ for each of three layers: f, its kernel, and their velocities",
    "f == a_1*a_2*a_3*f_0 + a_2*a_3*Θ_1*w_1 + a_1*a_3*Θ_2*w_2 + a_1*a_2*Θ_3*w_3; "
    "Θ == (a_2*a_3)**2*Θ_1 + (a_1*a_3)**2*Θ_2 + (a_1*a_2)**2*Θ_3; "
    "w_dot_1 == -λ_1*w_1 - a_2*a_3*ell_prime; "
    "f_dot == -Θ*ell_prime - (λ_1 + λ_2 + λ_3)*f",
    kind="proof",
    scope="degree 1 in each of three layers, ȧ_l = −λ_l a_l, w_2 and w_3 as w_1 by exchange of the "
    "layers; equal λ_l gives Theorem 1 with k layers",
)
def per_layer(claim):
    layers = [
        [sp.Symbol(f"{name}_{i}", positive=True) for name in ("a", "w", "Θ", "λ")] for i in "123"
    ]
    flat = [symbol for layer in layers for symbol in layer]
    f, _, first, f_dot = claim.sides(*flat, f0, g)
    velocity = sp.Integer(0)
    for i, (a_l, w_l, _, l2_l) in enumerate(layers):
        exchange = dict(zip(layers[0] + layers[i], layers[i] + layers[0], strict=True))
        w_dot = first.subs(exchange, simultaneous=True) if i else first
        velocity += sp.diff(f, a_l) * (-l2_l * a_l) + sp.diff(f, w_l) * w_dot
    at_start = {symbol: 1 if symbol.name[0] == "a" else 0 for symbol in flat}
    return [sp.expand(velocity - f_dot), f.subs(at_start) - f0]


@statement(
    "ntkdecay",
    "(a, w), blocks",
    "a λ and a degree for each of two blocks of parameters: f, its kernel, and their velocities",
    "f == a_1**k_1*a_2**k_2*f_0 + a_1**(k_1 - 1)*a_2**k_2*Θ_1*w_1 + a_1**k_1*a_2**(k_2 - 1)*Θ_2*w_2; "
    "Θ == (a_1**(k_1 - 1)*a_2**k_2)**2*Θ_1 + (a_1**k_1*a_2**(k_2 - 1))**2*Θ_2; "
    "w_dot_1 == -λ_1*w_1 - a_1**(k_1 - 1)*a_2**k_2*ell_prime; "
    "f_dot == -Θ*ell_prime - (k_1*λ_1 + k_2*λ_2)*f",
    kind="proof",
    scope="symbolic degrees, 0 included, ȧ_b = −λ_b a_b, w_2 as w_1 by exchange of the blocks; one block may stand for "
    "several by the same lines",
)
def blocks(claim):
    both = [
        [sp.Symbol(f"{name}_{i}", positive=True) for name in ("a", "w", "Θ", "λ", "k")]
        for i in "12"
    ]
    first, second = both
    f, _, w_dot, f_dot = claim.sides(*first, *second, f0, g)
    exchange = dict(zip(first + second, second + first, strict=True))
    velocity = sp.Integer(0)
    for (a_b, w_b, _, l2_b, _), change in zip(
        both, (w_dot, w_dot.subs(exchange, simultaneous=True)), strict=True
    ):
        velocity += sp.diff(f, a_b) * (-l2_b * a_b) + sp.diff(f, w_b) * change
    at_start = {one[0]: 1 for one in both} | {one[1]: 0 for one in both}
    return [sp.powsimp(sp.expand(velocity - f_dot)), f.subs(at_start) - f0]


@statement(
    "ntkdecay",
    "k = 0, first instability",
    "when gradient descent on a scale-invariant network under L2 becomes unstable: its kernel grows",
    "growth == exp(2*λ*t); t_unstable == log(2/(η*γ))/(2*λ)",
    kind="proof",
    scope="a^{2(k−1)} at k = 0 with a = e^{−λt}; steps on MSE are stable while ηγ times it is below 2 (λ ≪ γ)",
)
def first_instability(claim):
    gamma = sp.Symbol("γ", positive=True)
    growth, at = claim.sides(lam, eta, gamma, t)
    kept = (sp.exp(-lam * t) ** (2 * (k - 1))).subs(k, 0)
    return [sp.simplify(growth - kept), sp.simplify(eta * gamma * growth.subs(t, at) - 2)]
