"""python -m lightning_impl.predict RUN IMAGE...: classify images with a trained run or its export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.deploy import prediction
from experiment.deploy.prediction import Classify, Exported, TrainedRun
from experiment.errors import RunError
from experiment.runs.record import brief


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = prediction.parse("lightning", argv)
    return cli.guarded(lambda: prediction.main(arguments, "lightning", predictor, load_exported))


def load_exported(path: Path) -> Exported:
    """A file that `export` wrote; raises RunError for a damaged one."""
    from lightning_impl.export import load_exported

    return load_exported(path)


def predictor(trained: TrainedRun) -> Classify:
    """The run's model, ready to classify."""
    import torch

    from lightning_impl.data import to_float
    from lightning_impl.fit import numerics

    with numerics(trained.experiment):
        classifier = load(trained)

    def classify(images: np.ndarray) -> np.ndarray:
        with numerics(trained.experiment), torch.inference_mode():
            return classifier(to_float(torch.from_numpy(images), torch.get_default_dtype())).numpy()

    return classify


def load(trained: TrainedRun):
    """The run's classifier, in evaluation mode, on the CPU; raises RunError for a damaged checkpoint."""
    import torch

    from lightning_impl.classifier import Classifier

    name = "best.ckpt" if trained.experiment.training.use_best else "last.ckpt"
    path = trained.run.checkpoints / name
    classifier = Classifier(trained.experiment.model_dump(), len(trained.class_names), pretrained=False)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        classifier.load_state_dict(state)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise RunError(f"{path}: cannot be read ({brief(error)})") from error
    return classifier.to(torch.get_default_dtype()).eval()


if __name__ == "__main__":
    sys.exit(main())
