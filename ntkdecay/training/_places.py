"""Where a grid's arrays lie: members dealt to devices, or each member split over all of them.

By member the devices know nothing of each other. Split over the batch, every device has the parameters and its part of the samples;
over the width, every device has its part of each array that divides. The compiler adds what they tell each other.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding
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
        return jax.device_put(tree, self._of_rows(tree))

    def shapes(self, tree: Any) -> Any:
        """The same of shapes alone."""

        def placed(leaf: Any, place: Any) -> Any:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        return jax.tree.map(placed, tree, self._of_rows(tree))

    def everywhere(self, tree: Any) -> Any:
        """Arrays of no member's own."""
        return jax.device_put(tree, self._by(P()))

    def kept(self, states: Any) -> Any:
        """States within a program, where `members` puts them."""
        if self.shard is None or len(self.devices) == 1:
            return states
        return jax.lax.with_sharding_constraint(states, self._of_rows(states))

    def samples(self, x: Array) -> Array:
        """A batch within a program, shared out if that is asked for and it divides."""
        if self.shard != "batch" or len(x) % len(self.devices) or len(self.devices) == 1:
            return x
        return jax.lax.with_sharding_constraint(x, self._by(P(AXIS)))

    def _by(self, spec: P) -> Sharding:
        one = len(self.devices) == 1
        return SingleDeviceSharding(self.devices[0]) if one else NamedSharding(self.mesh, spec)

    def _of_rows(self, tree: Any) -> Any:
        """Of each leaf."""
        if self.shard is None:
            place = self._by(P(AXIS))
            return jax.tree.map(lambda _: place, tree)
        return jax.tree.map(lambda leaf: self._by(self._of_width(leaf)), tree)

    def _of_width(self, leaf: Any) -> P:
        """The longest axis behind the rows that divides; of equal ones the last."""
        lengths = [n if n % len(self.devices) == 0 else 0 for n in leaf.shape[1:]]
        if self.shard != "width" or not any(lengths) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return P()
        longest = max(range(len(lengths)), key=lambda i: (lengths[i], i))
        return P(*[None] * (longest + 1), AXIS)
