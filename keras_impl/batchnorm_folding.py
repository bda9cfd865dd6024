"""The same predictions with fewer operations: BatchNorm folded into the layer behind it, dropout gone."""

from __future__ import annotations

import keras
from keras import layers

from experiment.deploy import batchnorm_folding
from keras_impl.dropout import SharedDropout
from keras_impl.model import set_weights


def fold(model: keras.Model) -> keras.Model:
    """A chain of layers for inference; a model without BatchNorm comes back as it is."""
    normalizations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    if not normalizations:
        return model
    affines = {
        layer.name: batchnorm_folding.affine(*layer.get_weights(), epsilon=layer.epsilon)
        for layer in normalizations
    }
    targets = batchnorm_folding.targets([(layer.name, kind(layer)) for layer in model.layers], affines)
    before = {target: affines[name] for name, target in targets.items()}
    inputs = x = keras.Input(model.input_shape[1:], name="images")
    for layer in model.layers[1:]:
        if layer.name in targets or kind(layer) == "dropout":
            continue
        copy = type(layer).from_config(layer.get_config())
        x = copy(x)
        copy.set_weights(layer.get_weights())
        if layer.name in before:
            kernel, bias = layer.get_weights()
            set_weights(copy, *batchnorm_folding.into(kernel, bias, before[layer.name]))
    return keras.Model(inputs, x, name=model.name)


def kind(layer: keras.layers.Layer) -> str:
    """The layer's kind, in the words of `experiment.deploy.batchnorm_folding.targets`."""
    match layer:
        case layers.BatchNormalization():
            return "batchnorm"
        case layers.Conv2D(padding="valid", groups=1, use_bias=True):
            return "convolution"
        case layers.Dense(use_bias=True):
            return "dense"
        case layers.MaxPooling2D():
            return "max pooling"
        case layers.Flatten():
            return "flatten"
        case layers.Dropout() | SharedDropout():
            return "dropout"
    return "other"
