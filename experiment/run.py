"""The run record: one directory a run, the only place where the two frameworks meet."""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiment import ranks
from experiment.config import Experiment, Section

HISTORY = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)
# What a run's JSON files hold under some keys, where they have them.
KINDS = {
    "framework": str,
    "data": dict,
    "status": str,
    "parameters": dict,
    "experiment": dict,
    "best_epoch": int,
    **dict.fromkeys(("test_accuracy", "test_loss", "macro_f1"), float),
}
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "torchvision", "lightning", "numpy")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well: no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class RunError(Exception):
    """A run cannot start or go on; the message says why and what to do."""


def brief(error: BaseException) -> str:
    """An exception's message in one line of at most 200 characters, or its kind where it has none."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 200 else f"{said[:200]}..."


class Facts(dict[str, Any]):
    """An object of a JSON file of the record; a key that it lacks raises RunError."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise RunError(f"{self.path}: damaged, it has no {key}")


class Run:
    """A run directory."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)

    @classmethod
    def create(cls, experiment: Experiment, framework: str, data_name: str) -> Run:
        """Make the directory and write its config.yaml.

        Raises FileExistsError where a run already stands and `run.overwrite` is off.
        """
        if experiment.run.dir is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            name = f"{framework}-{experiment.model.name}-{data_name}-{stamp}"
            directory = Path("runs") / name
            for n in range(2, 100):  # two runs in one second
                if not directory.exists():
                    break
                directory = Path("runs") / f"{name}-{n}"
        else:
            directory = Path(experiment.run.dir)
            if (problem := occupied(experiment)) is not None:
                raise FileExistsError(problem)
            if directory.exists():
                shutil.rmtree(directory)
        (directory / "checkpoints").mkdir(parents=True)
        run = cls(directory)
        run.write_config(experiment)
        return run

    def write_config(self, experiment: Experiment) -> None:
        """Write config.yaml; its settings repeat the run, in a directory of its own."""
        values = experiment.model_dump(mode="json")
        values["run"].update(dir=None, overwrite=False)
        with replacing(self.directory / "config.yaml") as path:
            path.write_text(yaml.safe_dump(values, sort_keys=False))

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        with replacing(self.directory / name) as path:
            path.write_text(json.dumps(values, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """The values of a JSON file of the record.

        Raises RunError where it cannot be read or is none that was written here, and for a key that it lacks.
        """
        path = self.directory / name

        def facts(values: dict[str, Any]) -> Facts:
            read = Facts(values)
            read.path = path
            return read

        try:
            values = json.loads(path.read_text(), object_hook=facts)
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: cannot be read ({brief(error)})") from error
        if not isinstance(values, Facts):
            raise RunError(f"{path}: cannot be read (no JSON object)")
        for key, kind in KINDS.items():
            if not isinstance(values.get(key, kind()), kind | int if kind is float else kind):
                raise RunError(f"{path}: damaged, {key} is {brief(ValueError(repr(values[key])))}")
        return values

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write history.csv, one row an epoch (counted from 1), floats in full precision."""
        with replacing(self.directory / "history.csv") as path, path.open("w", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows(rows)

    def history(self) -> list[dict[str, float]]:
        """The rows of history.csv; empty when no epoch was finished.

        Raises RunError, with the number of the line, for a file that was damaged.
        """
        path = self.directory / "history.csv"
        if not path.exists():
            return []
        try:
            text = path.read_text()
            lines = list(csv.reader(text.splitlines()))
        except (OSError, ValueError, csv.Error) as error:
            raise RunError(f"{path}: cannot be read ({brief(error)})") from error
        rows: list[dict[str, float]] = []
        for number, cells in enumerate(lines, 1):
            whole = number < len(lines) or text.endswith("\n")
            if not whole or len(cells) != len(HISTORY) or (number == 1 and tuple(cells) != HISTORY):
                raise RunError(f"{path}: line {number} is damaged: {brief(ValueError(','.join(cells)))}")
            if number > 1:
                rows.append(_row(cells, f"{path}: line {number} is damaged"))
        if not lines or [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            raise RunError(f"{path}: damaged, the epochs are not 1, 2, 3 and so on")
        return rows

    def history_columns(self) -> dict[str, list[float]]:
        """history.csv by column."""
        rows = self.history()
        return {key: [row[key] for row in rows] for key in HISTORY}

    def write_arrays(self, name: str, **arrays: np.ndarray) -> None:
        with replacing(self.directory / name) as path:
            np.savez_compressed(path, allow_pickle=False, **arrays)

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def data_sha256(self) -> str:
        """Of the images and labels that it was trained and tested on."""
        return self.read_json("environment.json")["data"]["sha256"]

    @property
    def finished(self) -> bool:
        return (self.directory / "metrics.json").is_file()


def occupied(experiment: Experiment) -> str | None:
    """Why `run.dir` cannot be written to, or None where it can."""
    if experiment.run.dir is None:
        return None
    directory = Path(experiment.run.dir)
    if directory.is_file():
        return f"run.dir {directory} is a file: name another directory"
    if not directory.exists() or not any(directory.iterdir()):
        return None
    if not experiment.run.overwrite:
        return f"run.dir {directory} exists: name another, or replace it with --run.overwrite true"
    if not (directory / "config.yaml").is_file():
        return f"run.dir {directory} holds something that is no run record: it is not replaced"
    return None


def _row(cells: list[str], fault: str) -> dict[str, float]:
    try:
        row = {key: float(cell) for key, cell in zip(HISTORY, cells, strict=True)} | {"epoch": int(cells[0])}
    except ValueError as error:
        raise RunError(f"{fault}: {brief(error)}") from error
    if missing := [key for key, value in row.items() if math.isnan(value)]:
        raise RunError(f"{fault}: {missing[0]} is nan")
    return row


def changes(before: dict[str, Any] | None, now: Experiment, free: Collection[str] = ()) -> str | None:
    """The first setting in which an experiment is not the one that was trained, said in a line; or None.

    before: its plain values from environment.json; None in a record from before they were kept. free: keys
    that may differ, beside `run`, `tracking` and `mlflow`.
    """

    def differing(before: dict[str, Any], now: Section, prefix: str) -> Iterator[str]:
        values = now.model_dump(mode="json")
        for key in [key for key in values if key in before]:
            if isinstance(section := getattr(now, key), Section):
                yield from differing(before[key], section, f"{prefix}{key}.")
            elif before[key] != values[key] and prefix + key not in free:
                now_and_then = f"is {values[key]} in config.yaml, and was {before[key]} when it was trained"
                yield f"{prefix}{key} {now_and_then}"

    kept = {k: v for k, v in (before or {}).items() if k not in ("run", "tracking", "mlflow")}
    return next(differing(kept, now, ""), None)


def environment(
    framework: str, device: str, threads: int, seed: int, data: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """Where and with what a run was made, as plain values for environment.json."""
    return {
        "framework": framework,
        "device": device,
        "threads": threads,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "processes": ranks.world(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
        "git_revision": _git_revision(),
        "seed": seed,
        "data": data,
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }


def environment_line(facts: dict[str, Any]) -> str:
    """The machine and the code that a run was made with, from its environment.json, as reports name them."""
    return f"{facts['cpu']}, {facts['cores']} cores; {facts['git_revision']}, {facts['utc']}."


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _gpu() -> str | None:
    """What the driver says of the GPUs: name, driver, power limit, clocks now and at most."""
    facts = "name,driver_version,power.limit,clocks.sm,clocks.max.sm,clocks.mem"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(done.stdout.splitlines())


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
