"""Throughput, as the suites of training and of input measure it: the timed epochs of both sides' commands."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import suite
from benchmarks.collect import Cell, Sample
from benchmarks.suite import Measured, digits
from experiment.runs.record import Run
from experiment.system import devices, processes

PRECISIONS = ("float32", "tf32", "bfloat16", "float64")


class Way(NamedTuple):
    """A module and its options; needs: what must be installed for it."""

    module: str
    options: tuple[str, ...] = ()
    needs: str = "torch"

    @property
    def recorded(self) -> bool:
        """True for a `train` command, which leaves a run record."""
        return self.module.endswith(".train")


class Suite(suite.Suite):
    """The cells of some ways to go through a data set, and how one is measured.

    A window is an epoch; the first is left out, for it carries the warm-up.
    """

    ways: Mapping[str, Way] = {}
    quick: tuple[str, ...] = ()  # the ways of --quick
    images = 6400  # of an epoch
    quantity, higher_is_better = "images/s", True

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self.is_quick = arguments.quick
        self.epochs = 3 if arguments.quick else 4
        self.options = arguments.train
        self.batches, self.precisions = arguments.batches, arguments.precisions
        names = self.quick if arguments.quick else self.ways
        only = [word.lower() for word in arguments.only]
        chosen = [name for name in names if not only or any(word in name.lower() for word in only)]
        self.names = [name for name in chosen if devices.installed(self.ways[name].needs)]

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--batches", type=int, nargs="+", default=[64], help="batch sizes (default 64)")
        parser.add_argument(
            "--precisions", nargs="+", choices=PRECISIONS, default=["float32"], help="default float32"
        )
        parser.add_argument(
            "--only", nargs="+", default=[], metavar="WORD", help="the ways whose name has one of these words"
        )
        parser.add_argument(
            "train", nargs="*", help="options of train, after --, such as -- --data.name digits"
        )

    def settings(self) -> list[dict[str, Any]]:
        return [
            {"batch": batch, "precision": precision}
            for batch in self.batches
            for precision in self.precisions
        ]

    @property
    def cells(self) -> list[Cell]:
        return [Cell(name, setting) for setting in self.settings() for name in self.names]

    def about(self) -> dict[str, Any]:
        return {"options": self.options, "epochs": self.epochs}

    def train_options(self, setting: dict[str, Any]) -> list[str]:
        """The options of `train` that a setting stands for."""
        return [
            f"--data.limit={1280 if self.is_quick else self.images}",
            *self.options,
            f"--training.epochs={self.epochs}",
            f"--training.batch_size={setting['batch']}",
            f"--training.precision={setting['precision']}",
        ]

    def measure(self, cell: Cell) -> Sample:
        return self.sample(self.ways[cell.name], self.train_options(cell.setting))

    @staticmethod
    def sample(way: Way, options: list[str]) -> Sample:
        """The windows of one process."""
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            run = Run(Path(folder) / "run")
            to_run = [f"--run.dir={run.directory}"] if way.recorded else []
            with GpuMemory() as gpu:
                lines, peak = timed(way.module, [*way.options, *options, *to_run])
            if way.recorded:
                history = run.history_columns()
                seconds, ends = history["seconds"], [when for when, line in lines if line.startswith("epoch")]
                images = round(seconds[0] * history["images_per_second"][0])
            else:
                told = json.loads(lines[-1][1])
                ends = told.get("ends", [])
                images, seconds = told["images"], told["seconds"]
        return {
            "windows": [images / one for one in seconds[1:]],
            "end_to_end": [images / one for one in np.diff(ends)],
            "warm_up": seconds[0] - statistics.median(seconds[1:]),
            "peak_mib": peak,
            "gpu_peak_mib": gpu.peak,
        }

    @staticmethod
    def value(sample: Sample) -> float:
        """A process's median window."""
        return statistics.median(sample["windows"])

    def speed(self, cell: Measured) -> float:
        return statistics.median(self.value(sample) for sample in cell["samples"])

    def columns(self, cell: Measured) -> dict[str, str]:
        samples = cell["samples"]
        gpu = max(sample.get("gpu_peak_mib", 0.0) for sample in samples)
        return {
            "ms/batch": digits(1e3 * cell["setting"]["batch"] / self.speed(cell)),
            "warm-up, s": digits(statistics.median(sample["warm_up"] for sample in samples)),
            "peak, MiB": digits(max(sample["peak_mib"] for sample in samples)),
            **({"GPU peak, MiB": digits(gpu)} if gpu else {}),
        }


class GpuMemory:
    """The most memory in use on the first GPU while entered, above what was before; MiB, 0 without a GPU."""

    def __init__(self) -> None:
        self.peak, self._over = 0.0, threading.Event()
        self._before = self._used() if devices.count_gpus() else None

    def __enter__(self) -> GpuMemory:
        if self._before is not None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.peak = max(self.peak, (self._used() or 0.0) - (self._before or 0.0))

    @staticmethod
    def _used() -> float | None:
        """As the driver counts it, which is the same for every framework."""
        command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        try:
            return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        except (OSError, ValueError, subprocess.CalledProcessError):
            return None


def timed(module: str, options: list[str]) -> tuple[list[tuple[float, str]], float]:
    """Run a module: its lines with the seconds after which each came, and its peak memory in MiB.

    Raises SideError where it fails.
    """
    command = [sys.executable, "-m", module, *options]
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        lines = [(time.perf_counter() - started, line) for line in process.stdout]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            said.seek(0)
            raise processes.failure(module, said.read(), process.returncode)
    return lines, usage.ru_maxrss / 1024
