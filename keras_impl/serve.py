"""python -m keras_impl.serve MODEL: classify with a run or its export for another process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiment import cli
from experiment.deploy import serving
from keras_impl.predict import predictor
from keras_impl.runtime import load_exported


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = serving.parse("keras", argv)
    return cli.guarded(lambda: serving.main(arguments, "keras", predictor, load_exported))


if __name__ == "__main__":
    sys.exit(main())
