"""What a trace says of a Keras model: names, kinds, settings, layouts."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from experiment import cli
from experiment.protocols.trace import Request
from keras_impl.layers import weight_layout
from keras_impl.layers.registry import kind, settings
from keras_impl.trace.precision import exact_constants
from keras_impl.trace.recorder import Recording, leaves, without_dropout
from keras_impl.trace.target import users_model

OF_TORCH = "keras.src.backend.torch.optimizers.torch_adam"


def built(layer: Any, *shape: int) -> Any:
    layer.build((None, *shape))
    return layer


def test_a_depthwise_kernel_is_that_of_a_convolution_in_groups() -> None:
    layer = built(layers.DepthwiseConv2D(3, depth_multiplier=2), 8, 8, 4)
    found = weight_layout.arrays(layer)
    assert {name: array.shape for name, array in found.items()} == {"kernel": (3, 3, 1, 8), "bias": (8,)}
    own = keras.ops.convert_to_numpy(layer.kernel)
    np.testing.assert_array_equal(found["kernel"][:, :, 0, 5], own[:, :, 2, 1])  # 5 = 2 * multiplier + 1


def test_a_separable_convolution_counts_as_two() -> None:
    layer = built(layers.SeparableConv2D(6, 3, name="separable"), 8, 8, 4)
    units = {unit: list(weights) for unit, weights in weight_layout.units("separable", layer).items()}
    assert units == {"separable/depthwise": ["kernel"], "separable": ["kernel", "bias"]}


def test_random_state_is_no_weight() -> None:
    assert weight_layout.weights(built(layers.Dropout(0.5, seed=1), 4)) == {}


# Keras's `same` adds the odd pixel behind: (ceil(n / s) - 1) * s + k - n in all.
PADDING = [
    (layers.Conv2D(4, 3, strides=2, padding="same"), 8, [[0, 1], [0, 1]]),
    (layers.Conv2D(4, 3, strides=2, padding="same"), 9, [[1, 1], [1, 1]]),
    (layers.Conv2D(4, 4, padding="same"), 8, [[1, 2], [1, 2]]),
    (layers.Conv2D(4, 3, dilation_rate=2, padding="same"), 8, [[2, 2], [2, 2]]),
    (layers.Conv2D(4, 3), 8, [[0, 0], [0, 0]]),
    (layers.MaxPooling2D(3, strides=2, padding="same"), 8, [[0, 1], [0, 1]]),
    (layers.MaxPooling2D(2), 8, [[0, 0], [0, 0]]),
]


@pytest.mark.parametrize(("layer", "size", "padding"), PADDING)
def test_padding_is_counted_in_pixels(layer: Any, size: int, padding: list) -> None:
    built(layer, size, size, 3)
    assert settings(layer, (1, size, size, 3))["padding"] == padding


SETTINGS: list[tuple[Any, str, dict[str, Any]]] = [
    (layers.BatchNormalization(), "BatchNormalization", {"epsilon": 1e-3, "momentum": 0.99}),
    (layers.GroupNormalization(2), "GroupNormalization", {"epsilon": 1e-3, "groups": 2}),
    (layers.LeakyReLU(), "leaky_relu", {"negative_slope": 0.3}),
    (layers.ReLU(), "relu", {}),
    (layers.Dropout(0.3), "Dropout", {"rate": 0.3}),
]


@pytest.mark.parametrize(("layer", "name", "found"), SETTINGS, ids=[one[1] for one in SETTINGS])
def test_settings_that_change_numbers_are_told(layer: Any, name: str, found: dict[str, Any]) -> None:
    assert kind(layer) == name
    told = settings(layer, (1, 8, 8, 4))
    assert {key: told[key] for key in found} == pytest.approx(found)


def model() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    x = conv(conv(inputs))
    x = layers.Add(name="sum")([x, inputs])
    inner = keras.Sequential([layers.Flatten(name="flatten"), layers.Dropout(0.5, name="drop")], name="inner")
    return keras.Model(inputs, layers.Dense(2, name="dense")(inner(x)))


def test_activations_second_calls_and_inner_models_are_opened() -> None:
    whole = model()
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    with Recording(whole) as recording:
        outputs = keras.ops.convert_to_numpy(whole(images, training=False))
    seen = {one.name: one for one in recording.seen}
    assert list(seen) == [
        "conv",
        "conv/activation",
        "conv@2",
        "conv@2/activation",
        "sum",
        "flatten",
        "drop",
        "dense",
    ]
    assert seen["conv/activation"].kind == "relu"
    before = seen["conv"].output
    assert before is not None
    np.testing.assert_array_equal(seen["conv/activation"].output, np.maximum(before, 0))
    assert seen["sum"].inputs == ("conv@2/activation", "")
    np.testing.assert_array_equal(seen["dense"].output, outputs)
    # What was put in the way is gone again.
    assert "call" not in vars(whole.get_layer("dense"))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(whole(images, training=False)), outputs)


def test_without_dropout_training_repeats_itself() -> None:
    whole = model()
    images = np.ones((4, 8, 8, 3), np.float32)
    rates = [layer.rate for layer in leaves(whole) if isinstance(layer, layers.Dropout)]
    with without_dropout(whole):
        first, second = (keras.ops.convert_to_numpy(whole(images, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert rates == [layer.rate for layer in leaves(whole) if isinstance(layer, layers.Dropout)] == [0.5]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("settings", [{"strides": 2}, {"dilation_rate": 2}, {"padding": "same"}])
def test_a_traced_convolution_of_groups_is_what_keras_computes(groups: int, settings: dict) -> None:
    layer = built(layers.Conv2D(8, 3, groups=groups, dtype="float64", **settings), 9, 9, 4)
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 4))
    plain = keras.ops.convert_to_numpy(layer(x))
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        with exact_constants(keras.Sequential([layer])):
            traced = keras.ops.convert_to_numpy(layer(x))
    finally:
        keras.config.set_floatx(floatx)
    np.testing.assert_allclose(traced, plain, rtol=1e-12, atol=1e-12)


def test_a_file_that_was_saved_on_torch_is_read_without_torch(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(2e-3), "mse")
    model.save(tmp_path / "ours.keras")
    with (
        zipfile.ZipFile(tmp_path / "ours.keras") as ours,
        zipfile.ZipFile(tmp_path / "its.keras", "w") as its,
    ):
        for name in ours.namelist():
            text = ours.read(name)
            if name == "config.json":
                config = json.loads(text)
                config["compile_config"]["optimizer"]["module"] = OF_TORCH
                text = json.dumps(config).encode()
            its.writestr(name, text)
    request = Request(cli.experiment_from({}), build=str(tmp_path / "its.keras"))
    loaded = users_model(request, seed=0)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(2e-3)
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
    assert OF_TORCH not in sys.modules
