r"""The noise of minibatches in the function of an infinitely wide network, proved over all minibatches there are."""

from __future__ import annotations

import itertools

import sympy as sp

from ntkdecay.symbolic.registry import statement

SIZES = ((3, 1), (3, 2), (4, 2), (4, 3))  # samples and minibatch


@statement(
    "ntkdecay",
    "SGD, noise",
    "covariance of the minibatch's gradient D r on a sample and on two, D the weights 1/B of a minibatch drawn with or without replacement",
    "with_ = 1/(B*N); without = (N - B)/(B*N*(N - 1)); "
    "C_ii == s*R_ii*(1 - 1/N); C_ij == -s*R_ij/N; s_1 == with_; s_2 == without",
    kind="proof",
    show={"with_": "s_with", "without": "s_without", "s_1": "s (with)", "s_2": "s (without)"},
    scope="all minibatches of N = 3 and 4 samples, R = E r rᵀ of residuals that are independent of the draw; the covariance of "
    "D is that of any two samples",
)
def noise(claim):
    residuals = []
    own, pair, spread = sp.symbols("R_ii R_ij s", positive=True)
    for n, b in SIZES:
        draws = {
            True: list(itertools.product(range(n), repeat=b)),
            False: list(itertools.combinations(range(n), b)),
        }
        known = {"N": sp.Integer(n), "B": sp.Integer(b), "R_ii": own, "R_ij": pair, "s": spread}
        alone, together, *spreads = claim.sides(**known)
        for found, batches in zip(spreads, (draws[True], draws[False]), strict=True):
            share = [[sp.Rational(batch.count(i), b) for batch in batches] for i in (0, 1)]
            first, second = ([d - sp.Rational(1, n) for d in one] for one in share)
            variance = sum(d * d for d in first) / len(batches)
            covariance = sum(x * y for x, y in zip(first, second, strict=True)) / len(batches)
            residuals += [alone.subs(spread, found) - variance * own]
            residuals += [together.subs(spread, found) - covariance * pair]
    return residuals
