"""python -m lightning_impl.bench.baselines [--mode M]: the same model in a bare loop, for benchmarks to
compare.

loop: PyTorch alone, without augmentation, metrics or record: batches, forward, backward, stock Adam.
barebones: the same step in Lightning's Trainer(barebones=True). compute: loop, on one batch again and again.
graphs: loop, compiled into CUDA graphs (torch.compile's reduce-overhead). input: `train`'s batches,
augmented, and no model. phases: both, as `train` has them, each part of a step timed. ceilings: what the
hardware gives at best. Takes the options of `train`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from experiment.config import Experiment
from experiment.protocols import benchmark


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    modes = {"loop": loop, "barebones": barebones, "compute": compute, "graphs": graphs}
    return benchmark.main("lightning", modes | {"input": read, "phases": phases, "ceilings": ceilings}, argv)


def loop(experiment: Experiment, again: bool = False, compiled: str | None = None) -> dict[str, Any]:
    """again: on the epoch's first batch alone. compiled: a mode of torch.compile."""
    from torch.nn import functional as F

    from lightning_impl.bench.setup import Work
    from lightning_impl.precision import numerics

    work, seconds = Work(experiment), []
    with numerics(experiment):
        model = work.model(compiled)
        optimizer = work.optimizer(model)
        for epoch in range(experiment.training.epochs):
            batches = work.batches(epoch)
            if again:
                steps = -(-len(work.dataset.train) // experiment.training.batch_size)
                batches = itertools.repeat(next(batches), steps)
            started = time.perf_counter()
            for images, labels in batches:
                with work.autocast():
                    loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds.append(work.now() - started)
    return {"images": len(work.dataset.train), "seconds": seconds}


def compute(experiment: Experiment) -> dict[str, Any]:
    return loop(experiment, again=True)


def graphs(experiment: Experiment) -> dict[str, Any]:
    return loop(experiment, compiled="reduce-overhead")


def ceilings(experiment: Experiment) -> dict[str, Any]:
    from lightning_impl.bench import ceilings

    return ceilings.ceilings(experiment)


def read(experiment: Experiment) -> dict[str, Any]:
    from lightning_impl.bench.setup import Loader, Work
    from lightning_impl.precision import numerics

    work, seconds = Work(experiment), []
    with numerics(experiment):
        loader = Loader(work)
        for epoch in range(experiment.training.epochs):
            started = time.perf_counter()
            for _ in loader.epoch(epoch):
                pass
            seconds.append(work.now() - started)
    return {"images": len(work.dataset.train), "seconds": seconds}


def phases(experiment: Experiment) -> dict[str, Any]:
    from lightning_impl.bench.setup import Loader, Work
    from lightning_impl.classifier import build_classifier
    from lightning_impl.precision import numerics

    work, seconds = Work(experiment), []
    parts = dict.fromkeys(("input", "forward", "backward", "optimizer"), 0.0)
    with numerics(experiment):
        loader = Loader(work)
        classifier: Any = build_classifier(experiment, work.classes, None, work.on_features)
        classifier = classifier.to(work.device).train()
        optimizer = classifier.configure_optimizers()
        for epoch in range(experiment.training.epochs):
            marks = [work.now()]
            for batch in loader.epoch(epoch):
                marks.append(work.now())
                with work.autocast():
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

    from lightning_impl.bench.setup import Work
    from lightning_impl.precision import PRECISIONS, numerics, use_gpu

    work = Work(experiment)
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
            precision=PRECISIONS[experiment.training.precision],  # type: ignore[arg-type]
            barebones=True,
        )
        trainer.fit(Module(), DataLoader(Epochs(), batch_size=None))
    return {"images": len(work.dataset.train), "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
