"""A small text classifier as a Keras user writes it."""

import keras
from keras import layers

WORDS, LENGTH = 50, 12


def build() -> keras.Model:
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(WORDS, 16)(inputs)
    x = layers.LayerNormalization()(x)
    x = layers.Dense(24, activation="gelu")(x)
    x = layers.Dropout(0.1)(x)
    x = layers.LayerNormalization()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(8, activation="tanh")(x)
    return keras.Model(inputs, layers.Dense(4)(x))
