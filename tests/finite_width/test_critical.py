import numpy as np
import pytest
from trained import LINEAR, NETWORKS, RELU, SQUARED, descend, draw, squares

from ntkdecay import deep_linear, finite_width

RNG = np.random.default_rng(6)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 1))


def largest(n):
    """n^(−1/2) max |Σ y relu(w·x)| over the sphere, of the network's own √2 and 1/√inputs, on a fine grid."""
    polar, angle = np.meshgrid(np.linspace(0, np.pi, 1001), np.linspace(0, 2 * np.pi, 2001))
    w = [np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)]
    h = np.maximum(np.stack(w, -1).reshape(-1, 3) @ X.T, 0) * (2 / 3) ** 0.5
    return np.abs(h @ Y[:, 0]).max() / n**0.5


@pytest.mark.parametrize("width", [64, 256])
def test_of_a_two_layer_relu_network_it_is_that_of_one_neuron(width):
    found = finite_width.critical_l2(NETWORKS[RELU], draw(width), X, Y, reduction="sum")
    assert np.isclose(found, largest(width), rtol=2e-3)


def test_of_a_linear_network_it_is_that_of_deep_linear():
    found = finite_width.critical_l2(NETWORKS[LINEAR], draw(16), X, Y, reduction="sum")
    beta = 1 / (16 * 3) ** 0.5
    assert np.isclose(found, deep_linear.critical_l2(X, Y[:, 0], depth=1, beta=beta), rtol=1e-6)


@pytest.mark.parametrize("width", [48, 300])
def test_a_trained_network_lives_below_and_dies_above(width):
    critical = finite_width.critical_l2(NETWORKS[RELU], draw(width), X, Y, reduction="sum")
    lives, dies = (
        NETWORKS[RELU](descend(RELU, squares, draw(width), X, Y, s * critical, 0.05, 20_000), X)
        for s in (0.9, 1.1)
    )
    assert np.abs(lives).max() > 0.02
    assert np.abs(dies).max() < 1e-5


def test_other_degrees():
    given = {"x_train": X, "y_train": Y}
    with pytest.raises(ValueError, match="`degree` is 3; the critical λ"):
        finite_width.critical_l2(NETWORKS[SQUARED], draw(8), **given)
    assert finite_width.critical_l2(lambda w, x: x @ w, RNG.normal(size=(3, 1)), **given) == np.inf
