"""The fused kernel of BatchNormalization computes what Keras's dozen operations do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_impl.layers.fused_batchnorm import fuse_batch_norm

IMAGES = np.random.default_rng(1).normal(3, 2, size=(8, 7, 6, 5)).astype("float32")
ROWS = np.linspace(0, 1, 5, dtype="float32")[:, None, None]  # so that no gradient is zero by symmetry


def model(fused: bool, **settings: Any) -> keras.Model:
    inputs = x = keras.Input((7, 6, 5))
    x = keras.layers.BatchNormalization(momentum=0.9, name="bn", **settings)(x)
    x = keras.layers.Conv2D(3, 3)(x)
    built = keras.Model(inputs, x)
    draw = np.random.default_rng(0)
    built.set_weights([np.abs(draw.normal(size=w.shape)) + 0.5 for w in built.get_weights()])
    if fused:
        fuse_batch_norm(built)
    return built


def step(built: keras.Model) -> list[np.ndarray]:
    """Output, gradients to the input and to the weights, and the weights after a training pass."""

    @tf.function
    def run() -> Any:
        images = tf.constant(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = built(images, training=True)
            loss = tf.reduce_mean(outputs**2 * ROWS)
        return [outputs, *tape.gradient(loss, [images, *built.trainable_variables])]

    return [np.asarray(one) for one in run()] + built.get_weights()


def is_fused(built: keras.Model) -> bool:
    return "call" in vars(built.get_layer("bn"))


def test_a_training_pass_is_the_same_to_rounding() -> None:
    plain, fused = model(False), model(True)
    assert is_fused(fused)
    assert not is_fused(plain)
    for one, other in zip(step(plain), step(fused), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-5 * np.abs(one).max())
    # Keras's variance divides by the count: the kernel's own would be off by 1 / 335.
    found, expected = (one.get_layer("bn").moving_variance for one in (fused, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_evaluation_and_frozen_layers_take_keras_own_way() -> None:
    plain, fused = model(False), model(True)
    np.testing.assert_array_equal(plain(IMAGES, training=False), fused(IMAGES, training=False))
    for built in (plain, fused):
        built.get_layer("bn").trainable = False
    before = fused.get_weights()
    np.testing.assert_array_equal(plain(IMAGES, training=True), fused(IMAGES, training=True))
    for one, other in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_saved_is_keras_own(tmp_path: Path) -> None:
    fused = model(True)
    step(fused)
    fused.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("bn")) is keras.layers.BatchNormalization
    assert not is_fused(loaded)
    np.testing.assert_allclose(loaded(IMAGES), fused(IMAGES), rtol=1e-6)


@pytest.mark.parametrize("settings", [{"axis": 1}, {"scale": False}, {"center": False}, {"dtype": "float64"}])
def test_a_layer_that_the_kernel_does_not_know_is_left(settings: dict[str, Any]) -> None:
    assert not is_fused(model(True, **settings))
