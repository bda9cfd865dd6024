"""Convolutions of every kind, pooling and branches, as a Keras user writes them."""

import keras
from keras import layers


def build() -> keras.Model:
    inputs = keras.Input((16, 16, 4), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(inputs)
    x = layers.ReLU(max_value=6, name="stem_relu6")(x)
    x = layers.SeparableConv2D(12, 3, padding="same", activation="relu", name="separable")(x)
    x = layers.GroupNormalization(groups=4, name="group_norm")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.LeakyReLU(name="leaky")(x)
    a = layers.Conv2D(8, 3, padding="same", dilation_rate=2, name="dilated")(x)
    b = layers.Conv2D(8, 3, padding="same", groups=4, name="grouped")(x)
    x = layers.Concatenate(name="joined")([a, b])
    x = layers.AveragePooling2D(2, name="average")(x)
    x = layers.Conv2DTranspose(6, 4, strides=2, padding="same", activation="silu", name="up")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="maximum")(x)
    x = layers.SpatialDropout2D(0.2, name="dropout")(x)
    mean = layers.GlobalAveragePooling2D(name="mean")(x)
    peak = layers.GlobalMaxPooling2D(name="peak")(x)
    x = layers.Concatenate(name="pooled")([mean, peak])
    return keras.Model(inputs, layers.Dense(5, name="logits")(x))
