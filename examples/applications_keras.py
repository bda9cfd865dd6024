"""Models of keras.applications, small in their input and head; their twins stand in applications_torch.py."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import applications

from parity.studies.families import PIXELS

SHAPE = (96, 96, 3)
CLASSES = 10


def efficientnet_b0() -> keras.Model:
    return applications.EfficientNetB0(weights=None, input_shape=SHAPE, classes=CLASSES)


def efficientnetv2_b0() -> keras.Model:
    return applications.EfficientNetV2B0(weights=None, input_shape=SHAPE, classes=CLASSES)


def mobilenet_v2() -> keras.Model:
    return applications.MobileNetV2(weights=None, input_shape=SHAPE, classes=CLASSES)


def mobilenet_v3() -> keras.Model:
    return applications.MobileNetV3Large(
        weights=None, input_shape=SHAPE, classes=CLASSES, include_preprocessing=False
    )


def convnext_tiny() -> keras.Model:
    return applications.ConvNeXtTiny(weights=None, input_shape=SHAPE, classes=CLASSES)


def densenet121() -> keras.Model:
    return applications.DenseNet121(weights=None, input_shape=SHAPE, classes=CLASSES)


def resnet50() -> keras.Model:
    return applications.ResNet50(weights=None, input_shape=SHAPE, classes=CLASSES)


def resnet50_v2() -> keras.Model:
    return applications.ResNet50V2(weights=None, input_shape=SHAPE, classes=CLASSES)


def xception() -> keras.Model:
    return applications.Xception(weights=None, input_shape=SHAPE, classes=CLASSES)


def inception_v3() -> keras.Model:
    return applications.InceptionV3(weights=None, input_shape=SHAPE, classes=CLASSES)


def __getattr__(name: str) -> Callable[[], keras.Model]:
    """A function that builds the family of this name, at the size that `parity families` takes it at."""
    if name not in PIXELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    shape = (PIXELS[name], PIXELS[name], 3)
    return lambda: getattr(applications, name)(weights=None, input_shape=shape, classes=CLASSES)
