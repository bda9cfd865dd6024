"""The run record: one directory a run, the only place where the two frameworks meet."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiment.config import Experiment, Section
from experiment.errors import RunError
from experiment.system import files
from experiment.system.files import WriteError, replacing
from experiment.system.names import brief

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
LAST = ("last.ckpt", "resume.keras")  # what training goes on from; each side writes it last
# What a run's JSON files hold under some dotted keys, where they have them.
KINDS = {
    "framework": str,
    "data": dict,
    "data.name": str,
    "data.images": dict,
    "status": str,
    "parameters": dict,
    "parameters.total": int,
    "parameters.trainable": int,
    "calibration": dict,
    "experiment": dict,
    "experiment.training": dict,
    "experiment.training.epochs": int,
    "best_epoch": int,
    **dict.fromkeys(("test_accuracy", "test_loss", "macro_f1", "calibration.ece"), float),
}


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

        Its only writer is this process from here on. Raises OSError where a run already stands and
        `run.overwrite` is off, or the directory cannot be written; RunError where another process writes it.
        """
        try:
            if experiment.run.dir is None:
                stamp = time.strftime("%Y%m%d-%H%M%S")
                directory = _new(Path("runs"), f"{framework}-{experiment.model.name}-{data_name}-{stamp}")
            else:
                directory = Path(experiment.run.dir)
                if (problem := occupied(experiment)) is not None:
                    raise FileExistsError(problem)
                directory.mkdir(parents=True, exist_ok=True)
            run = cls(directory)
            run.claim(made=True)
            if (problem := occupied(experiment)) is not None:  # by another process, in the meantime
                raise FileExistsError(problem)
            run._clear()
            try:
                run.write_config(experiment)
                run.checkpoints.mkdir()
            except OSError:
                shutil.rmtree(directory, ignore_errors=True)
                raise
        except OSError as error:
            if isinstance(error, WriteError) or (said := files.told(error)) is None:
                raise
            raise OSError(said) from error
        return run

    def claim(self, made: bool = False) -> None:
        """Become the run's one writer until `release`, or the end of this process.

        made: it is a new one. What an earlier writer left half-written is removed. Raises RunError where
        another process writes it.
        """
        if (other := files.claim(self.directory)) is not None:
            raise RunError(being_written(self.directory, other))
        _claimed.append((self, made))
        for folder in (self.directory, self.checkpoints):
            for path in folder.glob(files.PARTIAL):
                path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what is in the directory; until the last moment it is a run that may be replaced."""

        def turn(path: Path) -> int:
            return {"metrics.json": 0, "config.yaml": 2}.get(path.name, 1)

        for path in sorted(self.directory.iterdir(), key=turn):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != files.LOCK:
                path.unlink()

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
            *sections, name = key.split(".")
            holder = values
            for section in sections:  # each before what it holds: it is known to be a dict
                holder = holder.get(section, {})
            if not isinstance(holder.get(name, kind()), kind | int if kind is float else kind):
                raise RunError(f"{path}: damaged, {key} is {brief(ValueError(repr(holder[name])))}")
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

    @property
    def unborn(self) -> bool:
        """True where the run was stopped before its first checkpoint: what there is of it can begin anew."""
        path = self.directory / "history.csv"
        epochs = len(path.read_bytes().splitlines()) - 1 if path.is_file() else 0
        if self.finished or epochs > 1 or any((self.checkpoints / n).exists() for n in LAST):
            return False
        others = [p for p in self.directory.iterdir() if p.name != "config.yaml" and not files.ours(p)]
        return _is_record(self.directory) and (self.checkpoints.is_dir() or not others)

    @property
    def resumable(self) -> bool:
        """True where an epoch was finished, and its checkpoint at least begun."""
        if not all((self.directory / name).is_file() for name in ("history.csv", "environment.json")):
            return False
        return self.checkpoints.is_dir() and any(not files.ours(p) for p in self.checkpoints.iterdir())


_claimed: list[tuple[Run, bool]] = []  # with whether this process made it


def left_behind() -> str | None:
    """The way to go on with the run that this process writes; a new one without an epoch is removed."""
    run, made = _claimed[-1] if _claimed else (None, False)
    with suppress(RunError):  # results that are damaged are not whole
        if run is not None and run.finished and run.read_json("metrics.json")["status"] == "completed":
            return f"its results are whole: {run.directory}"  # stopped as they were printed or logged
    if run is not None and run.resumable:
        return f"go on with: --resume {run.directory}"
    if run is not None and made:
        shutil.rmtree(run.directory, ignore_errors=True)
        return "no epoch was finished: nothing is kept"
    return None


def release() -> None:
    """Let others write the runs that this process claimed."""
    _claimed.clear()
    files.release()


def being_written(directory: Path, other: str) -> str:
    """That another process, named as `files.writer` does, writes a run."""
    return f"{directory} is being written by {other}: let it end, or name another directory"


def _new(parent: Path, name: str) -> Path:
    """A directory made now, whoever else makes one of that name in the same second."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        directory = parent / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise AssertionError


