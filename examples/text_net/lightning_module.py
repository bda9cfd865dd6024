"""Trains the network of model.py as Keras trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric, MetricCollection, classification

from .keras_semantics import (
    Adam,
    EarlyStopping,
    ReduceLROnPlateau,
    clip_gradients,
    exponential_decay,
)
from .model import build as build_network


class Module(pl.LightningModule):
    """The network of model.py, trained with what the Keras model was compiled with."""

    def __init__(
        self, weights: Path | None = Path(__file__).with_name("weights.safetensors")
    ) -> None:
        super().__init__()
        self.network = build_network(weights)
        metrics: dict[str, Metric] = {
            "accuracy": classification.MulticlassAccuracy(num_classes=4, average="micro")
        }
        self.train_metrics = MetricCollection(dict(metrics))
        self.val_metrics = self.train_metrics.clone()

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
        metrics = self.val_metrics if prefix else self.train_metrics
        given = self.probabilities(outputs)
        metrics["accuracy"](given, targets)
        for name, metric in metrics.items():
            self.log(
                f"{prefix}{name}", metric, on_step=False, on_epoch=True, batch_size=len(inputs)
            )
        return loss

    def predict_step(self, batch: Any, batch_index: int) -> Any:
        inputs = batch[0] if isinstance(batch, tuple | list) else batch
        return self.probabilities(self(inputs))

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = Adam(trained, lr=0.001, betas=(0.9, 0.999), eps=1e-07)
        schedule = LambdaLR(
            optimizer,
            lambda step: (
                exponential_decay(
                    step,
                    initial_learning_rate=0.001,
                    decay_steps=100,
                    decay_rate=0.9,
                    staircase=False,
                )
                / 0.001
            ),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *given: Any, **flags: Any) -> None:
        clip_gradients(self.network, global_clipnorm=1.0)


def callbacks() -> list[Callback]:
    """Keras's callbacks, and what else acts beside the steps."""
    return [
        EarlyStopping(patience=3, restore_best_weights=True, monitor="val_loss", mode="min"),
        ReduceLROnPlateau(
            patience=2,
            factor=0.1,
            min_delta=0.0001,
            cooldown=0,
            min_learning_rate=0.0,
            monitor="val_loss",
            mode="min",
        ),
    ]


def build() -> Module:
    """The module with the migrated weights."""
    return Module()
