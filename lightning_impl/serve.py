"""python -m lightning_impl.serve MODEL: classify with a run or its export for another process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiment import cli
from experiment.deploy import serving
from lightning_impl.predict import predictor
from lightning_impl.runtime import load_exported


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = serving.parse("lightning", argv)
    return cli.guarded(lambda: serving.main(arguments, "lightning", predictor, load_exported))


if __name__ == "__main__":
    sys.exit(main())
