"""Waiting: the seconds that a command takes to say something, and to end; beside another checkout's."""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import stats, suite
from benchmarks.collect import Cell, Sample
from benchmarks.suite import digits
from experiment.errors import ConfigError
from experiment.system import devices, processes
from experiment.system.markdown import table

HERE = Path(__file__).parents[1]
RUNS, IMAGES = 200, 1000
NOW, BEFORE = "now", "before"
DIGITS = ("--data.name=digits", "--gpus=0")
# 70 digits, of which 7 are held out for validation: one batch of 63.
ONE_STEP = (*DIGITS, "--data.limit=70", "--training.epochs=1")
# A Keras side and its torch twin, as small as a user's first; and the Keras sides of larger ones.
PAIR = {
    "small_keras.py": """import keras

def build():
    layers = [keras.layers.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, activation="relu")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    return keras.Sequential(layers)
""",
    "small_torch.py": """from torch import nn
from lightning_impl.keras_semantics import Flatten

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Flatten(), nn.Linear(784, 5))
""",
    "large_keras.py": """import keras

def resnet50():
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)

def mobilenet_v2():
    return keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10)
""",
}


class Suite(suite.Suite):
    """The suite's cells, and how one is measured."""

    title = "Waiting: seconds from the shell"
    notes = (
        "Each command runs in a terminal of its own. First: until it prints anything at all; for `train`, "
        "until the line of an epoch of one step. End: until the shell has its prompt again. Files are in the "
        "page cache."
    )
    quantity = "s to the end"
    compared = False

    def __init__(self, arguments: argparse.Namespace, out: Path) -> None:
        self.checkouts = {BEFORE: arguments.beside, NOW: HERE} if arguments.beside else {NOW: HERE}
        for checkout in self.checkouts.values():
            if not (checkout / "experiment").is_dir():
                raise ConfigError(f"--beside {checkout}: no checkout of this project")
        self.work = Path(tempfile.mkdtemp(prefix="benchmark-"))
        commands = self._commands(arguments.long)
        self.commands = {
            name: command
            for name, command in commands.items()
            if not arguments.only or any(word.lower() in name.lower() for word in arguments.only)
        }
        if arguments.quick and not arguments.only:
            self.commands = {name: commands[name] for name in ("--help of lightning_impl.train", "a mistake")}
        if not self.commands:
            raise ConfigError(f"--only {' '.join(arguments.only)}: no command has one of these words")
        self.made = False

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--beside", type=Path, metavar="FOLDER", help="an older checkout, in turns with this"
        )
        parser.add_argument(
            "--only", nargs="+", default=[], metavar="WORD", help="commands with one of these words"
        )
        parser.add_argument(
            "--long",
            action="store_true",
            help="the ladder, the test suite and migrations too (an hour a turn)",
        )

    def _commands(self, long: bool) -> dict[str, list[str]]:
        """Each command's arguments after `python -m`, by what the report calls it."""
        work, report = self.work, f"--out={self.work}/report"
        runs = {side: str(work / side) for side in ("keras", "lightning")}
        commands = {
            f"--help of {module}": [*module.split(), "--help"]
            for module in (
                *(f"{side}_impl.{name}" for side in runs for name in ("train", "tune", "predict", "export")),
                *("parity", "parity migrate", "experiment runs", "benchmarks train"),
            )
        }
        commands["a mistake"] = ["lightning_impl.train", "--training.epoch=3"]
        sides = {"lightning_impl": ["--gpus=0"]}
        for backend in ("tensorflow", "jax", "torch"):
            if devices.installed(backend):
                sides[f"keras_impl on {backend}"] = [f"--backend={backend}"]
        for name, options in sides.items():
            record = [f"--run.dir={work}/one-step", "--run.overwrite=true"]
            module = f"{name.split()[0]}.train"
            commands[f"train to its first step, {name}"] = [module, *options, *ONE_STEP, *record]
        for side, run in runs.items():
            predict = [f"{side}_impl.predict", run]
            commands[f"predict on an image, {side}_impl"] = [*predict, f"{work}/images/0000.png"]
            commands[f"predict on {IMAGES:,} images, {side}_impl"] = [*predict, f"{work}/images"]
            commands[f"export, {side}_impl"] = [f"{side}_impl.export", run]
        commands[f"runs, over {RUNS}"] = ["experiment", "runs", f"{work}/many"]
        small = ["--torch=small_torch:build", "--input-shape", *["16", "16", "3"]]
        commands["doctor, a small model"] = ["parity", "doctor", *small]
        commands["a small pair"] = ["parity", "--keras=small_keras:build", *small, report]
        if long:
            for name in ("mobilenet_v2", "resnet50"):
                commands[f"migrate, {name}"] = [
                    "parity",
                    "migrate",
                    f"large_keras:{name}",
                    f"--out={work}/{name}",
                ]
            large = ["--keras=large_keras:resnet50", "--torch=resnet50.model:build", "--input-shape"]
            commands["a pair of ResNet50s"] = ["parity", *large, *["64", "64", "3"], report]
            commands["the ladder, quick"] = ["parity", "--quick", report]
            commands["the ladder"] = ["parity", report]
            commands["make test"] = ["pytest", "-q"]
        return commands

    @property
    def cells(self) -> list[Cell]:
        return [Cell(name, {"command": command}) for command in self.commands for name in self.checkouts]

    def about(self) -> dict[str, Any]:
        return {
            "commands": list(self.commands),
            "beside": [name for name in self.checkouts if name == BEFORE],
        }

    def measure(self, cell: Cell) -> Sample:
        if not self.made:
            self._make()
            self.made = True
        command = cell.setting["command"]
        checkout = self.checkouts[cell.name]
        here = command in ("the ladder", "the ladder, quick", "make test")
        first, end = in_terminal(
            [sys.executable, "-m", *self.commands[command]],
            checkout if here else self.work,
            checkout,
            b"epoch" if command.startswith("train") else b"",
            (0, 1, 2) if command == "a mistake" else (0, 1) if command.startswith("doctor") else (0,),
        )
        return {"first": first, "seconds": end}

    @staticmethod
    def value(sample: Sample) -> float:
        return sample["seconds"]

    def sections(self, values: dict[str, Any]) -> list[str]:
        """One table of all commands, with what another checkout took where there was one."""
        samples = {(cell["setting"]["command"], cell["name"]): cell["samples"] for cell in values["cells"]}
        rows = []
        for command in self.commands:
            measured = {
                key: [[sample[key] for sample in samples[command, name]] for name in self.checkouts]
                for key in ("first", "seconds")
            }
            row = [f"{digits(statistics.median(times))}" for key in measured for times in measured[key]]
            if len(self.checkouts) > 1:
                before, now = measured["seconds"]
                times, low, high = stats.ratio(now, before)
                row += [f"{times:.2f}", f"{low:.2f} to {high:.2f}"]
            rows.append([command, *row])
        heads = [f"{what}, {name}" for what in ("first, s", "end, s") for name in self.checkouts]
        more = ["now / before", "95 % interval"] if len(self.checkouts) > 1 else []
        return [*table(["command", *heads, *more], rows).splitlines(), ""]

    def _make(self) -> None:
        """A run of each side, copies of one, images and models, in a folder that is removed at the end."""
        for name, text in PAIR.items():
            (self.work / name).write_text(text)
        for side in ("keras", "lightning"):
            options = [*DIGITS, "--data.limit=200", "--training.epochs=1", f"--run.dir={self.work / side}"]
            processes.start(f"{side}_impl.train", options)
        for number in range(RUNS):
            shutil.copytree(self.work / "lightning", self.work / "many" / f"run-{number:03}")
        (self.work / "images").mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(self.work / f"images/{number:04}.png")

    def close(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)


def in_terminal(
    command: Sequence[str], folder: Path, checkout: Path, awaited: bytes = b"", codes: Sequence[int] = (0,)
) -> tuple[float, float]:
    """Run a command of a checkout in a terminal: seconds until it said something, and until it was over.

    awaited: what it must say to count as the first. Raises SideError where it ends with none of the codes.
    """
    paths = os.pathsep.join([str(checkout), str(folder)])
    values = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm", "COLUMNS": "100"}
    master, terminal = pty.openpty()
    started, first, said = time.perf_counter(), 0.0, b""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, cwd=folder, env=values
    )
    os.close(terminal)
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux says so that nobody has the terminal open any more
            break
        if not part:
            break
        said += part
        if not first and awaited in said:
            first = time.perf_counter() - started
    code = process.wait()
    os.close(master)
    if code not in codes:
        raise processes.failure(" ".join(command), said.decode(errors="replace"), code)
    return first or time.perf_counter() - started, time.perf_counter() - started
