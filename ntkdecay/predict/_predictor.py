"""What `gradient_descent` and `sgd` give: f at any time, from outputs or from a state, around the program that walks it."""

from collections.abc import Callable, Mapping
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ntkdecay._checks import anything, array, checked, either, instance, is_traced, optional, shown
from ntkdecay._refuse import refuse
from ntkdecay.predict._checks import as_own, check_request, kernel, refuse_shape
from ntkdecay.predict._state import Loss, State, Wide, by_layer

Clock = Callable[[Any, Any], Any]


class PredictFnState:
    """f at any time: `predict_fn(t, fx_train_or_state_0, fx_test_0, k_test_train)`, as neural_tangents' for an ODEState.

    Args:
        t: ascending times of any shape, or numbers of steps; None: where nothing moves any more.
        fx_train_or_state_0: the function on the training points at t = 0, a number or an array of outputs; None: f
            on the training points is not asked; or a `State`, from which the walk goes on. Where labels are class
            numbers (samples,), outputs (samples, classes) are given here.
        fx_test_0: the function on test points at t = 0; None: f there is not asked, or it is part of the `State`.
        k_test_train: the kernel between test and training points, or a mapping from layers to kernels.

    Returns:
        f on the training points, on the test points, or the pair of both; given a `State`, a `State`. The axes of
        t lead.
    """

    def __init__(
        self,
        of: str,
        net: Wide,
        settings: Any,
        loss: Loss,
        clock: Clock,
        run: Callable[..., Any],
        ends: Mapping[int, str],
        told: Mapping[str, Any],
    ) -> None:
        """`clock(t, age)` checks t and turns it into what `run` counts in; `ends` says what a status of its walk means."""
        self._of, self._net, self._settings, self._loss = of, net, settings, loss
        self._clock, self._run, self._ends, self._told = clock, run, ends, told

    def __repr__(self) -> str:
        told = [f"{name}={shown(value)}" for name, value in self._told.items() if value is not None]
        names, degrees = self._net.layers, self._net.degrees
        degree = f"{degrees[0]:g}" if names is None else dict(zip(names, degrees, strict=True))
        return (
            "<predict_fn(t=None, fx_train_or_state_0=0.0, fx_test_0=None, k_test_train=None) of "
            f"{self._of} for labels of shape {self._net.y.shape}, degree={degree}, {', '.join(told)}>"
        )

    @overload
    def __call__(
        self,
        t: ArrayLike | None,
        fx_train_or_state_0: State,
        fx_test_0: None = None,
        k_test_train: Any = None,
    ) -> State: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_or_state_0: ArrayLike = 0.0,
        fx_test_0: None = None,
        k_test_train: Any = None,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None,
        fx_train_or_state_0: None,
        fx_test_0: ArrayLike,
        k_test_train: Any,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None,
        fx_train_or_state_0: ArrayLike,
        fx_test_0: ArrayLike,
        k_test_train: Any,
    ) -> tuple[Array, Array]: ...
    @overload
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_or_state_0: Any = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any: ...
    @checked(
        t=anything(),
        fx_train_or_state_0=either(optional(array()), instance(State, "a State")),
        fx_test_0=optional(array()),
        k_test_train=optional(by_layer(kernel())),
    )
    def __call__(
        self,
        t: ArrayLike | None = None,
        fx_train_or_state_0: Any = 0.0,
        fx_test_0: ArrayLike | None = None,
        k_test_train: Any = None,
    ) -> Any:
        given = isinstance(fx_train_or_state_0, State)
        if given and fx_test_0 is not None:
            raise ValueError("`fx_test_0` is part of the `State`; leave it None.")
        state = fx_train_or_state_0 if given else State(fx_train_or_state_0, fx_test_0)
        check_request(state.fx_train, state.fx_test, k_test_train)
        net = self._net
        for f, others in (
            (state.fx_train, np.shape(state.fx_train)[:1]),
            (state.fx_test, net.y.shape),
        ):
            net = net if f is None else net.with_outputs((*others, *np.shape(f)[1:]))
        name = "fx_train_0" if given else "fx_train_or_state_0"
        now = 0.0 if state.fx_train is None else state.fx_train
        first = _outputs(
            name, now if state.fx_train_0 is None else state.fx_train_0, net, net.shape
        )
        kernels = shape = first_test = None
        if state.fx_test is not None:
            kernels, shape = net.test_kernels(k_test_train)
            at_first = state.fx_test if state.fx_test_0 is None else state.fx_test_0
            first_test = _outputs("fx_test_0", at_first, net, shape)
        times, age = self._clock(t, state.age)
        start = net.start(state)._replace(
            fx_train=None, fx_test=None, fx_train_0=first, fx_test_0=first_test, age=age
        )
        after = self._after(net, times, start, kernels, shape)
        if given:
            return after._replace(fx_train_0=first, fx_test_0=first_test)
        if state.fx_test is None:
            return after.fx_train
        return after.fx_test if fx_train_or_state_0 is None else (after.fx_train, after.fx_test)

    def _after(self, net: Wide, times: Any, start: State, kernels: Any, shape: Any) -> State:
        """The state at all times, or an error that says why there is none."""
        try:
            after, status = self._run(net, self._settings, times, start, kernels, shape)
        except Exception as error:
            if net.whole and net.shape == net.y.shape and not _takes(self._loss, net):
                raise ValueError(
                    "`loss` does not take outputs of the labels' shape: if `y_train` holds class numbers, give "
                    f"`fx_train_or_state_0` of shape ({net.shape[0]}, classes), as jnp.zeros of it."
                ) from error
            raise
        status = status if is_traced(status) else np.asarray(status)
        for code, sentence in self._ends.items():
            after = refuse(after, (status == code).any(), sentence)
        return after


def _outputs(name: str, f: Any, net: Wide, shape: tuple[int, ...]) -> Any:
    """f at initialization, of the given shape or a number."""
    found = as_own(f, net.y.dtype)
    column = found.ndim == 2 and shape[1:] == (1,) and "train" in name
    hint = ", as the labels; class numbers are of shape (n,)" if column else ""
    refuse_shape(found, shape, name, hint)
    return found


def _takes(loss: Loss, net: Wide) -> bool:
    """Whether the loss is one of outputs of this network's shape."""
    try:
        jax.eval_shape(loss, jnp.zeros(net.shape, net.y.dtype), net.labels(net.y))
    except Exception:
        return False
    return True
