"""The (η, α) grid of the modified RMSProp in one vmapped program against a loop of the same jitted run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntkdecay import datasets, output_scale

STEPS, WIDTH = 100, 100
RATES, ALPHAS = 10.0 ** np.linspace(-6, 2, 5), 10.0 ** np.linspace(-4, 4, 5)
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def run():
    """(η, α) ↦ F after training; full batches in float64, as in the paper."""
    data = datasets.load("digits")
    x = output_scale.on_sphere(data.x_train[:500].astype(float))
    y = jnp.asarray(output_scale.one_against_all(data.y_train[:500], 10))
    net = output_scale.two_layer(WIDTH)
    params_0 = net.init(jax.random.key(0), x)

    def trained(eta, alpha):
        network = output_scale.centred(net.apply, params_0, alpha)
        loss = output_scale.scaled_loss(output_scale.soft_hinge, alpha)
        optimizer = output_scale.rescaled_rmsprop(eta, alpha)

        def step(_, carry):
            params, state = carry
            slope = jax.grad(lambda p: loss(network(p, x), y))(params)
            updates, state = optimizer.update(slope, state, params)
            return optax.apply_updates(params, updates), state

        start = (params_0, optimizer.init(params_0))
        return network(jax.lax.fori_loop(0, STEPS, step, start)[0], x)

    return trained


@pytest.mark.benchmark(group=f"25 cells of (η, α), digits, N = 500, h = {WIDTH}, {STEPS} steps")
@pytest.mark.parametrize("name", ["loop of jitted runs", "vmapped"])
def test_grid(benchmark, run, name):
    etas, alphas = (jnp.asarray(one.ravel()) for one in np.meshgrid(RATES, ALPHAS))
    one, many = jax.jit(run), jax.jit(jax.vmap(run))
    grid = {
        "vmapped": lambda: many(etas, alphas),
        "loop of jitted runs": lambda: [one(*cell) for cell in zip(etas, alphas, strict=True)],
    }[name]
    benchmark.pedantic(lambda: jax.block_until_ready(grid()), rounds=2, warmup_rounds=1)
