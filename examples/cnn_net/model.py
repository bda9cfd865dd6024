"""Cnn, migrated from the Keras model `cnn`."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from .keras_semantics import BatchNorm, Flatten, Rescaling


class ConvReLUBN(nn.Sequential):
    """bn1, bn2 to bn4, of cnn."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3)
        self.relu = nn.ReLU()
        self.bn = BatchNorm(out_channels)


def cnn() -> nn.Sequential:
    """Keras's `cnn`: (N, 3, 32, 32) -> (N, 10)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["rescaling"] = Rescaling(1 / 255)
    layers["bn1"] = ConvReLUBN(3, 32)
    layers["bn2"] = ConvReLUBN(32, 32)
    layers["pool1"] = nn.MaxPool2d(2)
    layers["dropout1"] = nn.Dropout(0.2)
    layers["bn3"] = ConvReLUBN(32, 64)
    layers["bn4"] = ConvReLUBN(64, 64)
    layers["pool2"] = nn.MaxPool2d(2)
    layers["dropout2"] = nn.Dropout(0.3)
    layers["flatten"] = Flatten()  # Keras's order: the channel runs fastest
    layers["dense"] = nn.Linear(1600, 256)
    layers["relu_dense"] = nn.ReLU()
    layers["bn_dense"] = BatchNorm(256)
    layers["dropout_dense"] = nn.Dropout(0.5)
    layers["logits"] = nn.Linear(256, 10)
    return nn.Sequential(layers)


def build(weights: Path | None = Path(__file__).with_name("weights.safetensors")) -> nn.Module:
    """The network with its weights; with None, as torch draws them.

    It gives logits, of which Keras's model gives the softmax.
    """
    network = cnn()
    if weights is not None:
        network.load_state_dict(load_file(weights))
    return network
