r"""The (a, w) representation of infinite width under L2, proved to give Theorem 1.

With θ = a θ_0 + J_0ᵀ w the network is f = a^k f_0 + a^{k−1} Θ_0 w, its Jacobian a^{k−1} J_0, and

.. math:: \dot a = -\lambda a, \qquad \dot w = -\lambda w - a^{k-1}\, \partial\ell/\partial f.
"""

from __future__ import annotations

import sympy as sp

from ntkdecay.symbolic.registry import statement

k = sp.Symbol("k", positive=True)
lam, eta, beta, t = sp.symbols("lambda eta beta t", positive=True)
f0, w, g, kernel, v_a, v_w = sp.symbols("f_0 w g Theta v_a v_w", real=True)
a = sp.Symbol("a", positive=True)


def _function(a, w):
    return a**k * f0 + a ** (k - 1) * kernel * w


@statement(
    "ntkdecay",
    "(a, w), flow",
    "ȧ = −λa, ẇ = −λw − a^{k−1} ℓ' give df/dt = −a^{2(k−1)} Θ_0 ℓ' − kλf, a = e^{−λt}: Theorem 1",
    kind="proof",
    mutants={
        "ẇ = −λw − a^k ℓ'": {"power": k},
        "ẇ = −kλw − …": {"decay": k},
        "f without a^{k−1}": {"readout": 0},
    },
    scope="any loss, one training output (Θ_0 w is linear in w), symbolic k",
)
def flow(power=k - 1, decay=1, readout=k - 1):
    f = a**k * f0 + a**readout * kernel * w
    velocity = sp.diff(f, a) * (-lam * a) + sp.diff(f, w) * (-decay * lam * w - a**power * g)
    decayed = sp.exp(-lam * t)
    return [
        velocity + a ** (2 * (k - 1)) * kernel * g + k * lam * f,
        sp.diff(decayed, t) + lam * decayed,
        sp.powsimp(decayed ** (2 * (k - 1)) - sp.exp(-2 * (k - 1) * lam * t)),
    ]


@statement(
    "ntkdecay",
    "(a, w), steps",
    "gradient descent is f ← α^k f − η α^{k−1} a^{2(k−1)} Θ_0 ℓ', α = 1 − ηλ, exactly",
    kind="proof",
    mutants={
        "α^{k−1} f": {"shrink": k - 1},
        "η α^k": {"step": k},
        "a^{k−1} Θ_0": {"kernel_power": k - 1},
    },
    scope="full batch, no momentum, any loss, symbolic k",
)
def steps(shrink=k, step=k - 1, kernel_power=2 * (k - 1)):
    alpha = sp.Symbol("alpha", positive=True)
    next_w = alpha * w - eta * a ** (k - 1) * g
    left = _function(alpha * a, next_w)
    right = alpha**shrink * _function(a, w) - eta * alpha**step * a**kernel_power * kernel * g
    return sp.expand(sp.expand_power_base(left - right))


@statement(
    "ntkdecay",
    "(a, w), momentum",
    "heavy ball on θ stays in the span: v = v_a θ_0 + J_0ᵀ v_w with the recursion of (v_a, v_w)",
    kind="proof",
    mutants={
        "v_a ← β v_a + kλa": {"a_force": k},
        "v_w without λw": {"w_decay": 0},
        "v_w with a^k ℓ'": {"power": k},
    },
    scope="coefficients of θ_0 and of J_0ᵀ compared; Nesterov's step θ − η(βv + gradient) too",
)
def momentum(a_force=1, w_decay=1, power=k - 1):
    theta_0, j_0 = sp.symbols("theta_0 J_0", real=True)
    theta, v = a * theta_0 + j_0 * w, v_a * theta_0 + j_0 * v_w
    force = lam * theta + a ** (k - 1) * j_0 * g
    v_next = beta * v + force
    force_a, force_w = a_force * lam * a, w_decay * lam * w + a**power * g
    next_a, next_w = beta * v_a + force_a, beta * v_w + force_w
    heavy = theta - eta * v_next - ((a - eta * next_a) * theta_0 + j_0 * (w - eta * next_w))
    nesterov = theta - eta * (beta * v_next + force)
    in_span = (a - eta * (beta * next_a + force_a)) * theta_0
    in_span += j_0 * (w - eta * (beta * next_w + force_w))
    return [v_next - next_a * theta_0 - j_0 * next_w, heavy, nesterov - in_span]


@statement(
    "ntkdecay",
    "(a, w), per layer",
    "per-layer λ_l: f = Π a_l f_0 + Σ_l (Π_{m≠l} a_m) Θ^{(l)} w_l decays at Σ λ_l, its kernel "
    "Σ_l (Π_{m≠l} a_m²) Θ^{(l)}",
    kind="proof",
    mutants={
        "each w_l decays at Σ λ": {"own_decay": False},
        "w_l driven by Π_m a_m": {"others_only": False},
    },
    scope="degree 1 in each layer, two to four layers; equal λ_l gives Theorem 1 with k layers",
)
def per_layer(own_decay=True, others_only=True):
    residuals = []
    for layers in (2, 3, 4):
        a, w, kernels = (sp.symbols(f"{name}1:{layers + 1}", positive=True) for name in "awK")
        l2 = sp.symbols(f"lambda1:{layers + 1}", positive=True)
        others = [sp.prod(a) / a_l for a_l in a]
        f = sp.prod(a) * f0 + sum(o * K * x for o, K, x in zip(others, kernels, w, strict=True))
        velocity, kernel = sp.Integer(0), sp.Integer(0)
        for a_l, w_l, l2_l, other, kernel_l in zip(a, w, l2, others, kernels, strict=True):
            decay = l2_l if own_decay else sum(l2)
            drive = other if others_only else sp.prod(a)
            velocity += sp.diff(f, a_l) * (-l2_l * a_l) + sp.diff(f, w_l) * (
                -decay * w_l - drive * g
            )
            kernel += other**2 * kernel_l
        residuals.append(sp.expand(velocity + kernel * g + sum(l2) * f))
    return residuals
