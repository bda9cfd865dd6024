"""python -m keras_impl.predict RUN IMAGE...: classify images with a trained run or its export."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiment import cli
from experiment.deploy import prediction
from experiment.deploy.prediction import Classify, Exported, TrainedRun
from keras_impl.checkpoint import load


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = prediction.parse("keras", argv)
    return cli.guarded(lambda: prediction.main(arguments, "keras", predictor, load_exported))


def load_exported(path: Path) -> Exported:
    """A file that `export` wrote; raises RunError for a damaged one."""
    from keras_impl.runtime import load_exported

    return load_exported(path)


def predictor(trained: TrainedRun) -> Classify:
    """The run's model, ready to classify."""
    cli.use_device("keras", trained.experiment)
    import keras

    from keras_impl.precision import numerics

    with numerics(trained.experiment):
        model = load(trained)

    def classify(images: np.ndarray) -> np.ndarray:
        with numerics(trained.experiment):
            return np.asarray(model.predict_on_batch(images.astype(keras.config.floatx())))

    return classify


if __name__ == "__main__":
    sys.exit(main())
