"""BatchNormalization's training step in TensorFlow's one kernel for it, where Keras 3 takes a dozen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras


def fuse_batch_norm(model: keras.Model) -> None:
    """Let the BatchNormalization layers of a model train in TensorFlow's FusedBatchNormV3.

    The numbers are the same to rounding. Only what a layer computes with changes, in this process: its class
    and its configuration stay Keras's, and so does what is saved. Layers that the kernel has no place for
    (float64, no image, another axis) and other backends are left as they are.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            fuse_batch_norm(layer)
        elif isinstance(layer, keras.layers.BatchNormalization) and _fits(layer):
            layer.call = functools.partial(_call, layer, layer.call)


def _fits(layer: keras.layers.BatchNormalization) -> bool:
    image = layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
    plain = layer.scale and layer.center and not (layer.synchronized or layer.renorm)
    return image and plain and layer.variable_dtype == "float32"


def _call(
    layer: Any, unfused: Callable[..., Any], inputs: Any, training: bool | None = None, mask: Any = None
) -> Any:
    if not training or not layer.trainable or mask is not None:
        return unfused(inputs, training=training, mask=mask)
    import tensorflow as tf

    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=tf.cast(inputs, tf.float32),
        scale=tf.convert_to_tensor(layer.gamma.value),
        offset=tf.convert_to_tensor(layer.beta.value),
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The kernel divides by one less than the count, as torch does; Keras by the count.
    count = tf.cast(tf.size(inputs) / inputs.shape[-1], tf.float32)
    variance *= (count - 1) / count
    for moving, new in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + new * (1.0 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)
