"""Fixed points of deep linear networks: (S11)–(S21) of Lewkowycz & Gur-Ari, and their solution.

The algebra is proved; the structure of a fixed point, (S13)–(S20), is checked on networks that
gradient descent has trained to rest.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp

from ntkdecay.symbolic.networks import relative
from ntkdecay.symbolic.registry import positive, statement

lam, beta, n = sp.symbols("lambda beta n", positive=True)


@statement(
    "l2",
    "(S11), (S12)",
    "∂L_tot/∂W^l_ab = λ W^l_ab + β (W^L…W^{l+1})_a (W^{l−1}…W^0 x)_b ℓ'",
    kind="proof",
    mutants={
        "β²": {"scale": beta**2},
        "−λ": {"decay": -lam},
        "a and b exchanged": {"transposed": True},
    },
    scope="L = 2, two hidden units, two inputs, one sample; ℓ = (f − y)²/2",
)
def s11(scale=beta, decay=lam, transposed=False):
    shapes, x = [(2, 2), (2, 2), (1, 2)], sp.Matrix(sp.symbols("x1:3"))
    weights = [
        sp.Matrix(*shape, sp.symbols(f"w{i}_1:{shape[0] * shape[1] + 1}", real=True))
        for i, shape in enumerate(shapes)
    ]
    f, y = beta * (weights[2] * weights[1] * weights[0] * x)[0], sp.Symbol("y")
    loss = (f - y) ** 2 / 2 + lam / 2 * sum((W.T * W).trace() for W in weights)
    # The vectors above and below each layer, (S12).
    above = [(weights[2] * weights[1]).T, weights[2].T, sp.Matrix([1])]
    below = [x, weights[0] * x, weights[1] * weights[0] * x]
    residuals = []
    for W, up, down in zip(weights, above, below, strict=True):
        outer = up * down.T
        outer = outer.T if transposed and outer.is_square else outer
        residuals.append(_gradient(loss, W) - decay * W - scale * outer * (f - y))
    return [sp.expand(r) for matrix in residuals for r in matrix]


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
    "at rest W^l = (W^L…W^{l+1}) ⊗ Ŵ^{l−1}, Ŵ^{l−1} = −(β/λ) W^{l−1}…W^0 Σ ℓ' x",
    kind="identity",
    tolerance=1e-10,
    mutants={"+β/λ": {"sign": -1.0}, "Ŵ^l": {"shift": 1}},
    scope="trained networks, L = 1, 2, 3",
)
def s13(sign=1.0, shift=0):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        depth, _, weights, _, _ = case
        _, _, above, hat = _parts(case, l2)
        uppers = [*above[1:], np.ones(1)]
        for layer, W in enumerate(weights):
            column = hat[min(layer + shift, depth)]
            if column.shape == (W.shape[1],):
                residuals.append(relative(sign * np.outer(uppers[layer], column), W))
    return residuals


@statement(
    "l2",
    "(S15)–(S18)",
    "(W^L…W^l)·Ŵ^{l−1} = f̃ = −(1/λ) Σ ℓ' f, and W^L…W^l = f̃^{L−l} Ŵ^{l−1}",
    kind="identity",
    tolerance=1e-10,
    mutants={
        "f̃ = +(1/λ) Σ ℓ' f": {"sign": 1.0},
        "f̃^{L−l+1}": {"power": lambda L, layer: L - layer + 1},
    },
    scope="trained networks, L = 1, 2, 3, every layer",
)
def s16(sign=-1.0, power=lambda L, layer: L - layer):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        slopes, f, above, hat = _parts(case, l2)
        f_tilde = sign * slopes @ f / l2
        for layer, (up, column) in enumerate(zip(above, hat, strict=True)):
            residuals.append(relative(up @ column, f_tilde))
            residuals.append(relative(f_tilde ** power(case[0], layer) * column, up))
    return residuals


@statement(
    "l2",
    "(S19), (S20)",
    "λ^{L+1}/β² = [−Σ ℓ' f]^{L−1} Σ ℓ' ℓ' x·x'",
    kind="proof",
    mutants={
        "[…]^L": {"power": lambda L: L},
        "λ^L": {"l2_power": lambda L: L},
        "1/β": {"beta_power": 1},
    },
    scope="from (S19) at l = 0, symbolic L; (S19) itself on trained networks in (S20), networks",
)
def s20(power=lambda L: L - 1, l2_power=lambda L: L + 1, beta_power=2):
    L, pull = sp.symbols("L S", positive=True)  # S = −Σ ℓ' f > 0
    f_tilde = pull / lam
    # (S19): f̃ = f̃^L ‖Ŵ^{−1}‖², ‖Ŵ^{−1}‖² = (β/λ)² Σ ℓ' ℓ' x·x'.
    squares = f_tilde ** (1 - L) * (lam / beta) ** 2
    return sp.powsimp(
        sp.expand_log(
            sp.log(lam ** l2_power(L) / beta**beta_power)
            - sp.log(pull ** power(L))
            - sp.log(squares),
            force=True,
        )
    )


@statement(
    "l2",
    "(S20), networks",
    "(S20) at trained networks",
    kind="identity",
    tolerance=1e-10,
    mutants={"[…]^L": {"power": lambda L: L}, "λ^L": {"l2_power": lambda L: L}},
    scope="L = 1, 2, 3",
)
def s20_networks(power=lambda L: L - 1, l2_power=lambda L: L + 1):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        depth, scale, _, x, _ = case
        slopes, f, _, _ = _parts(case, l2)
        right = (-slopes @ f) ** power(depth) * np.sum((x.T @ slopes) ** 2)
        residuals.append(relative(right, l2 ** l2_power(depth) / scale**2))
    return residuals


@statement(
    "l2",
    "(S20), scaling",
    "NTK normalization keeps (S20) free of n for λ ∝ n^{−L/(L+1)}",
    kind="proof",
    mutants={
        "n^{−(L+1)/L}": {"power": lambda L: -(L + 1) / L},
        "n^{−L/2}": {"power": lambda L: -L / 2},
    },
)
def s20_scaling(power=lambda L: -L / (L + 1)):
    L, constant = sp.symbols("L c", positive=True)
    left = (constant * n ** power(L)) ** (L + 1) * n**L
    return sp.simplify(sp.diff(sp.expand_log(sp.log(left), force=True), n))


@statement(
    "l2",
    "(S21)",
    "L = 1, x = y = 1: f = 1 − λ√n",
    kind="proof",
    mutants={"printed: λ√n = f − 1": {"sign": 1}, "f = 1 − λ n": {"power": 1}},
    scope="it solves (S20), and f̃ = −ℓ' f/λ, a squared norm, is positive below λ√n = 1",
)
def s21(sign=-1, power=sp.S.Half):
    below = sp.Symbol("q", positive=True)
    l2 = 1 / (sp.sqrt(n) * (1 + below))  # λ√n < 1
    f = 1 + sign * l2 * n**power
    f_tilde = -(f - 1) * f / l2
    return [sp.simplify(l2**2 * n - (f - 1) ** 2), positive(f_tilde)]


@statement(
    "ntkdecay",
    "deep linear, ridge",
    "(S20) closes to v = (XᵀX + I/ρ)^{-1} Xᵀy, ρ = (β²/λ) f̃^L, f̃ = (1/λ) Σ ρκỹ²/(1+ρκ)²",
    kind="identity",
    tolerance=1e-10,
    mutants={
        "f̃^{L+1}": {"power": lambda L: L + 1},
        "1/(1+ρκ)": {"square": 1},
        "XᵀX + ρI": {"inverse": False},
    },
    scope="trained networks, L = 1, 2, 3: ρ from the network's f̃, then v and f̃ from ρ",
)
def ridge(power=lambda L: L, square=2, inverse=True):
    l2, cases = _trained()
    residuals = []
    for case in cases:
        depth, scale, weights, x, y = case
        slopes, f, above, _ = _parts(case, l2)
        f_tilde = -slopes @ f / l2
        rho = scale**2 / l2 * f_tilde ** power(depth)
        shift = 1 / rho if inverse else rho
        v = np.linalg.solve(x.T @ x + shift * np.eye(x.shape[1]), x.T @ y)
        left, singular, _ = np.linalg.svd(x, full_matrices=False)
        z, labels = rho * singular**2, left.T @ y
        residuals.append(relative(v, scale * above[0]))
        residuals.append(relative(np.sum(z * labels**2 / (1 + z) ** square) / l2, f_tilde))
        residuals.append(relative(np.sum(weights[0] ** 2), f_tilde))
    return residuals


@statement(
    "ntkdecay",
    "deep linear, stability",
    "the Hessian's block at a fixed point has determinant 2ψ' Π(1 + z_i): stable where ψ' > 0",
    kind="proof",
    mutants={
        "ψ' = 1 + L⟨…⟩": {"sign": 1},
        "determinant ψ' Π": {"factor": 1},
        "weights v_i": {"weight": 1},
    },
    scope="two singular vectors, symbolic L; the block is the Hessian of the network whose hidden "
    "layers have one unit, restricted to equal upper layers; the full Hessian is in the tests",
)
def stability(sign=-1, factor=2, weight=2):
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
    average = sum(u_i**weight * (1 - z_i) / (1 + z_i) for u_i, z_i in zip(u, z, strict=True))
    slope = (1 + sign * L * average).subs(u2, sp.sqrt(1 - u1**2))
    return [at_rest, sp.simplify(block.det() - factor * slope * (1 + z1) * (1 + z2))]
