"""Training throughput: each framework as its `train` command runs it, and what it could be without that.

Every way trains the same model from the one configuration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import roofline, throughput
from benchmarks.collect import Cell
from benchmarks.report import Measured, digits
from benchmarks.throughput import Way, timed
from experiment import cli
from experiment.run import Run
from parity.whole_run import step_losses

# How far the first loss of a `train` may be from the reference's, on shared draws. Later ones say less: in
# float32 two correct runs part within a few steps, which is why the ladder compares in float64.
SAME = {"float32": 1e-4, "bfloat16": 5e-2, "float64": 1e-9}


class Suite(throughput.Suite):
    """The suite's cells, and how one is measured."""

    title = "Training: images a second"
    notes = (
        "Training steps alone, warm: a window is an epoch, the first is left out. The `train` commands "
        "augment, keep metrics, validate and write checkpoints; end to end counts all of that. The "
        "tutorial's recipe is Keras's `fit` on an `ImageDataGenerator` that augments; the other loops do not "
        "augment. Same numbers: how far the first loss, on shared draws, is from the first Keras's; what "
        "follows it is the matter of `python -m parity`."
    )
    base = "bare PyTorch loop"
    ways = {  # noqa: RUF012
        base: Way("lightning_impl.bare", ("--mode=eager",)),
        "bare PyTorch loop, compiled": Way("lightning_impl.bare", ("--mode=compiled",)),
        "Lightning, barebones": Way("lightning_impl.bare", ("--mode=barebones",)),
        "Lightning, train": Way("lightning_impl.train"),
        "Keras on TensorFlow, train": Way("keras_impl.train", ("--backend=tensorflow",), "tensorflow"),
        "Keras on JAX, train": Way("keras_impl.train", ("--backend=jax",), "jax"),
        "Keras on torch, train": Way("keras_impl.train", ("--backend=torch",)),
        "the tutorial's recipe": Way(
            "keras_impl.bare", ("--mode=tutorial", "--backend=tensorflow"), "tensorflow"
        ),
    }
    quick = (base, "Lightning, train", "Keras on TensorFlow, train", "the tutorial's recipe")

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        super().__init__(arguments, out)
        self.experiment = cli.train_request("lightning", self.options).experiment
        self.ceilings = roofline.ceilings()
        self.losses: dict[tuple[str, str], float] = {}

    def facts(self) -> dict[str, Any]:
        verdicts = {str(cell): self.verdict(cell) for cell in self.cells if self.ways[cell.name].recorded}
        return {"ceilings": self.ceilings, "verdicts": verdicts, "phases": self.phases()}

    def phases(self) -> dict[str, float]:
        """Milliseconds of each part of Lightning's step, without its Trainer."""
        options = [
            *self.options,
            f"--training.epochs={self.epochs}",
            f"--training.batch_size={self.batches[0]}",
        ]
        lines, _ = timed("lightning_impl.bare", ["--mode=phases", *options])
        told = json.loads(lines[-1][1])
        steps = (self.epochs - 1) * -(-told["images"] // self.batches[0])
        return {name: 1e3 * seconds / steps for name, seconds in told["phases"].items()}

    def verdict(self, cell: Cell) -> str:
        """How far a `train` command's first loss is from the reference's: yes (3e-7), or NO (2e-2)."""
        precision = cell.setting["precision"]
        reference = next(name for name in self.names if name.startswith("Keras"))
        apart = abs(self.first_loss(cell.name, precision) - self.first_loss(reference, precision))
        return f"{'yes' if apart <= SAME[precision] else 'NO'} ({apart:.0e})"

    def first_loss(self, name: str, precision: str) -> float:
        if (name, precision) not in self.losses:
            size = self.batches[0]
            options = [*self.ways[name].options, *self.options, "--training.dropout_masks=shared"]
            options += ["--training.epochs=1", f"--training.batch_size={size}", f"--data.limit={2 * size}"]
            options += [f"--training.precision={precision}", "--run.record_steps=true"]
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                timed(self.ways[name].module, [*options, f"--run.dir={folder}/run"])
                self.losses[name, precision] = float(step_losses(Run(Path(folder) / "run"))[0])
        return self.losses[name, precision]

    def columns(self, cell: Measured) -> dict[str, str]:
        speed = statistics.median(self.value(sample) for sample in cell["samples"])
        walls = [wall for sample in cell["samples"] for wall in sample["end_to_end"]]
        share = speed * roofline.seconds(self.experiment, self.ceilings)
        one = Cell(cell["name"], cell["setting"])
        return {
            "end to end": digits(statistics.median(walls)) if walls else "–",
            **super().columns(cell),
            "of the roofline": f"{100 * share:.0f} %",
            "same numbers": self.verdict(one) if self.ways[one.name].recorded else "–",
        }
