"""Augmentation on whole batches, on whatever device they are."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from experiment import randomness


@keras.saving.register_keras_serializable("keras_lightning_parity")
class KerasAugment(keras.layers.Layer):
    """ImageDataGenerator's rotation, shift, zoom, flip and brightness inside the training step.

    Takes images (N, S, S, C) in 0..255 and what `as_inputs` makes of their parameters; does nothing outside
    training.
    """

    def call(self, images, inputs, training=False):
        images = ops.cast(images, self.compute_dtype)
        return compiled(augment)(images, inputs) if training else images

    def compute_output_shape(self, images_shape, inputs_shape=None):
        return images_shape


def augment(images, inputs):
    """Images placed, and then put through every step of `STEPS` that the inputs hold parameters for."""
    images = affine(images, inputs["matrices"])
    for name, step in STEPS.items():
        images = step(images, inputs[name]) if name in inputs else images
    return images


@functools.cache
def compiled(function: Callable) -> Callable:
    """The function compiled by XLA, where a backend would run each of its operations over the whole batch."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.function(function, jit_compile=True)
        case "jax":
            import jax

            return jax.jit(function)
    return function


def affine(images, matrices):
    """Resample images bilinearly, edge pixels repeated.

    images: float (N, S, S, C). matrices: (N, 2, 3) of `experiment.randomness.affine_matrices`, pixels.
    """
    size, channels = images.shape[1], images.shape[3]
    side = np.arange(size, dtype="float64")
    row, column = np.meshgrid(side, side, indexing="ij")
    outputs = np.stack([column.ravel(), row.ravel(), np.ones(size * size)])
    # Positions stay in the matrices' precision: half-precision images must not blur the grid.
    inputs = ops.matmul(matrices, ops.cast(outputs, matrices.dtype))
    inputs = ops.clip(inputs, 0, size - 1)
    low = ops.minimum(ops.floor(inputs), size - 2)
    weight = ops.cast(inputs - low, images.dtype)[..., None]
    low = ops.cast(low, "int32")
    # Rows of one flat array are gathered, which is several times faster than gathering in each image.
    image = ops.arange(ops.shape(images)[0], dtype="int32")[:, None]
    corner = (image * size + low[:, 1]) * size + low[:, 0]
    flat = ops.reshape(images, (-1, channels))

    def pixels(offset):
        return ops.take(flat, corner + offset, axis=0)

    def blend(first, second, share):
        return first + (second - first) * share

    top = blend(pixels(0), pixels(1), weight[:, 0])
    bottom = blend(pixels(size), pixels(size + 1), weight[:, 0])
    return ops.reshape(blend(top, bottom, weight[:, 1]), (-1, size, size, channels))


def brightness(images, factors):
    """Multiply images by a factor each, as ImageDataGenerator does through PIL, in whole levels of 0..255.

    images: float (N, S, S, C). factors: (N,). keras legacy/preprocessing/image.py, apply_brightness_shift
    (scale=False), and Pillow's ImagingBlend: float32 pixels lose what is behind the point before they are
    multiplied, and again after.
    """
    levels = ops.floor(ops.clip(settled(images), 0, 255))
    factors = ops.cast(factors, "float32")[:, None, None, None]
    return ops.cast(ops.floor(ops.clip(levels * factors, 0, 255)), images.dtype)


def settled(images):
    """Pixels in float32 without the rounding of the affine map, so that a whole level is one again.

    ImageDataGenerator's own are float32, rounded from float64: as float64's here. Float32 positions leave
    errors of up to 3e-4 levels, which 1024ths of a level take up.
    """
    if keras.backend.standardize_dtype(images.dtype) == "float64":
        return ops.cast(images, "float32")
    return ops.round(ops.cast(images, "float32") * 1024) / 1024


STEPS = {"brightness": brightness}  # after the affine map and flip, in this order, by parameter


def as_inputs(parameters: randomness.Parameters, size: int) -> dict[str, np.ndarray]:
    """What `augment` takes for images of `size` pixels, in Keras's float type, every array (N, ...) long."""
    others = {name: values for name, values in parameters.items() if name not in randomness.GEOMETRY}
    inputs = {"matrices": randomness.affine_matrices(parameters, size), **others}
    return {name: array.astype(keras.config.floatx()) for name, array in inputs.items()}
