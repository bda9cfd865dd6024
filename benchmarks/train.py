"""Training throughput: each framework as its `train` command runs it, and what it could be without that.

Every way trains the same model from the one configuration.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import roofline, throughput
from benchmarks.collect import Cell, Sample
from benchmarks.report import digits
from benchmarks.throughput import Way, timed
from experiment import cli
from experiment.run import Run
from parity.whole_run import step_losses

REFERENCE = "Keras on TensorFlow, train"
# Losses of a few steps on shared draws: how far a `train` may be from the reference.
STEPS = 3
SAME = {"float32": 1e-4, "bfloat16": 5e-2, "float64": 1e-9}


class Suite(throughput.Suite):
    """The suite's cells, and how one is measured."""

    title = "Training: images a second"
    notes = (
        "Training steps alone, warm: a window is an epoch, the first is left out. The `train` commands "
        "augment, keep metrics, validate and write checkpoints; end to end counts all of that. The "
        "tutorial's recipe is Keras's `fit` on an `ImageDataGenerator` that augments; the other loops do not "
        f"augment. Same numbers: how far the losses of {STEPS} steps on shared draws are from those of Keras "
        "on TensorFlow."
    )
    base = "bare PyTorch loop"
    ways = {  # noqa: RUF012
        base: Way("lightning_impl.bare", ("--mode=eager",)),
        "bare PyTorch loop, compiled": Way("lightning_impl.bare", ("--mode=compiled",)),
        "Lightning, barebones": Way("lightning_impl.bare", ("--mode=barebones",)),
        "Lightning, train": Way("lightning_impl.train"),
        REFERENCE: Way("keras_impl.train", ("--backend=tensorflow",), "tensorflow"),
        "Keras on JAX, train": Way("keras_impl.train", ("--backend=jax",), "jax"),
        "Keras on torch, train": Way("keras_impl.train", ("--backend=torch",)),
        "the tutorial's recipe": Way(
            "keras_impl.bare", ("--mode=tutorial", "--backend=tensorflow"), "tensorflow"
        ),
    }
    quick = (base, "Lightning, train", REFERENCE, "the tutorial's recipe")

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        super().__init__(arguments, out)
        self.experiment = cli.train_request("lightning", self.options).experiment
        self.ceilings = roofline.ceilings()
        self.verdicts: dict[tuple[str, str], str] = {}

    def facts(self) -> dict[str, Any]:
        return {"ceilings": self.ceilings}

    def measure(self, cell: Cell) -> Sample:
        sample = super().measure(cell)
        recorded = self.ways[cell.name].recorded
        verdict = self.verdict(cell.name, cell.setting["precision"]) if recorded else "–"
        return {**sample, "verdict": verdict}

    def verdict(self, name: str, precision: str) -> str:
        """How far a `train` command's first losses are from the reference's: yes (3e-7), or NO (2e-2)."""
        if (name, precision) not in self.verdicts:
            apart = float(np.abs(self._losses(name, precision) - self._losses(REFERENCE, precision)).max())
            self.verdicts[name, precision] = f"{'yes' if apart <= SAME[precision] else 'NO'} ({apart:.0e})"
        return self.verdicts[name, precision]

    def _losses(self, name: str, precision: str) -> np.ndarray:
        way, size = self.ways[name], self.batches[0]
        options = [*self.options, "--training.epochs=1", f"--training.precision={precision}"]
        options += [f"--training.batch_size={size}", f"--data.limit={2 * STEPS * size}"]
        options += ["--training.dropout_masks=shared", "--run.record_steps=true", *way.options]
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            timed(way.module, [*options, f"--run.dir={folder}/run"])
            return step_losses(Run(Path(folder) / "run"))[:STEPS]

    def columns(self, samples: list[Sample], setting: dict[str, Any]) -> dict[str, str]:
        speed = statistics.median(self.value(sample) for sample in samples)
        walls = [wall for sample in samples for wall in sample["end_to_end"]]
        share = speed * roofline.seconds(self.experiment, self.ceilings)
        return {
            "end to end": digits(statistics.median(walls)) if walls else "–",
            **super().columns(samples, setting),
            "of the roofline": f"{100 * share:.0f} %",
            "same numbers": samples[0]["verdict"],
        }
