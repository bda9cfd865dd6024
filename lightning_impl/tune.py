"""python -m lightning_impl.tune: search the configuration with Lightning, each trial a run of `train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiment.tuning import command as tuning


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return tuning.main("lightning", argv)


if __name__ == "__main__":
    sys.exit(main())
