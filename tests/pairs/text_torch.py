"""The same text classifier as a torch user migrates it, and the ways in which that goes wrong."""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

WORDS, LENGTH = 50, 12


def network(approximate: str = "none", before: bool = False) -> nn.Module:
    activation = nn.GELU(approximate)
    norm = nn.LayerNorm(24, eps=1e-3)
    return nn.Sequential(
        nn.Embedding(WORDS, 16),
        nn.LayerNorm(16, eps=1e-3),
        nn.Linear(16, 24),
        *([norm, activation] if before else [activation, nn.Dropout(0.1), norm]),
        nn.Flatten(),
        nn.Linear(24 * LENGTH, 8),
        nn.Tanh(),
        nn.Linear(8, 4),
    )


def build() -> nn.Module:
    return network()


def build_gelu_tanh() -> nn.Module:
    """Planted: GELU in its tanh approximation."""
    return network("tanh")


def build_swapped() -> nn.Module:
    """Planted: the activation after the normalization, and not before it."""
    return network(before=True)


class Trained(pl.LightningModule):
    """With an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def configure_optimizers(self) -> dict:
        return {"optimizer": torch.optim.Adam(self.parameters(), lr=1e-3)}


def build_stock_adam() -> nn.Module:
    """Planted: torch's Adam as it comes, epsilon 1e-8 after the bias correction."""
    return Trained()


class Recurrent(nn.Module):
    """A layer that the comparison does not cover."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 16)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (state, _) = self.lstm(self.embedding(x))
        return self.head(torch.squeeze(state, 0))


def build_recurrent() -> nn.Module:
    return Recurrent()
