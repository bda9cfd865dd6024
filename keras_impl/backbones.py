"""Pretrained bases as Keras defines them, from preprocessed images to what their last layer gives."""

from __future__ import annotations

from typing import Any

import keras


def vgg16(images: Any) -> keras.Model:
    """VGG16 on a symbolic (N, S, S, 3), without its top."""
    return keras.applications.VGG16(include_top=False, weights=None, input_tensor=images)


def resnet50(images: Any) -> keras.Model:
    """As `vgg16`, of ResNet50."""
    return keras.applications.ResNet50(include_top=False, weights=None, input_tensor=images)


def mobilenet_v2(images: Any) -> keras.Model:
    """As `vgg16`, of MobileNetV2 at width 1."""
    return keras.applications.MobileNetV2(include_top=False, weights=None, input_tensor=images)


BASES = {"vgg16": vgg16, "resnet50": resnet50, "mobilenet_v2": mobilenet_v2}
