"""Theory is checked in float64, and broadcasting is always written out."""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
