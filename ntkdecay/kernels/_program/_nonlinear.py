r"""Which layer of neural-tangents a function of one number is.

A function is recognized by its values and derivatives at 0 and believed only if it agrees with the
layer on a grid; a smooth one without a rule is integrated by Gauss-Hermite quadrature, up to the deviation
at which that is exact to `ACCURACY`.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erf

from ntkdecay._host import on_host
from ntkdecay._neural_tangents import stax

Function = Callable[[Array], Array]
ACCURACY = 1e-3
_DEVIATIONS = 2.0 ** np.arange(-1, 5, 0.25)
_GRID = np.concatenate([np.linspace(-6, 6, 241), np.linspace(-0.5, 0.5, 33)])


def layer_of(f: Function, points: int) -> tuple[float, Any, float] | None:
    """(a, layer, reach) with f = a · layer; the layer None where f is linear; None if there is no rule.

    `reach` is the largest deviation of what f is applied to at which the layer, by a quadrature of `points`, is exact.
    """
    with jax.enable_x64(True):
        values = _on_grid(f)
        if not np.isfinite(values).all():
            return None
        size = max(np.abs(values).max(), 1e-300)
        for scale, function, layer in _candidates(f, values):
            if np.abs(scale * _on_grid(function) - values).max() <= 1e-12 * size:
                return scale, layer, math.inf
        reach = _reach(f, points)
        if reach >= 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its accuracy, which is looked at here
                return 1.0, stax.ElementwiseNumerical(f, points)[2], reach
    return None


def _on_grid(f: Function) -> np.ndarray:
    return np.asarray(on_host(jax.vmap(f), _GRID), float)


def _candidates(f: Function, values: np.ndarray) -> Iterator[tuple[float, Function, Any]]:
    zero, up, down = on_host(jax.vmap(f), np.array([0.0, 1.0, -1.0])).tolist()
    down = -down
    yield up, lambda x: x, None
    if up == -down:
        yield up, jnp.abs, stax.Abs()[2]
    if down == 0:
        yield up, jax.nn.relu, stax.Relu()[2]
    if up:
        slope = down / up
        yield up, lambda x: jnp.where(x > 0, x, slope * x), stax.LeakyRelu(slope)[2]
        gelu = up / float(on_host(partial(jax.nn.gelu, approximate=False), np.float64(1)))
        yield gelu, lambda x: jax.nn.gelu(x, approximate=False), stax.Gelu()[2]
    yield up, lambda x: jnp.sign(x), stax.Sign()[2]
    for n in range(1, 5):
        yield up, lambda x, n=n: jnp.maximum(x, 0) ** n, stax.RectifiedMonomial(n)[2]
    for degree in range(9):
        fit = np.polynomial.Chebyshev.fit(_GRID, values, degree, domain=[-6, 6])
        coef = fit.convert(kind=np.polynomial.Polynomial).coef
        coef = np.where(np.abs(coef) < 1e-13 * max(np.abs(coef).max(), 1e-300), 0.0, coef)
        yield 1.0, lambda x, c=coef: jnp.polyval(jnp.asarray(c[::-1]), x), stax.Polynomial(coef)[2]
    d = [zero]
    g = f
    for _ in range(3):
        g = jax.grad(g)
        d.append(float(on_host(g, np.float64(0))))
    if not np.isfinite(d).all():
        return
    if d[1] and -d[3] / d[1] > 0:
        b = math.sqrt(-d[3] / d[1] / 2)
        a = d[1] * math.sqrt(math.pi) / (2 * b)
        c = d[0]
        yield 1.0, lambda x: a * erf(b * x) + c, stax.Erf(a, b, c)[2]
    for first, second in ((0, 2), (1, 3)):
        if d[first] and -d[second] / d[first] > 0:
            b = math.sqrt(-d[second] / d[first])
            a, c = math.hypot(d[0], d[1] / b), math.atan2(d[0], d[1] / b)
            yield 1.0, lambda x, a=a, b=b, c=c: a * jnp.sin(b * x + c), stax.Sin(a, b, c)[2]
    if d[0]:
        b = d[1] / d[0]
        yield d[0], lambda x: jnp.exp(b * x), stax.Exp(1.0, b)[2]
        b2 = d[2] / (2 * d[0])
        if b2 < 0:
            yield d[0], lambda x: jnp.exp(b2 * x**2), stax.Gaussian(1.0, b2)[2]


def _reach(f: Function, points: int) -> float:
    """The largest deviation up to which the quadrature has converged, for f² and f'², also off a bend at 0; or 0."""
    moments = []
    for degree in (points, 2 * points):
        at, weights = np.polynomial.hermite.hermgauss(degree)
        x = math.sqrt(2) * np.outer(_DEVIATIONS, at)
        x = np.stack([x, x + 0.37])
        found = [
            on_host(jax.vmap(jax.vmap(jax.vmap(g))), x) ** 2 @ weights for g in (f, jax.grad(f))
        ]
        moments.append(np.stack(found))
    with np.errstate(invalid="ignore"):
        good = np.isclose(*moments, rtol=ACCURACY / 2, atol=1e-12).all((0, 1))
    return float(max(_DEVIATIONS[: good.argmin() if not good.all() else None], default=0.0))
