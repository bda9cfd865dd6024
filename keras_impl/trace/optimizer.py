"""How a user's model is trained: its optimizer, in words that both sides know, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import keras
import numpy as np
from keras.src import ops
from keras.src.ops.core import cast

from experiment.protocols.trace import Arrays
from keras_impl.layers import weight_layout
from keras_impl.optimizers import slots as known_slots
from keras_impl.trace.recorder import named_leaves

# Optimizers that `parity` knows the steps of; others go by their own names. AdamW is Adam with a decay.
FAMILIES = ("Adam", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion")
SETTINGS = (
    "beta_1",
    "beta_2",
    "epsilon",
    "amsgrad",
    "momentum",
    "nesterov",
    "rho",
    "centered",
    "initial_accumulator_value",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "gradient_accumulation_steps",
)
# What an optimizer keeps of every weight beside `keras_impl.optimizers.slots`: how its variables' names end.
ENDINGS = {
    "velocity_hats": "_velocity_hat",
    "norms": "_norm",
    "average_gradients": "_average_gradient",
    "accumulators": "_accumulator",
    "accumulated_grads": "_accumulated_grad",
    "accumulated_delta_vars": "_accumulated_delta_var",
}


def facts(model: Any, steps: int = 1) -> dict[str, Any]:
    """A compiled model's optimizer for structure.json: its class, family, settings and those of some weights.

    family: "" for one that torch has no twin of. overrides: the settings of a weight that are others. rates:
    the learning rate of each of so many steps, one where it does not change.
    """
    optimizer = model.optimizer
    family = next((cls.__name__ for cls in type(optimizer).__mro__ if cls.__name__ in FAMILIES), "")
    settings = {name: getattr(optimizer, name) for name in SETTINGS if hasattr(optimizer, name)}
    settings |= {"weight_decay": optimizer.weight_decay or 0.0, "decay": "decoupled"}
    if optimizer.use_ema and optimizer.ema_overwrite_frequency:
        settings |= {
            "ema_momentum": optimizer.ema_momentum,
            "ema_overwrite_frequency": optimizer.ema_overwrite_frequency,
        }
    overrides: dict[str, dict[str, Any]] = {}
    if settings["weight_decay"]:
        overrides = {
            key: {"weight_decay": 0.0}
            for key, variable in _variables(model).items()
            if variable.trainable and not optimizer._use_weight_decay(variable)
        }
    return {
        "class": type(optimizer).__name__,
        "family": family,
        "form": "keras",
        "settings": settings,
        "overrides": overrides,
        "schedule": _schedule(optimizer),
        "rates": _rates(model, steps),
    }


def notes(model: Any) -> list[str]:
    """What a reader must know of how a model is trained."""
    optimizer, said = model.optimizer, []
    if optimizer.use_ema and not optimizer.ema_overwrite_frequency:
        said.append(
            f"Keras's {type(optimizer).__name__} averages the weights (use_ema, momentum "
            f"{optimizer.ema_momentum:g}) and puts the average in their place when fit ends: compared are "
            "the weights that train"
        )
    return said


def learning_rate(optimizer: Any) -> float:
    """That of the next step."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def slots(optimizer: Any) -> dict[str, list[Any]]:
    """What the optimizer keeps, by the names that both sides give it, in the order of the weights."""
    found = {
        name: [
            variable
            for variable in optimizer.variables
            if variable.name.endswith(ending) and not variable.name.endswith("_gradient_accumulator")
        ]
        for name, ending in ENDINGS.items()
    }
    return known_slots(optimizer) | {name: variables for name, variables in found.items() if variables}


def penalties(model: Any) -> dict[str, dict[str, Any]]:
    """The factors l1 and l2 of every regularised weight, `layer/weight`, and output, `layer`.

    A regulariser that is neither L1 nor L2 has none of these, and is named.
    """
    found = {}
    for key, variable in _variables(model).items():
        if (regulariser := getattr(variable, "regularizer", None)) is not None:
            found[key] = _factors(regulariser)
    for name, layer in named_leaves(model).items():
        if (regulariser := getattr(layer, "activity_regularizer", None)) is not None:
            found[name] = _factors(regulariser)
    return found


def penalty(model: Any) -> Arrays:
    """The sum of the penalties of the pass that was last run in training, a scalar."""
    total = sum(float(keras.ops.convert_to_numpy(loss)) for loss in model.losses)
    return {"penalty": np.array(total)}


def weight_penalty(model: Any) -> float:
    """The sum of the penalties of the weights alone, which need no pass."""
    weights = (v for v in model.trainable_variables if getattr(v, "regularizer", None) is not None)
    return sum(float(keras.ops.convert_to_numpy(v.regularizer(v))) for v in weights)


