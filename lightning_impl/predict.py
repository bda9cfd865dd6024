"""python -m lightning_impl.predict RUN IMAGE...: classify images with a trained run or its export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.deploy import prediction
from experiment.deploy.prediction import Classify, Exported, TrainedRun
from lightning_impl.checkpoint import load


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = prediction.parse("lightning", argv)
    return cli.guarded(lambda: prediction.main(arguments, "lightning", predictor, load_exported))


def load_exported(path: Path) -> Exported:
    """A file that `export` wrote; raises RunError for a damaged one."""
    from lightning_impl.runtime import load_exported

    return load_exported(path)


def predictor(trained: TrainedRun) -> Classify:
    """The run's model, ready to classify."""
    import torch

    from lightning_impl.precision import numerics, to_float

    with numerics(trained.experiment):
        model = load(trained)

    def classify(images: np.ndarray) -> np.ndarray:
        with numerics(trained.experiment), torch.inference_mode():
            return model(to_float(torch.from_numpy(images), torch.get_default_dtype())).numpy()

    return classify


if __name__ == "__main__":
    sys.exit(main())
