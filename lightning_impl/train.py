"""python -m lightning_impl.train: train the classifier with PyTorch Lightning and write a run record."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiment import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    request = cli.train_request("lightning", argv)
    cli.use_device("lightning", request.experiment)
    # The framework is imported last: a mistake on the command line answers at once.
    from lightning_impl.fit import fit

    return cli.guarded(lambda: fit(request.experiment, request.resume))


if __name__ == "__main__":
    sys.exit(main())