@contextmanager
def exact_settings(model: Any) -> Iterator[None]:
    """The settings of a model's optimizer, its schedule and its regularisers keep their digits in float64.

    As torch's do. Rounded to float32 by TensorFlow, betas move a step by 1e-5 of itself, which no training in
    float32 sees.
    """
    rounded: list[tuple[Any, str]] = []
    rate = getattr(getattr(model, "optimizer", None), "_learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rounded += [(rate, name) for name in vars(rate)]
    for variable in model.variables:
        rounded += [(getattr(variable, "regularizer", None), name) for name in ("l1", "l2")]
    for layer in named_leaves(model).values():
        rounded += [(getattr(layer, "activity_regularizer", None), name) for name in ("l1", "l2")]
    with ExitStack() as stack:
        # The optimizers take their betas, momentum and decay through this.
        stack.enter_context(patch.object(ops, "cast", _cast))
        for owner, name in rounded:
            value = getattr(owner, name, None)
            if keras.ops.is_tensor(value):  # Keras's L1 keeps its factor as one, in float32
                value = as_given(float(keras.ops.convert_to_numpy(value)))
            if type(value) is float:
                stack.enter_context(patch.object(owner, name, np.float64(value)))
            elif isinstance(value, list | tuple) and all(type(one) is float for one in value):
                stack.enter_context(patch.object(owner, name, [np.float64(one) for one in value]))
        yield


def as_given(value: float) -> float:
    """A number as its user wrote it, from what float32 made of it; another stays as it is."""
    single = np.float32(value)
    return float(str(single)) if float(single) == value else value


def exact_start(optimizer: Any) -> None:
    """Give a built optimizer's accumulators the digits of float64, which an initializer rounds to float32."""
    start = getattr(optimizer, "initial_accumulator_value", None)
    for variable in getattr(optimizer, "_accumulators", []) if start is not None else []:
        variable.assign(np.full(variable.shape, start, keras.config.floatx()))


@contextmanager
def rows_summed(optimizer: Any) -> Iterator[list[str]]:
    """Until it is left, an optimizer takes a row that a step uses more than once with its gradients' sum.

    TensorFlow gives the gradient of an Embedding in slices, one for each token, and Keras's optimizers square
    those of a repeated token apart, which no other backend does. Yields notes, one where that shows.
    """
    said: list[str] = []
    if keras.backend.backend() != "tensorflow":
        yield said
        return
    import tensorflow as tf

    apply = optimizer.apply
    squares = not isinstance(optimizer, keras.optimizers.SGD | keras.optimizers.Lion)

    def of_sums(gradients: Any, variables: Any = None) -> None:
        gradients = list(gradients)
        if squares and not said and any(isinstance(gradient, tf.IndexedSlices) for gradient in gradients):
            said.append(
                f"on TensorFlow an Embedding's gradient comes in slices, and Keras's "
                f"{type(optimizer).__name__} squares those of a repeated token apart; traced with the square "
                "of their sum, as Keras takes it on JAX and on torch"
            )
        apply([None if g is None else tf.convert_to_tensor(g) for g in gradients], variables)

    with patch.object(optimizer, "apply", of_sums):
        yield said


def _cast(x: Any, dtype: Any) -> Any:
    return cast(np.float64(x) if type(x) is float else x, dtype)


def _factors(regulariser: Any) -> dict[str, Any]:
    factors: dict[str, Any] = {
        name: as_given(float(getattr(regulariser, name, 0.0) or 0.0)) for name in ("l1", "l2")
    }
    known = isinstance(regulariser, keras.regularizers.L1 | keras.regularizers.L2 | keras.regularizers.L1L2)
    return factors if known else {"class": type(regulariser).__name__}


def _variables(model: Any) -> dict[str, Any]:
    return {
        f"{unit}/{name}": weight.variable
        for leaf, operation in named_leaves(model).items()
        for unit, weights in weight_layout.units(leaf, operation).items()
        for name, weight in weights.items()
    }


def _rates(model: Any, steps: int) -> list[float]:
    rate = model.optimizer._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return [as_given(learning_rate(model.optimizer))]
    with exact_settings(model):
        return [float(keras.ops.convert_to_numpy(rate(step))) for step in range(steps)]


def _schedule(optimizer: Any) -> dict[str, str]:
    """The class of a learning rate that changes by itself, and when it does."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return {"class": type(rate).__name__, "interval": "step"}
    return (
        {"class": "a function", "interval": "step"} if callable(rate) and not hasattr(rate, "assign") else {}
    )
