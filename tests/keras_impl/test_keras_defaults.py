from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest

from experiment.protocols import keras_defaults
from experiment.protocols.keras_defaults import CALLBACKS, LAYERS, OPTIMIZERS

PLACES = [
    *((keras.layers, name) for name in LAYERS),
    *((keras.optimizers, name) for name in OPTIMIZERS),
    *((keras.callbacks, name) for name in CALLBACKS),
]


@pytest.mark.parametrize(("module", "name"), PLACES, ids=[name for _, name in PLACES])
def test_the_table_is_what_keras_has(module: Any, name: str) -> None:
    parameters = inspect.signature(getattr(module, name).__init__).parameters
    for argument, value in keras_defaults.DEFAULTS[name].items():
        assert parameters[argument].default == value, argument


def test_gelu_is_exact_as_torchs() -> None:
    assert inspect.signature(keras.activations.gelu).parameters["approximate"].default is False


def first_steps(optimizer: keras.optimizers.Optimizer, gradients: list[float]) -> list[float]:
    weight = keras.Variable([1.0], dtype="float64")
    optimizer.build([weight])
    values = []
    for gradient in gradients:
        optimizer.apply_gradients([(keras.ops.convert_to_tensor([gradient], dtype="float64"), weight)])
        values.append(float(keras.ops.convert_to_numpy(weight)[0]))
    return values


def test_rmsprop_has_epsilon_under_the_root() -> None:
    [after] = first_steps(keras.optimizers.RMSprop(0.1, rho=0.9, epsilon=1e-2), [0.1])
    v = 0.1 * 0.1**2
    np.testing.assert_allclose(after, 1 - 0.1 * 0.1 / np.sqrt(v + 1e-2), rtol=1e-6)


def test_sgds_velocity_holds_the_learning_rate() -> None:
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    first, second = first_steps(optimizer, [1.0]), None
    optimizer.learning_rate = 0.01
    weight = optimizer._trainable_variables[0]
    optimizer.apply_gradients([(keras.ops.convert_to_tensor([1.0], dtype="float64"), weight)])
    second = float(keras.ops.convert_to_numpy(weight)[0])
    assert first == pytest.approx([0.9])
    # torch would take 0.01 * (0.9 + 1) from it; Keras takes 0.9 * 0.1 + 0.01.
    np.testing.assert_allclose(second, 0.9 - (0.9 * 0.1 + 0.01), rtol=1e-6)


def test_weight_decay_is_decoupled() -> None:
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    [after] = first_steps(optimizer, [0.0])
    np.testing.assert_allclose(after, 1 - 0.1 * 0.5, rtol=1e-6)


def test_clipnorm_clips_each_weight_alone() -> None:
    weights = [keras.Variable([0.0], dtype="float64"), keras.Variable([0.0], dtype="float64")]
    optimizer = keras.optimizers.SGD(1.0, clipnorm=1.0)
    optimizer.build(weights)
    gradients = [keras.ops.convert_to_tensor([value], dtype="float64") for value in (3.0, 4.0)]
    optimizer.apply_gradients(list(zip(gradients, weights, strict=True)))
    np.testing.assert_allclose([float(keras.ops.convert_to_numpy(w)[0]) for w in weights], [-1, -1])
