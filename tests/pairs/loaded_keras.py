"""A Keras model that comes with loaded weights."""

import keras
import numpy as np
from keras import layers


def arrays() -> list[np.ndarray]:
    """The weights, in Keras's layout."""
    random = np.random.default_rng(0)
    shapes = ((3, 3, 3, 4), (4,), (4 * 4 * 4, 5), (5,))
    return [random.normal(0, 0.1, shape).astype(np.float32) for shape in shapes]


def build() -> keras.Model:
    """A convolution that strides, and a dense layer."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax", name="dense"),
        ]
    )
    model.set_weights(arrays())
    return model
