"""Pretrained bases as Keras defines them, from preprocessed images to what their last layer gives.

torchvision's differ: its VGG16 flattens channel first; its ResNet50 strides in the 3x3 convolution of a block
where Keras strides in the first, its convolutions have no bias, and its BatchNorm another epsilon; its
MobileNetV2 pads on both sides where Keras pads behind alone, and its BatchNorm has torch's defaults.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from experiment.backbones import MOBILENET_V2_STAGES, RESNET50_EPSILON, RESNET50_STAGES, VGG16_BLOCKS
from lightning_impl.keras_semantics import BatchNorm

Layers = OrderedDict[str, nn.Module]


def vgg16(size: int) -> Layers:
    """VGG16's layers, for images of `size` pixels a side, without its top."""
    layers: Layers = OrderedDict()
    channels = 3
    for block, (convolutions, filters) in enumerate(VGG16_BLOCKS, 1):
        for number in range(1, convolutions + 1):
            layers[f"block{block}_conv{number}"] = nn.Conv2d(channels, filters, kernel_size=3, padding=1)
            layers[f"block{block}_relu{number}"] = nn.ReLU()
            channels = filters
        layers[f"block{block}_pool"] = nn.MaxPool2d(2)
    return layers


def resnet50(size: int) -> Layers:
    """As `vgg16`, of ResNet50."""
    layers: Layers = OrderedDict()
    layers["conv1_pad"] = nn.ZeroPad2d(3)
    layers["conv1_conv"] = nn.Conv2d(3, 64, kernel_size=7, stride=2)
    layers["conv1_bn"] = BatchNorm(64, RESNET50_EPSILON)
    layers["conv1_relu"] = nn.ReLU()
    layers["pool1_pad"] = nn.ZeroPad2d(1)
    layers["pool1_pool"] = nn.MaxPool2d(3, stride=2)
    channels = 64
    for stage, (blocks, filters) in enumerate(RESNET50_STAGES, 2):
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            name = f"conv{stage}_block{block}"
            layers[name] = Residual(name, channels, filters, stride, block == 1)
            channels = 4 * filters
    return layers


class Residual(nn.Module):
    """Keras's residual_block_v1: three convolutions, of which the first strides, beside a shortcut."""

    def __init__(self, name: str, channels: int, filters: int, stride: int, convolve: bool) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            OrderedDict(
                {
                    f"{name}_1_conv": nn.Conv2d(channels, filters, kernel_size=1, stride=stride),
                    f"{name}_1_bn": BatchNorm(filters, RESNET50_EPSILON),
                    f"{name}_1_relu": nn.ReLU(),
                    f"{name}_2_conv": nn.Conv2d(filters, filters, kernel_size=3, padding=1),
                    f"{name}_2_bn": BatchNorm(filters, RESNET50_EPSILON),
                    f"{name}_2_relu": nn.ReLU(),
                    f"{name}_3_conv": nn.Conv2d(filters, 4 * filters, kernel_size=1),
                    f"{name}_3_bn": BatchNorm(4 * filters, RESNET50_EPSILON),
                }
            )
        )
        self.shortcut: nn.Module | None = None
        if convolve:
            shortcut = nn.Conv2d(channels, 4 * filters, kernel_size=1, stride=stride)
            norm = BatchNorm(4 * filters, RESNET50_EPSILON)
            self.shortcut = nn.Sequential(OrderedDict({f"{name}_0_conv": shortcut, f"{name}_0_bn": norm}))
        self.end = nn.Sequential(OrderedDict({f"{name}_out": nn.ReLU()}))

    def forward(self, input: Tensor) -> Tensor:
        shortcut = input if self.shortcut is None else self.shortcut(input)
        return self.end(shortcut + self.convolutions(input))


def mobilenet_v2(size: int) -> Layers:
    """As `vgg16`, of MobileNetV2 at width 1."""
    layers: Layers = OrderedDict()
    layers["Conv1_pad"] = _before_stride(size)
    layers["Conv1"] = nn.Conv2d(3, 32, kernel_size=3, stride=2, bias=False)
    layers["bn_Conv1"] = BatchNorm(32, momentum=0.999)
    layers["Conv1_relu"] = nn.ReLU6()
    channels, size, number = 32, (size + 1) // 2, 0
    for expansion, filters, repeats, first in MOBILENET_V2_STAGES:
        for repeat in range(repeats):
            name, stride = f"block_{number}" if number else "expanded_conv", first if repeat == 0 else 1
            layers[name] = InvertedResidual(name, channels, filters, expansion, stride, size)
            channels, size, number = filters, (size + stride - 1) // stride, number + 1
    layers["Conv_1"] = nn.Conv2d(channels, 1280, kernel_size=1, bias=False)
    layers["Conv_1_bn"] = BatchNorm(1280, momentum=0.999)
    layers["out_relu"] = nn.ReLU6()
    return layers


class InvertedResidual(nn.Module):
    """Keras's _inverted_res_block: 1x1 to more channels, depthwise 3x3 that may stride, 1x1 to fewer.

    The first is left out where it would give no more; the input is added where it has the output's shape.
    """

    def __init__(
        self, name: str, channels: int, filters: int, expansion: int, stride: int, size: int
    ) -> None:
        super().__init__()
        wide = expansion * channels
        layers: Layers = OrderedDict()
        if expansion > 1:
            layers[f"{name}_expand"] = nn.Conv2d(channels, wide, kernel_size=1, bias=False)
            layers[f"{name}_expand_BN"] = BatchNorm(wide, momentum=0.999)
            layers[f"{name}_expand_relu"] = nn.ReLU6()
        if stride == 2:
            layers[f"{name}_pad"] = _before_stride(size)
        layers[f"{name}_depthwise"] = nn.Conv2d(
            wide, wide, kernel_size=3, stride=stride, padding=2 - stride, groups=wide, bias=False
        )
        layers[f"{name}_depthwise_BN"] = BatchNorm(wide, momentum=0.999)
        layers[f"{name}_depthwise_relu"] = nn.ReLU6()
        layers[f"{name}_project"] = nn.Conv2d(wide, filters, kernel_size=1, bias=False)
        layers[f"{name}_project_BN"] = BatchNorm(filters, momentum=0.999)
        self.convolutions = nn.Sequential(layers)
        self.adds = stride == 1 and channels == filters

    def forward(self, input: Tensor) -> Tensor:
        output = self.convolutions(input)
        return input + output if self.adds else output


def _before_stride(size: int) -> nn.Module:
    """The zeros that Keras puts round an image before a 3x3 convolution of stride 2: of an even one, behind.

    As keras.applications.imagenet_utils.correct_pad, and as `same` padding.
    """
    return nn.ZeroPad2d((size % 2, 1, size % 2, 1))


BASES = {"vgg16": vgg16, "resnet50": resnet50, "mobilenet_v2": mobilenet_v2}
