"""A model's weights as plain arrays, in Keras's layout and under the layers' names."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from experiment.errors import RunError
from experiment.protocols.checkpoint import Arrays
from experiment.training import warm_start as update
from experiment.training.lifecycle import Session
from keras_impl import checkpoint
from keras_impl.model import named_layers


def weights(model: keras.Model) -> Arrays:
    """Every weight and moving statistic by `LAYER/NAME`, such as conv1/kernel or bn1/moving_mean.

    Kernels are (height, width, in, out), of a depthwise convolution (height, width, in, multiplier), or
    (in, out); dtypes are the model's.
    """
    return {name: to_array(variable) for name, variable in by_name(model).items()}


def load(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a model what `weights` found; raises RunError where names or shapes differ."""
    own = by_name(model)
    if odd := sorted(own.keys() ^ arrays.keys()):
        raise RunError(f"the model and the arrays differ in {', '.join(odd)}")
    for name, variable in own.items():
        assign(variable, arrays[name], name)


def warm_start(session: Session, model: keras.Model) -> None:
    """Give a new model the weights of the run that its session starts from, if from any."""
    if session.warm is not None:
        old = weights(checkpoint.load(session.warm))
        load(model, update.grown(old, weights(model), len(session.warm.class_names)))


def by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Every weight and statistic of a model by `LAYER/NAME`."""
    return {
        f"{name}/{variable.name}": variable
        for name, layer in named_layers(model).items()
        for variable in layer.weights
    }


def to_array(values: keras.Variable) -> np.ndarray:
    """A copy of a variable."""
    return np.array(keras.ops.convert_to_numpy(values))


def assign(target: keras.Variable, values: np.ndarray, name: str) -> None:
    """Set a target; raises RunError, with `name`, where the shape is another."""
    if tuple(target.shape) != values.shape:
        raise RunError(f"{name} is {tuple(target.shape)} in the model and {values.shape} in the arrays")
    target.assign(values)
