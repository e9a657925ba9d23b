r"""Random changes of images on the device: flips, crops and mixtures, for a batch at a time.

.. math:: \tilde x = \alpha x_i + (1 - \alpha) x_j, \qquad \tilde y = \alpha y_i + (1 - \alpha) y_j

is mixup (Zhang et al. 2018); "flip, crop and mixup" is the data augmentation of `l2` (SM A). Each
function takes its own key, and may be compiled and vmapped.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ntkdecay._checks import array, checked, integer, number, prng_key
from ntkdecay._given import given

IMAGES = array(ndim=4)


@checked(key=prng_key(), images=IMAGES)
def random_flip(key: Array, images: ArrayLike) -> Array:
    """Each image, or with probability 1/2 its mirror image, left and right exchanged.

    Args:
        key: of the randomness.
        images: (n, height, width, channels).

    >>> import jax, numpy as np
    >>> from ntkdecay import datasets
    >>> datasets.random_flip(jax.random.key(0), np.zeros((2, 8, 8, 1))).shape
    (2, 8, 8, 1)
    """
    return _random_flip(key, given(images))


@jax.jit
def _random_flip(key: Array, images: Array) -> Array:
    flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


@checked(key=prng_key(), images=IMAGES, padding=integer(low=0))
def random_crop(key: Array, images: ArrayLike, padding: int = 4) -> Array:
    """Of each image with a border of zeros around it, a window of the image's own size.

    The window's corner is uniform over its (2 padding + 1)² places.

    Args:
        key: of the randomness.
        images: (n, height, width, channels).
        padding: the border's width in pixels.

    >>> import jax, numpy as np
    >>> from ntkdecay import datasets
    >>> datasets.random_crop(jax.random.key(0), np.zeros((2, 8, 8, 1))).shape
    (2, 8, 8, 1)
    """
    return _random_crop(key, given(images), int(padding))


@functools.partial(jax.jit, static_argnums=2)
def _random_crop(key: Array, images: Array, padding: int) -> Array:
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)

    def window(padded: Array, corner: Array) -> Array:
        return lax.dynamic_slice(padded, (*corner, 0), images.shape[1:])

    return jax.vmap(window)(jnp.pad(images, sides), corners)


@checked(key=prng_key(), images=IMAGES, labels=array(), alpha=number(above=0))
def mixup(
    key: Array, images: ArrayLike, labels: ArrayLike, alpha: ArrayLike
) -> tuple[Array, Array]:
    r"""Each image and label mixed with another's, in a proportion drawn from Beta(α, α) for each.

    .. math:: \tilde x_i = p_i x_i + (1 - p_i) x_{\pi(i)}, \qquad p_i \sim \mathrm{Beta}(\alpha, \alpha)

    with a random permutation π, and likewise the labels, with the same p and π.

    Args:
        key: of the randomness.
        images: (n, height, width, channels), floating.
        labels: (n, classes), floating: one-hot, or probabilities.
        alpha: α > 0; near 0 images stay as they are, at 1 the proportions are uniform.

    Returns:
        Images and labels, of the shapes and dtypes that came.

    >>> import jax
    >>> from ntkdecay import datasets
    >>> digits = datasets.load("digits")
    >>> labels = datasets.one_hot(digits.y_train[:4])
    >>> images, mixed = datasets.mixup(jax.random.key(0), digits.x_train[:4], labels, alpha=0.2)
    >>> mixed.sum(axis=1).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    x, y = given(images), given(labels)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"`images` is of dtype {x.dtype}; mixing needs a floating one.")
    if y.shape[:-1] != x.shape[:1] or not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(
            f"`labels` is of shape {y.shape} and dtype {y.dtype}, not floating and "
            f"({len(x)}, classes); turn integer labels into them by jax.nn.one_hot."
        )
    return _mixup(key, x, y, given(alpha))


@jax.jit
def _mixup(key: Array, images: Array, labels: Array, alpha: Array) -> tuple[Array, Array]:
    of_proportion, of_order = jax.random.split(key)
    proportion = jax.random.beta(of_proportion, alpha, alpha, (len(images),))
    order = jax.random.permutation(of_order, len(images))

    def mixed(a: Array) -> Array:
        p = proportion.reshape(-1, *(1,) * (a.ndim - 1)).astype(a.dtype)
        return p * a + (1 - p) * a[order]

    return mixed(images), mixed(labels)
