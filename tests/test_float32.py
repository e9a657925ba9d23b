"""The first use, without 64-bit numbers: the README's code blocks, with warnings as errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

BEFORE = """
import jax
made = jax.ShapeDtypeStruct.__init__


def checked(self, shape, dtype, *args, **options):
    \"\"\"The newest JAX warns of what an older one rounds without a word.\"\"\"
    assert jax.numpy.dtype(dtype) == jax.dtypes.canonicalize_dtype(dtype), dtype
    made(self, shape, dtype, *args, **options)


jax.ShapeDtypeStruct.__init__ = checked
"""
AFTER = """
import jax
assert not jax.config.jax_enable_x64
assert fx_test_t.dtype == "float32" and bool(jax.numpy.isfinite(fx_test_t).all())
assert round(degree.degree, 3) == 3
middle = slice(None, 20)  # 70 of 400 steps
trained, predicted = run.data.test_loss.sel(step=steps).values, jax.vmap(mse, (0, None))(fx_test, y_test)
assert np.abs(trained / predicted - 1)[middle].max() < 8 / width
assert set(runs.status.values.flat) == {"done"}

from ntkdecay import scale_invariant
from ntkdecay.scale_invariant import networks as invariant

cnn = networks.cnn(batch_norm=True, filters=4, dense=8, pool=2)
cnn.apply(cnn.init(jax.random.key(0), digits.x_train[:4]), digits.x_train[:4])
params = network.init(jax.random.key(0), x)
kernels.empirical_ntk(network.apply, params, x[:8])
plain = networks.fully_connected((16,), bias=False)
assert round(homogeneity.degree(plain.apply, plain.init(jax.random.key(0), x), x).degree, 3) == 2
fc = invariant.fc(width=8)
assert scale_invariant.is_scale_invariant(fc.apply, fc.init(jax.random.key(0), x), x)[0]
"""


def test_the_readme_runs_in_float32_without_a_warning(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    script = tmp_path / "readme.py"
    widest = "for width in 8, 32, 128:"
    assert widest in blocks[1]
    blocks[1] = blocks[1].replace(widest, "for width in 8, 48:")  # a fifth of the time
    script.write_text("\n".join([BEFORE, *blocks, AFTER]))
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    environment |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error", str(script)]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert not run.stderr, run.stderr
