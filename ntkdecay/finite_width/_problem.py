"""A homogeneous network, its loss and its L2, as every function of this package is given them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ntkdecay._arrays import own
from ntkdecay._checks import Rule, array, choice, function, is_traced, number, optional, tree
from ntkdecay._degree import or_measured, plain_degree
from ntkdecay._program import Program, read
from ntkdecay.homogeneity import degree as measured_degree
from ntkdecay.kernels._checks import check_network

Loss = Callable[[Array, Array], Array]

RULES: dict[str, Rule] = {
    "apply_fn": function("of params and x"),
    "params": tree(),
    "x_train": array(),
    "y_train": array(),
    "l2": number(above=0, why="it multiplies ‖θ‖²/2 in the loss"),
    "degree": optional(or_measured(number(above=0, why="the network's function grows as θ^k"))),
    "reduction": choice("mean", "sum"),
    "loss": optional(function("of (fx, y)")),
}


def _mean(fx: Array, y: Array) -> Array:
    return 0.5 * jnp.mean((fx - y) ** 2)


def _sum(fx: Array, y: Array) -> Array:
    return 0.5 * jnp.sum((fx - y) ** 2)


SQUARES: dict[str, Loss] = {"mean": _mean, "sum": _sum}


class Problem(NamedTuple):
    """f of the training points, the loss of it and L2; an argument of compiled programs."""

    f: Program  # of (params, x)
    loss: Program  # of (f, y)
    params: Any
    x: Array
    y: Array
    l2: Any
    degree: Any

    def outputs(self, params: Any) -> Array:
        return self.f(params, self.x)

    def slope(self, fx: Array) -> Array:
        """ℓ' = ∂L/∂f."""
        return jax.grad(lambda f: self.loss(f, self.y))(fx)


def problem(
    apply_fn: Any, params: Any, x: Any, y: Any, l2: Any, degree: Any, reduction: str, loss: Any
) -> Problem:
    """What the rules have looked at, read and held to each other.

    Raises:
        TypeError, ValueError: if params and x_train are not of one floating dtype, the labels do not suit the
            network's outputs, the loss gives no number, or the network is not homogeneous of this degree.
    """
    f, _, out, (x,) = check_network(apply_fn, params, False, x_train=x)
    y = own(y)
    if loss is None:
        if y.shape != out.shape:
            raise ValueError(
                f"`y_train` has shape {y.shape} and `apply_fn`'s output {out.shape}; MSE compares them entry by entry."
            )
        y = y.astype(out.dtype)
        program = read(SQUARES[reduction], out, y)
    elif y.shape[:1] != out.shape[:1]:
        raise ValueError(
            f"`y_train` has {y.shape[:1]} samples and `x_train` {out.shape[:1]}; each has its label."
        )
    else:
        program = read(loss, out, y)
        if getattr(program.out, "shape", None) != ():
            raise ValueError(
                f"`loss` gives {program.out} for outputs of shape {out.shape}; it must give one number."
            )
    return Problem(f, program, params, x, y, l2, _degree(apply_fn, params, x, degree))


def same_kind(task: Problem, x_test: Any) -> Array:
    """Test points as an array, which go through the network of the training points."""
    x = own(x_test)
    if x.shape[1:] != task.x.shape[1:] or x.dtype != task.x.dtype:
        raise ValueError(
            f"`x_test` holds {x.dtype} samples of shape {x.shape[1:]}, `x_train` {task.x.dtype} ones of "
            f"{task.x.shape[1:]}: both go through one network."
        )
    return x


def _degree(apply_fn: Any, params: Any, x: Array, degree: Any) -> float:
    """k as it is measured, which a given one must be; where numbers are traced, as it is given."""
    if is_traced(params, x, degree):
        if degree is None:
            raise ValueError(
                "`degree` is None, but the network's parameters or inputs are traced, so that it cannot be measured; "
                "give it."
            )
        return plain_degree(degree)
    found = measured_degree(apply_fn, params, x)
    k = float(plain_degree(found if degree is None else degree))
    if abs(k - found.degree) > 1e-3 * max(1.0, abs(k)):
        raise ValueError(
            f"`degree` is {k:g}, but Euler's identity gives {found.degree:.4g} for `apply_fn`: a network of k weight "
            "layers without biases or normalization has degree k."
        )
    if k <= 0:
        raise ValueError(
            f"`degree` is {k:g}: a function that does not depend on the scale of its weights is not held by L2; take "
            "`ntkdecay.scale_invariant`."
        )
    return k


def norm(tree: Any) -> Array:
    """‖·‖ of all entries of a pytree."""
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
