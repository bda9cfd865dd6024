"""The LightningModule: loss, metrics and optimizer around a model."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric

from experiment.config import Experiment
from lightning_impl.model import build_model
from lightning_impl.optimizers import build_optimizer


class Classifier(pl.LightningModule):
    """An image classifier: images (N, 3, S, S) in 0..255 -> probabilities (N, classes).

    experiment: the nested plain values of an Experiment (so that checkpoints load with weights_only).
    class_weights: one weight a class for the training loss, or None.
    on_features: train and evaluate the head alone, on the features that a frozen base gave before.
    pretrained: as in `build_model`.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        experiment: dict[str, Any],
        classes: int,
        class_weights: list[float] | None = None,
        on_features: bool = False,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.experiment = Experiment.model_validate(experiment)
        self.network = build_model(self.experiment, classes, pretrained).to(memory_format=torch.channels_last)
        self.on_features = on_features
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.train_loss, self.train_accuracy = _mean(), _mean()
        self.val_loss, self.val_accuracy = _mean(), _mean()

    def forward(self, images: Tensor) -> Tensor:
        return F.softmax(self.network(images).to(torch.get_default_dtype()), dim=1)

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor:
        images, labels, *place = batch
        logits = self._logits(images)
        loss = self.loss(logits, labels, self.class_weights)
        self.train_loss.update(loss.detach().expand(len(labels)))
        self.train_accuracy.update(_hits(logits, labels))
        if place:  # gradients are averaged over processes, whatever their shares of the batch
            _, images_of_all = place[0]
            share = len(labels) * self.trainer.world_size / images_of_all
            return self.loss(logits, labels, self.class_weights, share)
        return loss

    def validation_step(self, batch: tuple[Any, ...], batch_idx: int) -> None:
        images, labels, *_ = batch
        if not len(labels):  # of several processes, some have none of a small batch
            return
        logits = self._logits(images)
        self.val_loss.update(self.loss(logits, labels).expand(len(labels)))
        self.val_accuracy.update(_hits(logits, labels))

    test_step = validation_step

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.softmax(self._logits(batch[0]).to(torch.get_default_dtype()), dim=1)

    def loss(
        self, logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, share: float = 1.0
    ) -> Tensor:
        """Cross-entropy averaged over the batch, times `share`, plus the L2 penalty; a scalar.

        Keras divides the weighted sum by the batch size, torch's own `weight` by the sum of the weights.
        """
        training = self.experiment.training
        losses = F.cross_entropy(
            logits.to(torch.get_default_dtype()),
            labels,
            label_smoothing=training.label_smoothing,
            reduction="none",
        )
        if class_weights is not None:
            losses = losses * class_weights[labels]
        loss = losses.mean() * share if share != 1.0 else losses.mean()
        if training.l2:
            factor = float(np.float32(training.l2))  # Keras on TensorFlow rounds it, in float64 too
            loss = loss + factor * sum(kernel.square().sum() for kernel in self._kernels())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        training, parameters = self.experiment.training, [p for p in self.parameters() if p.requires_grad]
        return build_optimizer(
            training.optimizer, parameters, training.learning_rate, training.optimizer_settings
        )

    def on_train_epoch_end(self) -> None:
        self.train_loss.reset()
        self.train_accuracy.reset()

    def on_validation_epoch_end(self) -> None:
        self._log_and_reset("val")

    def on_test_epoch_end(self) -> None:
        self._log_and_reset("test")

    def mean(self, metric: Any) -> Tensor:
        """A metric's mean so far, over every process: each of them must ask at the same time."""
        sums = torch.stack([metric.mean_value, metric.weight])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(sums)
        return sums[0] / sums[1]

    def _log_and_reset(self, split: str) -> None:
        self.log(f"{split}_loss", self.mean(self.val_loss))
        self.log(f"{split}_accuracy", self.mean(self.val_accuracy))
        self.val_loss.reset()
        self.val_accuracy.reset()

    def _logits(self, images: Tensor) -> Tensor:
        return self.network.get_submodule("head")(images) if self.on_features else self.network(images)

    def _kernels(self) -> list[Tensor]:
        layers = (layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
        return [layer.weight for layer in layers if layer.weight.requires_grad]


def _mean() -> Metric:
    # The other strategies wait for the device at every step. This one passes over `weight` (torchmetrics
    # 1.9), so a batch's loss is given once for each of its images.
    return MeanMetric(nan_strategy="disable", sync_on_compute=False)


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    # Not MulticlassAccuracy, which divides in float32 where a run is in float64.
    return (logits.argmax(dim=1) == labels).to(torch.get_default_dtype())
