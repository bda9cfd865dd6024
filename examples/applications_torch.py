"""The twins in timm and torchvision of the models in applications_keras.py, as they are and corrected.

A corrected twin takes what `python -m parity` told of the one before it: its batch normalisation, padding,
preprocessing and dropout are Keras's. What is left is torch's moving variance (Bessel's correction).
"""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
import torchvision
from torch import Tensor, nn

CLASSES = 10
DROPPED = {"drop_rate": 0.2, "drop_path_rate": 0.2}


class Preprocessed(nn.Module):
    """A model on pixels of 0 to 255, (N, 3, H, W): scaled, and less the mean colour over its deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float64).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x / 255 - self.mean) / self.deviation)


def efficientnet_b0() -> nn.Module:
    return timm.create_model("tf_efficientnet_b0", num_classes=CLASSES)


def efficientnet_b0_corrected() -> nn.Module:
    model = timm.create_model("tf_efficientnet_b0", num_classes=CLASSES, bn_momentum=0.01, **DROPPED)
    return Preprocessed(model, mean=[0.0] * 3, deviation=[1.0] * 3)


def efficientnetv2_b0() -> nn.Module:
    return timm.create_model("tf_efficientnetv2_b0", num_classes=CLASSES)


def efficientnetv2_b0_corrected() -> nn.Module:
    model = timm.create_model("tf_efficientnetv2_b0", num_classes=CLASSES, **DROPPED)
    return Preprocessed(model, mean=[0.485, 0.456, 0.406], deviation=[0.229, 0.224, 0.225])


def mobilenet_v2() -> nn.Module:
    return timm.create_model("mobilenetv2_100", num_classes=CLASSES)


def mobilenet_v2_corrected() -> nn.Module:
    settings = {"bn_eps": 1e-3, "bn_momentum": 0.001, "pad_type": "same"}
    return timm.create_model("mobilenetv2_100", num_classes=CLASSES, **settings)


def mobilenet_v3() -> nn.Module:
    return timm.create_model("tf_mobilenetv3_large_100", num_classes=CLASSES)


def mobilenet_v3_corrected() -> nn.Module:
    settings = {"bn_momentum": 0.001, "drop_rate": 0.2}
    return timm.create_model("tf_mobilenetv3_large_100", num_classes=CLASSES, **settings)


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
    return torchvision.models.inception_v3(num_classes=CLASSES, aux_logits=False, init_weights=False)
