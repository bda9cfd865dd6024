"""Small Keras models that stand for a user's.

`lightning_impl.planted` has their twins, the right ones and those with a fault. Every name of `PAIRS` is a
builder: `keras_impl.planted:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, optimizers, regularizers

SIZE = 12  # of images
CLASSES = 4


def convolutional() -> keras.Model:
    """A strided convolution, frozen nowhere, with all that follows one in an image classifier."""
    return _classifier(
        (SIZE, SIZE, 3),
        layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        layers.AveragePooling2D(3, strides=1, padding="same"),
        layers.Flatten(),
        layers.Dense(8, activation="gelu"),
        layers.LayerNormalization(),
    )


def frozen() -> keras.Model:
    """A convolution and its BatchNormalization, both frozen, and a head that trains."""
    model = _classifier((SIZE, SIZE, 3), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten())
    for layer in model.layers[:2]:
        layer.trainable = False
    return model


def preprocessed() -> keras.Model:
    """Resizing, scaling and a normalisation by given numbers, in the model."""
    return _classifier(
        (SIZE, SIZE, 3),
        layers.Resizing(8, 8),
        layers.Rescaling(1 / 127.5, offset=-1.0),
        layers.Normalization(mean=(0.485, 0.456, 0.406), variance=(0.05, 0.06, 0.07)),
        layers.Conv2D(4, 3),
        layers.Flatten(),
    )


def backbone() -> keras.Model:
    """A bottleneck block as Keras's ResNet50 has it: strided in its first convolution, with biases."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5)(layers.Conv2D(4, 1, strides=2)(inputs)))
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5)(layers.Conv2D(4, 3, padding="same")(x)))
    x = layers.BatchNormalization(epsilon=1.001e-5)(layers.Conv2D(8, 1)(x))
    shortcut = layers.BatchNormalization(epsilon=1.001e-5)(layers.Conv2D(8, 1, strides=2)(inputs))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, shortcut])))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))


def transposed() -> keras.Model:
    """A transposed convolution, cropped behind."""
    return _classifier(
        (6, 6, 3), layers.Conv2DTranspose(4, 3, strides=2, padding="same"), layers.GlobalAveragePooling2D()
    )


def lstm() -> keras.Model:
    """An LSTM that holds weights of its own."""
    return _loaded(_classifier((7, 5), layers.LSTM(6)))


def bidirectional() -> keras.Model:
    """An LSTM both ways."""
    return _classifier((7, 5), layers.Bidirectional(layers.LSTM(6)))


def attention() -> keras.Model:
    """Self-attention of two heads, between two layers that tell its steps apart."""
    inputs = keras.Input((7, 5))
    x = layers.LayerNormalization()(inputs)
    x = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))


class OwnAttention(layers.Layer):
    """Self-attention of two heads, written by hand from Dense layers."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (layers.Dense(features) for _ in range(4))

    def build(self, shape: Any) -> None:
        for part in (self.query, self.key, self.value, self.out):
            part.build(shape)

    def call(self, x: Any) -> Any:
        query, key, value = (
            keras.ops.reshape(part(x), (-1, x.shape[1], 2, x.shape[2] // 2))
            for part in (self.query, self.key, self.value)
        )
        scores = keras.ops.einsum("nqhd,nkhd->nhqk", query, key) / (x.shape[2] // 2) ** 0.5
        y = keras.ops.einsum("nhqk,nkhd->nqhd", keras.ops.softmax(scores), value)
        return self.out(keras.ops.reshape(y, (-1, *x.shape[1:])))


def own_attention() -> keras.Model:
    """Attention by a layer of the user's own."""
    return _classifier((7, 5), layers.Dense(6), OwnAttention(6), layers.GlobalAveragePooling1D())


def gated() -> keras.Model:
    """Steps mixed by a gate, normalised, and summed up by weights of their own."""
    inputs = keras.Input((7, 5))
    gate = layers.Dense(5, activation="sigmoid")(inputs)
    x = layers.Dense(5, activation="tanh")(inputs) * gate + inputs * (1 - gate)
    x = layers.LayerNormalization()(x)
    weights = layers.Softmax(axis=1)(layers.Dense(1)(x))
    x = keras.ops.sum(x * weights, axis=1)
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))


def dropped(inside: float = 0.0) -> keras.Model:
    """Recurrent layers on one another, with dropout between and after; inside: of the last one's states."""
    return _classifier(
        (7, 5),
        layers.LSTM(6, return_sequences=True),
        layers.Dropout(0.2),
        layers.LSTM(6, recurrent_dropout=inside),
        layers.Dropout(0.3),
    )


