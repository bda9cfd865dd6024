"""The twins in timm and torchvision of the models in applications_keras.py."""

from __future__ import annotations

import timm
import torchvision
from torch import nn

CLASSES = 10


def efficientnet_b0() -> nn.Module:
    return timm.create_model("tf_efficientnet_b0", num_classes=CLASSES)


def efficientnetv2_b0() -> nn.Module:
    return timm.create_model("tf_efficientnetv2_b0", num_classes=CLASSES)


def mobilenet_v2() -> nn.Module:
    return timm.create_model("mobilenetv2_100", num_classes=CLASSES)


def mobilenet_v3() -> nn.Module:
    return timm.create_model("tf_mobilenetv3_large_100", num_classes=CLASSES)


def convnext_tiny() -> nn.Module:
    return timm.create_model("convnext_tiny", num_classes=CLASSES)


def densenet121() -> nn.Module:
    return torchvision.models.densenet121(num_classes=CLASSES)


def resnet50() -> nn.Module:
    return torchvision.models.resnet50(num_classes=CLASSES)


def resnet50_v2() -> nn.Module:
    return timm.create_model("resnetv2_50", num_classes=CLASSES)


def xception() -> nn.Module:
    return timm.create_model("legacy_xception", num_classes=CLASSES)


def inception_v3() -> nn.Module:
    return torchvision.models.inception_v3(num_classes=CLASSES, init_weights=False)
