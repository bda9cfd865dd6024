"""Stages: the time and the memory of what grows with images, classes, runs, trials, layers and predictions.

Each stage runs at three sizes, each ten times the one before, in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import suite
from benchmarks.collect import Cell, Sample
from benchmarks.suite import Measured, digits
from experiment.system import processes
from experiment.system.markdown import table

Work = Callable[[], object]


def images(folder: Path, count: int) -> Work:
    """Reading a folder of images, ten classes of PNG files of 32 pixels."""
    from PIL import Image

    from experiment.config import Data
    from experiment.data.dataset import load

    random = np.random.default_rng(0)
    for number in range(count):
        directory = folder / "images" / f"class {number % 10}"
        directory.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(directory / f"{number}.png", compress_level=1)
    data = Data(name="folder", root=str(folder / "images"), cache=str(folder / "cache"))
    return lambda: load(data, 0)


def classes(folder: Path, count: int) -> Work:
    """Metrics and the confusion matrix's figure, of 2,000 predictions of so many classes."""
    from experiment.evaluation import figures, metrics

    labels, probabilities = _predictions(2000, count)
    names = [f"class {number}" for number in range(count)]

    def work() -> None:
        metrics.report(metrics.evaluate(labels, probabilities, names))
        matrix = metrics.confusion(labels, probabilities)
        figures.confusion(folder / "confusion.png", matrix, names, "")

    return work


def predictions(folder: Path, count: int) -> Work:
    """Metrics, calibration and mistakes of so many predictions of ten classes."""
    from experiment.evaluation import error_analysis, figures, metrics

    labels, probabilities = _predictions(count, 10)
    names = [f"class {number}" for number in range(10)]

    def work() -> None:
        metrics.evaluate(labels, probabilities, names)
        error_analysis.mistakes(labels, probabilities)
        figures.calibration(folder / "calibration.png", error_analysis.calibration(labels, probabilities), "")

    return work


def _predictions(count: int, of: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(of, size=count), random.uniform(size=(count, of))
    probabilities[np.arange(count), labels] += 1
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def runs(folder: Path, count: int) -> Work:
    """The table of `experiment runs` over copies of one run."""
    from experiment.tracking import compare

    limits = ["--data.name=digits", "--data.limit=70", "--training.epochs=1", "--gpus=0"]
    processes.start("lightning_impl.train", [*limits, f"--run.dir={folder / 'run'}"])
    for number in range(count):
        shutil.copytree(folder / "run", folder / "many" / f"run-{number:05}")
    return lambda: compare.main([str(folder / "many")])


def trials(folder: Path, count: int) -> Work:
    """The report of a search: its table and Optuna's figures, from a journal of so many trials."""
    import optuna

    from experiment import cli
    from experiment.tuning import report
    from experiment.tuning.search_space import Search
    from experiment.tuning.study import Work as Searching
    from experiment.tuning.study import open_storage

    search = Search.model_validate(
        {"space": {"training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}}
    )
    storage = open_storage(str(folder / "journal.log"))
    study = optuna.create_study(study_name="grown", storage=storage, direction="minimize")
    random = np.random.default_rng(0)
    space: dict[str, Any] = {
        "training.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    }
    for _ in range(count):
        rate = float(10 ** random.uniform(-4, -1))
        loss = float(math.log10(rate) ** 2 + random.uniform())
        values = {epoch: loss + 1 / (epoch + 1) for epoch in range(5)}
        trial = optuna.trial.create_trial(
            params={"training.learning_rate": rate},
            distributions=space,
            value=loss,
            intermediate_values=values,
            user_attrs={"epochs": len(values), "seconds": 1.0},
        )
        study.add_trial(trial)
    work = Searching("lightning", search, cli.experiment_from({}), folder / "out", storage, "grown")
    return lambda: report.write(work, "")


def layers(folder: Path, count: int) -> Work:
    """The proof of a pair of so many Dense layers, two training steps."""
    (folder / "deep_keras.py").write_text(DEEP_KERAS.format(count=count))
    (folder / "deep_torch.py").write_text(DEEP_TORCH.format(count=count))
    sys.path.insert(0, str(folder))  # where the processes that it starts find the two
    pair = ["--keras=deep_keras:build", "--torch=deep_torch:build", "--input-shape", "8", "--steps", "2"]
    return lambda: processes.start("parity", [*pair, f"--out={folder / 'report'}"])


# Each of the layers adds to what it is given, or a hundred on one another would give nothing but rounding.
DEEP_KERAS = """import keras

def build():
    inputs = x = keras.Input((8,))
    for _ in range({count}):
        x = x + keras.layers.Dense(8, activation="tanh")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))
"""
DEEP_TORCH = """import torch
from torch import nn

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range({count}))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x)

def build():
    return Deep()
"""
STAGES: dict[str, tuple[Callable[[Path, int], Work], tuple[int, int, int]]] = {
    "images in a folder": (images, (200, 2_000, 20_000)),
    "classes": (classes, (10, 100, 1_000)),
    "predictions in a report": (predictions, (1_000, 10_000, 100_000)),
    "runs in `runs`": (runs, (20, 200, 2_000)),
    "trials in a search's report": (trials, (10, 100, 1_000)),
    "layers of a pair, proven": (layers, (2, 20, 200)),
}


class Suite(suite.Suite):
    """The suite's cells, and how one is measured."""

    title = "Growth of every stage"
    notes = (
        "Each stage at three sizes, each ten times the one before, in a process of its own; imports and what "
        "makes its input are not counted. Power: of the size that the seconds grow with from the second to "
        "the third, 1 where the time is proportional."
    )
    quantity, compared = "s", False

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        super().__init__(arguments, out)
        self.sizes = 2 if arguments.quick else 3

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(f"{size:,}", {"stage": stage})
            for stage, (_, sizes) in STAGES.items()
            for size in sizes[: self.sizes]
        ]

    def measure(self, cell: Cell) -> Sample:
        arguments = [cell.setting["stage"], cell.name.replace(",", "")]
        return json.loads(processes.start("benchmarks.stages", arguments).splitlines()[-1])

    @staticmethod
    def value(sample: Sample) -> float:
        return sample["seconds"]

    def sections(self, values: dict[str, Any]) -> list[str]:
        """One table, a row a stage."""
        cells: dict[str, list[Measured]] = {}
        for cell in values["cells"]:
            cells.setdefault(cell["setting"]["stage"], []).append(cell)
        rows = []
        for stage, measured in cells.items():
            of = {key: [_median(cell, key) for cell in measured] for key in ("seconds", "peak_mib")}
            power = math.log10(max(of["seconds"][-1], 1e-9) / max(of["seconds"][-2], 1e-9))
            sizes = " / ".join(cell["name"] for cell in measured)
            times, peaks = (" / ".join(map(digits, of[key])) for key in ("seconds", "peak_mib"))
            rows.append([stage, sizes, times, f"{power:.2f}", peaks])
        heads = ["what grows", "sizes", "seconds", "power", "peak of the process, MiB"]
        return [*table(heads, rows).splitlines(), ""]


def _median(cell: Measured, key: str) -> float:
    return statistics.median(sample[key] for sample in cell["samples"])


def main() -> int:
    """Measure one stage at one size; prints its seconds and the peak of this process as JSON."""
    stage, size = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        work = STAGES[stage][0](Path(folder), int(size))
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            work()
        seconds = time.perf_counter() - started
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(one).ru_maxrss for one in whose) / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
