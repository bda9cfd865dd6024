"""python -m lightning_impl.convert.command export|import RUN FOLDER: checkpoints to plain arrays, and
back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from experiment import cli
from experiment.deploy.prediction import TrainedRun
from experiment.protocols import checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = checkpoint.parse("lightning", argv)
    return cli.guarded(lambda: convert(arguments))


def convert(arguments: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit code. Raises DataError and RunError."""
    trained = TrainedRun.open(arguments.run, "lightning")
    cli.use_device("lightning", trained.experiment)
    from lightning_impl.convert.checkpoint import evaluate, read_checkpoints, write_checkpoints
    from lightning_impl.precision import numerics

    with numerics(trained.experiment):
        if arguments.action == "export":
            return checkpoint.export_run(trained, arguments.folder, read_checkpoints)
        return checkpoint.import_run(trained, arguments.folder, write_checkpoints, read_checkpoints, evaluate)


if __name__ == "__main__":
    sys.exit(main())
