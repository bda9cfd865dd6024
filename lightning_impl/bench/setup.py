"""Benchmark setup: the batches of `train`, its model, stock Adam, and a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from experiment import randomness
from experiment.config import Experiment
from experiment.data import features
from experiment.data.dataset import load
from lightning_impl.classifier import build_classifier
from lightning_impl.data import Batch, build_data
from lightning_impl.fit import base_features
from lightning_impl.model import build_model
from lightning_impl.precision import to_float, use_gpu


class Work:
    """An experiment's data, device and model; on a frozen base's features where `train` would use them."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.device = torch.device("cuda" if use_gpu(experiment) else "cpu")
        self.dataset = load(experiment.data, experiment.seed)
        self.classes = len(self.dataset.class_names)
        self.on_features = features.usable(experiment)
        if self.on_features:
            classifier = build_classifier(experiment, self.classes, on_features=True)
            self.dataset = base_features(classifier, self.dataset, experiment, self.device)

    def model(self, compiled: str | None = None) -> Any:
        """The model, to be trained; compiled: torch.compile's mode, whatever the configuration says."""
        model = build_model(self.experiment, self.classes)
        if self.on_features:
            model = model.get_submodule("head")
        model = model.to(self.device).to(memory_format=torch.channels_last).train()
        if compiled or self.experiment.training.compile:
            model.compile(mode=compiled)
        return model

    def optimizer(self, model: Any) -> Any:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.experiment.training.learning_rate)

    def autocast(self) -> Any:
        """The context of mixed precision around the forward pass."""
        mixed = self.experiment.training.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def batches(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        train, training = self.dataset.train, self.experiment.training
        order = randomness.training_order(self.experiment.seed, epoch, train.labels, training.sampling)
        size = training.batch_size
        for start in range(0, len(order), size):
            images, labels = train.batch(order[start : start + size])
            images = to_float(torch.from_numpy(images).to(self.device), torch.get_default_dtype())
            yield images, torch.from_numpy(labels).to(self.device)

    def now(self) -> float:
        """The time at which the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Loader:
    """The batches of `train`, augmented, on the device."""

    def __init__(self, work: Work) -> None:
        self.data = build_data(work.experiment, work.dataset, work.device)
        self.batches: Any = self.data.train_dataloader()
        self.device = work.device

    def epoch(self, epoch: int) -> Iterator[Batch]:
        self.batches.sampler.set_epoch(epoch)
        for batch in self.batches:
            moved = batch._replace(images=batch.images.to(self.device), labels=batch.labels.to(self.device))
            plain = self.data.on_after_batch_transfer(moved, 0)
            yield plain._replace(images=self.data.augmented(plain))
