r"""The λ at which L2 kills a network of finite width.

Near θ = 0 a network of degree 2 moves on L ≈ L(0) + ℓ'(0)·f + λ/2 ‖θ‖², where a direction θ̂ grows at the rate
2 (−ℓ'(0)·f(θ̂)) − λ: what is left of a function grows again as long as one such rate is positive. Above degree 2 no
direction grows near 0, and a network dies where the stationary points end: `_fold`.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkdecay._checks import checked, integer
from ntkdecay.finite_width._fold import fold
from ntkdecay.finite_width._problem import RULES, Loss, Problem, norm, problem
from ntkdecay.homogeneity import Degree
from ntkdecay.kernels._checks import ApplyFn, exact

_NEAR = 1e-6  # of degree 2
_STEPS, _SETTLE = 6000, 200  # of the ascent; after so many its steps begin to shorten


@checked(**{name: rule for name, rule in RULES.items() if name != "l2"}, starts=integer(low=1))
def critical_l2(
    apply_fn: ApplyFn,
    params: Any,
    x_train: ArrayLike,
    y_train: ArrayLike,
    *,
    degree: float | Degree | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    loss: Loss | None = None,
    starts: int = 3,
) -> float:
    r"""The λ above which a network ends at f = 0, and below which it can live for ever.

    .. math:: \lambda_c = \sup_{r > 0} -\frac{1}{r} \frac{d}{dr} \min_{\|\theta\| = r} L(f_\theta),
              \qquad \lambda_c[\beta f] = \beta^{2/k} \lambda_c[f]

    For k = 2 it is the limit r → 0, :math:`2 \max_{\|\theta\| = 1} [-\ell'(0) \cdot f_\theta(X)]`: below it f = 0 is
    unstable, and every network lives. For k > 2 it is a fold: f = 0 is stable at every λ > 0 beside the network that
    lives, so that one below λ_c may die as well, on its way there. A network with L hidden layers of width n in NTK
    parameterization has :math:`\beta \propto n^{-L/2}`, so that λ_c ∝ n^(−L/k): two-layer ReLU, MSE summed, n^(−1/2)
    times the largest |Σ y_i relu(w·x_i)| of one neuron with |w| = 1; deep linear `ntkdecay.deep_linear.critical_l2`.
    Only at λ < λ_c does the kernel reach a floor that holds f; infinite width has λ_c = 0.

    Args:
        apply_fn, x_train, y_train, degree, reduction, loss: as for `stationarity`.
        params: of the network's shapes; the search begins at their direction.
        starts: from how many directions is searched: this one, and others that are drawn at its scale.

    Returns:
        The largest λ found, and so a lower bound of λ_c: of a wide network that has neurons in all directions λ_c itself,
        to about 1e-3 where the maximum lies on a kink. It is a property of the network's shape, its data and its loss,
        not of its parameters. inf for k < 2, where f = 0 is never stable (k = 1: a network linear in its parameters).

    Raises:
        TypeError, ValueError: as `stationarity`.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import finite_width
    >>> def f(params, x):
    ...     return x @ params[0] @ params[1]
    ...
    >>> params = [jnp.ones((1, 2)), jnp.ones((2, 1))]
    >>> round(finite_width.critical_l2(f, params, jnp.ones((1, 1)), jnp.full((1, 1), 3.0)), 3)
    3.0
    """
    task = problem(apply_fn, params, x_train, y_train, 0.0, degree, reduction, loss)
    if task.degree < 2 - _NEAR:
        return np.inf
    search = _climb if task.degree < 2 + _NEAR else fold
    rng, best = np.random.default_rng(0), 0.0
    start = jax.tree.map(np.asarray, params)
    for _ in range(starts):
        with exact():
            best = max(best, float(search(task, start)))
        start = jax.tree.map(
            lambda p: (np.std(p) or 1.0) * rng.normal(size=np.shape(p)).astype(p.dtype), start
        )
    return best


@jax.jit
def _climb(task: Problem, start: Any) -> Any:
    """The largest rate met by ascent on the sphere, its steps shortening in the end for the sake of kinks."""
    weights = -task.slope(jnp.zeros(task.f.out.shape, task.x.dtype))

    def rate(params: Any) -> Any:
        return 2 * jnp.vdot(weights, task.outputs(params))

    def unit(tree: Any) -> Any:
        size = jnp.maximum(norm(tree), jnp.finfo(task.x.dtype).tiny)
        return jax.tree.map(lambda leaf: leaf / size, tree)

    def step(state: Any) -> Any:
        i, params, best, _ = state
        value, slope = jax.value_and_grad(rate)(params)
        size = norm(slope)
        left = norm(jax.tree.map(lambda g, p: g - 2 * value * p, slope, params))
        shift = 0.5 * size * jnp.maximum(1.0, i / _SETTLE)
        params = unit(jax.tree.map(lambda g, p: 0.5 * g + shift * p, slope, params))
        return i + 1, params, jnp.maximum(best, value), left > 1e-7 * size

    def going(state: Any) -> Any:
        return (state[0] < _STEPS) & state[3]

    first = jnp.zeros((), task.x.dtype)
    return jax.lax.while_loop(going, step, (0, unit(start), first, jnp.array(True)))[2]
