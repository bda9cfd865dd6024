"""Keras models that `python -m parity migrate` makes packages of; docs/migrate.md shows how."""

from __future__ import annotations

import keras
from keras import layers


def cnn() -> keras.Model:
    """This project's CNN at its default settings, not compiled."""
    from experiment.config import Experiment
    from keras_impl.model import build_model

    return build_model(Experiment(), 10)


def mobilenet() -> keras.Model:
    """MobileNetV2 of width 0.35 at 96 pixels, with initial weights."""
    return keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, weights=None, classes=10)


def text() -> keras.Model:
    """A classifier of 40 tokens, with a schedule and clipped gradients."""
    tokens = keras.Input((40,), dtype="int32", name="tokens")
    x = layers.Embedding(1000, 32, name="embedding")(tokens)
    x = layers.Bidirectional(layers.LSTM(32), name="lstm")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    model = keras.Model(
        tokens, layers.Dense(4, activation="softmax", name="topic")(x), name="text_classifier"
    )
    rate = keras.optimizers.schedules.ExponentialDecay(1e-3, 100, 0.9)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def callbacks() -> list[keras.callbacks.Callback]:
    """What the text classifier is trained with."""
    return [
        keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau(patience=2),
    ]
