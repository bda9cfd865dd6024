"""python -m parity convert RUN --to lightning|keras: a trained run of one side as a run of the other."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.deploy.conversion import OTHER, ConversionError, build, check, config
from experiment.deploy.prediction import test_predictions
from experiment.errors import RunError
from experiment.runs.record import Run
from parity.ladder.tolerances import CONVERT


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
