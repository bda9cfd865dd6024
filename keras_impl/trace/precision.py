"""Float64 throughout on Keras's side: constants, kernels and layers that would compute in float32."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import keras
import numpy as np

from keras_impl.layers.registry import APART, of_class
from keras_impl.trace.optimizer import exact_settings
from keras_impl.trace.recorder import leaves, named_leaves


@contextmanager
def exact_constants(model: keras.Model) -> Iterator[None]:
    """Constants that TensorFlow takes through float32 keep their digits in float64.

    These are the scale of Rescaling, what Normalization was given, the slope of leaky_relu, the constants of
    gelu and an optimizer's settings: 1e-7 to 1e-9 that would hide what a float64 trace can show, and that
    are nothing beside float32's own rounding. Pooling three axes, and resizing, TensorFlow does in float32
    alone: here it is done in float64. Convolutions of groups, which Keras has XLA compile at every call,
    become one for each group. `keras_semantics.Adam`, of the other side, rounds no betas in such a trace.
    """
    if keras.backend.backend() != "tensorflow" or keras.config.floatx() != "float64":
        yield
        return
    from keras.src.backend import image, nn

    constants: list[tuple[Any, str, Any]] = []
    for layer in (*leaves(model), *APART.keys()):
        if (entry := of_class(layer)) is not None:
            constants += [(layer, name, value) for name, value in entry.constants(layer).items()]
    with ExitStack() as stack:
        stack.enter_context(exact_settings(model))
        for owner, name, value in constants:
            stack.enter_context(patch.object(owner, name, value))
        stack.enter_context(patch.object(nn, "leaky_relu", _leaky_relu))
        stack.enter_context(patch.object(nn, "gelu", _gelu))
        for name, of_windows in (("max_pool", _largest), ("average_pool", _mean)):
            replaced = functools.partial(_pool, getattr(nn, name), of_windows)
            stack.enter_context(patch.object(nn, name, replaced))
        stack.enter_context(patch.object(nn, "conv", functools.partial(_conv, nn.conv, nn.depthwise_conv)))
        stack.enter_context(patch.object(image, "resize", functools.partial(_resize, image.resize)))
        yield


def _leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    return keras.ops.where(x > 0, x, x * negative_slope)


def _gelu(x: Any, approximate: bool = True) -> Any:
    if approximate:
        return 0.5 * x * (1 + keras.ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + keras.ops.erf(x / math.sqrt(2)))


def _conv(
    conv: Callable[..., Any],
    depthwise: Callable[..., Any],
    inputs: Any,
    kernel: Any,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Any:
    """Convolution; one of groups as a depthwise one, where each channel is a group, or as one for each."""
    last = (data_format or keras.config.image_data_format()) == "channels_last"
    groups = inputs.shape[-1] // kernel.shape[-2]
    steps = strides if isinstance(strides, int) else tuple(strides)
    settings = (steps, padding, data_format, dilation_rate)
    if not last or groups == 1:
        return conv(inputs, kernel, *settings)
    if kernel.shape[-2] == 1 and len(inputs.shape) < 5:
        kernel = keras.ops.reshape(kernel, (*kernel.shape[:-2], groups, -1))
        return depthwise(inputs, kernel, *settings)
    parts = keras.ops.split(inputs, groups, axis=-1), keras.ops.split(kernel, groups, axis=-1)
    outputs = [conv(part, its_kernel, *settings) for part, its_kernel in zip(*parts, strict=True)]
    return keras.ops.concatenate(outputs, axis=-1)


def _pool(
    pool: Callable[..., Any],
    of_windows: Callable[[Any, np.ndarray, int], Any],
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """Pooling, of three axes as three poolings of one axis each.

    of_windows: pools one axis, given each window's places (windows, size); those beyond an end are none.
    """
    if len(inputs.shape) != 5 or data_format == "channels_first":
        return pool(inputs, pool_size, strides, padding, data_format)
    sizes = [pool_size] * 3 if isinstance(pool_size, int) else list(pool_size)
    steps = sizes if strides is None else [strides] * 3 if isinstance(strides, int) else list(strides)
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True), 1):
        length = inputs.shape[axis]
        count = -(-length // step) if padding == "same" else (length - size) // step + 1
        before = max((count - 1) * step + size - length, 0) // 2 if padding == "same" else 0
        inputs = of_windows(inputs, np.arange(count)[:, None] * step + np.arange(size) - before, axis)
    return inputs


def _largest(inputs: Any, places: np.ndarray, axis: int) -> Any:
    # Where a window reaches out, it sees the pixel at the edge once more: the largest stays.
    within = np.clip(places, 0, inputs.shape[axis] - 1)
    return functools.reduce(keras.ops.maximum, (keras.ops.take(inputs, column, axis) for column in within.T))


def _mean(inputs: Any, places: np.ndarray, axis: int) -> Any:
    shares = (places[..., None] == np.arange(inputs.shape[axis])).sum(1)  # (windows, length)
    shares = shares / shares.sum(1, keepdims=True)
    return keras.ops.moveaxis(keras.ops.tensordot(inputs, shares.T, [[axis], [0]]), -1, axis)


def _resize(
    resize: Callable[..., Any], images: Any, size: Any, interpolation: str = "bilinear", **kwargs: Any
) -> Any:
    """Resizing, bilinear without more as a product with the weights of the pixels around."""
    plain = not any(kwargs.get(name) for name in ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio"))
    last = (kwargs.get("data_format") or keras.config.image_data_format()) == "channels_last"
    if interpolation != "bilinear" or not plain or not last or len(images.shape) != 4:
        return resize(images, size, interpolation, **kwargs)
    rows, columns = (_bilinear(images.shape[i + 1], size[i]) for i in range(2))
    return keras.ops.einsum("ih,jw,nhwc->nijc", rows, columns, images)


def _bilinear(before: int, after: int) -> np.ndarray:
    """How much of each of `before` pixels goes to each of `after`, (after, before), at half-pixel centres."""
    places = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(before)))


class _Raised(keras.DTypePolicy):
    """The trace's precision in the place of a lower one that a layer asked for."""

    def __init__(self, asked: str) -> None:
        super().__init__(keras.config.floatx())
        self.asked = asked


@contextmanager
def in_one_precision() -> Iterator[None]:
    """In a float64 trace layers that ask for a lower precision compute in float64 as well."""
    from keras.src import dtype_policies

    get = dtype_policies.get

    def get_raised(identifier: Any) -> Any:
        policy = get(identifier)
        asked = str(getattr(policy, "compute_dtype", ""))
        lower = asked in ("float16", "bfloat16", "float32") and identifier is not None
        return _Raised(asked) if lower and not isinstance(policy, _Raised) else policy

    if keras.config.floatx() != "float64":
        yield
        return
    with patch.object(dtype_policies, "get", get_raised):
        yield


def kept_in_float32(model: keras.Model) -> list[str]:
    """Notes on the layers that a model keeps in a lower precision than the trace's."""
    return [
        f"{name} computes in {policy.asked} by its dtype; traced in {keras.config.floatx()}"
        for name, layer in named_leaves(model).items()
        if isinstance(policy := getattr(layer, "dtype_policy", None), _Raised)
    ]
