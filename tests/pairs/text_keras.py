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
    model = keras.Model(inputs, layers.Dense(4)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def build_adam() -> keras.Model:
    """On TensorFlow a word's squared gradients are added up, not its gradients squared."""
    model = build()
    model.compile(keras.optimizers.Adam(), model.loss)
    return model