def masked() -> keras.Model:
    """The mean of a text's embeddings, without those of its padding."""
    inputs = keras.Input((7,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(5, 6, mask_zero=True)(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x))


def flattened() -> keras.Model:
    """A Dense layer on flattened images, with weights of its own."""
    model = _classifier((SIZE, SIZE, 3), layers.Conv2D(4, 3), layers.Flatten())
    return _loaded(model)


def gru(reset_after: bool = True) -> keras.Model:
    """A GRU that holds weights of its own."""
    return _loaded(_classifier((7, 5), layers.GRU(6, reset_after=reset_after)))


def dense(optimizer: Any = None, regularizer: Any = None, loss: Any = None) -> keras.Model:
    """Two Dense layers, compiled with an optimizer where it is given, and a loss."""
    model = _classifier((10,), layers.Dense(8, activation="tanh", kernel_regularizer=regularizer))
    if optimizer is not None or loss is not None:
        model.compile(optimizer or optimizers.Adam(), loss or "sparse_categorical_crossentropy")
    return model


def two_outputs() -> keras.Model:
    """Two outputs, whose losses are weighted."""
    inputs = keras.Input((10,))
    x = layers.Dense(8, activation="tanh")(inputs)
    heads = [layers.Dense(CLASSES, activation="softmax")(x), layers.Dense(3, activation="softmax")(x)]
    model = keras.Model(inputs, heads)
    model.compile("adam", ["sparse_categorical_crossentropy"] * 2, loss_weights=[1.0, 0.3])
    return model


def regression() -> keras.Model:
    """A regression by the mean squared error."""
    model = keras.Sequential([keras.Input((10,)), layers.Dense(8, activation="tanh"), layers.Dense(2)])
    model.compile("adam", "mse")
    return model


def augmented() -> keras.Model:
    """Flips images in training, and drops features."""
    return _classifier((SIZE, SIZE, 3), layers.RandomFlip(), layers.Flatten(), layers.Dropout(0.3))


def _schedule() -> Any:
    return optimizers.Adam(optimizers.schedules.ExponentialDecay(1e-2, 1, 0.5))


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: optimizers.Adam(1e-2),
    "adamw": lambda: optimizers.AdamW(1e-2, weight_decay=0.1),
    "amsgrad": lambda: optimizers.Adam(1e-2, amsgrad=True),
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "scheduled_momentum": lambda: optimizers.SGD(
        optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), momentum=0.9
    ),
    "scheduled": _schedule,
    "rmsprop": lambda: optimizers.RMSprop(1e-2, epsilon=1e-6),
    "centered": lambda: optimizers.RMSprop(1e-2, centered=True),
    "adagrad": lambda: optimizers.Adagrad(1e-2),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "adamax": lambda: optimizers.Adamax(1e-2),
    "nadam": lambda: optimizers.Nadam(1e-2),
    "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.05),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.05),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "accumulated": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "averaged": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "ftrl": lambda: optimizers.Ftrl(1e-2),
}
PAIRS: dict[str, Callable[[], keras.Model]] = {
    "gru_reset_before": lambda: gru(reset_after=False),
    "dropped_inside": lambda: dropped(0.1),
    "l2": lambda: dense(regularizer=regularizers.L2(1e-2)),
    "activity": lambda: _classifier((10,), layers.Dense(8, activation="tanh", activity_regularizer="l2")),
    "l1": lambda: dense(regularizer=regularizers.L1(1e-2)),
    "smoothed": lambda: dense(loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1)),
    "binary": lambda: keras.Sequential([keras.Input((10,)), layers.Dense(3, activation="sigmoid")]),
    "nan": lambda: _classifier((10,), layers.Dense(8), layers.Lambda(lambda x: keras.ops.log(x - 1e9))),
    **{name: (lambda make=make: dense(make())) for name, make in OPTIMIZERS.items()},
}


def __getattr__(name: str) -> Callable[[], keras.Model]:
    if name in PAIRS:
        return PAIRS[name]
    raise AttributeError(name)


def _classifier(shape: tuple[int, ...], *body: Any) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *body, layers.Dense(CLASSES, activation="softmax")])


def _loaded(model: keras.Model) -> keras.Model:
    """With the weights that the twin has as well, as if both had read one file."""
    model.set_weights(numbers([weight.shape for weight in model.get_weights()]))
    return model


def numbers(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of some shapes, drawn one after the other: normal, times 0.3."""
    random = np.random.default_rng(0)
    return [0.3 * random.standard_normal(shape) for shape in shapes]
