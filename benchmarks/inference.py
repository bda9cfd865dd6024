"""Inference: the time that one trained model takes to classify, in each of the ways that it can be run.

Keras and Lightning as they are, and every exported file, on one thread and on all, for one image and for 64.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import suite
from benchmarks.collect import Cell, Sample
from benchmarks.suite import Measured, digits
from experiment.deploy import conversion
from experiment.deploy.export import QUANTIZATIONS
from experiment.deploy.exported import SHORTCUTS, Model, make
from experiment.deploy.model_worker import Worker
from experiment.runs.record import Run
from experiment.system import devices, processes

BATCHES = (1, 64)


class Suite(suite.Suite):
    """The suite's cells and how one is measured; `close` removes what was made for it."""

    title = "Inference: one model, every way to run it"
    quantity = "ms a call"
    base = "Lightning"
    notes = (
        "A call classifies one batch of uint8 images that lie in memory, warm; each process repeats it for "
        "seconds and gives its median. Keras (TensorFlow) and Lightning (eager) run the trained run itself."
    )

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self.seconds = 0.5 if arguments.quick else 2.0
        self.work = out / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        run = Run(arguments.run.resolve())
        models = make(run, self.work, () if arguments.quick else QUANTIZATIONS)
        self.models = {model.name: model for model in models}
        runs = {model.side: model.path for model in models if not model.exported}
        self.plain: set[str] = set()
        for model in models if not arguments.quick else ():
            if model.exported and not model.quantize:
                self._without(model, runs[model.side])
        size = conversion.config(run).data.image_size
        self.images = self.work / "images.npy"
        shape = (max(BATCHES), size, size, 3)
        np.save(self.images, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run", type=Path, metavar="RUN", help="a finished run of either side")

    @property
    def cells(self) -> list[Cell]:
        threads = dict.fromkeys((1, devices.count_cores()))
        return [
            Cell(name, {"batch": batch, "threads": count})
            for batch in BATCHES
            for count in threads
            for name in self.models
        ]

    def about(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def measure(self, cell: Cell) -> Sample:
        model, batch, threads = self.models[cell.name], cell.setting["batch"], cell.setting["threads"]
        with Worker(model.side, model.path, threads, cell.name in self.plain) as worker:
            return {"calls": summary(worker.time(self.images, batch, self.seconds))}

    def _without(self, model: Model, run: Path) -> None:
        """Add the same file without folding, and without what its runtime does to it."""
        path = model.path.with_stem("unfolded")
        processes.start(f"{model.side}_impl.export", [str(run), f"--output={path}", "--no-fold"])
        name = f"{model.name}, BatchNorm not folded"
        self.models[name] = replace(model, name=name, path=path)
        name = f"{model.name} without {SHORTCUTS[model.runtime]}"
        self.models[name] = replace(model, name=name)
        self.plain.add(name)

    @staticmethod
    def value(sample: Sample) -> float:
        """A process's median call, in milliseconds."""
        return sample["calls"]["deciles"][5]

    def columns(self, cell: Measured) -> dict[str, str]:
        found = [sample["calls"]["deciles"] for sample in cell["samples"]]
        middle = float(np.median([one[5] for one in found]))
        slow = float(np.median([one[9] for one in found]))
        return {
            "images/s": digits(1e3 * cell["setting"]["batch"] / middle),
            "slowest tenth from": digits(slow),
        }

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


def summary(seconds: np.ndarray) -> dict[str, Any]:
    """The number of calls, and the deciles of their milliseconds, from the fastest to the slowest."""
    deciles = np.percentile(1e3 * seconds, np.arange(0, 101, 10))
    return {"count": len(seconds), "deciles": [round(float(one), 5) for one in deciles]}
