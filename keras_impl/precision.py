"""The precision that Keras computes in."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from experiment.config import Experiment
from experiment.errors import RunError

PRECISIONS = {"float32": "float32", "tf32": "float32", "bfloat16": "mixed_bfloat16", "float64": "float64"}


@functools.cache
def convolves_in_bfloat16() -> bool:
    """True where the backend has a convolution in bfloat16: TensorFlow's oneDNN has none below AVX-512."""
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    try:
        tf.nn.conv2d(tf.zeros((1, 8, 8, 3), tf.bfloat16), tf.zeros((3, 3, 3, 4), tf.bfloat16), 1, "VALID")
    except tf.errors.OpError:
        return False
    return True


def check(experiment: Experiment) -> None:
    """Raise RunError for a precision that this processor cannot compute in."""
    if experiment.training.precision == "bfloat16" and not convolves_in_bfloat16():
        raise RunError(
            "training.precision bfloat16: TensorFlow cannot convolve in it on this processor: "
            "take float32, or --backend jax or torch"
        )


@contextmanager
def numerics(experiment: Experiment) -> Iterator[None]:
    """Precision as configured; float32 means float32, on CUDA too, where backends would allow TF32.

    Raises RunError as `check` does.
    """
    check(experiment)
    before = keras.config.floatx(), keras.config.dtype_policy()
    precision = experiment.training.precision
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
    keras.config.set_dtype_policy(PRECISIONS[precision])
    _allow_tf32(precision == "tf32")
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def _allow_tf32(allowed: bool) -> None:
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(allowed)
        case "jax":
            import jax

            jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "highest")
        case "torch":
            import torch

            torch.set_float32_matmul_precision("high" if allowed else "highest")
            torch.backends.cudnn.allow_tf32 = allowed
