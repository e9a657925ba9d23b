"""Where a grid's arrays lie: members dealt to devices, or each member split over all of them.

By member the devices know nothing of each other. Split over the batch, every device has the parameters and its part of the samples;
over the width, every device has its part of each array that divides. The compiler adds what they tell each other.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

AXIS = "members"

Shard = Literal["batch", "width"]


class Places(NamedTuple):
    """The devices, and what of one member is shared out over them; None: nothing, each has members of its own."""

    devices: tuple[Any, ...]
    shard: Shard | None = None

    @property
    def groups(self) -> int:
        """Among how many the members are dealt."""
        return 1 if self.shard else len(self.devices)

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def members(self, tree: Any) -> Any:
        """Arrays of a row for each member."""
        return jax.tree.map(lambda leaf: jax.device_put(leaf, self._of_rows(leaf)), tree)

    def shapes(self, tree: Any) -> Any:
        """The same of shapes alone."""

        def placed(leaf: Any) -> Any:
            place = self._of_rows(leaf)
            sharding = SingleDeviceSharding(place) if len(self.devices) == 1 else place
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(placed, tree)

    def everywhere(self, tree: Any) -> Any:
        """Arrays of no member's own."""
        one = len(self.devices) == 1
        return jax.device_put(tree, self.devices[0] if one else NamedSharding(self.mesh, P()))

    def kept(self, states: Any) -> Any:
        """States within a program, where `members` puts them."""
        if self.shard is None or len(self.devices) == 1:
            return states
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, self._of_rows(leaf)), states
        )

    def samples(self, x: Array) -> Array:
        """A batch within a program, shared out if that is asked for and it divides."""
        if self.shard != "batch" or len(x) % len(self.devices) or len(self.devices) == 1:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, P(AXIS)))

    def _of_rows(self, leaf: Any) -> Any:
        if len(self.devices) == 1:
            return self.devices[0]
        if self.shard is None:
            return NamedSharding(self.mesh, P(AXIS))
        return NamedSharding(self.mesh, self._of_width(leaf))

    def _of_width(self, leaf: Any) -> P:
        """The longest axis behind the rows that divides; of equal ones the last."""
        lengths = [n if n % len(self.devices) == 0 else 0 for n in leaf.shape[1:]]
        if self.shard != "width" or not any(lengths) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return P()
        longest = max(range(len(lengths)), key=lambda i: (lengths[i], i))
        return P(*[None] * (longest + 1), AXIS)
