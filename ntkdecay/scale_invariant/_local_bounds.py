"""What bounds on the effective gradient that move with time say of the steps of a recorded run."""

import numpy as np
import xarray as xr
from jax.typing import ArrayLike
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from ntkdecay._agree import common_shape
from ntkdecay._checks import array, checked, integer, number, optional, sequence
from ntkdecay.scale_invariant._checks import check_interval
from ntkdecay.scale_invariant._norm import LEAST_MOST, cosine_distance
from ntkdecay.scale_invariant._record import RECORD, Record, read, series, steps


@checked(
    effective_gradient_norm=array(low=0, ndim=1),
    power=sequence(number(), 2),
    valid_from=integer(low=1),
)
def power_envelope(
    effective_gradient_norm: ArrayLike, power: tuple[float, float] = (1.0, 1.0), valid_from: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    r"""The tightest bounds on recorded effective gradients that fall like powers of time.

    .. math:: \ell(t) = c\,(t - t_0)^{-p} \le \tilde g_t \le L(t) = C\,(t - t_0)^{-q},
              \qquad t \ge t_{\text{valid}}

    (17) in D of `periodic`: p = q = 1 for SGD, p = 2 for full batches.

    Args:
        effective_gradient_norm: g̃ from t_0 on, the first step of a period, shape (steps,).
        power: (p, q).
        valid_from: t_valid − t_0 >= 1.

    Returns:
        ℓ and L for each step; the first, at t_0, has that of the next.

    >>> from ntkdecay import scale_invariant
    >>> low, high = scale_invariant.power_envelope([5.0, 4.0, 1.0])
    >>> low.tolist(), high.tolist()
    ([2.0, 2.0, 1.0], [4.0, 4.0, 2.0])
    """
    slope = np.asarray(effective_gradient_norm)
    if not 1 <= valid_from < slope.size:
        raise ValueError(
            f"`valid_from` is {valid_from}; it must be from 1 to below the number of steps, {slope.size}."
        )
    t = np.maximum(np.arange(slope.size), 1.0)
    low, high = (slope[valid_from:] * t[valid_from:] ** p for p in power)
    return low.min() * t ** -power[0], high.max() * t ** -power[1]


@checked(
    record=RECORD,
    learning_rate=number(above=0),
    l2=number(low=0),
    least=optional(array(low=0)),
    most=optional(array(above=0)),
    window=integer(low=1),
)
def bounds(
    record: Record,
    learning_rate: float,
    l2: float,
    *,
    least: ArrayLike | None = None,
    most: ArrayLike | None = None,
    window: int = 101,
) -> xr.Dataset:
    r"""What local bounds on the effective gradient say of the steps of a recorded run.

    .. math:: 1 - \cos \in \Bigl[1 - \Bigl(1 + \tfrac{\eta^2\ell(t)^2}{(1-\eta\lambda)^2\rho_t^4}\Bigr)^{-1/2},\
              1 - \Bigl(1 + \tfrac{\eta^2 L(t)^2}{(1-\eta\lambda)^2\rho_t^4}\Bigr)^{-1/2}\Bigr]

    Proposition 1 of `periodic` with ℓ(t), L(t), by (8): about [(ηℓ/ρ²)²/2, (ηL/ρ²)²/2] while steps are
    small. A δ below the lower end is certainly jumped, a δ above the upper end certainly not.

    Args:
        record: a mapping, an `xarray.Dataset` or a `Trajectory`, with `norm2` (ρ_t²) and `effective_gradient_norm` (g̃_t) or
            `gradient_norm` (‖∇L‖), one number for each recorded step; `step`, and `cosine_distance`, measured from w_t
            to w_{t+1}, if it has them. Without the latter that of (8) is taken, which is inside if ℓ <= g̃ <= L.
        learning_rate: η; l2: λ.
        least, most: ℓ(t), L(t), a number or one for each recorded step (see `power_envelope`); by
            default the least and the largest g̃ among `window` neighbours.
        window: how many recorded steps count as local, the step in the middle.

    Returns:
        A dataset over `step`: `lower`, `upper`, `cosine_distance`, `inside`, `least`, `most`; its attribute `share_inside` is the
        share of steps whose distance lies between the two.

    Raises:
        ValueError: if the record lacks something, or ℓ > L.

    >>> import numpy as np
    >>> from ntkdecay import scale_invariant
    >>> gradient_norm = np.array([1.0, 1.1, 0.9, 1.0])
    >>> norm2 = scale_invariant.norm2_path(1.0, gradient_norm, learning_rate=0.1, l2=0.1)[:-1]
    >>> record = {"norm2": norm2, "effective_gradient_norm": gradient_norm}
    >>> scale_invariant.bounds(record, learning_rate=0.1, l2=0.1).attrs["share_inside"]
    1.0
    """
    norm2, slope = read(record, "norm2", "effective_gradient_norm")
    measured = "cosine_distance" in series(record)
    if measured:
        (distance,) = read(record, "cosine_distance")
    else:
        distance = np.asarray(cosine_distance(norm2, slope, learning_rate, l2))
    low = minimum_filter1d(slope, window, mode="nearest") if least is None else least
    high = maximum_filter1d(slope, window, mode="nearest") if most is None else most
    common_shape(record=slope.shape, least=np.shape(low), most=np.shape(high))
    check_interval(low, high, LEAST_MOST)
    low, high = (np.broadcast_to(np.asarray(bound), slope.shape) for bound in (low, high))
    lower, upper = (
        np.asarray(cosine_distance(norm2, bound, learning_rate, l2)) for bound in (low, high)
    )
    # Rounding, of a measured cosine near 1 too, must not put a step outside where ℓ or L is its g̃.
    margin = 8 * np.finfo(upper.dtype).eps * (upper + measured)
    inside = (lower - margin <= distance) & (distance <= upper + margin)
    found = {
        "lower": lower,
        "upper": upper,
        "cosine_distance": distance,
        "inside": inside,
        "least": low,
        "most": high,
    }
    return xr.Dataset(
        {name: ("step", values) for name, values in found.items()},
        {"step": steps(record, slope.size)},
        {"share_inside": float(inside.mean())},
    )
