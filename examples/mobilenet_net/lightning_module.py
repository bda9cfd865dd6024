"""Trains the network of model.py as Keras trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F

from .keras_semantics import Adam
from .model import build as build_network


class Module(pl.LightningModule):
    """The network of model.py, trained with Adam and cross-entropy: the Keras model was not compiled."""

    def __init__(
        self, weights: Path | None = Path(__file__).with_name("weights.safetensors")
    ) -> None:
        super().__init__()
        self.network = build_network(weights)

    def forward(self, inputs: Tensor) -> Any:
        return self.network(inputs)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The loss that Keras's model was compiled with, of what the network gives."""
        return F.cross_entropy(outputs, targets)

    def probabilities(self, outputs: Any) -> Any:
        """What Keras's model gives, from what the network gives."""
        return F.softmax(outputs, dim=-1)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        return self.step(batch, "")

    def validation_step(self, batch: Any, batch_index: int) -> Tensor:
        return self.step(batch, "val_")

    def step(self, batch: Any, prefix: str) -> Tensor:
        """The loss of a batch of (inputs, targets); logs it and the metrics, over the epoch as Keras does."""
        inputs, targets = batch
        outputs = self(inputs)
        loss = self.loss(outputs, targets)
        self.log(
            f"{prefix}loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(inputs),
        )
        return loss

    def predict_step(self, batch: Any, batch_index: int) -> Any:
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        return self.probabilities(self(inputs))

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = Adam(trained, lr=0.001)
        return optimizer


def callbacks() -> list[Callback]:
    """None were given: pass Keras's with --callbacks."""
    return []


def build() -> Module:
    """The module with the migrated weights."""
    return Module()
