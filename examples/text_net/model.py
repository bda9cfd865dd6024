"""TextClassifier, migrated from the Keras model `text_classifier`."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from .keras_semantics import BidirectionalLSTM


def text_classifier() -> nn.Sequential:
    """Keras's `text_classifier`: (N, 40) -> (N, 4)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["embedding"] = nn.Embedding(1000, 32)
    layers["lstm"] = BidirectionalLSTM(32, 32)
    layers["dropout"] = nn.Dropout(0.3)
    layers["topic"] = nn.Linear(64, 4)
    return nn.Sequential(layers)


def build(weights: Path | None = Path(__file__).with_name("weights.safetensors")) -> nn.Module:
    """The network with its weights; with None, as torch draws them.

    It gives logits, of which Keras's model gives the softmax.
    """
    network = text_classifier()
    if weights is not None:
        network.load_state_dict(load_file(weights))
    return network
