"""This project's model on its real data, as a trace looks at it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiment.data.dataset import load as load_data
from experiment.protocols import trace
from experiment.protocols.trace import Arrays, Request
from experiment.training.lifecycle import class_weights
from lightning_impl.classifier import build_classifier
from lightning_impl.data import Batch, build_data
from lightning_impl.precision import use_gpu
from lightning_impl.trace.optimizer import Training
from lightning_impl.trace.target import Subject


def own(request: Request) -> tuple[Subject, Arrays]:
    """This project's model on its real data, and what the data module made of the first two epochs."""
    experiment = request.experiment
    device = torch.device("cuda" if use_gpu(experiment) else "cpu")
    dataset = load_data(experiment.data, experiment.seed)
    weights = class_weights(experiment, dataset)
    classifier = build_classifier(experiment, len(dataset.class_names), weights).to(device)
    data = build_data(experiment, dataset, device)
    batches: list[tuple[Tensor, Tensor]] = []
    arrays: Arrays = {}
    loader: Any = data.train_dataloader()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        plain: list[Batch] = [data.on_after_batch_transfer(batch, 0) for batch in loader]
        arrays |= trace.epoch(
            epoch, [(batch.images.movedim(1, -1).numpy(force=True), batch.labels.numpy()) for batch in plain]
        )
        for batch in plain:
            if len(batches) < max(request.steps, 1):
                batches.append((data.augmented(batch).to(device), batch.labels.to(device)))
    loader.sampler.set_epoch(0)
    first = data.on_after_batch_transfer(next(iter(loader)), 0).images.to(device)
    arrays["data/augmented"] = batches[0][0].movedim(1, -1).numpy(force=True)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return classifier.loss(logits, labels, classifier.class_weights)

    def finish(logits: Tensor) -> list[Tensor]:
        return [F.softmax(logits, dim=1)]

    training = Training(classifier.network, classifier.configure_optimizers())
    return Subject(classifier.network, loss, training, batches, first, finish, aligned=True), arrays
