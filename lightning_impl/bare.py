"""python -m lightning_impl.bare: the same model in a bare PyTorch loop, for the benchmarks to compare with.

No Lightning, no augmentation, no metrics, no record: batches, forward, backward, optimizer. Takes the
options of `train` and prints one line of JSON with the images per second of each epoch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from experiment import cli, randomness
from experiment.config import Experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    request = cli.train_request("lightning", argv)
    cli.use_device("lightning", request.experiment)
    return cli.guarded(lambda: report(measure(request.experiment)))


def report(speeds: list[float]) -> int:
    print(json.dumps({"images_per_second": speeds}))
    return 0


def measure(experiment: Experiment) -> list[float]:
    """Images per second of each epoch's training; the first carries the warm-up."""
    import torch
    from torch.nn import functional as F

    from experiment.datasets import load
    from lightning_impl.data import to_float
    from lightning_impl.fit import numerics, use_gpu
    from lightning_impl.model import build_model

    device = torch.device("cuda" if use_gpu(experiment) else "cpu")
    dataset = load(experiment.data, experiment.seed)
    speeds = []
    with numerics(experiment):
        model = build_model(experiment, len(dataset.class_names))
        model = model.to(device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=experiment.training.learning_rate)
        size = experiment.training.batch_size
        for epoch in range(experiment.training.epochs):
            order = randomness.epoch_order(experiment.seed, epoch, len(dataset.train))
            started = time.perf_counter()
            for start in range(0, len(order), size):
                images, labels = dataset.train.batch(order[start : start + size])
                batch = to_float(torch.from_numpy(images).to(device), torch.get_default_dtype())
                loss = F.cross_entropy(model(batch), torch.from_numpy(labels).to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            loss.item()  # waits for the device
            speeds.append(len(order) / (time.perf_counter() - started))
    return speeds


if __name__ == "__main__":
    sys.exit(main())
