"""python -m parity convert RUN --to lightning|keras: a trained run of one side as a run of the other."""

from __future__ import annotations

import datetime
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.config import Experiment
from experiment.deploy.prediction import framework_of, test_predictions
from experiment.errors import RunError
from experiment.runs.record import Run
from experiment.system import devices, processes
from parity.ladder.tolerances import CONVERT

OTHER = {"keras": "lightning", "lightning": "keras"}

# What both sides would have written alike; the rest the new side makes itself.
CARRIED = (
    "config.yaml",
    "history.csv",
    "steps.csv",
    "metrics.json",
    "samples.png",
    "images.npz",
    "tensorboard",
)


class ConversionError(Exception):
    """A conversion went wrong; the message says how."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(
        prog="parity convert",
        description="Turn a trained run of one side into one of the other: the same weights and optimizer, "
        "the same predictions to rounding, and --resume goes on training it.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the directory of a finished run")
    parser.add_argument("--to", required=True, choices=sorted(OTHER), help="the side to make a run of")
    parser.add_argument("--out", type=Path, help="where the new run goes (default: beside RUN, as RUN-SIDE)")
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: convert(arguments.run, arguments.to, arguments.out))


def convert(directory: Path, to: str, out: Path | None = None) -> int:
    """Make `out`, a run of the side `to`, from a finished run of the other; returns the exit code.

    It is 1, and nothing is kept, where a side fails or predictions differ by more than `CONVERT` allows.
    Raises RunError for a run that cannot be converted and for a place that is taken.
    """
    directory = directory.resolve()
    out = directory.with_name(f"{directory.name}-{to}") if out is None else out.resolve()
    run = Run(directory)
    check(run, to, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as folder:
            made = Run(Path(folder) / out.name)  # figures are titled with the name of the run
            build(run, made, to)
            verify(run, made)
            made.directory.rename(out)
    except ConversionError as error:
        print(f"error: {error}\nnothing is kept", file=sys.stderr)
        return 1
    except OSError as error:
        raise RunError(f"{directory} cannot be converted: {error}") from error
    print(out)
    return 0


def check(run: Run, to: str, out: Path) -> None:
    """Raise RunError where a run cannot become one of the side `to`, or its place is taken."""
    if framework_of(run) != OTHER[to]:
        raise RunError(f"{run.directory} is a {to} run already")
    if out.exists():
        raise RunError(f"{out} exists: name another place with --out")
    if to == "keras" and config(run).augment.kind == "torchvision":
        raise RunError(
            f"{run.directory} was trained with augment.kind torchvision, which the Keras side does not have: "
            "it could not go on there"
        )
    test_predictions(run)


def config(run: Run) -> Experiment:
    return cli.read_config(run.directory / "config.yaml")


def build(run: Run, made: Run, to: str) -> None:
    """Make the whole record of the new run; raises RunError and ConversionError as `command` does."""
    made.checkpoints.mkdir(parents=True)
    for name in CARRIED:
        if (path := run.directory / name).is_dir():
            shutil.copytree(path, made.directory / name)
        elif path.is_file():
            shutil.copy2(path, made.directory / name)
    environment = run.read_json("environment.json")
    backend = environment.pop("backend", None)
    environment["framework"] = to
    if to == "keras":
        environment["backend"] = cli.resolve_backend(config(run))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment["converted_from"] = {
        "run": str(run.directory),
        "framework": OTHER[to],
        "backend": backend,
        "utc": now,
    }
    made.write_json("environment.json", environment)
    with tempfile.TemporaryDirectory() as arrays:
        print(f"{OTHER[to]} reads its checkpoints", flush=True)
        command(OTHER[to], "export", run, Path(arrays))
        print(f"{to} writes its own and predicts the test split", flush=True)
        command(to, "import", made, Path(arrays))


def command(side: str, action: str, run: Run, arrays: Path) -> None:
    """Run one side's `convert`; raises RunError for what it refuses, ConversionError where it breaks."""
    device = "cuda" if devices.wanted(config(run).gpus) else "cpu"
    arguments = [action, str(run.directory), str(arrays)]
    try:
        processes.start(f"{side}_impl.convert.command", arguments, device, cli.resolve_backend(config(run)))
    except processes.SideError as error:
        if error.refused:
            raise RunError(str(error)) from error
        raise ConversionError(f"{side}_impl.convert.command {action} failed:\n{error}") from error


def verify(run: Run, made: Run) -> None:
    """Print how far the new run's predictions are from the old one's.

    Raises ConversionError where that is further than `CONVERT` allows, or the test split is another.
    """
    [old_labels, old], [new_labels, new] = test_predictions(run), test_predictions(made)
    if old.shape != new.shape or not np.array_equal(old_labels, new_labels):
        raise ConversionError("the test split is another: the predictions cannot be compared")
    precision = config(run).training.precision
    backends = [r.read_json("environment.json").get("backend") for r in (run, made)]
    if precision == "float64" and "tensorflow" not in backends:
        precision = "float32"  # in which Keras's other backends compute parts of float64
    tolerance, largest = CONVERT[precision], float(np.abs(old - new).max())
    losses = [r.read_json("metrics.json")["test_loss"] for r in (run, made)]
    print(
        f"{len(old)} test predictions differ by at most {largest:.1e} (tolerance {tolerance:.0e}), "
        f"the test loss by {abs(losses[0] - losses[1]):.1e}"
    )
    if not largest <= tolerance:  # true for NaN, too
        raise ConversionError("the new run does not predict what the old one did")


if __name__ == "__main__":
    sys.exit(main())
