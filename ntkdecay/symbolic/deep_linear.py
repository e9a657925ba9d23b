"""Fixed points of deep linear networks: (S11)–(S21) of Lewkowycz & Gur-Ari, and their solution.

The algebra is proved; the structure of a fixed point, (S13)–(S20), is checked on networks that
gradient descent has trained to rest.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp

from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import statement
from ntkdecay.symbolic.verdicts import positive

lam, beta, n = sp.symbols("λ β n", positive=True)


@statement(
    "l2",
    "(S11), (S12)",
    "gradient of the total loss in W_l, by the product above of the layers over it (a vector) and "
    "below of those under it with the input",
    "grad_W == λ*W + β*outer(above, below)*ell_prime",
    kind="proof",
    show={"grad_W": "∂L_tot/∂W_l", "W": "W_l"},
    scope="L = 2, two hidden units, two inputs, one sample; ℓ = (f − y)²/2",
)
def s11(claim):
    shapes, x = [(2, 2), (2, 2), (1, 2)], sp.Matrix(sp.symbols("x1:3"))
    weights = [
        sp.Matrix(*shape, sp.symbols(f"w{i}_1:{shape[0] * shape[1] + 1}", real=True))
        for i, shape in enumerate(shapes)
    ]
    f, y = beta * (weights[2] * weights[1] * weights[0] * x)[0], sp.Symbol("y")
    loss = (f - y) ** 2 / 2 + lam / 2 * sum((W.T * W).trace() for W in weights)
    # The vectors above and below each layer, (S12).
    aboves = [(weights[2] * weights[1]).T, weights[2].T, sp.Matrix([1])]
    belows = [x, weights[0] * x, weights[1] * weights[0] * x]
    residuals = []
    for W, above, below in zip(weights, aboves, belows, strict=True):
        known = {"grad_W": _gradient(loss, W), "W": W, "ell_prime": f - y}
        known |= {"above": above, "below": below, "outer": lambda a, b: a * b.T}
        residuals.append(claim(lam, beta, **known))
    return residuals


def _gradient(loss, weights):
    return weights.applyfunc(lambda w: sp.diff(loss, w))


@functools.cache
def _trained(l2=0.08, width=4, seed=0):
    """Networks at rest for L = 1, 2, 3: (L, β, weights, inputs, labels)."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=5)
    cases = []
    for depth in (1, 2, 3):
        scale = width ** (-depth / 2)
        sizes = [3, *[width] * depth, 1]
        start = [jnp.asarray(rng.normal(size=(o, i))) for i, o in itertools.pairwise(sizes)]

        def loss(weights, scale=scale):
            hidden = jnp.asarray(x).T
            for W in weights:
                hidden = W @ hidden
            residual = scale * hidden[0] - y
            return 0.5 * residual @ residual + 0.5 * l2 * sum(jnp.sum(W**2) for W in weights)

        @jax.jit
        def descend(weights, loss=loss):
            def step(weights, _):
                slopes = jax.grad(loss)(weights)
                return [W - 0.05 * g for W, g in zip(weights, slopes, strict=True)], None

            return jax.lax.scan(step, weights, length=20_000)[0]

        cases.append((depth, scale, [np.asarray(W) for W in descend(start)], x, y))
    return l2, cases


def _parts(case, l2):
    """ℓ' and f at the samples, the products above and below each layer, Ŵ^{l−1} of (S14)."""
    depth, scale, weights, x, y = case
    product = functools.reduce(lambda below, W: W @ below, weights)
    f = scale * (x @ product[0])
    slopes = f - y
    above = [functools.reduce(np.matmul, weights[: i - 1 : -1])[0] for i in range(1, depth + 1)]
    above.insert(0, product[0])
    below = [np.eye(x.shape[1])]
    for W in weights[:-1]:
        below.append(W @ below[-1])
    hat = [-scale / l2 * B @ (x.T @ slopes) for B in below]  # hat[l] is Ŵ^{l−1}
    return slopes, f, above, hat


@statement(
    "l2",
    "(S13), (S14)",
    "every layer at rest: the product above it with W_hat, the layers under it acting on Σ_x ℓ' x",
    "W == outer(above, W_hat); W_hat == -β/λ*dot(below, Σ)",
    kind="identity",
    tolerance=1e-10,
    show={"Σ": "Σ_x ℓ' x", "W": "W_l", "W_hat": "Ŵ_{l−1}"},
    scope="trained networks, L = 1, 2, 3",
)
def s13(claim):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        _, scale, weights, x, _ = case
        slopes, _, above, _ = _parts(case, l2)
        below = np.eye(x.shape[1])
        for W, up in zip(weights, [*above[1:], np.ones(1)], strict=True):
            # Ŵ itself is read off W, along the vector above it.
            known = {"below": below, "Σ": x.T @ slopes, "W_hat": up @ W / (up @ up)}
            known |= {"outer": np.outer, "dot": np.dot, "W": W, "above": up}
            relations = claim.relations(β=scale, λ=l2, **known)
            residuals += [relative(r.right, r.left) for r in relations]
            below = W @ below
    return residuals


