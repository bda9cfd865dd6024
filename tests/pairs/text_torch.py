"""The same text classifier as a torch user migrates it, and the ways in which that goes wrong."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

WORDS, LENGTH = 50, 12


def network(approximate: str = "none", norm_first: bool = False) -> nn.Sequential:
    activation = nn.GELU(approximate)
    norm = nn.LayerNorm(24, eps=1e-3)
    return nn.Sequential(
        nn.Embedding(WORDS, 16),
        nn.LayerNorm(16, eps=1e-3),
        nn.Linear(16, 24),
        *([norm, activation] if norm_first else [activation, nn.Dropout(0.1), norm]),
        nn.Flatten(),
        nn.Linear(24 * LENGTH, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
    )


class Classifier(pl.LightningModule):
    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def build() -> nn.Module:
    return Classifier(network())


def build_plain() -> nn.Module:
    """Without an optimizer of its own: it is given Keras's Adam."""
    return network()


def build_gelu_tanh() -> nn.Module:
    """Planted: GELU in its tanh approximation."""
    return Classifier(network("tanh"))


def build_swapped() -> nn.Module:
    """Planted: the activation after the normalization, and not before it."""
    return Classifier(network(norm_first=True))


class Recurrent(nn.Module):
    """Has a layer that the comparison does not cover."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (state, _) = self.lstm(self.embedding(x))
        return self.head(state.squeeze(0))


def build_recurrent() -> nn.Module:
    return Recurrent()
