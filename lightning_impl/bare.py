"""python -m lightning_impl.bare [--mode M]: the same model in a bare loop, for benchmarks to compare.

eager, compiled: PyTorch alone, without augmentation, metrics or record: batches, forward, backward, stock
Adam. barebones: the same step in Lightning's Trainer(barebones=True). compute: eager, on one batch again and
again. input: `train`'s batches, augmented, and no model. phases: both, as `train` has them, each part of a
step timed. Takes the options of `train`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiment import loops, randomness
from experiment.config import Experiment


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    modes = {"eager": eager, "compiled": compiled, "barebones": barebones}
    return loops.main("lightning", modes | {"compute": compute, "input": read, "phases": phases}, argv)


def eager(experiment: Experiment) -> dict[str, Any]:
    return _bare(experiment, lambda model: model)


def compiled(experiment: Experiment) -> dict[str, Any]:
    import torch

    return _bare(experiment, torch.compile)


def compute(experiment: Experiment) -> dict[str, Any]:
    def again(work: _Work, epoch: int) -> Iterator[Any]:
        batches = work.batches(epoch)
        yield from itertools.repeat(
            next(batches), -(-len(work.dataset.train) // experiment.training.batch_size)
        )

    return _bare(experiment, lambda model: model, again)


def read(experiment: Experiment) -> dict[str, Any]:
    from lightning_impl.fit import numerics

    work, seconds = _Work(experiment), []
    with numerics(experiment):
        loader = _Loader(work)
        for epoch in range(experiment.training.epochs):
            started = time.perf_counter()
            for _ in loader.epoch(epoch):
                pass
            seconds.append(work.now() - started)
    return {"images": len(work.dataset.train), "seconds": seconds}


def phases(experiment: Experiment) -> dict[str, Any]:
    from lightning_impl.classifier import Classifier
    from lightning_impl.fit import numerics

    work, seconds = _Work(experiment), []
    parts = dict.fromkeys(("input", "forward", "backward", "optimizer"), 0.0)
    with numerics(experiment):
        loader = _Loader(work)
        classes = len(work.dataset.class_names)
        classifier: Any = Classifier(experiment.model_dump(), classes).to(work.device).train()
        optimizer = classifier.configure_optimizers()
        for epoch in range(experiment.training.epochs):
            marks = [work.now()]
            for batch in loader.epoch(epoch):
                marks.append(work.now())
                loss = classifier.training_step(batch, 0)
                marks.append(work.now())
                optimizer.zero_grad()
                loss.backward()
                marks.append(work.now())
                optimizer.step()
                marks.append(work.now())
            seconds.append(marks[-1] - marks[0])
            if epoch:
                for i, name in enumerate(parts):
                    parts[name] += sum(b - a for a, b in zip(marks[i::4], marks[i + 1 :: 4], strict=False))
    return {"images": len(work.dataset.train), "seconds": seconds, "phases": parts}


def barebones(experiment: Experiment) -> dict[str, Any]:
    import lightning.pytorch as pl
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, IterableDataset

    from lightning_impl.fit import numerics, use_gpu

    work = _Work(experiment)
    seconds: list[float] = []

    class Epochs(IterableDataset):
        epoch = 0

        def __iter__(self) -> Iterator[Any]:
            self.epoch += 1
            return work.batches(self.epoch - 1)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = work.model()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return work.optimizer(self.model)

        def on_train_epoch_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            seconds.append(work.now() - self.started)

    with numerics(experiment):
        trainer = pl.Trainer(
            accelerator="gpu" if use_gpu(experiment) else "cpu",
            devices=1,
            max_epochs=experiment.training.epochs,
            barebones=True,
        )
        trainer.fit(Module(), DataLoader(Epochs(), batch_size=None))
    return {"images": len(work.dataset.train), "seconds": seconds}


def _bare(experiment: Experiment, wrap: Any, batches: Any = None) -> dict[str, Any]:
    from torch.nn import functional as F

    from lightning_impl.fit import numerics

    work, seconds = _Work(experiment), []
    with numerics(experiment):
        model = work.model()
        run, optimizer = wrap(model), work.optimizer(model)
        for epoch in range(experiment.training.epochs):
            started = time.perf_counter()
            for images, labels in (batches or _Work.batches)(work, epoch):
                loss = F.cross_entropy(run(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds.append(work.now() - started)
    return {"images": len(work.dataset.train), "seconds": seconds}


class _Loader:
    """The batches of `train`, augmented, on the device."""

    def __init__(self, work: _Work) -> None:
        import torch

        from lightning_impl.data import DataModule

        self.data = DataModule(work.dataset, work.experiment, work.device, torch.get_default_dtype())
        self.batches: Any = self.data.train_dataloader()
        self.device = work.device

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        from lightning_impl.data import to_float

        self.batches.sampler.set_epoch(epoch)
        for images, labels, (_, step, resident) in self.batches:
            images = images.to(self.device)
            if resident is not None:
                images = self.data.resident[resident][images]
            images = self.data.augmented(to_float(images, self.data.dtype), epoch, step)
            yield images, labels.to(self.device)


class _Work:
    """What every loop does: the batches of `train`, its model, stock Adam."""

    def __init__(self, experiment: Experiment) -> None:
        import torch

        from experiment.datasets import load
        from lightning_impl.fit import use_gpu

        self.experiment = experiment
        self.device = torch.device("cuda" if use_gpu(experiment) else "cpu")
        self.dataset = load(experiment.data, experiment.seed)

    def model(self) -> Any:
        import torch

        from lightning_impl.model import build_model

        model = build_model(self.experiment, len(self.dataset.class_names)).to(self.device)
        return model.to(memory_format=torch.channels_last).train()

    def optimizer(self, model: Any) -> Any:
        import torch

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.experiment.training.learning_rate)

    def batches(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        import torch

        from lightning_impl.data import to_float

        train, size = self.dataset.train, self.experiment.training.batch_size
        order = randomness.epoch_order(self.experiment.seed, epoch, len(train))
        for start in range(0, len(order), size):
            images, labels = train.batch(order[start : start + size])
            images = to_float(torch.from_numpy(images).to(self.device), torch.get_default_dtype())
            yield images, torch.from_numpy(labels).to(self.device)

    def now(self) -> float:
        """The time at which the device has done all that it was given."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
