"""The classifiers: a BatchNorm/Dropout CNN and transfer from a base, from images to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import layers

from experiment import randomness
from experiment.backbones import BACKBONES
from experiment.config import Experiment, Model
from experiment.data.pretrained import base_weights
from keras_impl.backbones import BASES
from keras_impl.dropout import SharedDropout
from keras_impl.layers.weight_layout import weights

Dropout = Callable[[float, str], keras.layers.Layer]


def build_model(experiment: Experiment, classes: int, pretrained: bool = True) -> keras.Model:
    """The configured model with its initial weights.

    (N, S, S, 3) images in 0..255 -> (N, classes) probabilities.
    pretrained: read the weights that a pretrained base starts from; off where others are loaded anyway.
    """
    size = experiment.data.image_size
    dropout = choose_dropout(experiment.training.dropout_masks, experiment.seed)
    build = cnn if experiment.model.backbone is None else transfer
    with undrawn():
        model = build(experiment.model, size, classes, experiment.training.l2, dropout)
    initialise(model, experiment.seed, experiment.model.initial_biases)
    if experiment.model.backbone is not None and pretrained:
        load_base(model, experiment.model, experiment.data.cache)
    return model


def cnn(config: Model, size: int, classes: int, l2: float, dropout: Dropout) -> keras.Model:
    """Blocks of [convolution, relu, BatchNorm], each ended by pooling and dropout; then a dense head."""
    inputs = x = keras.Input((size, size, 3), name="images")
    x = layers.Rescaling(1 / 255, name="rescaling")(x)
    number = 0
    for block, (filters, rate) in enumerate(zip(config.filters, config.block_dropout, strict=True), 1):
        for _ in range(config.convolutions_per_block):
            number += 1
            x = layers.Conv2D(filters, 3, kernel_regularizer=penalty(l2), name=f"conv{number}")(x)
            x = layers.ReLU(name=f"relu{number}")(x)
            x = layers.BatchNormalization(name=f"bn{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{block}")(x)
        x = dropout(rate, f"dropout{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(config.dense_units, kernel_regularizer=penalty(l2), name="dense")(x)
    x = layers.ReLU(name="relu_dense")(x)
    x = layers.BatchNormalization(name="bn_dense")(x)
    x = dropout(config.head_dropout, "dropout_dense")(x)
    x = layers.Dense(classes, kernel_regularizer=penalty(l2), name="logits")(x)
    x = layers.Activation("softmax", dtype=keras.config.floatx(), name="probabilities")(x)
    return keras.Model(inputs, x, name="cnn")


def transfer(config: Model, size: int, classes: int, l2: float, dropout: Dropout) -> keras.Model:
    """A base's convolutions, frozen but for the last `fine_tune_blocks`, under a dense head."""
    backbone = BACKBONES[config.name]
    inputs = x = keras.Input((size, size, 3), name="images")
    if backbone.preprocessing.bgr:
        x = keras.ops.flip(x, axis=-1)
    variance = tuple(deviation**2 for deviation in backbone.preprocessing.deviation)
    x = layers.Normalization(mean=backbone.preprocessing.mean, variance=variance, name="preprocess")(x)
    net = BASES[config.name](x)
    trained = backbone.trained(config.fine_tune_blocks)
    for layer in net.layers:
        layer.trainable = layer.name in trained
        if layer.trainable and hasattr(layer, "kernel"):
            layer.kernel.regularizer = penalty(l2)
    x = net.output
    if backbone.pooled:
        x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    base = keras.Model(inputs, x, name="base")
    features = x = keras.Input(base.output_shape[1:], name="features")
    x = layers.Dense(config.dense_units, kernel_regularizer=penalty(l2), name="dense")(x)
    x = layers.ReLU(name="relu_dense")(x)
    x = dropout(config.head_dropout, "dropout_dense")(x)
    x = layers.Dense(classes, kernel_regularizer=penalty(l2), name="logits")(x)
    x = layers.Activation("softmax", dtype=keras.config.floatx(), name="probabilities")(x)
    head = keras.Model(features, x, name="head")
    images = keras.Input((size, size, 3), name="images")
    return keras.Model(images, head(base(images)), name=config.name)


@contextmanager
def undrawn() -> Iterator[None]:
    """Start kernels as zeros: `initialise` draws them, and JAX takes seconds to compile draws of its own."""

    def zeros(self: keras.Initializer, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        return keras.ops.zeros(shape, dtype)

    drawn = keras.initializers.VarianceScaling.__call__
    keras.initializers.VarianceScaling.__call__ = zeros
    try:
        yield
    finally:
        keras.initializers.VarianceScaling.__call__ = drawn


def penalty(l2: float) -> keras.Regularizer | None:
    """Keras's l2(x): adds x * sum(w^2) to the training and to the validation loss."""
    return keras.regularizers.L2(l2) if l2 else None


def initialise(model: keras.Model, seed: int, biases: str) -> None:
    """Draw every kernel and bias as the other side does.

    Raises ValueError for weights of a kind of layer that it has no draw for: they would stay zeros.
    """
    for layer in named_layers(model).values():
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            draws = [randomness.kernel(seed, layer.name, tuple(layer.kernel.shape))]
            if layer.use_bias:
                draws.append(randomness.bias(seed, layer.name, layer.bias.shape[0], biases))
            set_weights(layer, *draws)
        elif (names := weights(layer)) and not isinstance(layer, layers.BatchNormalization):  # ones and zeros
            raise ValueError(
                f"layer {layer.name} of kind {type(layer).__name__}: nothing draws its {', '.join(names)}"
            )


def load_base(model: keras.Model, config: Model, cache: str) -> None:
    """Give a base the weights of a Keras file; `random` leaves the drawn ones."""
    named = named_layers(model)
    for name, arrays in base_weights(config.name, config.weights, cache).items():
        set_weights(named[name], *arrays)


def set_weights(layer: keras.layers.Layer, *arrays: np.ndarray) -> None:
    """Copy a kernel and a bias, or a BatchNormalization's arrays, into a layer."""
    layer.set_weights(list(arrays))


def choose_dropout(masks: str, seed: int) -> Dropout:
    """Keras's own dropout, or the one whose masks are the same on both sides."""
    if masks == "shared":
        return lambda rate, name: SharedDropout(rate, seed, name=name)
    return lambda rate, name: layers.Dropout(rate, seed=randomness.derived_seed(seed, name), name=name)


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Every layer by name, nested models opened."""
    found: dict[str, keras.layers.Layer] = {}
    for layer in model.layers:
        found |= named_layers(layer) if isinstance(layer, keras.Model) else {layer.name: layer}
    return found


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Parameters, total and trainable; BatchNorm's moving statistics are non-trainable ones."""
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    total = model.count_params()
    return {"total": total, "trainable": trainable, "non_trainable": total - trainable}