@statement(
    "l2",
    "(S15)–(S19)",
    "the one number f_tilde at rest: U_l = W^L…W^l, V_l = Ŵ^{l−1}",
    "f_tilde == -F/λ; dot(U_l, V_l) == f_tilde; U_l == f_tilde**(L - l)*V_l; "
    "f_tilde == f_tilde**(L - l)*dot(V_l, V_l)",
    kind="identity",
    tolerance=1e-10,
    show={"F": "Σ ℓ' f"},
    scope="trained networks, L = 1, 2, 3, every layer; f̃ is the squared norm of each layer",
)
def s16(claim):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        slopes, f, above, hat = _parts(case, l2)
        f_tilde = np.sum(case[2][0] ** 2)
        for layer, (up, column) in enumerate(zip(above, hat, strict=True)):
            known = {"f_tilde": f_tilde, "F": slopes @ f, "λ": l2, "dot": np.dot}
            known |= {"L": float(case[0]), "l": float(layer), "U_l": up, "V_l": column}
            residuals += [relative(r.right, r.left) for r in claim.relations(**known)]
    return residuals


_S20 = "λ**(L + 1)/β**2 == (-F)**(L - 1)*X"
_S20_SHOW = {"F": "Σ ℓ' f", "X": "Σ ℓ' ℓ' x·x'"}


@statement(
    "l2",
    "(S20)",
    "the equation of every nontrivial fixed point",
    _S20,
    kind="proof",
    show=_S20_SHOW,
    scope="from (S19) at l = 0 with f̃ = −Σ ℓ' f/λ and ‖Ŵ^{−1}‖² = (β/λ)² Σ ℓ' ℓ' x·x', symbolic L",
)
def s20(claim):
    L, pull = sp.symbols("L S", positive=True)  # S = −Σ ℓ' f > 0
    f_tilde = pull / lam
    squares = f_tilde ** (1 - L) * (lam / beta) ** 2
    (relation,) = claim.relations(lam, beta, L, F=-pull, X=squares)
    ratio = sp.log(relation.left / relation.right)
    return sp.simplify(sp.expand_log(ratio, force=True))


@statement(
    "l2",
    "(S20), networks",
    "the same at trained networks",
    _S20,
    kind="identity",
    tolerance=1e-10,
    show=_S20_SHOW,
    scope="L = 1, 2, 3",
)
def s20_networks(claim):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        depth, scale, _, x, _ = case
        slopes, f, _, _ = _parts(case, l2)
        known = {"L": depth, "F": slopes @ f, "X": np.sum((x.T @ slopes) ** 2)}
        (relation,) = claim.relations(λ=l2, β=scale, **known)
        residuals.append(relative(relation.right, relation.left))
    return residuals


@statement(
    "l2",
    "(S20), scaling",
    "what λ has to be at width n for the left-hand side of (S20) to be free of n in NTK "
    "normalization",
    "β == n**(-L/2); λ == c*n**(-L/(L + 1))",
    kind="proof",
    survivors={
        "c → 2c": "the constant is free",
        "cn^{−L/(L + 1)} → 1.05 cn^{−L/(L + 1)}": "the constant is free",
        "n → 2n (2)": "the constant is free",
    },
)
def s20_scaling(claim):
    L, constant = sp.symbols("L c", positive=True)
    beta, l2 = claim.sides(L, n, constant)
    left = l2 ** (L + 1) / beta**2
    return [
        sp.simplify(sp.diff(sp.expand_log(sp.log(left), force=True), n)),
        beta.subs(n, 1) - 1,
        positive(l2),
    ]


@statement(
    "l2",
    "(S21)",
    "the fixed point of L = 1, one sample x = y = 1",
    "f == 1 - λ*sqrt(n)",
    kind="proof",
    refuted={"printed: λ√n = f − 1": "λ*sqrt(n) == f - 1"},
    scope="it solves (S20), and f̃ = −ℓ' f/λ, a squared norm, is positive below λ√n = 1",
)
def s21(claim):
    below = sp.Symbol("q", positive=True)
    l2, f = 1 / (sp.sqrt(n) * (1 + below)), sp.Symbol("f")  # λ√n < 1
    (relation,) = claim.relations(n, f, λ=l2)
    (f,) = sp.solve(relation.residual, f)
    f_tilde = -(f - 1) * f / l2
    return [sp.simplify(l2**2 * n - (f - 1) ** 2), positive(f_tilde)]


