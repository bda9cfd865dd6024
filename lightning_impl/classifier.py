"""The LightningModule: loss, metrics and optimizer around a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric

from experiment.config import Experiment
from experiment.optimizers import Name, Setting
from lightning_impl.data import Batch
from lightning_impl.model import build_model
from lightning_impl.optimizers import build_optimizer


class Classifier(pl.LightningModule):
    """An image classifier: images (N, 3, S, S) in 0..255 -> probabilities (N, classes).

    network: images -> logits (N, classes), in whose parts that require a gradient training acts. optimizer,
    learning_rate, settings: as in `build_optimizer`. l2: adds l2 * sum(w^2) of every trained kernel to the
    loss. class_weights: one weight a class for the training loss, or None. on_features: train and evaluate
    `network.head` alone, on the features that a frozen base gave before.

    A batch is a `data.Batch`, or any (images, labels). Logged at the end of an epoch: train_loss,
    train_accuracy, val_loss and val_accuracy, over its images. All hyperparameters but the network are plain
    values: `Classifier.load_from_checkpoint(path, network=network)`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 1e-3,
        optimizer: Name = "adam",
        settings: dict[str, Setting] | None = None,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: list[float] | None = None,
        on_features: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network"])
        self.network = network.to(memory_format=torch.channels_last)
        self.learning_rate, self.settings = learning_rate, settings or {}
        self.optimizer: Name = optimizer
        self.l2, self.label_smoothing, self.on_features = l2, label_smoothing, on_features
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.train_loss, self.train_accuracy = _mean(), _mean()
        self.val_loss, self.val_accuracy = _mean(), _mean()

    def forward(self, images: Tensor) -> Tensor:
        return F.softmax(self.network(images).to(torch.get_default_dtype()), dim=1)

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch[0], batch[1]
        logits = self._logits(images)
        loss = self.loss(logits, labels, self.class_weights)
        self.train_loss.update(loss.detach().expand(len(labels)))
        self.train_accuracy.update(_hits(logits, labels))
        if isinstance(batch, Batch) and len(labels) < batch.total:
            # Gradients are averaged over processes, whatever their shares of the batch.
            share = len(labels) * self.trainer.world_size / batch.total
            return self.loss(logits, labels, self.class_weights, share)
        return loss

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        images, labels = batch[0], batch[1]
        if not len(labels):  # of several processes, some have none of a small batch
            return
        logits = self._logits(images)
        self.val_loss.update(self.loss(logits, labels).expand(len(labels)))
        self.val_accuracy.update(_hits(logits, labels))

    test_step = validation_step

    def predict_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        return F.softmax(self._logits(batch[0]).to(torch.get_default_dtype()), dim=1)

    def loss(
        self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, share: float = 1.0
    ) -> Tensor:
        """Cross-entropy averaged over the batch, times `share`, plus the L2 penalty; a scalar.

        Keras divides the weighted sum by the batch size, torch's own `weight` by the sum of the weights.
        """
        losses = F.cross_entropy(
            logits.to(torch.get_default_dtype()),
            labels,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        if class_weights is not None:
            losses = losses * class_weights[labels]
        loss = losses.mean() * share if share != 1.0 else losses.mean()
        if self.l2:
            factor = float(np.float32(self.l2))  # Keras on TensorFlow rounds it, in float64 too
            loss = loss + factor * sum(kernel.square().sum() for kernel in self._kernels())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return build_optimizer(self.optimizer, parameters, self.learning_rate, self.settings)

    def on_train_epoch_end(self) -> None:
        self._log_and_reset("train", self.train_loss, self.train_accuracy)

    def on_validation_epoch_end(self) -> None:
        self._log_and_reset("val", self.val_loss, self.val_accuracy)

    def on_test_epoch_end(self) -> None:
        self._log_and_reset("test", self.val_loss, self.val_accuracy)

    def mean(self, metric: Any) -> Tensor:
        """A metric's mean so far, over every process: each of them must ask at the same time."""
        sums = torch.stack([metric.mean_value, metric.weight])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums)
        return sums[0] / sums[1]

    def _log_and_reset(self, split: str, loss: Metric, accuracy: Metric) -> None:
        self.log(f"{split}_loss", self.mean(loss), prog_bar=split != "test")
        self.log(f"{split}_accuracy", self.mean(accuracy), prog_bar=split != "test")
        loss.reset()
        accuracy.reset()

    def _logits(self, images: Tensor) -> Tensor:
        return self.network.get_submodule("head")(images) if self.on_features else self.network(images)

    def _kernels(self) -> list[Tensor]:
        layers = (layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
        return [layer.weight for layer in layers if layer.weight.requires_grad]


def build_classifier(
    experiment: Experiment,
    classes: int,
    class_weights: list[float] | None = None,
    on_features: bool = False,
    pretrained: bool = True,
) -> Classifier:
    """The configured model in a Classifier; pretrained: as in `build_model`."""
    training = experiment.training
    return Classifier(
        build_model(experiment, classes, pretrained),
        training.learning_rate,
        training.optimizer,
        training.optimizer_settings,
        training.l2,
        training.label_smoothing,
        class_weights,
        on_features,
    )


def _mean() -> Metric:
    # The other strategies wait for the device at every step. This one passes over `weight` (torchmetrics
    # 1.9), so a batch's loss is given once for each of its images.
    return MeanMetric(nan_strategy="disable", sync_on_compute=False)


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    # Not MulticlassAccuracy, which divides in float32 where a run is in float64.
    return (logits.argmax(dim=1) == labels).to(torch.get_default_dtype())
