r"""The constants of weight decay: time scale, equilibrium of norms and rotation, and how λ moves when training is changed.

Weights that are multiplied by 1 − ηλ at each step, as AdamW does and as L2 does with SGD, remember 1/(ηλ) steps.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, optional
from ntkdecay._elementwise import elementwise

__all__ = [
    "Equilibrium",
    "Timescale",
    "adamw_equilibrium",
    "sgd_equilibrium",
    "timescale",
    "transferred",
]

RATE, DECAY, MOMENTUM = array(above=0), array(above=0), array(low=0, below=1)


class Timescale(NamedTuple):
    """How long weights remember: in steps, in samples (or tokens), and in passes through the data; None where sizes were not given."""

    steps: Array
    samples: Array | None = None
    epochs: Array | None = None


class Equilibrium(NamedTuple):
    """Where norm and rotation of weights end.

    Args:
        norm: root of the mean of ‖w‖².
        rotation: root mean square angle between w before and after a step, in radians.
        steps: in which a small deviation of ‖w‖² from its mean falls by e.
    """

    norm: Array
    rotation: Array
    steps: Array


@checked(
    learning_rate=RATE,
    weight_decay=DECAY,
    batch_size=optional(array(above=0)),
    dataset_size=optional(array(above=0)),
)
def timescale(
    learning_rate: ArrayLike,
    weight_decay: ArrayLike,
    *,
    batch_size: ArrayLike | None = None,
    dataset_size: ArrayLike | None = None,
) -> Timescale:
    r"""The time over which decayed weights average their updates.

    .. math:: w_t = (1 - \eta\lambda)\, w_{t-1} - \eta u_t, \qquad \tau = \frac{1}{\eta\lambda} \text{ steps}
              = \frac{B}{\eta\lambda} \text{ samples} = \frac{B}{\eta\lambda N} \text{ epochs}

    Wang & Aitchison (2024, arXiv 2405.13698): the weights are an exponential moving average of −u/λ over τ. It holds for
    `optax.adamw`, and for SGD with coupled L2 without momentum (with momentum β, of η/(1 − β)).

    Args:
        learning_rate: η; weight_decay: λ, which η multiplies as in optax and PyTorch. Where decay is independent of η
            (w ← (1 − λ)w − …), give η = 1.
        batch_size: B, samples or tokens of a step.
        dataset_size: N, of the data, in the unit of B.

    Returns:
        `Timescale(steps, samples, epochs)`, of the broadcast shape; None where a size is missing.

    >>> from ntkdecay import weight_decay
    >>> tau = weight_decay.timescale(1e-3, 0.1, batch_size=512, dataset_size=50_000)
    >>> [round(float(one), 1) for one in tau]
    [10000.0, 5120000.0, 102.4]
    """
    sizes = (1.0 if size is None else size for size in (batch_size, dataset_size))
    steps, samples, epochs = _timescale(learning_rate, weight_decay, *sizes)
    if batch_size is None:
        return Timescale(steps)
    return Timescale(steps, samples, None if dataset_size is None else epochs)


@elementwise
def _timescale(
    learning_rate: Array, weight_decay: Array, batch_size: Array, dataset_size: Array
) -> Timescale:
    steps = 1 / (learning_rate * weight_decay)
    return Timescale(steps, steps * batch_size, steps * batch_size / dataset_size)


@checked(learning_rate=RATE, weight_decay=DECAY, size=array(above=0), b1=MOMENTUM)
def adamw_equilibrium(
    learning_rate: ArrayLike, weight_decay: ArrayLike, size: ArrayLike, *, b1: ArrayLike = 0.9
) -> Equilibrium:
    r"""Norm and rotation of weights under AdamW whose gradients are noise.

    .. math:: \|w\|^2 = \frac{\eta C}{2\lambda}, \qquad
              \text{rotation} = \sqrt{2\eta\lambda\,\frac{1 - \beta_1}{1 + \beta_1}}, \qquad \frac{1}{2\eta\lambda} \text{ steps}

    to leading order in ηλ/(1 − β₁). Gradients of C entries are independent from step to step, of mean 0 and one variance: what
    Kosson, Messmer & Jaggi (2024, arXiv 2305.17212) call a random walk, whose formulas these are. The scale of the gradient
    drops out, so that weights need not be scale-invariant.

    Args:
        learning_rate: η; weight_decay: λ, as in `optax.adamw`; size: C, the number of weights (of a matrix, or of one neuron).
        b1: β₁, the decay of the first moment.

    >>> from ntkdecay import weight_decay
    >>> found = weight_decay.adamw_equilibrium(1e-3, 0.1, 4096)
    >>> round(float(found.norm), 2), round(float(found.rotation), 5), round(float(found.steps))
    (4.53, 0.00324, 5000)
    """
    return _adamw_equilibrium(learning_rate, weight_decay, size, b1)


@elementwise
def _adamw_equilibrium(learning_rate: Array, weight_decay: Array, size: Array, b1: Array):
    turned = 2 * learning_rate * weight_decay
    return Equilibrium(
        jnp.sqrt(learning_rate * size / (2 * weight_decay)),
        jnp.sqrt(turned * (1 - b1) / (1 + b1)),
        1 / turned,
    )


@checked(learning_rate=RATE, l2=DECAY, gradient_norm=array(above=0), momentum=MOMENTUM)
def sgd_equilibrium(
    learning_rate: ArrayLike,
    l2: ArrayLike,
    gradient_norm: ArrayLike,
    *,
    momentum: ArrayLike = 0.0,
) -> Equilibrium:
    r"""Norm and rotation of scale-invariant weights under SGD with coupled L2 whose gradients are noise.

    .. math:: \|w\|^4 = \frac{\eta\, G^2}{2\lambda(1 - \beta)}, \qquad
              \text{rotation} = \sqrt{\frac{2\eta\lambda}{1 + \beta}}, \qquad \frac{1 - \beta}{4\eta\lambda} \text{ steps}

    to leading order in ηλ/(1 − β): v ← βv + ∇L + λw, w ← w − ηv. Gradients are independent from step to step, of mean 0, and
    orthogonal to w with norm G/‖w‖. Of Kosson, Messmer & Jaggi (2024, arXiv 2305.17212); for β = 0 the equilibrium of
    `intrinsic_lr`, ‖w‖⁴ = η Tr Σ/(2λ), and of `periodic`, `scale_invariant.equilibrium_norm2`.

    Args:
        learning_rate: η; l2: λ; momentum: β of heavy ball, as in `optax.sgd`.
        gradient_norm: G, root mean square norm of minibatch gradients times that of the weights.

    >>> from ntkdecay import weight_decay
    >>> found = weight_decay.sgd_equilibrium(0.1, 5e-4, 1.0, momentum=0.9)
    >>> round(float(found.norm), 3), round(float(found.rotation), 5), round(float(found.steps))
    (5.623, 0.00725, 500)
    """
    return _sgd_equilibrium(learning_rate, l2, gradient_norm, momentum)


@elementwise
def _sgd_equilibrium(learning_rate: Array, l2: Array, gradient_norm: Array, momentum: Array):
    apart = learning_rate * l2
    return Equilibrium(
        (learning_rate * gradient_norm**2 / (2 * l2 * (1 - momentum))) ** 0.25,
        jnp.sqrt(2 * apart / (1 + momentum)),
        (1 - momentum) / (4 * apart),
    )


@checked(
    weight_decay=DECAY,
    learning_rate=array(above=0),
    batch_size=array(above=0),
    samples=array(above=0),
    width=array(above=0),
)
def transferred(
    weight_decay: ArrayLike,
    *,
    learning_rate: ArrayLike = 1.0,
    batch_size: ArrayLike = 1.0,
    samples: ArrayLike = 1.0,
    width: ArrayLike = 1.0,
) -> Array:
    r"""λ after a change of the training, such that the same share of it is remembered.

    .. math:: \frac{\tau}{T} = \frac{B}{\eta\lambda S} \text{ stays}: \qquad
              \lambda' = \lambda\, \frac{B'}{B}\, \frac{\eta}{\eta'}\, \frac{S}{S'}\, \frac{n'}{n}

    S = TB samples or tokens in all. Wang & Aitchison (2405.13698) find the best τ, in epochs, unchanged by the size of model and
    data; Bergsma et al. (2505.13738) the best λ ∝ B. With muP the learning rate of hidden matrices is η/n at width n, so that
    an unchanged base rate η with width n' asks for n'/n times the λ: equal ηλ, "independent" decay. For networks without
    normalization λ = c/T of `optimizers.optimal_l2`, T in units of η × steps, is the same law: τ/T = 1/c.

    Args:
        weight_decay: λ that was good.
        learning_rate, batch_size, samples, width: each as new over old: of η (with muP of the base rate), B, S and n.

    >>> from ntkdecay import weight_decay
    >>> float(weight_decay.transferred(0.1, batch_size=4, samples=2))
    0.2
    """
    return _transferred(weight_decay, learning_rate, batch_size, samples, width)


@elementwise
def _transferred(
    weight_decay: Array, learning_rate: Array, batch_size: Array, samples: Array, width: Array
) -> Array:
    return weight_decay * batch_size * width / (learning_rate * samples)
