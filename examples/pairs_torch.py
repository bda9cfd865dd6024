"""Torch's side of the pairs that docs/prove.md tries: two that are right, and two with a common fault."""

from collections import OrderedDict

from torch import nn

from lightning_impl.keras_semantics import BatchNorm, Flatten


def right() -> nn.Module:
    """As Keras has it; logits, which torch's cross-entropy takes in place of probabilities."""
    return _network(BatchNorm(8), Flatten())


def channel_first() -> nn.Module:
    """nn.Flatten's order of features: as right, once the rows of Keras's kernel are reordered, which is noted."""
    return _network(BatchNorm(8), nn.Flatten())


def wrong_batchnorm() -> nn.Module:
    """torch's own epsilon, momentum and unbiased variance in place of Keras's."""
    return _network(nn.BatchNorm2d(8), Flatten())


def wrong_softmax() -> nn.Module:
    """Probabilities where torch's cross-entropy takes logits: the softmax acts twice."""
    return nn.Sequential(right(), nn.Softmax(1))


def _network(norm: nn.Module, flatten: nn.Module) -> nn.Module:
    layers = OrderedDict(
        conv=nn.Conv2d(3, 8, 3), bn=norm, relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=flatten
    )
    layers |= OrderedDict(dense=nn.Linear(7 * 7 * 8, 16), relu_dense=nn.ReLU(), classes=nn.Linear(16, 5))
    return nn.Sequential(layers)
