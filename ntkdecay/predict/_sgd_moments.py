r"""What minibatches do to the function at infinite width: its mean and covariance over their draws, step by step, exactly.

On MSE a step of `sgd` is linear in f, with a random diagonal D of the minibatch's weights,

.. math:: f \leftarrow \alpha^k f - \rho\,\Theta_0 D (f - y), \qquad
          \rho = \eta\,\alpha^{k-1} a^{2(k-1)}, \quad \alpha = 1 - \eta\lambda, \quad a \leftarrow \alpha a,

and where each minibatch is drawn anew, Cov D = s (1 − 11ᵀ/N), so that both moments follow from themselves.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, flag, integer, optional
from ntkdecay._degree import as_degree
from ntkdecay.homogeneity import Degree
from ntkdecay.predict._checks import (
    L2,
    REDUCTION,
    as_array,
    as_own,
    check_request,
    float_dtype,
    kernel,
    network_degree,
    refuse_shape,
)
from ntkdecay.predict._ensemble import Gaussian
from ntkdecay.predict._schedule import LEARNING_RATE, constant
from ntkdecay.predict._sgd import whole_steps


class _Task(NamedTuple):
    kernel: Array  # (n, n)
    y: Array  # (n, outputs)
    learning_rate: Array
    l2: Array
    degree: Array
    weight: Array  # of a sample, mean over minibatches
    spread: Array  # s


class SgdMomentsFn:
    """Mean and covariance of f over minibatches: `predict_fn(t, fx_train_0=0.0, fx_test_0=None, k_test_train=None)`.

    Args:
        t: steps, ascending whole numbers, any shape.
        fx_train_0, fx_test_0: f at the start; k_test_train: (n_test, n), needed with `fx_test_0`.

    Returns:
        `Gaussian(mean, covariance)` of f on the training points, (*t.shape, n, outputs) and (*t.shape, n, outputs, n,
        outputs); with `fx_test_0` the pair with that of the test points. Its first two moments: f itself is not Gaussian.
    """

    def __init__(self, task: _Task) -> None:
        self._task = task

    def __repr__(self) -> str:
        return f"<predict_fn(t, fx_train_0=0.0, fx_test_0=None, k_test_train=None) of sgd_moments for labels of shape {self._task.y.shape}>"

    @checked(
        t=array(low=0, why="it counts steps"),
        fx_train_0=array(),
        fx_test_0=optional(array()),
        k_test_train=optional(array(ndim=2)),
    )
    def __call__(
        self,
        t: ArrayLike,
        fx_train_0: ArrayLike = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: ArrayLike | None = None,
    ) -> Any:
        task = self._task
        check_request(fx_train_0, fx_test_0, k_test_train)
        times = whole_steps(t, 0)[0]
        start = as_array(fx_train_0, task.y.dtype)
        refuse_shape(start, task.y.shape, "fx_train_0")
        k_test, test = np.zeros((0, len(task.y)), task.y.dtype), np.zeros((), task.y.dtype)
        if fx_test_0 is not None:
            k_test = as_own(k_test_train, task.y.dtype)
            if k_test.shape[1:] != task.y.shape[:1]:
                raise ValueError(
                    f"`k_test_train` has shape {k_test.shape}; it must be (n_test, {len(task.y)}), as the labels are {task.y.shape}."
                )
            test, shape = as_array(fx_test_0, task.y.dtype), (len(k_test), task.y.shape[1])
            refuse_shape(test, shape, "fx_test_0")
        found = _moments(task, k_test, start, test, times)
        return found[0] if fx_test_0 is None else found


@checked(
    k_train_train=kernel(),
    y_train=array(ndim=2),
    learning_rate=LEARNING_RATE,
    l2=constant(L2, "take draws of `sgd`"),
    degree=network_degree(),
    batch_size=integer(low=1),
    replace=flag(),
    reduction=REDUCTION,
)
def sgd_moments(
    k_train_train: ArrayLike,
    y_train: ArrayLike,
    learning_rate: ArrayLike,
    *,
    l2: ArrayLike,
    degree: float | Degree,
    batch_size: int,
    replace: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
) -> SgdMomentsFn:
    r"""Mean and covariance of an infinitely wide network's f over the minibatches of SGD with L2, on MSE, exactly.

    .. math:: m \leftarrow T m + \tfrac{\rho}{N}\Theta_0 y, \qquad
              M \leftarrow T M T^T + \rho^2\,\Theta_0 C\,\Theta_0, \qquad T = \alpha^k - \tfrac{\rho}{N}\Theta_0,

    .. math:: C = s\,\big(\mathrm{diag}(R) - \tfrac1N R\big), \quad R = M + (m - y)(m - y)^T, \quad
              s = \tfrac{1}{BN} \text{ or } \tfrac{N - B}{BN(N-1)}

    with and without replacement in a minibatch of B, each drawn anew; ρ and α as in `sgd`. With small steps it is
    Ṁ = −(AM + MAᵀ) + ηe^{−4(k−1)λt} Θ_0CΘ_0 in time ηt, A = e^{−2(k−1)λt}Θ_0/N + kλ, and C without M: the noise that f's own spread
    adds is in the recursion, not there. L2 ends it: with the kernel the noise decays as e^{−4(k−1)λt}, faster than f.

    Args:
        k_train_train: Θ_0, (n, n); y_train: labels, (n, outputs).
        learning_rate: η, the length of a step. l2: λ >= 0. degree: k of the network.
        batch_size: B samples of a step.
        replace: whether one sample may come several times into one minibatch. Within epochs that go through all
            samples in turn minibatches are not independent, and the covariance is smaller.
        reduction: the loss as ½ mean or ½ sum of (f − y)² over the minibatch and the outputs.

    Returns:
        `predict_fn(t, fx_train_0=0., fx_test_0=None, k_test_train=None)` giving `Gaussian(mean, covariance)`. A step costs the
        cube of the samples (training and test) times the outputs squared.

    Raises:
        ValueError: for shapes that do not fit, or more samples than there are in a minibatch without replacement.

    >>> import numpy as np
    >>> from ntkdecay import predict
    >>> predict_fn = predict.sgd_moments(np.eye(4), np.ones((4, 1)), 0.5, l2=0.01, degree=2, batch_size=1)
    >>> mean, covariance = predict_fn(100)
    >>> covariance.shape, round(float(covariance[0, 0, 0, 0]) ** 0.5, 4)
    ((4, 1, 4, 1), 0.0387)
    """
    dtype = float_dtype(k_train_train, y_train)
    theta, y, eta, strength = (
        as_own(one, dtype) for one in (k_train_train, y_train, learning_rate, l2)
    )
    n = len(y)
    if theta.shape != (n, n):
        raise ValueError(
            f"`k_train_train` has shape {theta.shape} and `y_train` {y.shape}; they must be (n, n) and (n, outputs)."
        )
    if not replace and batch_size > n:
        raise ValueError(
            f"`batch_size` is {batch_size} and there are {n} samples: without `replace` a minibatch has each once at most."
        )
    unit = 1.0 if reduction == "sum" else 1 / (batch_size * y.shape[1])
    share = batch_size / n
    spread = share if replace else share * (n - batch_size) / max(n - 1, 1)
    numbers = (as_degree(degree), unit * share, unit**2 * spread)
    return SgdMomentsFn(_Task(theta, y, eta, strength, *(as_own(x, dtype) for x in numbers)))


@jax.jit
def _moments(task: _Task, k_test: Array, start: Array, test: Array, times: Array) -> list[Gaussian]:
    """Of the training points, and of test points."""
    n, outputs = task.y.shape
    kernels = jnp.concatenate([task.kernel, k_test])
    sizes = (n, outputs), (len(k_test), outputs)
    start = jnp.concatenate([jnp.broadcast_to(f, size) for f, size in zip((start, test), sizes, strict=True)])  # fmt: skip
    alpha = 1 - task.learning_rate * task.l2
    whole = jnp.zeros((len(kernels), len(kernels)), kernels.dtype).at[:, :n].set(kernels)
    unit = jnp.eye(len(kernels), dtype=kernels.dtype)
    same = jnp.eye(n, dtype=kernels.dtype)[:, None, :, None]

    def step(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        a, mean, spread = state
        rho = task.learning_rate * alpha ** (task.degree - 1) * a ** (2 * (task.degree - 1))
        moved = alpha**task.degree * unit - rho * task.weight * whole
        left = mean[:n] - task.y
        second = spread[:n, :, :n] + left[:, :, None, None] * left[None, None]
        noise = task.spread * (same * second - second / n)
        flow = jnp.einsum("ij,jokp,lk->iolp", moved, spread, moved, optimize="optimal")
        heat = jnp.einsum("ij,jokp,lk->iolp", kernels, noise, kernels, optimize="optimal")
        mean = alpha**task.degree * mean - rho * task.weight * kernels @ left
        return alpha * a, mean, flow + rho**2 * heat

    def until(carry: Any, stop: Array) -> tuple[Any, tuple[Array, Array]]:
        at, state = carry
        state = jax.lax.fori_loop(at, stop, step, state)
        return (stop, state), state[1:]

    nothing = jnp.zeros((*start.shape, *start.shape), start.dtype)
    first = jnp.zeros_like(times, shape=()), (jnp.ones((), start.dtype), start, nothing)
    mean, spread = jax.lax.scan(until, first, times.reshape(-1))[1]
    mean, spread = (jnp.where((times < 0).any(), jnp.nan, one) for one in (mean, spread))

    def of(points: slice) -> Gaussian:
        m, c = mean[:, points], spread[:, points, :, points]
        return Gaussian(
            m.reshape(*times.shape, *m.shape[1:]), c.reshape(*times.shape, *c.shape[1:])
        )

    return [of(slice(0, n)), of(slice(n, None))]
