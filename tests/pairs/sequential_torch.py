"""The same network as a LightningModule: stock nn.Flatten, whose order of features is not Keras's."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Network(pl.LightningModule):
    def __init__(self, nesterov: bool = False) -> None:
        super().__init__()
        self.nesterov = nesterov
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.ConstantPad2d((0, 1, 0, 1), 0.0),
            nn.Conv2d(6, 8, 2),
            nn.ELU(),
            nn.Dropout(0.25),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(200, eps=1e-3, momentum=0.01),
            nn.Linear(200, 16),
            nn.ReLU(),
            nn.Linear(16, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.classifier(self.features(x / 255)), dim=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2, momentum=0.9, nesterov=self.nesterov)


def build() -> nn.Module:
    return Network()


def build_nesterov() -> nn.Module:
    """Planted: another kind of momentum."""
    return Network(nesterov=True)
