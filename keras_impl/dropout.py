"""Dropout whose masks are the same on both sides."""

from __future__ import annotations

import math

import keras
from keras import ops

from experiment import randomness


@keras.saving.register_keras_serializable("keras_lightning_parity")
class SharedDropout(keras.layers.Layer):
    """Dropout with the masks of `experiment.randomness.dropout_mask`, counted in training steps.

    Takes (N, ...); kept elements are scaled by 1 / (1 - rate). The count lives in a SeedGenerator, which
    every backend advances by one at each training step.
    """

    def __init__(self, rate: float, seed: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed
        self.key = randomness.dropout_key(seed, self.name)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        step = ops.cast(self.seed_generator.next(ordered=True)[1], "int32")
        mask = self._mask(ops.shape(inputs), step)
        return ops.where(mask, inputs / (1 - self.rate), ops.zeros_like(inputs))

    def _mask(self, shape, step):
        count = math.prod(shape) if all(isinstance(n, int) for n in shape) else ops.prod(ops.stack(shape))
        elements = ops.arange(count, dtype="int32")
        stream = hash32(ops.bitwise_xor(hash32(step), self.key))
        uniform24 = _logical_right_shift(hash32(ops.bitwise_xor(hash32(elements), stream)), 8)
        return ops.reshape(ops.greater_equal(uniform24, randomness.dropout_threshold(self.rate)), shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def hash32(values):
    """`experiment.randomness.hash32` on int32 tensors."""
    for shift, factor in zip(randomness.HASH_SHIFTS, (*randomness.HASH_FACTORS, 1), strict=True):
        values = ops.multiply(ops.bitwise_xor(values, _logical_right_shift(values, shift)), factor)
    return values


def _logical_right_shift(values, bits):
    # Shifting a signed integer repeats its sign: the copies of it are masked away.
    return ops.bitwise_and(ops.right_shift(values, bits), (1 << (32 - bits)) - 1)
