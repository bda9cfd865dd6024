"""Mobilenetv203596, migrated from the Keras model `mobilenetv2_0.35_96`."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from .keras_semantics import BatchNorm, GlobalAveragePooling


class Block(nn.Module):
    """block_1, block_2 to block_16, of mobilenetv2_0.35_96."""

    def __init__(
        self,
        in_channels: int,
        expand_channels: int,
        out_channels: int,
        stride: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.expand = nn.Conv2d(in_channels, expand_channels, kernel_size=1, bias=False)
        self.expand_BN = BatchNorm(expand_channels, momentum=0.999)
        self.expand_relu = nn.ReLU6()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride > 1 else None
        self.depthwise = nn.Conv2d(
            expand_channels,
            expand_channels,
            kernel_size=3,
            stride=stride,
            groups=expand_channels,
            bias=False,
            padding=1 if stride == 1 else 0,
        )
        self.depthwise_BN = BatchNorm(expand_channels, momentum=0.999)
        self.depthwise_relu = nn.ReLU6()
        self.project = nn.Conv2d(expand_channels, out_channels, kernel_size=1, bias=False)
        self.project_BN = BatchNorm(out_channels, momentum=0.999)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.expand_relu(self.expand_BN(self.expand(inputs)))
        if self.pad is not None:
            x = self.pad(x)
        x = self.depthwise_relu(self.depthwise_BN(self.depthwise(x)))
        x = self.project_BN(self.project(x))
        if self.residual:
            x = inputs + x
        return x


def mobilenetv2_0_35_96() -> nn.Sequential:
    """Keras's `mobilenetv2_0.35_96`: (N, 3, 96, 96) -> (N, 10)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["Conv1_pad"] = nn.ZeroPad2d((0, 1, 0, 1))  # Keras pads the odd pixel behind
    layers["Conv1"] = nn.Conv2d(3, 16, kernel_size=3, stride=2, bias=False)
    layers["bn_Conv1"] = BatchNorm(16, momentum=0.999)
    layers["Conv1_relu"] = nn.ReLU6()
    layers["expanded_conv_depthwise"] = nn.Conv2d(
        16, 16, kernel_size=3, padding=1, groups=16, bias=False
    )
    layers["expanded_conv_depthwise_BN"] = BatchNorm(16, momentum=0.999)
    layers["expanded_conv_depthwise_relu"] = nn.ReLU6()
    layers["expanded_conv_project"] = nn.Conv2d(16, 8, kernel_size=1, bias=False)
    layers["expanded_conv_project_BN"] = BatchNorm(8, momentum=0.999)
    layers["block_1"] = Block(8, 48, 8, stride=2, residual=False)
    layers["block_2"] = Block(8, 48, 8)
    layers["block_3"] = Block(8, 48, 16, stride=2, residual=False)
    layers["block_4"] = Block(16, 96, 16)
    layers["block_5"] = Block(16, 96, 16)
    layers["block_6"] = Block(16, 96, 24, stride=2, residual=False)
    for block in range(7, 10):
        layers[f"block_{block}"] = Block(24, 144, 24)
    layers["block_10"] = Block(24, 144, 32, residual=False)
    layers["block_11"] = Block(32, 192, 32)
    layers["block_12"] = Block(32, 192, 32)
    layers["block_13"] = Block(32, 192, 56, stride=2, residual=False)
    layers["block_14"] = Block(56, 336, 56)
    layers["block_15"] = Block(56, 336, 56)
    layers["block_16"] = Block(56, 336, 112, residual=False)
    layers["Conv_1"] = nn.Conv2d(112, 1280, kernel_size=1, bias=False)
    layers["Conv_1_bn"] = BatchNorm(1280, momentum=0.999)
    layers["out_relu"] = nn.ReLU6()
    layers["global_average_pooling2d"] = GlobalAveragePooling((2, 3))
    layers["predictions"] = nn.Linear(1280, 10)
    return nn.Sequential(layers)


def build(weights: Path | None = Path(__file__).with_name("weights.safetensors")) -> nn.Module:
    """The network with its weights; with None, as torch draws them.

    It gives logits, of which Keras's model gives the softmax.
    """
    network = mobilenetv2_0_35_96()
    if weights is not None:
        network.load_state_dict(load_file(weights))
    return network
