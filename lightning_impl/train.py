"""python -m lightning_impl.train: train the classifier with PyTorch Lightning and write a run record."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from experiment import cli
from experiment.system import distributed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with cli.refusing():
        request = cli.train_request("lightning", argv)
    gpus = request.experiment.gpus or 0
    if gpus > 1 and distributed.world() == 1:
        return distributed.launch("lightning_impl.train", argv, gpus)
    if distributed.rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the first process speaks for all
    cli.use_device("lightning", request.experiment)

    def command() -> int:
        # The framework is imported last: a mistake on the command line answers at once.
        from lightning_impl.fit import fit

        return fit(request.experiment, request.resume, request.checkpoint)

    return cli.guarded(command)


if __name__ == "__main__":
    sys.exit(main())
