"""The runs of `python -m parity accuracy`: which are wanted, and training those that are not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiment import cli
from experiment.config import Experiment
from experiment.errors import ConfigError
from experiment.runs.record import Run
from experiment.system.processes import SideError
from experiment.system.progress import Bar
from parity.ladder.whole_run import SIDES

MASKS = ("own", "shared")


@dataclass(frozen=True)
class Job:
    """One run that is wanted."""

    side: str
    masks: str
    seed: int
    directory: Path
    options: Sequence[str]
    experiment: Experiment

    def __str__(self) -> str:
        return f"{self.side}, seed {self.seed}, {self.masks} masks"

    @property
    def finished(self) -> bool:
        run = Run(self.directory)
        return run.finished and run.read_json("metrics.json")["status"] == "completed"


def jobs(out: Path, options: Mapping[str, Sequence[str]], seeds: int, baseline: int) -> list[Job]:
    """The runs that a comparison needs; raises ConfigError for options that `train` would refuse.

    options: of each side's train. baseline: the number of seeds that also run with shared masks.
    """
    wanted = []
    for side in SIDES:
        experiment = cli.train_request(side, options[side]).experiment
        for masks, count in zip(MASKS, (seeds, baseline), strict=True):
            training = experiment.training.model_copy(update={"dropout_masks": masks})
            for seed in range(1, count + 1):
                job = experiment.model_copy(update={"seed": seed, "training": training})
                directory = out / "runs" / f"{side}-{masks}-{seed}"
                wanted.append(Job(side, masks, seed, directory, options[side], job))
    # Seed by seed, so that a slow spell of the machine, or an early end, meets both sides alike.
    wanted.sort(key=lambda job: (job.seed, job.masks))
    for job in wanted:
        config = job.directory / "config.yaml"
        if config.is_file() and not _same(cli.read_config(config), job.experiment):
            raise ConfigError(
                f"{job.directory} was trained with other options: name another --out, or repeat those"
            )
    return wanted


def train_all(wanted: Sequence[Job]) -> None:
    """Train the jobs that are not finished, with progress; raises SideError where one fails."""
    left = [job for job in wanted if not job.finished]
    if len(left) < len(wanted):
        print(f"{len(wanted) - len(left)} of {len(wanted)} runs are finished already")
    with Bar("training", len(left), "runs") as bar:
        for number, job in enumerate(left, 1):
            bar.update(0, str(job))
            metrics = train(job).read_json("metrics.json")
            bar.say(f"{number:>3}/{len(left)}  {job}: test accuracy {metrics['test_accuracy']:.4f}")
            bar.update()


def train(job: Job) -> Run:
    """Run one `train` command; raises SideError, with what it said, where it fails."""
    command = [sys.executable, "-m", f"{job.side}_impl.train", *job.options, "--seed", str(job.seed)]
    command += ["--training.dropout_masks", job.masks, "--run.dir", str(job.directory)]
    command += ["--run.overwrite", "true"]  # what an interruption left
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise SideError(f"{job}: training failed (exit code {done.returncode})\n{said}")
    return Run(job.directory)


def _same(one: Experiment, other: Experiment) -> bool:
    return one.model_dump(exclude={"run"}) == other.model_dump(exclude={"run"})
