"""python -m experiment.runs RUN...: compare finished runs in a table and in one figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from experiment import cli, figures
from experiment.lifecycle import RunError
from experiment.run import Run

ROWS = (
    ("framework", "environment", "{framework}"),
    ("data", "environment", "{data[name]}"),
    ("parameters", "metrics", "{parameters[total]:,}"),
    ("trainable", "metrics", "{parameters[trainable]:,}"),
    ("best epoch", "metrics", "{best_epoch}"),
    ("last epoch", "metrics", "{stopped_epoch}"),
    ("test accuracy", "metrics", "{test_accuracy:.4f}"),
    ("test loss", "metrics", "{test_loss:.4f}"),
    ("macro F1", "metrics", "{macro_f1:.4f}"),
    ("training time", "metrics", "{train_seconds:.1f} s"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(prog="experiment.runs", description="Compare finished runs.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the directory of a finished run")
    parser.add_argument("--figure", type=Path, help="draw their learning curves into this PNG")
    arguments = parser.parse_args(argv)
    return cli.guarded(lambda: compare([Run(path) for path in arguments.runs], arguments.figure))


def compare(runs: list[Run], figure: Path | None) -> int:
    """Print the runs side by side, with the paths of their figures; returns the exit code.

    Raises RunError for a run that is not finished.
    """
    for run in runs:
        if not run.finished:
            raise RunError(f"{run.directory}: not a finished run (no metrics.json)")
    names = [run.directory.name for run in runs]
    print(table(runs, names))
    print("\nfigures")
    for run in runs:
        for name in ("samples.png", "curves.png", "confusion.png", "calibration.png"):
            print(f"  {run.directory / name}")
    if figure is not None:
        histories = {name: run.history_columns() for name, run in zip(names, runs, strict=True)}
        try:
            figures.side_by_side(figure, histories, "learning curves")
        except OSError as error:
            raise RunError(f"--figure {figure}: cannot be written ({error.strerror})") from error
        print(f"  {figure}")
    return 0


def table(runs: list[Run], names: list[str]) -> str:
    """The runs as columns of text."""
    lines = [["", *names]]
    for label, file, template in ROWS:
        lines.append([label, *(template.format(**run.read_json(f"{file}.json")) for run in runs)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"{line[0]:<{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
