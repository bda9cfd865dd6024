"""Startup: the time until --help is printed, and until the first step of training."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks import suite
from benchmarks.collect import Cell, Sample
from benchmarks.suite import Measured, digits
from benchmarks.throughput import Way, timed
from experiment.system import devices

HELP, STEP = "--help", "an epoch of one step"
# 70 digits, of which 7 are held out for validation: one batch of 63.
ONE_STEP = ("--data.name=digits", "--data.limit=70", "--training.epochs=1", "--gpus=0")


class Suite(suite.Suite):
    """The suite's cells, and how one is measured."""

    title = "Startup: seconds from the shell"
    quantity = "s"
    notes = (
        "`--help` is over with its last line; training has begun when the line of its first epoch is there, "
        "an epoch of one step, its validation and its checkpoint. Files are in the page cache."
    )
    ways = {  # noqa: RUF012
        "Lightning": Way("lightning_impl.train"),
        "Keras on TensorFlow": Way("keras_impl.train", ("--backend=tensorflow",), "tensorflow"),
        "Keras on JAX": Way("keras_impl.train", ("--backend=jax",), "jax"),
        "Keras on torch": Way("keras_impl.train", ("--backend=torch",)),
    }

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self.names = [name for name, way in self.ways.items() if devices.installed(way.needs)]

    @property
    def cells(self) -> list[Cell]:
        return [Cell(name, {"until": until}) for until in (HELP, STEP) for name in self.names]

    def measure(self, cell: Cell) -> Sample:
        way = self.ways[cell.name]
        if cell.setting["until"] == HELP:
            lines, peak = timed(way.module, ["--help"])
            return {"seconds": lines[-1][0], "peak_mib": peak}
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            lines, peak = timed(way.module, [*way.options, *ONE_STEP, f"--run.dir={folder}/run"])
        return {"seconds": next(when for when, line in lines if line.startswith("epoch")), "peak_mib": peak}

    @staticmethod
    def value(sample: Sample) -> float:
        return sample["seconds"]

    def columns(self, cell: Measured) -> dict[str, str]:
        return {"peak, MiB": digits(statistics.median(sample["peak_mib"] for sample in cell["samples"]))}