@statement(
    "ntkdecay",
    "deep linear, ridge",
    "every fixed point is a ridge solution v with a self-consistent ridge 1/ρ; z = ρκ, κ the "
    "spectrum of XXᵀ, y_tilde the labels in its basis",
    "ρ = β**2/λ*f_tilde**L; v == dot(inv(XX + I/ρ), Xy); "
    "f_tilde == sum(ρ*κ*y_tilde**2/(1 + ρ*κ)**2)/λ",
    kind="identity",
    tolerance=1e-10,
    show={"XX": "XᵀX", "Xy": "Xᵀy", "sum": "Σ", "inv": "inverse"},
    scope="trained networks, L = 1, 2, 3: ρ from the network's f̃, then v and f̃ from ρ",
)
def ridge(claim):
    l2, cases = _trained()
    residuals = []
    for depth, scale, weights, x, y in cases:
        product = functools.reduce(lambda below, W: W @ below, weights)
        left, singular, _ = np.linalg.svd(x, full_matrices=False)
        known = {"XX": x.T @ x, "Xy": x.T @ y, "I": np.eye(x.shape[1]), "inv": np.linalg.inv}
        known |= {"dot": np.dot, "sum": np.sum, "κ": singular**2, "y_tilde": left.T @ y}
        known |= {"f_tilde": np.sum(weights[0] ** 2), "v": scale * product[0]}
        relations = claim.relations(L=depth, β=scale, λ=l2, **known)
        residuals += [relative(r.right, r.left) for r in relations]
    return residuals


@statement(
    "ntkdecay",
    "deep linear, stability",
    "determinant of the Hessian's block at a fixed point, in units of λ: stable where ψ' > 0",
    "ψ_prime = 1 - L*(v_1**2*(1 - z_1)/(1 + z_1) + v_2**2*(1 - z_2)/(1 + z_2)); "
    "determinant == 2*ψ_prime*(1 + z_1)*(1 + z_2)",
    kind="proof",
    scope="two singular vectors with ‖v‖ = 1, symbolic L; the block is the Hessian of the network "
    "whose hidden layers have one unit, restricted to equal upper layers; the full Hessian is in "
    "the tests",
)
def stability(claim):
    at_rest, determinant, names = _stability_block()
    return [at_rest, claim(determinant=determinant, **names)]


@functools.cache
def _stability_block():
    """The slopes at the fixed point, the determinant, and the symbols in it."""
    L, z1, z2, u1, u2 = sp.symbols("L z1 z2 u1 u2", positive=True)
    z, u = (z1, z2), (u1, u2)
    # The network β s^L w·x at w = s u, with λρ = β² s^{2L} and z = ρκ; derivatives in units of λ.
    s, w = sp.Symbol("s", positive=True), sp.symbols("w1 w2", real=True)
    kappa = sp.symbols("kappa1:3", positive=True)
    at = {w[0]: s * u1, w[1]: s * u2, kappa[0]: z1 * lam / (beta**2 * s ** (2 * L))}
    at[kappa[1]] = z2 * lam / (beta**2 * s ** (2 * L))
    # ỹ/√κ such that the network is at rest: ṽ = z/(1 + z) ỹ/√κ with v = β s^{L+1} u.
    labels = [beta * s ** (L + 1) * u_i * (1 + z_i) / z_i for u_i, z_i in zip(u, z, strict=True)]
    q = sp.Symbol("q", positive=True)  # √L times the common norm of the upper layers
    scale = beta * (q / sp.sqrt(L)) ** L
    targets = sp.symbols("y1 y2", real=True)
    loss = lam / 2 * (q**2 + sum(w_i**2 for w_i in w))
    for kappa_i, w_i, y_i in zip(kappa, w, targets, strict=True):
        loss += kappa_i * (scale * w_i - y_i) ** 2 / 2
    variables = (q, *w)
    values = {**dict(zip(targets, labels, strict=True)), **at}

    def evaluated(expression):
        return sp.simplify(
            expression.subs(q, sp.sqrt(L) * s).subs(values).subs(u2, sp.sqrt(1 - u1**2))
        )

    at_rest = [evaluated(sp.diff(loss, v)) for v in variables]
    block = sp.Matrix(3, 3, lambda i, j: evaluated(sp.diff(loss, variables[i], variables[j]) / lam))
    names = {"L": L, "v_1": u1, "v_2": sp.sqrt(1 - u1**2), "z_1": z1, "z_2": z2}
    determinant: Any = block.det()
    return at_rest, sp.simplify(determinant), names
