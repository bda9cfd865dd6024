"""Training throughput: each framework as its `train` command runs it, and what it could be without that.

Every way trains the same model from the one configuration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import drawing, report, roofline, throughput
from benchmarks.collect import Cell
from benchmarks.suite import Measured, digits, setting_of
from benchmarks.throughput import Way, timed
from experiment import cli
from experiment.config import Experiment
from experiment.runs.record import Run, step_losses
from experiment.system import devices
from experiment.system.markdown import table

# How far the first loss of a `train` may be from the reference's, on shared draws. Later ones say less: in
# float32 two correct runs part within a few steps, which is why the ladder compares in float64.
SAME = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2, "float64": 1e-9}


class Model(NamedTuple):
    """Options of `train` that choose a model, and the images of a window: 2 seconds of it, or 200 steps."""

    options: tuple[str, ...]
    images: int


VGG16 = ("--model.name=vgg16", "--model.weights=random")
MODELS = {
    "cnn": Model((), 3840),
    "vgg16": Model(VGG16, 1280),
    "vgg16-cached": Model((*VGG16, "--augment.kind=none"), 14400),
}


class Suite(throughput.Suite):
    """The suite's cells, and how one is measured."""

    title = "Training: images a second"
    notes = (
        "Training steps alone, warm: a window is an epoch, the first is left out. The `train` commands "
        "augment, keep metrics, validate and write checkpoints; end to end counts all of that. The "
        "tutorial's recipe is Keras's `fit` on an `ImageDataGenerator` that augments, with validation and "
        "no checkpoints; its steps are counted without the first of an epoch, over which Keras often takes "
        "two seconds, its end to end with it. The other loops do not augment. "
        "vgg16-cached trains on the frozen base's features, computed once. Same numbers: how far the first "
        "loss, on shared draws, is from the first Keras's; what follows it is the matter of `python -m "
        "parity`."
    )
    base = "bare PyTorch loop"
    ways = {  # noqa: RUF012
        base: Way("lightning_impl.bench.baselines", ("--mode=loop",)),
        "Lightning, barebones": Way("lightning_impl.bench.baselines", ("--mode=barebones",)),
        "Lightning, train": Way("lightning_impl.train"),
        "Keras on TensorFlow, train": Way("keras_impl.train", ("--backend=tensorflow",), "tensorflow"),
        "Keras on JAX, train": Way("keras_impl.train", ("--backend=jax",), "jax"),
        "Keras on torch, train": Way("keras_impl.train", ("--backend=torch",)),
        "the tutorial's recipe": Way(
            "keras_impl.bench.baselines", ("--mode=tutorial", "--backend=tensorflow"), "tensorflow"
        ),
        "bare PyTorch loop, CUDA graphs": Way("lightning_impl.bench.baselines", ("--mode=graphs",)),
    }
    quick = (base, "Lightning, train", "Keras on TensorFlow, train", "the tutorial's recipe")

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        super().__init__(arguments, out)
        self.models, self.compiled = arguments.models, ["no", "yes"] if arguments.compile else ["no"]
        experiment = cli.train_request("lightning", self.options).experiment
        if not devices.wanted(experiment.gpus):
            self.names = [name for name in self.names if "CUDA graphs" not in name]
        self.losses: dict[tuple[str, ...], float] = {}
        self.found: dict[str, dict[str, float]] = {}

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        throughput.Suite.arguments(parser)
        parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["cnn"], help="default cnn")
        parser.add_argument("--compile", action="store_true", help="with training.compile as well as without")

    def settings(self) -> list[dict[str, Any]]:
        plain = super().settings()
        return [
            {"model": model, **setting, "compiled": compiled}
            for model in self.models
            for setting in plain
            for compiled in self.compiled
        ]

    @property
    def cells(self) -> list[Cell]:
        """Of all but the tutorial's recipe on cached features, which knows none."""
        return [
            cell
            for cell in super().cells
            if cell.name != "the tutorial's recipe" or cell.setting["model"] != "vgg16-cached"
        ]

    def train_options(self, setting: dict[str, Any]) -> list[str]:
        model = MODELS[setting["model"]]
        window = 1280 if self.is_quick else model.images
        compiled = str(setting["compiled"] == "yes").lower()
        options = [*model.options, f"--data.limit={window}", f"--training.compile={compiled}"]
        return [*options, *super().train_options(setting)[1:]]

    def facts(self) -> dict[str, Any]:
        verdicts = {str(cell): self.verdict(cell) for cell in self.cells if self.ways[cell.name].recorded}
        ceilings = {precision: self.ceilings(precision) for precision in self.precisions}
        return {"ceilings": ceilings, "verdicts": verdicts, "phases": self.phases()}

    def ceilings(self, precision: str) -> dict[str, float]:
        if precision not in self.found:
            options = ["--mode=ceilings", *self.options, f"--training.precision={precision}"]
            self.found[precision] = json.loads(timed("lightning_impl.bench.baselines", options)[0][-1][1])
        return self.found[precision]

    def experiment(self, setting: dict[str, Any]) -> Experiment:
        return cli.train_request("lightning", self.train_options(setting)).experiment

    def phases(self) -> dict[str, dict[str, float]]:
        """Milliseconds of each part of Lightning's step, without its Trainer, for each setting."""
        found = {}
        for setting in self.settings():
            lines, _ = timed(
                "lightning_impl.bench.baselines", ["--mode=phases", *self.train_options(setting)]
            )
            told = json.loads(lines[-1][1])
            steps = (self.epochs - 1) * -(-told["images"] // setting["batch"])
            words = setting_of({"setting": setting})
            found[words] = {name: 1e3 * seconds / steps for name, seconds in told["phases"].items()}
        return found

    def verdict(self, cell: Cell) -> str:
        """The difference of a `train` command's first loss from the reference's: yes (3e-7), or NO (2e-2)."""
        reference = next((name for name in self.names if name.startswith("Keras")), None)
        if reference is None:
            return "no Keras to compare with"
        apart = abs(self.first_loss(cell.name, cell.setting) - self.first_loss(reference, cell.setting))
        return f"{'yes' if apart <= SAME[cell.setting['precision']] else 'NO'} ({apart:.0e})"

    def first_loss(self, name: str, setting: dict[str, Any]) -> float:
        key = (name, setting["model"], setting["precision"], setting["compiled"])
        if key not in self.losses:
            size = self.batches[0]
            options = [*self.ways[name].options, *self.train_options({**setting, "batch": size})]
            options += ["--training.dropout_masks=shared", "--training.epochs=1", f"--data.limit={2 * size}"]
            options += ["--run.record_steps=true"]
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                timed(self.ways[name].module, [*options, f"--run.dir={folder}/run"])
                self.losses[key] = float(step_losses(Run(Path(folder) / "run"))[0])
        return self.losses[key]

    def columns(self, cell: Measured) -> dict[str, str]:
        walls = [wall for sample in cell["samples"] for wall in sample["end_to_end"]]
        ceilings = self.ceilings(cell["setting"]["precision"])
        share = self.speed(cell) * roofline.seconds(self.experiment(cell["setting"]), ceilings)
        one = Cell(cell["name"], cell["setting"])
        return {
            "end to end": digits(statistics.median(walls)) if walls else "–",
            **super().columns(cell),
            "of the roofline": f"{100 * share:.0f} %",
            "same numbers": self.verdict(one) if self.ways[one.name].recorded else "–",
        }

    def sections(self, values: dict[str, Any]) -> list[str]:
        lines = []
        for setting, parts in values["phases"].items():
            whole = sum(parts.values())
            said = ", ".join(f"{name} {digits(one)} ms ({one / whole:.0%})" for name, one in parts.items())
            lines += [f"Where a step of Lightning's goes, without its Trainer ({setting}): {said}.", ""]
        return [*lines, *self.tuned(values["cells"])]

    def tuned(self, cells: list[Measured]) -> list[str]:
        """A table for each model of every way's fastest setting; the tables before it are as they come."""
        lines = []
        for model in self.models:
            of_model = [cell for cell in cells if cell["setting"]["model"] == model]
            if len({setting_of(cell) for cell in of_model}) < 2:
                continue
            best = [
                max((cell for cell in of_model if cell["name"] == name), key=self.speed)
                for name in dict.fromkeys(cell["name"] for cell in of_model)
            ]
            lines += [f"## {model}, tuned", "", "Each way in the fastest of the settings above.", ""]
            heads, rows = report.table(self, best)
            rows = [[*row, _short(cell["setting"])] for row, cell in zip(rows, best, strict=True)]
            lines += [*table([*heads, "setting"], rows).splitlines(), ""]
        return lines

    def figures(self, out: Path, values: dict[str, Any]) -> list[str]:
        names = ["step.png"]
        rows = {}
        for setting in self.settings():
            parts = values["phases"][setting_of({"setting": setting})]
            whole = self._trained(values["cells"], setting)
            rows[f"{setting['model']}, {_short(setting)}"] = {
                **parts,
                "overhead": max(whole - sum(parts.values()), 0.0),
            }
        drawing.shares(out / "step.png", "Where a step of Lightning's train goes", rows)
        for model in self.models if len(self.batches) > 1 else ():
            lines: dict[str, dict[float, list[float]]] = {}
            for cell in values["cells"]:
                setting = cell["setting"]
                if setting["model"] != model:
                    continue
                more = [setting["precision"]] * (len(self.precisions) > 1)
                more += ["compiled"] * (setting["compiled"] == "yes")
                found = [self.value(sample) for sample in cell["samples"]]
                lines.setdefault(", ".join([cell["name"], *more]), {})[setting["batch"]] = found
            names.append(f"scaling_{model}.png")
            drawing.scaling(out / names[-1], f"{model}: {self.title}", "batch", self.quantity, lines)
        return names

    def _trained(self, cells: list[Measured], setting: dict[str, Any]) -> float:
        """Milliseconds of a step of Lightning's `train` under a setting; 0 where it was not measured."""
        for cell in cells:
            if cell["name"] == "Lightning, train" and cell["setting"] == setting:
                return 1e3 * setting["batch"] / self.speed(cell)
        return 0.0


def _short(setting: dict[str, Any]) -> str:
    compiled = ", compiled" if setting["compiled"] == "yes" else ""
    return f"batch {setting['batch']}, {setting['precision']}{compiled}"
