r"""One step of an ODE y' = F(t, y), explicit or linearly implicit, in one form.

Both give increments U_i with y(t + θh) = y + Σ_i b_i(θ) U_i, b_i of degree 4, and an error of order h⁵:
Tsit5 (Tsitouras 2011), U_i = hF at seven stages; and Rodas5P (Steinebach 2023), eight stages

.. math:: \Big(\frac{1}{h\gamma} - J\Big) U_i = F\Big(t + c_i h,\ y + \sum_{j<i} a_{ij} U_j\Big)
          + \frac1h \sum_{j<i} C_{ij} U_j + h d_i\, \partial_t F

with the Jacobian J at the start of the step, stable whatever the eigenvalues of J.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Slope = Callable[[Array, Array], Array]
STAGES = 8


class Step(NamedTuple):
    """What a step says."""

    increments: Array  # U_i, (STAGES, *y.shape)
    y: Array  # at its end
    slope: Array  # F at its end
    error: Array


def _lower(*rows: list[float]) -> np.ndarray:
    table = np.zeros((STAGES, STAGES))
    for i, row in enumerate(rows, 1):
        table[i, : len(row)] = row
    return table


def _weights(*polynomials: np.ndarray) -> np.ndarray:
    """Coefficients of b_i(θ), powers 1 to 4: (STAGES, 4)."""
    table = np.zeros((STAGES, 4))
    for i, p in enumerate(polynomials):
        table[i] = np.asarray(p)[-2::-1]  # highest power first, none of them constant
    return table


def _from_roots(lead: float, roots: list[float], *more: list[float]) -> np.ndarray:
    p = np.poly(roots) * lead
    for factor in more:
        p = np.polymul(p, factor)
    return p


TSIT5_A = _lower(
    [0.161],
    [-0.008480655492356989, 0.335480655492357],
    [2.897153057105493, -6.359448489975075, 4.362295432869581],
    [5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
    [5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383],
    [0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774],
)  # fmt: skip
TSIT5_C = np.array([0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1, 0])
TSIT5_ERROR = np.array(
    [0.001780011052225777, 0.0008164344596567469, -0.007880878010261995, 0.1447110071732629,
     -0.5823571654525552, 0.4580821059291870, -1 / 66, 0]
)  # fmt: skip
TSIT5_WEIGHTS = _weights(
    _from_roots(
        -1.0530884977290216, [0, 1.3299890189751412], [1, -1.4364028541716351, 0.7139816917074209]
    ),
    _from_roots(0.1017, [0, 0], [1, -2.1966568338249754, 1.2949852507374631]),
    _from_roots(2.490627285651253, [0, 0], [1, -2.3853564547206166, 1.5780346820809249]),
    _from_roots(-16.548102889244902, [0, 0, 1.2171292729553325, 0.6162040603780009]),
    _from_roots(47.37952196281928, [0, 0, 1.2030712083723626, 0.6580472926535474]),
    _from_roots(-34.87065786149661, [0, 0, 1.2, 2 / 3]),
    _from_roots(2.5, [0, 0, 1, 0.6]),
)

RODAS_GAMMA = 0.21193756319429014
RODAS_A = _lower(
    [3.0],
    [2.849394379747939, 0.45842242204463923],
    [-6.954028509809101, 2.489845061869568, -10.358996098473584],
    [2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641],
    [-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946],
    [-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946, 1],
    [-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946, 1, 1],
)  # fmt: skip
RODAS_COUPLING = _lower(
    [-14.155112264123755],
    [-17.97296035885952, -2.859693295451294],
    [147.12150275711716, -1.41221402718213, 71.68940251302358],
    [165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306],
    [24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471],
    [30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623, -28.087943162872662],
    [37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002, -54.66780262877968, -9.48861652309627],
)  # fmt: skip
RODAS_C = np.array(
    [0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1, 1, 1]
)
RODAS_D = np.array(
    [0.21193756319429014, -0.42387512638858027, -0.3384627126235924, 1.8046452872882734, 2.325825639765069, 0, 0, 0]
)  # fmt: skip
_B = RODAS_A[7] + np.eye(STAGES)[7]
_H = np.array([
    [25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493],
    [-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044, 15.98066361424651, -6.789040303419874, -6.710236069923372],
    [11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654, -59.78993625266729, -0.15582684282751913, 4.883087185713722],
])  # fmt: skip
# y(θ) = y + θ(b·U) + θ(1−θ)(H_1 + θH_2 + θ²H_3)·U
RODAS_WEIGHTS = np.stack([_B + _H[0], _H[1] - _H[0], _H[2] - _H[1], -_H[2]], axis=1)


def combine(row: Array, increments: Array) -> Array:
    """Σ_i row_i U_i."""
    return jnp.tensordot(row, increments, 1)


def explicit_step(slope: Slope, t: Array, y: Array, first: Array, h: Array) -> Step:
    """A step of Tsit5 from (t, y), where F = `first`."""
    a, c = jnp.asarray(TSIT5_A, y.dtype), jnp.asarray(TSIT5_C, y.dtype)

    def stage(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        increments, _ = state
        end = y + combine(a[i], increments)
        return increments.at[i].set(h * slope(t + c[i] * h, end)), end

    start = jnp.zeros((STAGES, *y.shape), y.dtype).at[0].set(h * first)
    increments, end = jax.lax.fori_loop(1, 7, stage, (start, y))
    error = combine(jnp.asarray(TSIT5_ERROR, y.dtype), increments)
    return Step(increments, end, increments[6] / h, error)


def implicit_step(
    slope: Slope,
    solver: Callable[[Array, Array, Array], Callable[[Array], Array]],
    t: Array,
    y: Array,
    first: Array,
    h: Array,
) -> Step:
    """A step of Rodas5P from (t, y), where F = `first`; `solver(t, y, σ)` gives r ↦ (σ − J)^{−1} r."""
    solve = solver(t, y, 1 / (h * RODAS_GAMMA))
    change = jax.jvp(lambda t: slope(t, y), (t,), (jnp.ones_like(t),))[1]
    a, coupling, c, d = (
        jnp.asarray(table, y.dtype) for table in (RODAS_A, RODAS_COUPLING, RODAS_C, RODAS_D)
    )

    def stage(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        increments, _, at = state
        right = at + combine(coupling[i], increments) / h + h * d[i] * change
        increments = increments.at[i].set(solve(right))
        following = jnp.minimum(i + 1, STAGES - 1)
        # after the last stage y + Σ b_i U_i, whose last two weights are those of the next stage, were there one
        row = jnp.where(i < STAGES - 1, a[following], jnp.asarray(_B, y.dtype))
        end = y + combine(row, increments)
        return increments, end, slope(t + c[following] * h, end)

    start = jnp.broadcast_to(0 * y, (STAGES, *y.shape))
    increments, end, last = jax.lax.fori_loop(0, STAGES, stage, (start, y, first))
    return Step(increments, end, last, increments[-1])
