"""Torch's side of the pairs that docs/prove.md tries: two that are right, and two with a common fault."""

from collections import OrderedDict

import lightning as L
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_impl.keras_semantics import BatchNorm, Flatten


def right() -> nn.Module:
    """As Keras has it; logits, which torch's cross-entropy takes in place of probabilities."""
    return _network(BatchNorm(8), Flatten())


def channel_first() -> nn.Module:
    """nn.Flatten's order: right once the rows of Keras's kernel are reordered (a note says so)."""
    return _network(BatchNorm(8), nn.Flatten())


def wrong_batchnorm() -> nn.Module:
    """torch's own epsilon, momentum and unbiased variance in place of Keras's."""
    return _network(nn.BatchNorm2d(8), Flatten())


class WrongSoftmax(L.LightningModule):
    """Probabilities where torch's cross-entropy takes logits: the softmax acts twice."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(right(), nn.Softmax(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)


def _network(norm: nn.Module, flatten: nn.Module) -> nn.Module:
    layers = OrderedDict(
        conv=nn.Conv2d(3, 8, 3), bn=norm, relu=nn.ReLU(), pool=nn.MaxPool2d(2), flatten=flatten
    )
    layers |= OrderedDict(dense=nn.Linear(7 * 7 * 8, 16), relu_dense=nn.ReLU(), classes=nn.Linear(16, 5))
    return nn.Sequential(layers)
