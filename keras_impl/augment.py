"""Augmentation on whole batches, on whatever device they are."""

from __future__ import annotations

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
        return affine(images, matrices) if training else images

    def compute_output_shape(self, images_shape, matrices_shape=None):
        return images_shape


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
    low = ops.floor(inputs)
    weight = ops.cast(inputs - low, images.dtype)[..., None]
    low = ops.cast(low, "int32")
    high = ops.minimum(low + 1, size - 1)
    flat = ops.reshape(images, (-1, size * size, channels))

    def pixels(rows, columns):
        return ops.take_along_axis(flat, (rows * size + columns)[..., None], axis=1)

    def blend(first, second, share):
        return first + (second - first) * share

    top = blend(pixels(low[:, 1], low[:, 0]), pixels(low[:, 1], high[:, 0]), weight[:, 0])
    bottom = blend(pixels(high[:, 1], low[:, 0]), pixels(high[:, 1], high[:, 0]), weight[:, 0])
    return ops.reshape(blend(top, bottom, weight[:, 1]), (-1, size, size, channels))


def draw_matrices(generator: np.random.Generator, count: int, config: Augment, size: int) -> np.ndarray:
    """Matrices (count, 2, 3) of one batch, in Keras's float type."""
    parameters = randomness.augmentation(generator, count, config, size)
    return randomness.affine_matrices(parameters, size).astype(keras.config.floatx())