def occupied(experiment: Experiment) -> str | None:
    """The reason why `run.dir` cannot be written to, or None where it can."""
    if experiment.run.dir is None:
        return None
    directory = Path(experiment.run.dir)
    try:
        if directory.is_file():
            return f"run.dir {directory} is a file: name another directory"
        if not directory.exists() or all(files.ours(path) for path in directory.iterdir()):
            return None
    except OSError as error:
        return f"run.dir {directory}: {error.strerror}: name another directory"
    if not experiment.run.overwrite:
        return f"run.dir {directory} exists: name another, or replace it with --run.overwrite true"
    if not _is_record(directory):
        return f"run.dir {directory} holds something that is no run record: it is not replaced"
    if (other := files.writer(directory)) is not None:
        return f"run.dir {being_written(directory, other)}"
    return None


def _is_record(directory: Path) -> bool:
    # Others keep a config.yaml, too: it must be one of ours, or damaged among what else is in a record.
    config = directory / "config.yaml"
    if not config.is_file():
        return False
    keys = {line.partition(":")[0] for line in config.read_text(errors="replace").splitlines()}
    return keys >= {"data", "model", "training", "run"} or Run(directory).resumable


def _row(cells: list[str], fault: str) -> dict[str, float]:
    try:
        row, epoch = {key: float(cell) for key, cell in zip(HISTORY, cells, strict=True)}, int(cells[0])
    except ValueError as error:
        raise RunError(f"{fault}: {brief(error)}") from error
    if missing := [key for key, value in row.items() if math.isnan(value)]:
        raise RunError(f"{fault}: {missing[0]} is nan")
    return row | {"epoch": epoch}


def changes(before: dict[str, Any] | None, now: Experiment, free: Collection[str] = ()) -> str | None:
    """The first setting in which an experiment is not the one that was trained, said in a line; or None.

    before: its plain values from environment.json; None in a record from before they were kept. free: keys
    that may differ, beside `run`, `tracking` and `mlflow`.
    """

    def differing(before: dict[str, Any], now: Section, prefix: str) -> Iterator[str]:
        values = now.model_dump(mode="json")
        for key in [key for key in values if key in before]:
            if isinstance(section := getattr(now, key), Section) and isinstance(before[key], dict):
                yield from differing(before[key], section, f"{prefix}{key}.")
            elif before[key] != values[key] and prefix + key not in free:
                now_and_then = f"is {values[key]} in config.yaml, and was {before[key]} when it was trained"
                yield f"{prefix}{key} {now_and_then}"

    kept = {k: v for k, v in (before or {}).items() if k not in ("run", "tracking", "mlflow")}
    return next(differing(kept, now, ""), None)


def step_losses(run: Run) -> np.ndarray:
    """The training loss of every step: (steps,)."""
    return np.loadtxt(run.directory / "steps.csv", delimiter=",", skiprows=1)[:, 2]
