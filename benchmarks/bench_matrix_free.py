"""Time against the number of samples: eigendecomposition and Krylov spaces, 300 to 8,000 samples.

All start from the inputs: the kernel of a 3-layer ReLU network, labels of one output, ten times. The
kernel of "Krylov, tiles" is computed again in every product, which takes what memory a tile takes; it is
timed up to 3,000 samples. The slopes of log time against log N are printed at the end.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from ntkdecay import kernels, predict, stax

SIZES = (300, 1000, 3000, 8000)
KERNEL_FN = stax.serial(*(stax.Dense(1, b_std=None), stax.Relu()) * 2, stax.Dense(1, b_std=None))[2]
TILE = 1000
METHODS = ("eigh", "Krylov, stored kernel", "Krylov, tiles")
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def seconds():
    """Least seconds by method and size; the slopes are printed when the module ends."""
    found = {}
    yield found
    for method in METHODS:
        pairs = np.log([(n, time) for (name, n), time in found.items() if name == method])
        if len(pairs) > 1:
            slope = np.polyfit(*pairs.T, 1)[0]
            late = (pairs[-1, 1] - pairs[-2, 1]) / (pairs[-1, 0] - pairs[-2, 0])
            print(f"\n{method}: log-log slope {slope:.2f}, between the last two sizes {late:.2f}")


@pytest.mark.parametrize(
    ("method", "n"), [(m, n) for m in METHODS for n in SIZES if m != METHODS[2] or n <= 3000]
)
def test_time_against_samples(benchmark, seconds, method, n):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 784)), rng.normal(size=(n, 1))
    t = np.geomspace(1e-1, 1e3, 10)
    options = {"l2": 0.1, "degree": 2, "reduction": "sum"}

    def solve():
        if method == "Krylov, tiles":
            product = predict.kernel_vector_product(KERNEL_FN, x, tile=TILE)
        else:
            k = kernels.analytic_kernel(KERNEL_FN, x, tile=TILE)
            product = partial(jnp.matmul, k)
        if method == "eigh":
            predict_fn = predict.gradient_descent_mse(k, y, **options)
        else:
            predict_fn = predict.gradient_descent_mse_matrix_free(
                product, y, tolerance=1e-6, **options
            )
        return jnp.asarray(predict_fn(t)).block_until_ready()

    benchmark.pedantic(solve, rounds=1, warmup_rounds=int(n < 8000))
    seconds[method, n] = benchmark.stats.stats.min
