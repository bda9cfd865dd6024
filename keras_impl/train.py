"""python -m keras_impl.train: train the classifier with Keras and write a run record."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from experiment import cli
from experiment.system import devices


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    with cli.refusing():
        request = cli.train_request("keras", argv)
        cli.use_device("keras", request.experiment)
    if os.environ["KERAS_BACKEND"] == "jax":
        # Keras would import it, which takes seconds, to see whether what it saves is TensorFlow's.
        devices.hide_module("tensorflow")

    def command() -> int:
        # The framework is imported last: a mistake on the command line answers at once.
        from keras_impl.fit import fit

        return fit(request.experiment, request.resume, request.checkpoint)

    return cli.guarded(command)


if __name__ == "__main__":
    sys.exit(main())
