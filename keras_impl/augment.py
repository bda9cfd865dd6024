"""Augmentation on whole batches, on whatever device they are."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from experiment import randomness
from experiment.config import Augment


@keras.saving.register_keras_serializable("keras_lightning_parity")
class KerasAugment(keras.layers.Layer):
    """ImageDataGenerator's rotation, shift, zoom and flip inside the training step.

    Takes images (N, S, S, C) on any scale and the matrices (N, 2, 3) that place each; does nothing
    outside training.
    """

    def call(self, images, matrices, training=False):
        images = ops.cast(images, self.compute_dtype)
        return compiled(affine)(images, matrices) if training else images

    def compute_output_shape(self, images_shape, matrices_shape=None):
        return images_shape


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


def draw_matrices(generator: np.random.Generator, count: int, config: Augment, size: int) -> np.ndarray:
    """Matrices (count, 2, 3) of one batch, in Keras's float type."""
    parameters = randomness.augmentation(generator, count, config, size)
    return randomness.affine_matrices(parameters, size).astype(keras.config.floatx())
