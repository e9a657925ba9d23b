"""When a network of finite width leaves the kernel that decays."""

from typing import Any, Literal

import numpy as np
from jax.typing import ArrayLike

from ntkdecay._checks import checked, number
from ntkdecay.finite_width._next_order import first_leg
from ntkdecay.finite_width._problem import RULES, Loss
from ntkdecay.homogeneity import Degree
from ntkdecay.kernels._checks import ApplyFn

_FIRST, _LAST = 4.0, 32.0  # kλt to which is looked


@checked(
    **RULES,
    factor=number(above=1, why="how many times the kernel that decays the network's has become"),
)
def departure_time(
    apply_fn: ApplyFn,
    params: Any,
    x_train: ArrayLike,
    y_train: ArrayLike,
    *,
    l2: float,
    degree: float | Degree | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    loss: Loss | None = None,
    factor: float = 2.0,
) -> float:
    r"""The time at which a network leaves infinite width, from its initialization.

    .. math:: \frac{\ell'^T \Theta_t\, \ell'}{\ell'^T e^{-2(k-1)\lambda t}\, \Theta_0\, \ell'} = \text{factor},
              \qquad t \approx \frac{\ln n}{2k\lambda} + \text{const.}

    Θ_t, the kernel on the path of `next_order`, in the direction in which it moves f. A kernel that holds f by its features
    is of order n^{−(k−1)/k} (width n, NTK parameterization) and does not decay; Θ_0 e^{−2(k−1)λt} meets it at a time that
    grows with the logarithm of the width, and nothing here is fitted to say when. The constant is that of this network
    and its data.

    Args:
        apply_fn, params, x_train, y_train, l2, degree, reduction, loss: as for `next_order`, with l2 > 0.
        factor: the ratio at which they have parted.

    Returns:
        t of gradient flow (step × learning rate); inf for a kernel that does not move (k = 1), and where the ratio is
        not reached before kλt = 32: a function that dies takes its features with it.

    Raises:
        TypeError, ValueError: as `next_order`.

    >>> import jax.numpy as jnp
    >>> from ntkdecay import finite_width
    >>> def linear(w, x):
    ...     return x @ w
    ...
    >>> finite_width.departure_time(linear, jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)), l2=0.1)
    inf
    """
    leg = first_leg(apply_fn, params, x_train, y_train, l2, degree, reduction, loss)
    k = float(leg.task.degree)
    reach = _FIRST
    while k != 1 and reach <= _LAST:
        with np.errstate(all="ignore"):
            walk = leg.walk(np.array([reach / (k * l2)]))
            strength, ends = np.log(walk.strength()[:, -1]), walk.leading.ends
        over = ~(strength < np.log(factor))  # what has run away is over too
        if over.any():
            i = int(np.argmax(over))
            if i == 0 or not np.isfinite(strength[i]):
                return float(ends[i])
            return float(np.interp(np.log(factor), strength[i - 1 : i + 1], ends[i - 1 : i + 1]))
        reach *= 2
    return np.inf
