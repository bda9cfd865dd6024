"""Keras's side of the pairs that docs/prove.md tries; examples/pairs_torch.py has the torch sides."""

import keras
from keras import layers


def small() -> keras.Model:
    """A convolution, BatchNormalization and two Dense layers, for images of 16 pixels."""
    return keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, activation="relu", name="dense"),
            layers.Dense(5, activation="softmax", name="classes"),
        ]
    )
