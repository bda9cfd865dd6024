"""What the suites of training and of input share: commands of both sides whose epochs are timed."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.collect import Cell, Sample
from benchmarks.report import Measured, digits
from experiment import devices
from experiment.run import Run
from parity import sides

PRECISIONS = ("float32", "bfloat16", "float64")


class Way(NamedTuple):
    """A module and its options; needs: what must be installed for it."""

    module: str
    options: tuple[str, ...] = ()
    needs: str = "torch"

    @property
    def recorded(self) -> bool:
        """Whether it is a `train` command, which leaves a run record."""
        return self.module.endswith(".train")


class Suite:
    """The cells of some ways to go through a data set, and how one is measured.

    A window is an epoch of `images` images; the first is left out, for it carries the warm-up.
    """

    title, notes, base = "", "", ""
    ways: Mapping[str, Way] = {}
    quick: tuple[str, ...] = ()  # the ways of --quick
    images = 6400
    quantity, higher_is_better = "images/s", True

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self.epochs = 3 if arguments.quick else 4
        self.options = [*arguments.train, f"--data.limit={1280 if arguments.quick else self.images}"]
        self.batches, self.precisions = arguments.batches, arguments.precisions
        names = self.quick if arguments.quick else self.ways
        self.names = [name for name in names if devices.installed(self.ways[name].needs)]

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--batches", type=int, nargs="+", default=[64], help="batch sizes (default 64)")
        parser.add_argument(
            "--precisions", nargs="+", choices=PRECISIONS, default=["float32"], help="default float32"
        )
        parser.add_argument(
            "train", nargs="*", help="options of train, after --, such as -- --data.name digits"
        )

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
        """What else the report keeps."""
        return {}

    def measure(self, cell: Cell) -> Sample:
        way, setting = self.ways[cell.name], cell.setting
        options = [*way.options, *self.options, f"--training.epochs={self.epochs}"]
        options += [
            f"--training.batch_size={setting['batch']}",
            f"--training.precision={setting['precision']}",
        ]
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            run = Run(Path(folder) / "run")
            to_run = [f"--run.dir={run.directory}"] if way.recorded else []
            lines, peak = timed(way.module, [*options, *to_run])
            if way.recorded:
                history = run.history_columns()
                seconds, ends = history["seconds"], [when for when, line in lines if line.startswith("epoch")]
                images = round(seconds[0] * history["images_per_second"][0])
            else:
                told, ends = json.loads(lines[-1][1]), []
                images, seconds = told["images"], told["seconds"]
        return {
            "windows": [images / one for one in seconds[1:]],
            "end_to_end": [images / one for one in np.diff(ends)],
            "warm_up": seconds[0] - statistics.median(seconds[1:]),
            "peak_mib": peak,
        }

    @staticmethod
    def value(sample: Sample) -> float:
        """A process's median window."""
        return statistics.median(sample["windows"])

    def baseline(self, names: list[str]) -> str:
        return self.base if self.base in names else names[0]

    def columns(self, cell: Measured) -> dict[str, str]:
        samples = cell["samples"]
        speed = statistics.median(self.value(sample) for sample in samples)
        return {
            "ms/batch": digits(1e3 * cell["setting"]["batch"] / speed),
            "warm-up, s": digits(statistics.median(sample["warm_up"] for sample in samples)),
            "peak, MiB": digits(max(sample["peak_mib"] for sample in samples)),
        }

    def close(self) -> None:
        """Remove what was made for the suite."""


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
            raise sides.failure(module, said.read(), process.returncode)
    return lines, usage.ru_maxrss / 1024
