"""Training throughput: each framework as its `train` command runs it, and what it could be without that.

Every way trains the same model from the one configuration. Options of `train` stand after --, such as
`-- --data.name folder --data.root photos`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import roofline
from benchmarks.collect import Cell, Sample
from benchmarks.report import digits
from experiment import cli, devices
from experiment.run import Run
from parity import sides
from parity.whole_run import step_losses

TUTORIAL = "the tutorial's recipe"
BARE = "bare PyTorch loop"


class Way(NamedTuple):
    """A module and its options; needs: what must be installed for it."""

    module: str
    options: tuple[str, ...] = ()
    needs: str = "torch"


WAYS = {
    BARE: Way("lightning_impl.bare", ("--mode=eager",)),
    "bare PyTorch loop, compiled": Way("lightning_impl.bare", ("--mode=compiled",)),
    "Lightning, barebones": Way("lightning_impl.bare", ("--mode=barebones",)),
    "Lightning, train": Way("lightning_impl.train"),
    "Keras on TensorFlow, train": Way("keras_impl.train", ("--backend=tensorflow",), "tensorflow"),
    "Keras on JAX, train": Way("keras_impl.train", ("--backend=jax",), "jax"),
    "Keras on torch, train": Way("keras_impl.train", ("--backend=torch",)),
    TUTORIAL: Way("keras_impl.bare", ("--mode=tutorial", "--backend=tensorflow"), "tensorflow"),
}
QUICK = (BARE, "Lightning, train", "Keras on TensorFlow, train", TUTORIAL)
# Losses of a few steps on shared draws, of every `train` from the first one's.
STEPS = 3
SAME = {"float32": 1e-4, "bfloat16": 5e-2, "float64": 1e-9}


class Suite:
    """The suite's cells, and how one is measured."""

    title = "Training: images a second"
    quantity = "images/s"
    higher_is_better = True
    notes = (
        "Training steps alone, warm: a window is an epoch, the first is left out. The `train` commands "
        "augment, keep metrics, validate and write checkpoints; end to end counts all of that. The tutorial's "
        "recipe is Keras's `fit` on an `ImageDataGenerator` that augments; the other loops do not augment. "
        f"Same numbers: how far the losses of {STEPS} steps on shared draws are from those of Keras on TensorFlow."
    )

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self.epochs = 2 if arguments.quick else 4
        self.options = [*arguments.train, f"--data.limit={6400 if not arguments.quick else 1280}"]
        self.batches, self.precisions = arguments.batches, arguments.precisions
        self.names = [
            name for name in (QUICK if arguments.quick else WAYS) if devices.installed(WAYS[name].needs)
        ]
        self.experiment = cli.train_request("lightning", self.options).experiment
        self.ceilings = roofline.ceilings()
        self.verdicts: dict[tuple[str, str], str] = {}

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--batches", type=int, nargs="+", default=[64], help="batch sizes (default 64)")
        parser.add_argument(
            "--precisions", nargs="+", choices=list(SAME), default=["float32"], help="default float32"
        )
        parser.add_argument("train", nargs="*", help="options of train, after --")

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(name, {"batch": batch, "precision": precision})
            for batch in self.batches
            for precision in self.precisions
            for name in self.names
        ]

    def about(self) -> dict[str, Any]:
        """What makes two benchmarks the same, beside their cells."""
        return {"options": self.options, "epochs": self.epochs}

    def facts(self) -> dict[str, Any]:
        return {"ceilings": self.ceilings}

    def measure(self, cell: Cell) -> Sample:
        way, setting = WAYS[cell.name], cell.setting
        options = [*way.options, *self.options, f"--training.epochs={self.epochs}"]
        options += [
            f"--training.batch_size={setting['batch']}",
            f"--training.precision={setting['precision']}",
        ]
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            run = Run(Path(folder) / "run")
            recorded = way.module.endswith(".train")
            lines, peak = timed(way.module, [*options, *([f"--run.dir={run.directory}"] if recorded else [])])
            if recorded:
                history = run.history_columns()
                speeds = history["images_per_second"]
                images = history["seconds"][0] * speeds[0]
                ends = [when for when, line in lines if line.startswith("epoch")]
                walls = [images / wall for wall in np.diff(ends)]
            else:
                told, walls = json.loads(lines[-1][1]), []
                images, speeds = told["images"], [told["images"] / one for one in told["seconds"]]
        return {
            "windows": speeds[1:],
            "end_to_end": walls,
            "warm_up": images / speeds[0] - images / statistics.median(speeds[1:]),
            "peak_mib": peak,
            "verdict": self.verdict(cell.name, setting["precision"]) if recorded else "–",
        }

    def verdict(self, name: str, precision: str) -> str:
        """How far a `train` command's first losses are from the reference's: yes (3e-7), or NO (2e-2)."""
        if (name, precision) not in self.verdicts:
            reference = self._losses("Keras on TensorFlow, train", precision)
            apart = float(np.abs(self._losses(name, precision) - reference).max())
            self.verdicts[name, precision] = f"{'yes' if apart <= SAME[precision] else 'NO'} ({apart:.0e})"
        return self.verdicts[name, precision]

    def _losses(self, name: str, precision: str) -> np.ndarray:
        way, size = WAYS[name], self.batches[0]
        options = [*self.options, "--training.epochs=1", f"--training.precision={precision}"]
        options += [f"--training.batch_size={size}", f"--data.limit={STEPS * size}", "--data.validation=0.1"]
        options += ["--training.dropout_masks=shared", "--run.record_steps=true", *way.options]
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            timed(way.module, [*options, f"--run.dir={folder}/run"])
            return step_losses(Run(Path(folder) / "run"))[:STEPS]

    @staticmethod
    def value(sample: Sample) -> float:
        """A process's median window."""
        return statistics.median(sample["windows"])

    def baseline(self, names: list[str]) -> str:
        return BARE

    def columns(self, samples: list[Sample], setting: dict[str, Any]) -> dict[str, str]:
        speed = statistics.median(self.value(sample) for sample in samples)
        walls = [wall for sample in samples for wall in sample["end_to_end"]]
        share = speed * roofline.seconds(self.experiment, self.ceilings)
        return {
            "ms/step": digits(1e3 * setting["batch"] / speed),
            "end to end": digits(statistics.median(walls)) if walls else "–",
            "of the roofline": f"{100 * share:.0f} %",
            "warm-up, s": digits(statistics.median(sample["warm_up"] for sample in samples)),
            "peak, MiB": digits(max(sample["peak_mib"] for sample in samples)),
            "same numbers": samples[0]["verdict"],
        }

    def close(self) -> None:
        pass


def timed(module: str, options: list[str]) -> tuple[list[tuple[float, str]], float]:
    """Run a module: its lines with the time at which each came, and its peak memory in MiB.

    Raises SideError where it fails.
    """
    command = [sys.executable, "-m", module, *options]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        lines = [(time.perf_counter(), line) for line in process.stdout]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            said.seek(0)
            raise sides.failure(module, said.read(), process.returncode)
    return lines, usage.ru_maxrss / 1024
